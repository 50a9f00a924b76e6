//! How long a packet may be to reach a peer in one datagram (RFC 8899, without its base phase).
//!
//! ```text
//!            Probe(size) in a datagram of just that length
//!   we ────────────────────────────────────────────────────▶ peer
//!      ◀────────────────────────────────────────────────────
//!            Ack(size): so long a packet arrives
//! ```
//!
//! Probes and acknowledgements travel inside the tunnel, sealed like any packet, so nobody on the
//! way can forge them, and a path that swallows ICMP is like any other. They are IPv4 packets from
//! nowhere to nowhere, which every WireGuard implementation drops; a peer that answers is one of
//! ours.

use std::time::{Duration, Instant};

use crate::tun::USUAL_MTU;

/// A message about the length of packets, in an IPv4 packet of a protocol for experiments
/// (RFC 3692, RFC 791).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum PathMessage {
    /// "This packet is so long."
    Probe { len: usize },
    /// "A probe so long has arrived."
    Ack { len: usize },
}

const HEADER_LEN: usize = 20;
const MESSAGE_LEN: usize = HEADER_LEN + 4;
/// RFC 3692 §2.1.
const EXPERIMENTAL_PROTOCOL: u8 = 253;
const PROBE: u8 = 1;
const ACK: u8 = 2;

impl PathMessage {
    /// Reads a packet; none if it is any other packet.
    pub(super) fn try_parse(packet: &[u8]) -> Option<Self> {
        let message: &[u8; MESSAGE_LEN] = packet.first_chunk()?;
        let is_ours = message[0] == 0x45
            && message[9] == EXPERIMENTAL_PROTOCOL
            && message[12..HEADER_LEN] == [0; 8]
            && message[HEADER_LEN] == 0;
        let len = usize::from(u16::from_be_bytes([message[22], message[23]]));
        match message[21] {
            PROBE if is_ours && len == packet.len() => Some(Self::Probe { len }),
            ACK if is_ours => Some(Self::Ack { len }),
            _ => None,
        }
    }

    /// Writes the packet to the front of `into`; none if it does not fit.
    pub(super) fn write(self, into: &mut [u8]) -> Option<&[u8]> {
        let (kind, len, total_len) = match self {
            Self::Probe { len } => (PROBE, len, len.max(MESSAGE_LEN)),
            Self::Ack { len } => (ACK, len, MESSAGE_LEN),
        };
        let packet = into.get_mut(..total_len)?;
        packet.fill(0);
        let [len_high, len_low] = u16::try_from(len).ok()?.to_be_bytes();
        let [total_high, total_low] = u16::try_from(total_len).ok()?.to_be_bytes();
        let message: &mut [u8; MESSAGE_LEN] = packet.first_chunk_mut()?;
        message[0] = 0x45;
        [message[2], message[3]] = [total_high, total_low];
        message[8] = 1;
        message[9] = EXPERIMENTAL_PROTOCOL;
        message[21] = kind;
        [message[22], message[23]] = [len_high, len_low];
        Some(packet)
    }
}

/// What is known of the path to one peer, and what is being found out.
///
/// - `start`, `handle_message`, `handle_too_big` and `handle_timeout` put something in;
/// - after any of them, [`poll_probe`](Self::poll_probe) until it is empty.
///
/// A path is taken to be as good as the longest packet, or the usual one if that is shorter, until a
/// probe of the longest is lost while a shorter one arrives: only then is it the length that is at
/// fault, and not the whole path.
#[derive(Debug)]
pub(super) struct PathMtu {
    /// The longest packet that anyone will send.
    longest: usize,
    /// The longest packet that gets through, as far as is known.
    limit: usize,
    /// Whether the peer is known to answer.
    answers: bool,
    /// How many packets had been sent when something was due last.
    seen_packets: u64,
    search: Search,
    due: Option<Instant>,
    unsent: Vec<usize>,
}

