//! The peers of a tunnel by what names them.

use std::{
    collections::HashMap,
    fmt,
    hash::{BuildHasherDefault, Hasher},
};

use adit_proto::WireguardPublicKey;

use super::peer::Peer;

/// Names a peer of one [`Tunnel`](crate::Tunnel). Never reused, so one that is kept too long names nobody.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PeerId {
    serial: u64,
    /// The upper 24 bits of all session indexes that we give to the peer.
    index: u32,
}

#[cfg(test)]
impl PeerId {
    /// Names nobody.
    pub(crate) const fn sample() -> Self {
        Self { serial: u64::MAX, index: u32::MAX }
    }
}

impl PeerId {
    pub(super) const fn index(self) -> u32 {
        self.index
    }
}

impl fmt::Display for PeerId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "peer-{}", self.serial)
    }
}

/// All peers, also those that are only heard out.
#[derive(Default)]
pub(super) struct Peers {
    by_index: HashMap<u32, Box<Peer>, BuildHasherDefault<IndexHasher>>,
    indexes_by_key: HashMap<WireguardPublicKey, u32>,
    next_serial: u64,
}

impl Peers {
    pub(super) fn len(&self) -> usize {
        self.by_index.len()
    }

    pub(super) fn is_empty(&self) -> bool {
        self.by_index.is_empty()
    }

    pub(super) fn has_index(&self, index: u32) -> bool {
        self.by_index.contains_key(&index)
    }

    /// Names the peer that is to have this index.
    pub(super) const fn next_id(&mut self, index: u32) -> PeerId {
        let serial = self.next_serial;
        self.next_serial += 1;
        PeerId { serial, index }
    }

    pub(super) fn insert(&mut self, peer: Peer) {
        let index = peer.id().index;
        self.indexes_by_key.insert(peer.public_key(), index);
        self.by_index.insert(index, Box::new(peer));
    }

    /// Says whose key the peer had.
    pub(super) fn remove(&mut self, id: PeerId) -> Option<WireguardPublicKey> {
        let public_key = self.by_index.remove(&id.index)?.public_key();
        self.indexes_by_key.remove(&public_key);
        Some(public_key)
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = &Peer> {
        self.by_index.values().map(|peer| &**peer)
    }

    pub(super) fn iter_mut(&mut self) -> impl Iterator<Item = &mut Peer> {
        self.by_index.values_mut().map(|peer| &mut **peer)
    }

    pub(super) fn find(&self, id: PeerId) -> Option<&Peer> {
        self.by_index.get(&id.index).map(|peer| &**peer).filter(|peer| peer.id() == id)
    }

    pub(super) fn living(&mut self, id: PeerId) -> Option<&mut Peer> {
        self.living_or_leaving(id).filter(|peer| !peer.is_leaving())
    }

    pub(super) fn living_or_leaving(&mut self, id: PeerId) -> Option<&mut Peer> {
        self.at(id.index).filter(|peer| peer.id() == id)
    }

    pub(super) fn with_key(&self, public_key: &WireguardPublicKey) -> Option<&Peer> {
        let index = self.indexes_by_key.get(public_key)?;
        self.by_index.get(index).map(|peer| &**peer)
    }

    pub(super) fn with_key_mut(&mut self, public_key: &WireguardPublicKey) -> Option<&mut Peer> {
        let index = *self.indexes_by_key.get(public_key)?;
        self.at(index)
    }

    /// The peer to which we have given this index of a session.
    pub(super) fn with_session(&mut self, index: u32) -> Option<&mut Peer> {
        self.at(index >> 8)
    }

    fn at(&mut self, index: u32) -> Option<&mut Peer> {
        self.by_index.get_mut(&index).map(|peer| &mut **peer)
    }
}

/// Indexes are drawn at random by us, so they are as good as their hashes.
#[derive(Default)]
struct IndexHasher(u64);

impl Hasher for IndexHasher {
    fn finish(&self) -> u64 {
        // The table looks at the upper bits and at the lower ones.
        self.0.wrapping_mul(0x9e37_79b9_7f4a_7c15)
    }

    fn write(&mut self, bytes: &[u8]) {
        for byte in bytes {
            self.0 = (self.0 << 8) | u64::from(*byte);
        }
    }

    fn write_u32(&mut self, index: u32) {
        self.0 = index.into();
    }
}
