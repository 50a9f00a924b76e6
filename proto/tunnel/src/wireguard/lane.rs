//! Peers shared out among threads.

use adit_proto::WireguardPublicKey;

/// One of several tunnels behind one port that have one key and each their own peers.
///
/// All that concerns a peer is done in its lane, so nothing is locked and no flow is reordered. The
/// index of every session says the lane, so that the kernel finds it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Lane {
    number: u8,
    count: u8,
}

impl Lane {
    /// The one lane that there is.
    pub(super) const ALONE: Self = Self { number: 0, count: 1 };

    /// So many lanes, at least one.
    pub fn all(count: u8) -> impl Iterator<Item = Self> {
        let count = count.max(1);
        (0..count).map(move |number| Self { number, count })
    }

    /// Where this one is among all.
    pub fn number(self) -> usize {
        self.number.into()
    }

    /// Where the lane of a peer is among so many, for ever.
    pub fn number_of(public_key: &WireguardPublicKey, count: usize) -> usize {
        let [first, second, ..] = *public_key.as_bytes();
        usize::from(u16::from_be_bytes([first, second])) % count.max(1)
    }

    /// This lane's share of so many.
    pub(super) fn share_of(self, all: usize) -> usize {
        all / usize::from(self.count)
    }

    /// Whether a session may have this index without its lowest byte.
    pub(super) const fn owns(self, index: u32) -> bool {
        index.to_le_bytes()[0] % self.count == self.number
    }
}
