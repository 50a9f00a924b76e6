//! The devices whose packets are decided about.

use std::{
    collections::HashMap,
    time::{Duration, Instant},
};

use adit_policy::{Principal, Subject};
use adit_proto::Reason;
use adit_tunnel::PeerId;

use super::{
    allowance::{Allowance, Rate},
    denials::Reports,
};
use crate::flow_table::DevicePlace;

/// Every device, in a place that its flows know.
#[derive(Debug, Default)]
pub(super) struct Devices {
    places: HashMap<PeerId, DevicePlace>,
    seats: Vec<Seat>,
    devices: Vec<Option<Device>>,
    free: Vec<DevicePlace>,
}

/// What every packet needs to know of the device.
#[derive(Debug, Clone, Copy)]
pub(super) struct Seat {
    pub(super) peer: PeerId,
    /// When the subject last changed, on the same scale as the generation of policy. Later than
    /// everything when the device is gone.
    pub(super) generation: u64,
}

#[derive(Debug)]
pub(super) struct Device {
    pub(super) principal: Principal,
    /// Why it was removed; it stays until all its flows are cut.
    pub(super) gone: Option<Reason>,
    pub(super) reports: Reports,
    new_flows: Allowance,
}

impl Devices {
    pub(super) fn place_of(&self, peer: PeerId) -> Option<DevicePlace> {
        self.places.get(&peer).copied()
    }

    pub(super) fn seat(&self, device: DevicePlace) -> Option<Seat> {
        self.seats.get(index(device)).copied()
    }

    pub(super) fn device(&self, device: DevicePlace) -> Option<&Device> {
        self.devices.get(index(device))?.as_ref()
    }

    pub(super) fn device_mut(&mut self, device: DevicePlace) -> Option<&mut Device> {
        self.devices.get_mut(index(device))?.as_mut()
    }

    pub(super) fn insert(&mut self, peer: PeerId, subject: Subject, generation: u64, now: Instant) {
        let device = Some(Device {
            principal: Principal::new(subject),
            gone: None,
            reports: Reports::new(now),
            new_flows: Allowance::new(now),
        });
        let seat = Seat { peer, generation };
        let freed = self.free.pop();
        let place = freed.unwrap_or_else(|| {
            let place = u32::try_from(self.seats.len()).expect("tunnels have fewer peers");
            DevicePlace(place)
        });
        match (self.seats.get_mut(index(place)), self.devices.get_mut(index(place))) {
            (Some(old_seat), Some(old_device)) => {
                *old_seat = seat;
                *old_device = device;
            }
            _ => {
                self.seats.push(seat);
                self.devices.push(device);
            }
        }
        self.places.insert(peer, place);
    }

    /// Changes who a device is.
    pub(super) fn change(&mut self, place: DevicePlace, subject: Subject, generation: u64) {
        if let Some(device) = self.device_mut(place) {
            device.principal = Principal::new(subject);
        }
        if let Some(seat) = self.seats.get_mut(index(place)) {
            seat.generation = generation;
        }
    }

    /// Lets no packet of a device through any more. It keeps its place until [`Self::release`].
    pub(super) fn remove(&mut self, peer: PeerId, reason: Reason) -> Option<DevicePlace> {
        let place = self.places.remove(&peer)?;
        if let Some(device) = self.device_mut(place) {
            device.gone = Some(reason);
        }
        if let Some(seat) = self.seats.get_mut(index(place)) {
            seat.generation = u64::MAX;
        }
        Some(place)
    }

    /// Gives the place of a device that is gone to another.
    pub(super) fn release(&mut self, place: DevicePlace) -> Option<Device> {
        let device = self.devices.get_mut(index(place))?.take_if(|it| it.gone.is_some())?;
        self.free.push(place);
        Some(device)
    }
}

impl Device {
    pub(super) const fn subject(&self) -> &Subject {
        self.principal.subject()
    }

    /// Whether the device may have another flow decided at this moment.
    pub(super) fn may_open(&mut self, now: Instant) -> bool {
        /// A decision takes some 10 µs, so one device takes up to 2 % of a core, and 40 ms at
        /// once. A browser that restores a hundred tabs opens some 3,000 connections, a build or a
        /// scanner of dependencies some hundred a second.
        const NEW_FLOWS: Rate = Rate { every: Duration::from_micros(500), burst: 4096 };

        self.new_flows.take(NEW_FLOWS, now)
    }
}

fn index(place: DevicePlace) -> usize {
    usize::try_from(place.0).unwrap_or(usize::MAX)
}
