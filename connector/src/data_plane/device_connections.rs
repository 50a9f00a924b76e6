//! Which connections of QUIC are a device's.

use std::collections::HashMap;

use adit_proto::DeviceId;
use adit_tunnel::{QuicConnectionId, QuicUse};

use super::memory::{ConnectionKind, DeviceMemory, MemoryShare};

/// The connections of each device on one lane, which are few, and what each may have lying here.
pub(super) struct DeviceConnections<Id = QuicConnectionId> {
    by_device: HashMap<DeviceId, Vec<Known<Id>>>,
    /// Those of which nothing is known any more but that they are not gone yet.
    ending: Vec<Known<Id>>,
    memory: DeviceMemory,
}

/// The oldest of a device come first.
struct Known<Id> {
    id: Id,
    share: MemoryShare,
}

/// What becomes of connections when one is noted.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Noted<Id = QuicConnectionId> {
    /// What the connection may have lying here, in bytes.
    pub(super) memory: u32,
    /// The one that has to go for it: the one of the least use, of these the oldest.
    pub(super) evicted: Option<Id>,
}

/// Of one device on one lane. One is enough; more are those that it has lost without a word, and
/// those of programs beside the client.
const MAX: usize = 16;

impl<Id: Copy + PartialEq> DeviceConnections<Id> {
    /// Lanes that share `memory` share out together what a device may have.
    pub(super) fn new(memory: DeviceMemory) -> Self {
        Self { by_device: HashMap::new(), ending: Vec::new(), memory }
    }

    /// Notes that a device has a connection, or uses it for something else, too.
    pub(super) fn note(
        &mut self,
        device_id: DeviceId,
        connection: Id,
        kind: ConnectionKind,
        mut use_of: impl FnMut(Id) -> Option<QuicUse>,
    ) -> Noted<Id> {
        let own = self.by_device.entry(device_id).or_default();
        if let Some(known) = own.iter_mut().find(|known| known.id == connection) {
            known.share.grow(kind);
            return Noted { memory: known.share.bytes(), evicted: None };
        }
        own.retain(|known| use_of(known.id).is_some());
        let place = (0..own.len()).min_by_key(|place| own.get(*place).map(|it| use_of(it.id)));
        let evicted = place.filter(|_place| own.len() >= MAX).map(|place| own.remove(place));
        let evicted_id = evicted.as_ref().map(|known| known.id);
        // What it has is free once it is gone.
        self.ending.extend(evicted);
        let share = self.memory.share(device_id, kind);
        let memory = share.bytes();
        own.push(Known { id: connection, share });
        Noted { memory, evicted: evicted_id }
    }

    /// Forgets a device that is gone.
    pub(super) fn remove(&mut self, device_id: DeviceId) {
        self.ending.extend(self.by_device.remove(&device_id).unwrap_or_default());
    }

    /// Forgets connections that are gone.
    pub(super) fn sweep(&mut self, mut use_of: impl FnMut(Id) -> Option<QuicUse>) {
        let mut is_there = |known: &Known<Id>| use_of(known.id).is_some();
        self.ending.retain(&mut is_there);
        self.by_device.retain(|_device_id, own| {
            own.retain(&mut is_there);
            !own.is_empty()
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    type UseOf = fn(usize) -> Option<QuicUse>;

    fn device(number: u128) -> DeviceId {
        DeviceId::from_uuid(uuid::Uuid::from_u128(number))
    }

    /// Notes one that carries streams, and returns which one has to go.
    fn note(
        connections: &mut DeviceConnections<usize>,
        device_id: DeviceId,
        number: usize,
        use_of: impl Fn(usize) -> Option<QuicUse>,
    ) -> Option<usize> {
        connections.note(device_id, number, ConnectionKind::Streams, use_of).evicted
    }

    /// One device with so many connections of these uses, the oldest first.
    fn full(
        device_id: DeviceId,
        of: impl Fn(usize) -> Option<QuicUse>,
    ) -> DeviceConnections<usize> {
        let mut connections = DeviceConnections::new(DeviceMemory::default());
        for number in 0..MAX {
            assert_eq!(note(&mut connections, device_id, number, &of), None);
        }
        connections
    }

    #[test]
    fn the_oldest_connection_without_a_use_goes() {
        let device_id = device(1);
        let use_of = |number| match number {
            0 => Some(QuicUse::Packets),
            1 | 5 => Some(QuicUse::Nothing),
            _ => Some(QuicUse::Requests),
        };
        let mut connections = full(device_id, use_of);
        let evicted = [100, 101, 102].map(|new| note(&mut connections, device_id, new, use_of));
        assert_eq!(evicted, [Some(1), Some(5), Some(2)]);
    }

    #[test]
    fn connections_that_are_gone_do_not_count() {
        let device_id = device(1);
        let mut connections = full(device_id, |_| Some(QuicUse::Requests));
        let use_of = |number| (number != 3).then_some(QuicUse::Requests);
        assert_eq!(note(&mut connections, device_id, 100, use_of), None);
        assert_eq!(note(&mut connections, device_id, 100, use_of), None, "the same again");
        assert_eq!(note(&mut connections, device_id, 101, use_of), Some(0));
        assert_eq!(note(&mut connections, device(2), 200, use_of), None, "another device");
    }

    #[test]
    fn what_carries_packets_goes_last() {
        let device_id = device(1);
        let use_of =
            |number: usize| Some(if number == 0 { QuicUse::Packets } else { QuicUse::Requests });
        let mut connections = full(device_id, use_of);
        let evicted: Vec<_> =
            (100..200).map(|new| note(&mut connections, device_id, new, use_of)).collect();
        assert!(!evicted.contains(&Some(0)));
    }

    #[test]
    fn what_a_connection_has_is_free_only_when_it_is_gone() {
        let device_id = device(1);
        let in_use: UseOf = |_number| Some(QuicUse::Requests);
        let memory = |connections: &mut DeviceConnections<usize>, number, use_of: UseOf| {
            connections.note(device_id, number, ConnectionKind::Streams, use_of).memory
        };
        let mut connections = full(device_id, in_use);
        // The first, which has most, has to go for it.
        assert!(memory(&mut connections, 100, in_use) < 1 << 20);
        connections.sweep(in_use);
        assert!(memory(&mut connections, 101, in_use) < 1 << 20);
        connections.remove(device_id);
        connections.sweep(in_use);
        assert!(memory(&mut connections, 102, in_use) < 1 << 20, "the others are still ending");
        let only_last: UseOf = |number| (number == 102).then_some(QuicUse::Requests);
        connections.sweep(only_last);
        assert_eq!(memory(&mut connections, 102, only_last), 24 << 20);
    }
}
