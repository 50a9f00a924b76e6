//! Finds out whether datagrams reach a target and come back, and how long they may be.

use std::{
    net::SocketAddr,
    time::{Duration, Instant},
};

use super::version_probe::MIN_LEN;

/// How long an answer may take before a probe goes out again.
const PATIENCE: Duration = Duration::from_millis(300);

/// As often as the shortest probe goes out, and as longer ones, which are more likely lost for good.
const ROUNDS: usize = 4;
const LONG_ROUNDS: usize = 3;

/// Lengths of packets that are tried, headers included: the smallest of IPv6, those of tunnels and
/// of access lines, Ethernet's, and of jumbo frames as most networks have them.
const MTUS: [u16; 14] =
    [1280, 1320, 1360, 1380, 1400, 1420, 1440, 1460, 1472, 1480, 1492, 1500, 4352, 9000];

/// The search toward one target.
///
/// [`Self::poll_transmit`] until there is none, then sleep until [`Self::poll_timeout`];
/// [`Self::handle_answer`] and [`Self::handle_too_long`] put in what comes of it.
#[derive(Debug)]
pub(super) struct PathSearch {
    headers_len: u16,
    probes: Vec<Probe>,
    round_trip: Option<Duration>,
}

#[derive(Debug)]
struct Probe {
    len: u16,
    rounds: usize,
    /// When each attempt went out.
    sent: Vec<Instant>,
    state: State,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    Open,
    Answered,
    /// The link itself is shorter.
    TooLong,
}

impl PathSearch {
    pub(super) fn new(target: SocketAddr) -> Self {
        let headers_len = headers_len(target);
        Self { headers_len, probes: vec![Probe::new(MIN_LEN, ROUNDS)], round_trip: None }
    }

    /// The length of a datagram that is to be sent, and how many such went out before.
    pub(super) fn poll_transmit(&mut self, now: Instant) -> Option<(u16, u8)> {
        let probe = self.probes.iter_mut().find(|probe| probe.is_due(now))?;
        let attempt = u8::try_from(probe.sent.len()).ok()?;
        probe.sent.push(now);
        Some((probe.len, attempt))
    }

    /// When something is to be sent again, or was waited for long enough; none: the search is over.
    pub(super) fn poll_timeout(&self) -> Option<Instant> {
        let open = self.probes.iter().filter(|probe| probe.state == State::Open);
        let timeouts = open.filter_map(|probe| Some(*probe.sent.last()? + PATIENCE));
        timeouts.min()
    }

    /// Gives up what was waited for long enough.
    pub(super) fn handle_timeout(&mut self, now: Instant) {
        self.probes.retain(|probe| {
            let is_late = probe.sent.last().is_some_and(|at| *at + PATIENCE <= now);
            probe.state != State::Open || probe.sent.len() < probe.rounds || !is_late
        });
    }

    pub(super) fn handle_answer(&mut self, len: u16, attempt: u8, now: Instant) {
        let Some(probe) = self.probes.iter_mut().find(|probe| probe.len == len) else { return };
        let Some(sent) = probe.sent.get(usize::from(attempt)) else { return };
        let round_trip = now.saturating_duration_since(*sent);
        probe.state = State::Answered;
        if self.round_trip.is_none() {
            self.round_trip = Some(round_trip);
            let lens = MTUS.map(|mtu| mtu - self.headers_len);
            self.probes.extend(lens.map(|len| Probe::new(len, LONG_ROUNDS)));
        }
    }

    /// The kernel does not take it.
    pub(super) fn handle_too_long(&mut self, len: u16) {
        if let Some(probe) = self.probes.iter_mut().find(|probe| probe.len == len) {
            probe.state = State::TooLong;
        }
    }

    /// The time from a datagram to its answer; none: there was no answer.
    pub(super) const fn round_trip(&self) -> Option<Duration> {
        self.round_trip
    }

