//! Flows that are being let through.

mod flow;
mod key;
mod queue;
#[cfg(test)]
mod tests;

use std::{
    collections::BTreeSet,
    hash::{BuildHasher as _, RandomState},
    time::{Duration, Instant},
};

use adit_policy::Authorization;
use adit_proto::{FlowTuple, Protocol, Timestamp};
use hashbrown::HashTable;

pub use self::flow::Volume;
use self::{flow::Worth, queue::Queues};
pub(crate) use self::{
    flow::{Details, Flow},
    key::FlowKey,
};

/// Where a flow is in the table; valid until it is removed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Slot(u32);

/// Where a device is in the row of devices, whose flows are counted together.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct DevicePlace(pub(crate) u32);

/// How many flows there may be.
#[derive(Debug, Clone, Copy)]
pub struct Limits {
    /// Of all devices.
    pub flows: usize,
    /// Of one device.
    pub flows_per_device: usize,
}

impl Limits {
    /// For one of several that share all flows; a device may have as many as there.
    pub(crate) fn share_of(self, shares: u8) -> Self {
        let flows = self.flows / usize::from(shares.max(1));
        Self { flows, flows_per_device: self.flows_per_device.min(flows) }
    }
}

impl Default for Limits {
    /// Some 100 MB when full; 16 devices that open whatever they can fill it.
    fn default() -> Self {
        Self { flows: 262_144, flows_per_device: 16_384 }
    }
}

/// All flows: by tuple, by device in the order of their worth, and in a row to be swept.
///
/// When there is no room, a flow has to give way: see [`Self::must_give_way`].
#[derive(Debug)]
pub(crate) struct FlowTable {
    /// `SipHash` under a secret drawn at start: whoever chooses ports and addresses cannot make
    /// flows collide.
    hasher: RandomState,
    slots: HashTable<Slot>,
    flows: Vec<Option<Flow>>,
    details: Vec<Option<Details>>,
    free: Vec<Slot>,
    /// By place of the device.
    queues: Vec<Queues>,
    /// How many flows each device has that has any.
    holdings: BTreeSet<(usize, DevicePlace)>,
    limits: Limits,
}

const NO_FLOW: &str = "a slot is valid until its flow is removed";

impl FlowTable {
    pub(crate) fn new(limits: Limits) -> Self {
        Self {
            hasher: RandomState::new(),
            // Grows, since a small one is found in faster; it takes 5 ms to grow to the largest.
            slots: HashTable::new(),
            // Never moved, for that would take longer. What is not used yet is no memory yet.
            flows: Vec::with_capacity(limits.flows),
            details: Vec::with_capacity(limits.flows),
            free: Vec::new(),
            queues: Vec::new(),
            holdings: BTreeSet::new(),
            limits,
        }
    }

    pub(crate) fn len(&self) -> usize {
        self.slots.len()
    }

    /// How many places a sweep has to look at.
    pub(crate) const fn row_len(&self) -> usize {
        self.flows.len()
    }

    /// The slot at a place of the sweep, if a flow is there.
    pub(crate) fn slot_at(&self, place: usize) -> Option<Slot> {
        self.flows.get(place)?.as_ref()?;
        u32::try_from(place).ok().map(Slot)
    }

    pub(crate) fn find(&self, tuple: &FlowTuple) -> Option<Slot> {
        let key = FlowKey::new(tuple);
        let is_it = |slot: &Slot| self.flow(*slot).key == key;
        self.slots.find(self.hasher.hash_one(key), is_it).copied()
    }

    /// How many flows a device has.
    pub(crate) fn held_by(&self, device: DevicePlace) -> usize {
        self.queues.get(index(device.0)).map_or(0, Queues::len)
    }