#[derive(Debug)]
enum Search {
    /// Nothing is under way.
    Idle,
    /// The longest packet was sent, so many times.
    Longest { sent: u32 },
    /// A round of probes is under way.
    Round(Round),
}

/// Probes from a length that passes, or is thought to, up to one that does not.
#[derive(Debug, Clone, Copy)]
struct Round {
    passing: usize,
    failing: usize,
    /// The longest that was acknowledged.
    acknowledged: Option<usize>,
    /// How often it was begun anew because nothing at all was acknowledged.
    repeats: u32,
}

impl Round {
    /// Probes of one round, which divide what is unknown by as many.
    const PROBES: usize = 8;

    fn new(passing: usize, failing: usize) -> Self {
        Self { passing, failing, acknowledged: None, repeats: 0 }
    }

    /// The lengths to probe, evenly spread; the first is what is thought to pass.
    fn lengths(self) -> impl Iterator<Item = usize> {
        let step = (self.failing.saturating_sub(self.passing) / Self::PROBES).max(1);
        (0..Self::PROBES)
            .map(move |place| self.passing + place * step)
            .filter(move |len| *len < self.failing)
    }

    /// What is left unknown, given the longest that was acknowledged.
    fn narrowed(self, acknowledged: usize) -> Self {
        let failing = self.lengths().find(|len| *len > acknowledged).unwrap_or(self.failing);
        Self::new(acknowledged, failing)
    }

    const fn is_exact_enough(self) -> bool {
        /// Less than this is not worth another round.
        const EXACT_ENOUGH: usize = 4;

        self.failing.saturating_sub(self.passing) <= EXACT_ENOUGH
    }
}

/// Where a search begins; a path that does not even take this is of no use.
const SHORTEST: usize = 1_120;
/// What nearly every path takes: the smallest MTU of IPv6, inside and, with WireGuard around it,
/// outside on any link that deserves the name.
const SAFE: usize = 1_280;
/// What every link takes that IPv6 can use, WireGuard over IPv6 included.
const SAFEST: usize = 1_200;
/// An answer comes within this or counts as lost; a late one counts all the same.
const PATIENCE: Duration = Duration::from_millis(250);
/// A lone probe may be lost by chance.
const TRIES: u32 = 2;
/// Rounds without any answer, after which it is not the length that is at fault.
const MAX_REPEATS: u32 = 8;
/// RFC 8899 §5.1.1: PMTU_RAISE_TIMER.
const RAISE_AFTER: Duration = Duration::from_secs(600);
/// How often a path that is in use is looked at again, because routes change.
const CONFIRM_AFTER: Duration = Duration::from_secs(5);

impl PathMtu {
    pub(super) fn new(longest: usize) -> Self {
        Self {
            longest,
            limit: longest.min(USUAL_MTU.into()),
            answers: false,
            seen_packets: 0,
            search: Search::Idle,
            due: None,
            unsent: Vec::new(),
        }
    }

    /// The longest packet that gets through, as far as is known.
    pub(super) const fn limit(&self) -> usize {
        self.limit
    }

    /// The path is new.
    pub(super) fn start(&mut self, now: Instant) {
        self.limit = self.usual();
        self.probe_longest(1, now);
    }

    /// The path is new, if the peer is one that answers.
    pub(super) fn start_again(&mut self, now: Instant) {
        self.limit = self.usual();
        if self.answers {
            self.probe_longest(1, now);
        }
    }

    /// The network did not take a packet because of its length.
    pub(super) fn handle_too_big(&mut self, now: Instant) {
        match self.search {
            Search::Round(_) => {}
            // It is being found out whether the peer answers.
            Search::Longest { .. } if !self.answers => {}
            Search::Idle if !self.answers => {
                self.limit = if self.limit > SAFE { SAFE.min(self.longest) } else { SAFEST };
                self.due = Some(now + RAISE_AFTER);
            }
            Search::Idle | Search::Longest { .. } => {
                self.begin_round(Round::new(SHORTEST, self.limit), now);
            }
        }
    }

