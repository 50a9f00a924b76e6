//! How much of the connector's memory connections of one device may use.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use adit_proto::DeviceId;
use adit_tunnel::QuicEndpoint;

/// Bytes that wait on all connections of one device, on all lanes. What they wait for may be
/// withheld: the first byte of a stream keeps all others here.
const OF_DEVICE: u32 = 32 << 20;

/// So much a connection gets even when nothing is left: as much as a stranger's.
const LEAST: u32 = QuicEndpoint::LEAST_MEMORY;

/// What a connection is for, and so what it can use.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum ConnectionKind {
    /// A session, whose messages are short.
    Session,
    /// Packets, of which only those wait that are too long for datagrams.
    Packets,
    /// Whatever services and programs say to each other.
    Streams,
}

impl ConnectionKind {
    const fn most(self) -> u32 {
        match self {
            Self::Session => LEAST,
            Self::Packets => 2 << 20,
            Self::Streams => QuicEndpoint::MOST_MEMORY,
        }
    }
}

/// What is given to the connections of each device, by all lanes.
#[derive(Debug, Clone, Default)]
pub(super) struct DeviceMemory(Arc<Mutex<HashMap<DeviceId, u32>>>);

impl DeviceMemory {
    /// A share for another connection.
    pub(super) fn share(&self, device_id: DeviceId, kind: ConnectionKind) -> MemoryShare {
        let mut share = MemoryShare { memory: self.clone(), device_id, bytes: 0 };
        share.grow(kind);
        share
    }

    fn given(&self) -> MutexGuard<'_, HashMap<DeviceId, u32>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// What one connection has, until this is dropped.
#[derive(Debug)]
pub(super) struct MemoryShare {
    memory: DeviceMemory,
    device_id: DeviceId,
    bytes: u32,
}

impl MemoryShare {
    pub(super) const fn bytes(&self) -> u32 {
        self.bytes
    }

    /// Takes what a connection of this kind can use, but leaves a quarter to others. It never
    /// shrinks, as what was granted cannot be taken back.
    pub(super) fn grow(&mut self, kind: ConnectionKind) {
        let mut given = self.memory.given();
        let given = given.entry(self.device_id).or_default();
        let others = given.saturating_sub(self.bytes);
        let share = OF_DEVICE.saturating_sub(others) / 4 * 3;
        let bytes = share.min(kind.most()).max(LEAST).max(self.bytes);
        *given = others.saturating_add(bytes);
        self.bytes = bytes;
    }
}

impl Drop for MemoryShare {
    fn drop(&mut self) {
        let mut given = self.memory.given();
        if let Some(of_device) = given.get_mut(&self.device_id) {
            *of_device = of_device.saturating_sub(self.bytes);
            if *of_device == 0 {
                given.remove(&self.device_id);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn device(number: u128) -> DeviceId {
        DeviceId::from_uuid(uuid::Uuid::from_u128(number))
    }

    #[test]
    fn connections_of_one_device_share_what_it_may_have() {
        let memory = DeviceMemory::default();
        let shares: Vec<_> =
            (0..64).map(|_| memory.share(device(1), ConnectionKind::Streams)).collect();
        let bytes: Vec<u32> = shares.iter().map(MemoryShare::bytes).collect();
        assert_eq!(bytes[..3], [24 << 20, 6 << 20, 3 << 19]);
        let all: u32 = bytes.iter().sum();
        assert!(all <= OF_DEVICE + 64 * LEAST, "{bytes:?}");
        let other = memory.share(device(2), ConnectionKind::Streams);
        assert_eq!(other.bytes(), 24 << 20, "another device has its own");
        drop((shares, other));
        assert!(memory.given().is_empty());
    }

    #[test]
    fn what_needs_little_leaves_the_rest() {
        let memory = DeviceMemory::default();
        let session = memory.share(device(1), ConnectionKind::Session);
        let packets = memory.share(device(1), ConnectionKind::Packets);
        let streams = memory.share(device(1), ConnectionKind::Streams);
        assert_eq!([session.bytes(), packets.bytes()], [LEAST, 2 << 20]);
        assert!(streams.bytes() > 22 << 20, "{}", streams.bytes());
    }

    #[test]
    fn a_connection_gets_more_when_others_have_gone_and_never_less() {
        let memory = DeviceMemory::default();
        let first = memory.share(device(1), ConnectionKind::Streams);
        let mut second = memory.share(device(1), ConnectionKind::Streams);
        assert_eq!(second.bytes(), 6 << 20);
        second.grow(ConnectionKind::Session);
        assert_eq!(second.bytes(), 6 << 20);
        drop(first);
        second.grow(ConnectionKind::Streams);
        assert_eq!(second.bytes(), 24 << 20);
        second.grow(ConnectionKind::Streams);
        let third = memory.share(device(1), ConnectionKind::Streams);
        assert_eq!(third.bytes(), 6 << 20);
    }
}