    /// How many TCP connections of a device are open, or have been begun so lately that they may
    /// still be answered.
    pub(crate) fn connections_of(&self, device: DevicePlace, now: Instant) -> usize {
        /// Two repetitions of the first segment fall into it (RFC 6298 §2.1).
        const MAY_BE_ANSWERED: Duration = Duration::from_secs(3);

        let Some(queues) = self.queues.get(index(device.0)) else { return 0 };
        let row =
            |worth| std::iter::successors(queues.first(worth), |slot| self.details(*slot).next);
        let is_tcp = |slot: &Slot| self.flow(*slot).key.protocol() == Protocol::Tcp;
        let is_new = |slot: &Slot| {
            now.saturating_duration_since(self.details(*slot).started) < MAY_BE_ANSWERED
        };
        row(Worth::Open).chain(row(Worth::Opening).filter(is_new)).filter(is_tcp).count()
    }

    /// The flow of a device that is worth most.
    pub(crate) fn dearest_of(&self, device: DevicePlace) -> Option<Slot> {
        let queues = self.queues.get(index(device.0))?;
        [Worth::Open, Worth::Opening, Worth::Finished].into_iter().find_map(|it| queues.last(it))
    }

    pub(crate) fn flow(&self, slot: Slot) -> &Flow {
        self.flows.get(index(slot.0)).and_then(Option::as_ref).expect(NO_FLOW)
    }

    pub(crate) fn flow_mut(&mut self, slot: Slot) -> &mut Flow {
        self.flows.get_mut(index(slot.0)).and_then(Option::as_mut).expect(NO_FLOW)
    }

    pub(crate) fn details(&self, slot: Slot) -> &Details {
        self.details.get(index(slot.0)).and_then(Option::as_ref).expect(NO_FLOW)
    }

    fn details_mut(&mut self, slot: Slot) -> &mut Details {
        self.details.get_mut(index(slot.0)).and_then(Option::as_mut).expect(NO_FLOW)
    }

    /// The flow that has to be removed before `device` has another, if any has to.
    ///
    /// At its own limit a device pays itself. When the whole table is full the one that has the
    /// most flows pays, which is never one below its fair share; if it is one of several, then
    /// whoever asks. So a flood costs nobody but its sender. Of a device's flows the one goes that
    /// is worth least: one that is finished, else one that nothing has come back for, else the one
    /// that has been silent for long.
    pub(crate) fn must_give_way(&mut self, device: DevicePlace) -> Option<Slot> {
        let held = self.held_by(device);
        let most = self.holdings.last().copied().filter(|_most| self.len() >= self.limits.flows);
        let payer = match most {
            _ if held >= self.limits.flows_per_device => device,
            Some((most, holder)) if most > held => holder,
            Some(_) => device,
            None => return None,
        };
        self.least_of(payer)
    }

    /// Adds a flow that is not in the table yet, decided under this generation.
    pub(crate) fn insert(
        &mut self,
        tuple: &FlowTuple,
        device: DevicePlace,
        authorization: Authorization,
        generation: u64,
        now: Instant,
    ) -> Slot {
        let flow = Flow::new(tuple, device, generation, expiry(&authorization), now);
        let key = flow.key;
        let started = now;
        let details =
            Details { authorization, started, previous: None, next: None, queued_at: now };
        let slot = self.free.pop().unwrap_or_else(|| {
            self.flows.push(None);
            self.details.push(None);
            Slot(u32::try_from(self.flows.len() - 1).expect("limits are far lower"))
        });
        if let (Some(flow_place), Some(details_place)) =
            (self.flows.get_mut(index(slot.0)), self.details.get_mut(index(slot.0)))
        {
            *flow_place = Some(flow);
            *details_place = Some(details);
        }
        let Self { slots, hasher, flows, .. } = self;
        slots.insert_unique(hasher.hash_one(key), slot, |slot| {
            let flow = flows.get(index(slot.0)).and_then(Option::as_ref);
            hasher.hash_one(flow.expect(NO_FLOW).key)
        });
        self.change_holding(device, |table| table.enqueue(slot));
        slot
    }

