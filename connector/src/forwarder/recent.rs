//! Things that happened a moment ago.

use std::{
    collections::{HashMap, VecDeque},
    time::{Duration, Instant},
};

use crate::flow_table::{DevicePlace, FlowKey};

/// How much is remembered, and how long.
#[derive(Debug, Clone, Copy)]
pub(super) struct Bounds {
    pub(super) memory: Duration,
    pub(super) in_all: usize,
    /// So few that no device fills the whole.
    pub(super) of_device: usize,
}

/// What was noted of flows that are not in the table. Where there is no room nothing is noted, and
/// nothing forgotten: a device cannot push out another's.
#[derive(Debug)]
pub(super) struct Recent<T> {
    bounds: Bounds,
    notes: HashMap<(DevicePlace, FlowKey), Note<T>>,
    /// By age; a note that was renewed is there more than once.
    ages: VecDeque<(Instant, DevicePlace, FlowKey)>,
    of_device: HashMap<DevicePlace, usize>,
}

#[derive(Debug)]
struct Note<T> {
    at: Instant,
    content: T,
}

impl<T> Recent<T> {
    pub(super) fn new(bounds: Bounds) -> Self {
        Self { bounds, notes: HashMap::new(), ages: VecDeque::new(), of_device: HashMap::new() }
    }

    /// What was noted of a flow, if that is not too long ago.
    pub(super) fn of(&self, device: DevicePlace, key: FlowKey, now: Instant) -> Option<&T> {
        let note = self.notes.get(&(device, key))?;
        (!self.is_old(note.at, now)).then_some(&note.content)
    }

    /// Notes something; false if there is no room.
    pub(super) fn note(
        &mut self,
        device: DevicePlace,
        key: FlowKey,
        content: T,
        now: Instant,
    ) -> bool {
        /// More than one, so that what is old gives way to what is new.
        const EXPIRED_AT_ONCE: usize = 4;

        self.expire(EXPIRED_AT_ONCE, now);
        let held = self.of_device.get(&device).copied().unwrap_or_default();
        let is_known = self.notes.contains_key(&(device, key));
        let is_full = self.ages.len() >= self.bounds.in_all || held >= self.bounds.of_device;
        if is_full && !is_known {
            return false;
        }
        if self.notes.insert((device, key), Note { at: now, content }).is_none() {
            *self.of_device.entry(device).or_default() += 1;
        }
        self.ages.push_back((now, device, key));
        true
    }

    /// Changes what was noted, and not when.
    pub(super) fn amend(&mut self, device: DevicePlace, key: FlowKey, content: T) {
        if let Some(note) = self.notes.get_mut(&(device, key)) {
            note.content = content;
        }
    }

    /// Forgets what is old, but not more than so much at once.
    pub(super) fn expire(&mut self, at_once: usize, now: Instant) {
        for _ in 0..at_once {
            let Some((at, device, key)) = self.ages.front().copied() else { return };
            if !self.is_old(at, now) {
                return;
            }
            self.ages.pop_front();
            if self.notes.get(&(device, key)).is_some_and(|note| note.at == at) {
                self.notes.remove(&(device, key));
                if let Some(held) = self.of_device.get_mut(&device) {
                    *held -= 1;
                    if *held == 0 {
                        self.of_device.remove(&device);
                    }
                }
            }
        }
    }

    fn is_old(&self, at: Instant, now: Instant) -> bool {
        now.saturating_duration_since(at) >= self.bounds.memory
    }
}

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;

    use adit_proto::{FlowTuple, Protocol};

    use super::*;

    const BOUNDS: Bounds = Bounds { memory: Duration::from_secs(5), in_all: 5, of_device: 3 };
    const NOISY: DevicePlace = DevicePlace(0);
    const QUIET: DevicePlace = DevicePlace(1);

    fn key(port: u16) -> FlowKey {
        let address = Ipv4Addr::new(10, 0, 0, 1).into();
        FlowKey::new(&FlowTuple {
            protocol: Protocol::Tcp,
            source: address,
            source_port: port,
            destination: address,
            destination_port: 80,
        })
    }

    #[test]
    fn a_noisy_device_pushes_out_nobody() {
        let mut recent = Recent::new(BOUNDS);
        let now = Instant::now();
        recent.note(QUIET, key(1), "quiet", now);
        for port in 0..100 {
            recent.note(NOISY, key(port), "noisy", now);
        }
        assert_eq!(recent.of(QUIET, key(1), now), Some(&"quiet"));
        assert_eq!((0..100).filter(|port| recent.of(NOISY, key(*port), now).is_some()).count(), 3);
        recent.note(QUIET, key(2), "quiet", now);
        assert_eq!(recent.of(QUIET, key(2), now), Some(&"quiet"));
    }

    #[test]
    fn what_is_old_makes_room() {
        let mut recent = Recent::new(BOUNDS);
        let start = Instant::now();
        for port in 0..3 {
            recent.note(NOISY, key(port), port, start);
        }
        let later = start + BOUNDS.memory;
        assert_eq!(recent.of(NOISY, key(0), later), None);
        recent.note(NOISY, key(9), 9, later);
        assert_eq!(recent.of(NOISY, key(9), later), Some(&9));
        recent.expire(usize::MAX, later + BOUNDS.memory);
        assert!(recent.notes.is_empty() && recent.of_device.is_empty() && recent.ages.is_empty());
    }

    #[test]
    fn a_renewed_note_lives_from_then_on() {
        let mut recent = Recent::new(BOUNDS);
        let start = Instant::now();
        recent.note(NOISY, key(1), "first", start);
        let renewed = start + Duration::from_secs(3);
        recent.note(NOISY, key(1), "second", renewed);
        let later = start + BOUNDS.memory;
        recent.expire(usize::MAX, later);
        assert_eq!(recent.of(NOISY, key(1), later), Some(&"second"));
    }
}