    /// Takes a message; returns the answer to it.
    pub(super) fn handle_message(
        &mut self,
        message: PathMessage,
        now: Instant,
    ) -> Option<PathMessage> {
        match message {
            PathMessage::Probe { len } => {
                if !std::mem::replace(&mut self.answers, true) {
                    self.start(now);
                }
                Some(PathMessage::Ack { len })
            }
            PathMessage::Ack { len } => {
                self.answers = true;
                self.handle_ack(len, now);
                None
            }
        }
    }

    /// Does what is due; `sent_packets` have been sent on this path so far.
    pub(super) fn handle_timeout(&mut self, sent_packets: u64, now: Instant) {
        if self.due.is_none_or(|due| now < due) {
            return;
        }
        self.due = None;
        let in_use = std::mem::replace(&mut self.seen_packets, sent_packets) != sent_packets;
        match self.search {
            Search::Idle if !self.answers => self.limit = self.usual(),
            Search::Idle if !in_use => self.due = Some(now + CONFIRM_AFTER),
            Search::Idle => self.probe_longest(1, now),
            Search::Longest { sent } if sent < TRIES => self.probe_longest(sent + 1, now),
            Search::Longest { .. } => {
                self.begin_round(Round::new(SHORTEST.min(self.longest), self.longest), now);
            }
            Search::Round(Round { acknowledged: None, repeats: MAX_REPEATS.., .. }) => {
                self.rest(CONFIRM_AFTER, now);
            }
            Search::Round(round @ Round { acknowledged: None, repeats, .. }) => {
                self.begin_round(Round { repeats: repeats + 1, ..round }, now);
            }
            Search::Round(round @ Round { acknowledged: Some(len), .. }) => {
                let left = round.narrowed(len);
                if left.is_exact_enough() {
                    self.limit = len;
                    self.rest(RAISE_AFTER, now);
                } else {
                    self.begin_round(left, now);
                }
            }
        }
    }

    /// The length of the next probe to be sent.
    pub(super) fn poll_probe(&mut self) -> Option<usize> {
        self.unsent.pop()
    }

    /// What nearly every path takes.
    fn usual(&self) -> usize {
        self.longest.min(USUAL_MTU.into())
    }

    fn handle_ack(&mut self, len: usize, now: Instant) {
        if len >= self.longest {
            self.limit = self.longest;
            self.rest(CONFIRM_AFTER, now);
        } else if let Search::Round(Round { failing, acknowledged, .. }) = &mut self.search
            && len < *failing
            && acknowledged.is_none_or(|longest| longest < len)
        {
            // The limit stays until the search ends: senders remember for minutes what they are
            // told, and the end is near.
            *acknowledged = Some(len);
        }
    }

    fn probe_longest(&mut self, sent: u32, now: Instant) {
        self.search = Search::Longest { sent };
        self.unsent.push(self.longest);
        self.due = Some(now + PATIENCE);
    }

    fn begin_round(&mut self, round: Round, now: Instant) {
        self.search = Search::Round(round);
        self.unsent.extend(round.lengths());
        self.due = Some(now + PATIENCE);
    }

