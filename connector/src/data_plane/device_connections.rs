//! Which connections of QUIC are a device's.

use std::collections::HashMap;

use adit_proto::DeviceId;
use adit_tunnel::{QuicConnectionId, QuicUse};

/// The connections of each device, which are few: each may have megabytes lying here.
pub(super) struct DeviceConnections<Id = QuicConnectionId> {
    /// The oldest first.
    by_device: HashMap<DeviceId, Vec<Id>>,
}

impl<Id> Default for DeviceConnections<Id> {
    fn default() -> Self {
        Self { by_device: HashMap::new() }
    }
}

/// Of one device on one lane. One is enough; more are those that it has lost without a word, and
/// those of programs beside the client.
const MAX: usize = 16;

impl<Id: Copy + PartialEq> DeviceConnections<Id> {
    /// Notes that a device has a connection. Returns which one has to go for it, if there are too
    /// many: the one of the least use, of these the oldest.
    pub(super) fn insert(
        &mut self,
        device_id: DeviceId,
        connection: Id,
        mut use_of: impl FnMut(Id) -> Option<QuicUse>,
    ) -> Option<Id> {
        let own = self.by_device.entry(device_id).or_default();
        if own.contains(&connection) {
            return None;
        }
        let evicted = if own.len() < MAX {
            None
        } else {
            own.retain(|known| use_of(*known).is_some());
            let is_full = own.len() >= MAX;
            let least = own.iter().copied().min_by_key(|known| use_of(*known));
            least.filter(|_least| is_full)
        };
        own.retain(|known| Some(*known) != evicted);
        own.push(connection);
        evicted
    }

    /// Forgets a device that is gone.
    pub(super) fn remove(&mut self, device_id: DeviceId) {
        self.by_device.remove(&device_id);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn device(number: u128) -> DeviceId {
        DeviceId::from_uuid(uuid::Uuid::from_u128(number))
    }

    /// One device with so many connections of these uses, the oldest first.
    fn full(
        device_id: DeviceId,
        of: impl Fn(usize) -> Option<QuicUse>,
    ) -> DeviceConnections<usize> {
        let mut connections = DeviceConnections::default();
        for number in 0..MAX {
            assert_eq!(connections.insert(device_id, number, &of), None);
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
        let evicted = [100, 101, 102].map(|new| connections.insert(device_id, new, use_of));
        assert_eq!(evicted, [Some(1), Some(5), Some(2)]);
    }

    #[test]
    fn connections_that_are_gone_do_not_count() {
        let device_id = device(1);
        let mut connections = full(device_id, |_| Some(QuicUse::Requests));
        let use_of = |number| (number != 3).then_some(QuicUse::Requests);
        assert_eq!(connections.insert(device_id, 100, use_of), None);
        assert_eq!(connections.insert(device_id, 100, use_of), None, "the same again");
        assert_eq!(connections.insert(device_id, 101, use_of), Some(0));
        assert_eq!(connections.insert(device(2), 200, use_of), None, "another device");
    }

    #[test]
    fn what_carries_packets_goes_last() {
        let device_id = device(1);
        let use_of =
            |number: usize| Some(if number == 0 { QuicUse::Packets } else { QuicUse::Requests });
        let mut connections = full(device_id, use_of);
        let evicted: Vec<_> =
            (100..200).map(|new| connections.insert(device_id, new, use_of)).collect();
        assert!(!evicted.contains(&Some(0)));
    }
}