    pub(crate) fn remove(&mut self, slot: Slot) -> (Flow, Details) {
        let Flow { key, device, .. } = *self.flow(slot);
        self.change_holding(device, |table| table.dequeue(slot));
        let found = self.slots.find_entry(self.hasher.hash_one(key), |it| *it == slot);
        found.expect("every flow is found by its key").remove();
        self.free.push(slot);
        let flow = self.flows.get_mut(index(slot.0)).and_then(Option::take);
        let details = self.details.get_mut(index(slot.0)).and_then(Option::take);
        flow.zip(details).expect(NO_FLOW)
    }

    /// Puts a flow that may be worth something else than before into the right queue.
    pub(crate) fn settle(&mut self, slot: Slot) {
        let flow = self.flow(slot);
        if flow.worth() != flow.queued_as {
            self.dequeue(slot);
            self.enqueue(slot);
        }
    }

    /// Notes that a flow was decided anew.
    pub(crate) fn authorize(&mut self, slot: Slot, authorization: Authorization, generation: u64) {
        let flow = self.flow_mut(slot);
        flow.generation = generation;
        flow.expires_at = expiry(&authorization);
        self.details_mut(slot).authorization = authorization;
    }

    fn change_holding(&mut self, device: DevicePlace, change: impl FnOnce(&mut Self)) {
        self.holdings.remove(&(self.held_by(device), device));
        change(self);
        let held = self.held_by(device);
        if held > 0 {
            self.holdings.insert((held, device));
        }
    }

    fn least_of(&mut self, device: DevicePlace) -> Option<Slot> {
        let queues = self.queues.get(index(device.0))?;
        let cheap = [Worth::Finished, Worth::Opening].into_iter().find_map(|it| queues.first(it));
        cheap.or_else(|| self.longest_silent_of(device))
    }

    /// Keeping a queue in the order of last packets would cost every packet. It is put in order
    /// here, but only so far from its front.
    fn longest_silent_of(&mut self, device: DevicePlace) -> Option<Slot> {
        const LOOKED_AT: usize = 32;

        let mut longest: Option<(Instant, Slot)> = None;
        let mut front = self.queues.get(index(device.0))?.first(Worth::Open);
        for _ in 0..LOOKED_AT {
            let Some(slot) = front else { break };
            let last_seen = self.flow(slot).last_seen;
            let Details { queued_at, next, .. } = *self.details(slot);
            if longest.is_none_or(|(silent_since, _slot)| last_seen < silent_since) {
                longest = Some((last_seen, slot));
            }
            if last_seen != queued_at {
                self.dequeue(slot);
                self.enqueue(slot);
            }
            front = next;
        }
        longest.map(|(_silent_since, slot)| slot)
    }

    fn enqueue(&mut self, slot: Slot) {
        let flow = self.flow_mut(slot);
        flow.queued_as = flow.worth();
        let (device, worth, queued_at) = (index(flow.device.0), flow.queued_as, flow.last_seen);
        if self.queues.len() <= device {
            self.queues.resize_with(device + 1, Queues::default);
        }
        let Some(queues) = self.queues.get_mut(device) else { return };
        let previous = queues.push_back(worth, slot);
        let details = self.details_mut(slot);
        details.queued_at = queued_at;
        details.previous = previous;
        details.next = None;
        if let Some(previous) = previous {
            self.details_mut(previous).next = Some(slot);
        }
    }

    fn dequeue(&mut self, slot: Slot) {
        let Flow { device, queued_as, .. } = *self.flow(slot);
        let Details { previous, next, .. } = *self.details(slot);
        if let Some(queues) = self.queues.get_mut(index(device.0)) {
            queues.unlink(queued_as, previous, next);
        }
        if let Some(previous) = previous {
            self.details_mut(previous).next = next;
        }
        if let Some(next) = next {
            self.details_mut(next).previous = previous;
        }
    }
}

/// When an authorization ends; one without end lasts until the last time there is.
fn expiry(authorization: &Authorization) -> Timestamp {
    authorization.expires_at().unwrap_or_else(|| Timestamp::from_millis(i64::MAX))
}

fn index(place: u32) -> usize {
    usize::try_from(place).unwrap_or(usize::MAX)
}
