//! How far away a connector is, and how busy.

use std::{
    collections::VecDeque,
    time::{Duration, Instant},
};

/// How long after the one before each of the first pings is sent, and then all others.
const FIRST_INTERVALS: [Duration; 4] = [
    Duration::ZERO,
    Duration::from_millis(300),
    Duration::from_millis(700),
    Duration::from_secs(2),
];
const INTERVAL: Duration = Duration::from_secs(15);

/// The least of so many round trips counts: the others had to wait somewhere.
const REMEMBERED: usize = 8;

/// Round trips of pings on a session channel: a state machine without input and output.
#[derive(Debug)]
pub(super) struct Latency {
    next_ping: Instant,
    sent: usize,
    pending: Option<(u64, Instant)>,
    round_trips: VecDeque<Duration>,
    load: u8,
}

impl Latency {
    pub(super) const fn new(now: Instant) -> Self {
        Self { next_ping: now, sent: 0, pending: None, round_trips: VecDeque::new(), load: 0 }
    }

    /// Says whether a ping of this id is to be sent.
    pub(super) fn poll_ping(&mut self, request_id: u64, now: Instant) -> bool {
        if now < self.next_ping {
            return false;
        }
        self.sent += 1;
        self.next_ping = now + FIRST_INTERVALS.get(self.sent).copied().unwrap_or(INTERVAL);
        self.pending = Some((request_id, now));
        true
    }

    /// The next ping is due at once.
    pub(super) const fn hurry(&mut self, now: Instant) {
        self.next_ping = now;
    }

    pub(super) const fn poll_timeout(&self) -> Instant {
        self.next_ping
    }

    /// A ping is answered; says whether it was the last one sent.
    pub(super) fn handle_pong(&mut self, request_id: u64, load: u8, now: Instant) -> bool {
        let Some((_id, sent)) = self.pending.take_if(|(pending, _sent)| *pending == request_id)
        else {
            return false;
        };
        if self.round_trips.len() == REMEMBERED {
            self.round_trips.pop_front();
        }
        self.round_trips.push_back(now.saturating_duration_since(sent));
        self.load = load.min(100);
        true
    }

    /// The round trip, once it is known.
    pub(super) fn round_trip(&self) -> Option<Duration> {
        self.round_trips.iter().min().copied()
    }

    /// In per cent.
    pub(super) const fn load(&self) -> u8 {
        self.load
    }

    /// What it costs to send a packet there: the round trip, the longer the busier the connector is,
    /// as in a queue.
    pub(super) fn cost(&self) -> Option<Duration> {
        /// What a connector takes itself, so that load counts on the shortest path.
        const SERVICE_TIME: Duration = Duration::from_millis(1);
        const LEAST_ROOM: u8 = 5;

        let room = (100 - self.load).max(LEAST_ROOM);
        Some((self.round_trip()? + SERVICE_TIME) * 100 / u32::from(room))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn after(round_trips: &[u64], load: u8) -> Latency {
        let mut now = Instant::now();
        let mut latency = Latency::new(now);
        for (round_trip, id) in round_trips.iter().zip(0..) {
            now = now.max(latency.poll_timeout());
            assert!(latency.poll_ping(id, now));
            now += Duration::from_millis(*round_trip);
            assert!(latency.handle_pong(id, load, now));
        }
        latency
    }

    #[test]
    fn the_least_of_the_last_round_trips_counts() {
        assert_eq!(after(&[30, 20, 500], 0).round_trip(), Some(Duration::from_millis(20)));
        let moved_away = after(&[1, 50, 50, 50, 50, 50, 50, 50, 50], 0);
        assert_eq!(moved_away.round_trip(), Some(Duration::from_millis(50)));
        assert_eq!(after(&[], 0).cost(), None);
    }

    #[test]
    fn a_busy_connector_costs_more_than_one_farther_away() {
        assert!(after(&[2], 95).cost() > after(&[20], 10).cost());
        assert!(after(&[2], 50).cost() < after(&[20], 0).cost());
    }

    #[test]
    fn an_answer_to_an_older_ping_says_nothing() {
        let now = Instant::now();
        let mut latency = Latency::new(now);
        assert!(latency.poll_ping(1, now));
        assert!(!latency.poll_ping(2, now));
        let later = latency.poll_timeout();
        assert!(latency.poll_ping(2, later));
        assert!(!latency.handle_pong(1, 0, later));
        assert!(latency.handle_pong(2, 0, later));
    }
}