    /// The longest packet that was answered, headers included.
    pub(super) fn path_mtu(&self) -> Option<u16> {
        let answered = self.probes.iter().filter(|probe| probe.state == State::Answered);
        answered.map(|probe| probe.len + self.headers_len).max()
    }
}

impl Probe {
    const fn new(len: u16, rounds: usize) -> Self {
        Self { len, rounds, sent: Vec::new(), state: State::Open }
    }

    fn is_due(&self, now: Instant) -> bool {
        let is_time = self.sent.last().is_none_or(|at| *at + PATIENCE <= now);
        self.state == State::Open && self.sent.len() < self.rounds && is_time
    }
}

/// Of IP and UDP.
fn headers_len(target: SocketAddr) -> u16 {
    match target {
        SocketAddr::V4(_) => 20 + 8,
        SocketAddr::V6(_) => 40 + 8,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const DELAY: Duration = Duration::from_millis(20);

    /// Runs a search over a path that takes packets of such a length, and answers only some.
    fn search(target: &str, mtu: u16, is_lost: impl Fn(usize) -> bool) -> (PathSearch, Duration) {
        let began = Instant::now();
        let mut now = began;
        let target = target.parse().unwrap();
        let mut search = PathSearch::new(target);
        let mut sent = 0;
        loop {
            while let Some((len, attempt)) = search.poll_transmit(now) {
                assert!(len >= MIN_LEN);
                sent += 1;
                if len + headers_len(target) <= mtu && !is_lost(sent) {
                    search.handle_answer(len, attempt, now + DELAY);
                }
            }
            let Some(at) = search.poll_timeout() else { break };
            assert!(at >= now, "time goes on");
            now = at;
            search.handle_timeout(now);
        }
        (search, now - began)
    }

    #[test]
    fn the_longest_packet_that_passes_is_found() {
        for target in ["192.0.2.1:443", "[2001:db8::1]:443"] {
            for mtu in [1280, 1380, 1420, 1500, 9000] {
                let (search, took) = search(target, mtu, |_| false);
                assert_eq!(search.path_mtu(), Some(mtu), "{target}");
                assert_eq!(search.round_trip(), Some(DELAY));
                assert!(took < Duration::from_secs(2), "{took:?}");
            }
        }
    }

    #[test]
    fn a_lost_probe_is_sent_again() {
        let (search, _took) = search("192.0.2.1:443", 1500, |place| place % 2 == 1);
        assert_eq!(search.path_mtu(), Some(1500));
    }

    #[test]
    fn a_target_that_is_silent_is_given_up_soon() {
        let (search, took) = search("192.0.2.1:443", 1500, |_| true);
        assert_eq!((search.path_mtu(), search.round_trip()), (None, None));
        assert_eq!(took, PATIENCE * u32::try_from(ROUNDS).unwrap());
    }

    #[test]
    fn the_answer_to_an_earlier_attempt_tells_the_whole_round_trip() {
        let mut search = PathSearch::new("192.0.2.1:443".parse().unwrap());
        let began = Instant::now();
        search.poll_transmit(began);
        search.poll_transmit(began + PATIENCE);
        search.handle_answer(MIN_LEN, 0, began + PATIENCE * 2);
        assert_eq!(search.round_trip(), Some(PATIENCE * 2));
    }

    #[test]
    fn what_the_link_does_not_take_is_not_tried_again() {
        let mut search = PathSearch::new("192.0.2.1:443".parse().unwrap());
        let now = Instant::now();
        let (len, _attempt) = search.poll_transmit(now).unwrap();
        search.handle_too_long(len);
        assert_eq!((search.poll_transmit(now + PATIENCE), search.poll_timeout()), (None, None));
    }

    #[test]
    fn an_answer_to_what_was_never_sent_is_of_no_account() {
        let mut search = PathSearch::new("192.0.2.1:443".parse().unwrap());
        search.handle_answer(1472, 0, Instant::now());
        search.handle_answer(1200, 0, Instant::now());
        assert_eq!(search.round_trip(), None);
    }
}
