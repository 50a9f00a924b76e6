//! Datagrams that leave by one system call.

use quinn_udp::EcnCodepoint;

use crate::{Ecn, Endpoint, PeerId};

/// Datagrams of one size, but for a shorter last one, that go to one peer at one endpoint.
///
/// Each is written into [`slot`](Self::slot), right behind those before it, and then belongs to the
/// train if [`try_append`](Self::try_append) says so. If not, the train is to be sent first, and the
/// datagram in the slot is the first of the next one by [`begin`](Self::begin).
pub struct Train {
    buffer: Box<[u8]>,
    len: usize,
    count: usize,
    segment_len: usize,
    /// A shorter one has come, which only the last may be.
    is_closed: bool,
    heading: Option<Heading>,
    /// Where the slot was when the train was last sent.
    sent_slot: usize,
}

/// What all datagrams of a train have in common.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Heading {
    /// Whose they are.
    pub peer: PeerId,
    /// Where they go.
    pub to: Endpoint,
    /// What they say of congestion.
    pub ecn: Ecn,
    /// Whether routers may cut them: they are longer than the path takes, and nobody would listen
    /// to being told.
    pub may_be_cut: bool,
}

/// Kernels before 6.9 take 64 datagrams at once, and a train of 1,420-byte packets is shorter.
pub(super) const MAX_DATAGRAMS: usize = 64;

/// The payload of the longest IPv4 packet with UDP.
pub(super) const MAX_LEN: usize = 65_507;

/// From here on a train is worth a system call, and waiting for more only makes it late.
const BULKY_LEN: usize = 32 * 1024;

/// Room for a datagram of any length.
const SLOT_LEN: usize = 65_535 + 128;

impl Train {
    /// An empty train.
    pub fn new() -> Self {
        Self {
            buffer: vec![0; MAX_LEN + SLOT_LEN].into_boxed_slice(),
            len: 0,
            count: 0,
            segment_len: 0,
            is_closed: false,
            heading: None,
            sent_slot: 0,
        }
    }

    /// Where the next datagram is to be written: at least as long as any datagram.
    pub fn slot(&mut self) -> &mut [u8] {
        self.sent_slot = 0;
        self.buffer.get_mut(self.len..).unwrap_or_default()
    }

    /// Takes the datagram at the start of the slot if it continues the train.
    #[must_use]
    pub fn try_append(&mut self, heading: Heading, len: usize) -> bool {
        let fits = self.heading == Some(heading)
            && !self.is_closed
            && len <= self.segment_len
            && len != 0
            && self.count < MAX_DATAGRAMS
            && self.len + len <= MAX_LEN;
        if fits {
            self.len += len;
            self.count += 1;
            self.is_closed = len < self.segment_len;
        }
        fits
    }

    /// Makes the datagram at the start of the slot the first of a new train, after what was in the
    /// train has been sent.
    pub fn begin(&mut self, heading: Heading, len: usize) {
        let slot = std::mem::take(&mut self.sent_slot);
        self.buffer.copy_within(slot..slot + len, 0);
        self.len = len;
        self.count = 1;
        self.segment_len = len;
        self.is_closed = false;
        self.heading = Some(heading);
    }

    /// Whether it is long enough to be sent at once.
    pub const fn is_bulky(&self) -> bool {
        self.len >= BULKY_LEN || self.count >= MAX_DATAGRAMS
    }

    /// What its datagrams have in common; none while there are none.
    pub const fn heading(&self) -> Option<Heading> {
        self.heading
    }

    /// How many datagrams there are.
    pub const fn count(&self) -> usize {
        self.count
    }

    /// Empties it; what is in the slot can still [`begin`](Self::begin) the next one.
    pub(super) fn clear(&mut self) {
        self.sent_slot = self.len;
        self.len = 0;
        self.count = 0;
        self.heading = None;
    }

    /// All datagrams, one behind the other.
    pub(super) fn bytes(&self) -> &[u8] {
        self.buffer.get(..self.len).unwrap_or_default()
    }

    /// The length of every datagram but the last.
    pub(super) const fn segment_len(&self) -> usize {
        self.segment_len
    }
}

impl Default for Train {
    fn default() -> Self {
        Self::new()
    }
}

pub(super) const fn codepoint(ecn: Ecn) -> Option<EcnCodepoint> {
    match ecn {
        Ecn::NotCapable => None,
        Ecn::Capable1 => Some(EcnCodepoint::Ect1),
        Ecn::Capable0 => Some(EcnCodepoint::Ect0),
        Ecn::Experienced => Some(EcnCodepoint::Ce),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn heading(port: u16) -> Heading {
        let to = Endpoint::from(std::net::SocketAddr::from(([192, 0, 2, 1], port)));
        Heading { peer: PeerId::sample(), to, ecn: Ecn::NotCapable, may_be_cut: false }
    }

    /// Writes a datagram; returns what had to be sent before.
    fn push(train: &mut Train, heading: Heading, datagram: &[u8]) -> Option<Vec<u8>> {
        train.slot()[..datagram.len()].copy_from_slice(datagram);
        if train.try_append(heading, datagram.len()) {
            return None;
        }
        let sent = train.bytes().to_vec();
        train.clear();
        train.begin(heading, datagram.len());
        Some(sent)
    }

    #[test]
    fn datagrams_of_one_size_make_one_train_which_a_shorter_one_ends() {
        let (mut train, heading) = (Train::new(), heading(1));
        assert_eq!(push(&mut train, heading, b"aaaa"), Some(vec![]));
        assert_eq!(push(&mut train, heading, b"bbbb"), None);
        assert_eq!(push(&mut train, heading, b"cc"), None);
        assert_eq!(train.count(), 3);
        assert_eq!(push(&mut train, heading, b"dd"), Some(b"aaaabbbbcc".to_vec()));
        assert_eq!(push(&mut train, heading, b"longer"), Some(b"dd".to_vec()));
        assert_eq!(train.bytes(), b"longer");
    }

    #[test]
    fn another_endpoint_begins_another_train() {
        let (mut train, first, second) = (Train::new(), heading(1), heading(2));
        push(&mut train, first, b"a");
        assert_eq!(push(&mut train, second, b"b"), Some(b"a".to_vec()));
        let marked = Heading { ecn: Ecn::Experienced, ..second };
        assert_eq!(push(&mut train, marked, b"c"), Some(b"b".to_vec()));
        assert_eq!(train.heading(), Some(marked));
    }

    #[test]
    fn a_train_holds_no_more_than_the_kernel_takes_and_always_has_room_for_one_more() {
        for len in [1, 1452, 9000, 60_000, 65_000] {
            let (mut train, heading) = (Train::new(), heading(1));
            for _ in 0..200 {
                let _sent = push(&mut train, heading, &vec![7; len]);
                assert!(train.bytes().len() <= MAX_LEN && train.count() <= MAX_DATAGRAMS);
                assert!(train.slot().len() >= SLOT_LEN);
            }
        }
    }

    #[test]
    fn a_sent_train_begins_again_at_the_front() {
        let (mut train, heading) = (Train::new(), heading(1));
        push(&mut train, heading, b"aaaa");
        train.clear();
        assert_eq!(push(&mut train, heading, b"bb"), Some(vec![]));
        assert_eq!(train.bytes(), b"bb");
    }
}
