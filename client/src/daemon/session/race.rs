//! In which order the ways to a connector are tried: pure.

use std::{
    collections::VecDeque,
    net::SocketAddr,
    time::{Duration, Instant},
};

use crate::carrier::SessionCarrier;

/// How long one way is tried alone before the next is tried beside it (RFC 8305 §5).
const HEAD_START: Duration = Duration::from_millis(250);

/// How long QUIC may still take when TCP has failed everywhere: mostly nobody is there, and whoever
/// comes back listens for both.
const LAST_PATIENCE: Duration = Duration::from_secs(2);

/// A way to a connector.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Way {
    pub(super) endpoint: SocketAddr,
    pub(super) carrier: SessionCarrier,
}

/// All ways to one connector: one after the other, each with a head start; a failure ends it.
///
/// Each address is tried a head start after the one before, and by each carrier a head start after
/// the one before.
#[derive(Debug)]
pub(super) struct Race {
    /// Those of one place are started together.
    waiting: VecDeque<Vec<Way>>,
    running: Vec<Way>,
    next_start: Instant,
    has_http2: bool,
    given_up_at: Option<Instant>,
}

impl Race {
    pub(super) fn new(addresses: &[SocketAddr], carriers: &[SessionCarrier], now: Instant) -> Self {
        let addresses = interleaved(addresses);
        let starts = (addresses.len() + carriers.len()).saturating_sub(1);
        let ways_at = |start: usize| {
            let ways = carriers.iter().enumerate().filter_map(|(place, carrier)| {
                let endpoint = *addresses.get(start.checked_sub(place)?)?;
                Some(Way { endpoint, carrier: *carrier })
            });
            ways.collect()
        };
        Self {
            waiting: (0..starts).map(ways_at).collect(),
            running: Vec::new(),
            next_start: now,
            has_http2: carriers.contains(&SessionCarrier::Http2),
            given_up_at: None,
        }
    }

    /// What is to be tried from here on.
    pub(super) fn poll_start(&mut self, now: Instant) -> Vec<Way> {
        if now < self.next_start {
            return Vec::new();
        }
        let ways = self.waiting.pop_front().unwrap_or_default();
        self.running.extend(&ways);
        self.next_start = now + HEAD_START;
        ways
    }

    /// A way has failed, so the next need not wait.
    pub(super) fn handle_failed(&mut self, way: Way, now: Instant) {
        self.running.retain(|running| *running != way);
        self.next_start = self.next_start.min(now);
        let is_http2 = |way: &Way| way.carrier == SessionCarrier::Http2;
        let all = self.running.iter().chain(self.waiting.iter().flatten());
        if self.has_http2 && !all.into_iter().any(is_http2) {
            self.given_up_at.get_or_insert(now + LAST_PATIENCE);
        }
    }

    /// When [`Self::poll_start`] has something, or it is over.
    pub(super) fn poll_timeout(&self) -> Option<Instant> {
        if self.waiting.is_empty() { self.given_up_at } else { Some(self.next_start) }
    }

    /// Whether nothing is left to be waited for.
    pub(super) fn is_over(&self, now: Instant) -> bool {
        let is_given_up = self.given_up_at.is_some_and(|at| at <= now);
        self.waiting.is_empty() && (self.running.is_empty() || is_given_up)
    }
}

/// Both families in turn, beginning with that of the first (RFC 8305 §4).
fn interleaved(addresses: &[SocketAddr]) -> Vec<SocketAddr> {
    let Some(first) = addresses.first() else { return Vec::new() };
    let (one, other): (Vec<SocketAddr>, Vec<SocketAddr>) =
        addresses.iter().partition(|address| address.is_ipv4() == first.is_ipv4());
    let count = one.len().max(other.len());
    (0..count).flat_map(|place| [one.get(place), other.get(place)]).flatten().copied().collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    const BOTH: [SessionCarrier; 2] = [SessionCarrier::Http2, SessionCarrier::Quic];

    fn addresses(all: &[&str]) -> Vec<SocketAddr> {
        all.iter().map(|address| address.parse().unwrap()).collect()
    }

    fn way(endpoint: &str, carrier: SessionCarrier) -> Way {
        Way { endpoint: endpoint.parse().unwrap(), carrier }
    }

    #[test]
    fn families_take_turns_beginning_with_the_first() {
        let given = addresses(&["192.0.2.1:1", "192.0.2.2:1", "[2001:db8::1]:1", "192.0.2.3:1"]);
        let expected = addresses(&["192.0.2.1:1", "[2001:db8::1]:1", "192.0.2.2:1", "192.0.2.3:1"]);
        assert_eq!(interleaved(&given), expected);
        assert_eq!(interleaved(&[]), []);
    }

    #[test]
    fn quic_and_the_next_address_follow_after_a_head_start() {
        let now = Instant::now();
        let mut race = Race::new(&addresses(&["192.0.2.1:1", "[2001:db8::1]:1"]), &BOTH, now);
        let (http2, quic) = (SessionCarrier::Http2, SessionCarrier::Quic);
        assert_eq!(race.poll_start(now), [way("192.0.2.1:1", http2)]);
        assert_eq!(race.poll_start(now), []);
        assert_eq!(race.poll_timeout(), Some(now + HEAD_START));
        let now = now + HEAD_START;
        let second = [way("[2001:db8::1]:1", http2), way("192.0.2.1:1", quic)];
        assert_eq!(race.poll_start(now), second);
        let now = now + HEAD_START;
        assert_eq!(race.poll_start(now), [way("[2001:db8::1]:1", quic)]);
        assert_eq!(race.poll_timeout(), None);
        assert!(!race.is_over(now));
    }

    #[test]
    fn where_tcp_is_refused_quic_is_tried_at_once_and_not_for_long() {
        let now = Instant::now();
        let mut race = Race::new(&addresses(&["192.0.2.1:1"]), &BOTH, now);
        let http2 = race.poll_start(now)[0];
        race.handle_failed(http2, now);
        assert_eq!(race.poll_start(now), [way("192.0.2.1:1", SessionCarrier::Quic)]);
        assert!(!race.is_over(now));
        assert_eq!(race.poll_timeout(), Some(now + LAST_PATIENCE));
        assert!(race.is_over(now + LAST_PATIENCE));
    }

    #[test]
    fn a_carrier_that_is_not_allowed_is_not_tried() {
        let now = Instant::now();
        let carriers = crate::carrier::CarrierChoice::Http2.of_sessions(Some(SessionCarrier::Quic));
        let mut race = Race::new(&addresses(&["192.0.2.1:1"]), carriers, now);
        let http2 = race.poll_start(now)[0];
        assert_eq!(http2.carrier, SessionCarrier::Http2);
        race.handle_failed(http2, now);
        assert!(race.is_over(now));
    }

    #[test]
    fn quic_alone_may_take_its_time() {
        let now = Instant::now();
        let mut race =
            Race::new(&addresses(&["192.0.2.1:1", "192.0.2.2:1"]), &[SessionCarrier::Quic], now);
        let first = race.poll_start(now)[0];
        race.handle_failed(first, now);
        race.poll_start(now);
        assert!(!race.is_over(now + LAST_PATIENCE * 4));
    }
}