    fn rest(&mut self, time: Duration, now: Instant) {
        self.search = Search::Idle;
        self.due = Some(now + time);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Drives a search over a path that takes `path` bytes and loses the first `lost` probes.
    fn search(path_mtu: &mut PathMtu, path: usize, mut lost: usize, now: &mut Instant, time: u64) {
        let end = *now + Duration::from_millis(time);
        let mut sent = 0;
        while *now < end {
            while let Some(len) = path_mtu.poll_probe() {
                if lost > 0 {
                    lost -= 1;
                } else if len <= path {
                    path_mtu.handle_message(PathMessage::Ack { len }, *now);
                }
            }
            *now += Duration::from_millis(50);
            sent += 1;
            path_mtu.handle_timeout(sent, *now);
        }
    }

    #[test]
    fn the_limit_is_found_within_two_seconds_and_never_above_the_path() {
        for path in [1_120, 1_121, 1_200, 1_279, 1_280, 1_380, 1_412, 1_419, 1_420, 8_000] {
            let (mut path_mtu, mut now) = (PathMtu::new(1_420), Instant::now());
            path_mtu.start(now);
            search(&mut path_mtu, path, 0, &mut now, 2_000);
            let limit = path_mtu.limit();
            assert!(limit <= path, "{limit} on {path}");
            assert!(limit + 4 >= path.min(1_420), "{limit} on {path}");
        }
    }

    #[test]
    fn a_jumbo_path_is_found() {
        for path in [1_420, 4_000, 8_919, 8_920] {
            let (mut path_mtu, mut now) = (PathMtu::new(8_920), Instant::now());
            path_mtu.start(now);
            search(&mut path_mtu, path, 0, &mut now, 3_000);
            assert!((path - 4..=path).contains(&path_mtu.limit()), "{path} {path_mtu:?}");
        }
    }

    #[test]
    fn a_lost_probe_or_a_dead_path_is_not_a_short_one() {
        let (mut path_mtu, mut now) = (PathMtu::new(1_420), Instant::now());
        path_mtu.start(now);
        search(&mut path_mtu, 1_420, 1, &mut now, 1_000);
        assert_eq!(path_mtu.limit(), 1_420);
        search(&mut path_mtu, 0, 0, &mut now, 60_000);
        assert_eq!(path_mtu.limit(), 1_420);
    }

    #[test]
    fn a_path_that_changes_is_noticed_in_both_directions() {
        let (mut path_mtu, mut now) = (PathMtu::new(1_420), Instant::now());
        path_mtu.start(now);
        search(&mut path_mtu, 1_420, 0, &mut now, 1_000);
        search(&mut path_mtu, 1_300, 0, &mut now, 20_000);
        assert!((1_296..=1_300).contains(&path_mtu.limit()), "{path_mtu:?}");
        search(&mut path_mtu, 1_420, 0, &mut now, 610_000);
        assert_eq!(path_mtu.limit(), 1_420);
    }

    #[test]
    fn a_peer_that_never_answers_is_left_alone() {
        let (mut path_mtu, now) = (PathMtu::new(1_420), Instant::now());
        path_mtu.start_again(now);
        assert_eq!(path_mtu.poll_probe(), None);
        path_mtu.handle_too_big(now);
        assert_eq!((path_mtu.limit(), path_mtu.poll_probe()), (SAFE, None));
        path_mtu.handle_timeout(1, now + RAISE_AFTER);
        assert_eq!(path_mtu.limit(), 1_420);
    }

    #[test]
    fn a_probe_is_acknowledged_and_answered_by_probes_of_our_own() {
        let (mut path_mtu, now) = (PathMtu::new(1_420), Instant::now());
        let answer = path_mtu.handle_message(PathMessage::Probe { len: 1_300 }, now);
        assert_eq!(answer, Some(PathMessage::Ack { len: 1_300 }));
        assert_eq!(path_mtu.poll_probe(), Some(1_420));
    }

    #[test]
    fn messages_are_read_as_they_were_written() {
        let mut buffer = [0xff; 2_000];
        for message in [PathMessage::Probe { len: 1_420 }, PathMessage::Ack { len: 1_280 }] {
            let packet = message.write(&mut buffer).unwrap();
            assert_eq!(PathMessage::try_parse(packet), Some(message));
        }
        let probe = PathMessage::Probe { len: 1_420 };
        let packet = probe.write(&mut buffer).unwrap().to_vec();
        assert_eq!(packet.len(), 1_420);
        for cut in [0, 1, 23, 24, 1_419] {
            assert_eq!(PathMessage::try_parse(&packet[..cut]), None, "{cut}");
        }
        assert!(probe.write(&mut [0; 100]).is_none());
    }
}
