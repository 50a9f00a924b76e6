//! How much of a lane's time goes into handshakes.

use std::time::{Duration, Instant};

/// The time for handshakes: while there are packets to carry a twentieth, so that a flood takes no
/// more than that from live flows; while there are none, half, for answers of clients take the rest.
pub(super) struct HandshakeTime {
    /// From when there is some although there are packets.
    busy_from: Instant,
    /// From when there is some else.
    idle_from: Instant,
}

/// One part in so many.
const SHARE: u32 = 20;

/// For which time is saved up, and so how many handshakes are begun in a row: some ten.
const SAVED: Duration = Duration::from_millis(100);

/// Of what it takes to begin a handshake, the client's answer takes as much again: its certificate
/// is verified then.
const WHOLE: u32 = 2;

/// What took longer than this was waiting for a processor, which says nothing of handshakes.
const LONGEST: Duration = Duration::from_millis(1);

impl HandshakeTime {
    pub(super) const fn new(now: Instant) -> Self {
        Self { busy_from: now, idle_from: now }
    }

    /// Whether a handshake may be begun; `is_idle` says whether there are no packets to carry.
    pub(super) fn is_left(&self, is_idle: bool, now: Instant) -> bool {
        now >= if is_idle { self.idle_from } else { self.busy_from }
    }

    /// Notes how long it took to begin one at `now`.
    pub(super) fn spend(&mut self, is_idle: bool, spent: Duration, now: Instant) {
        let spent = spent.min(LONGEST);
        self.idle_from = now + spent * WHOLE;
        if !is_idle {
            let saved_since = now.checked_sub(SAVED).unwrap_or(now);
            self.busy_from = self.busy_from.max(saved_since) + spent * WHOLE * SHARE;
        }
    }

    /// From when there is time if no packets come.
    pub(super) const fn poll_timeout(&self) -> Instant {
        self.idle_from
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SPENT: Duration = Duration::from_micros(500);

    /// Begins as many handshakes as there is time for.
    fn begin(time: &mut HandshakeTime, now: Instant) -> u32 {
        let mut count = 0;
        while time.is_left(false, now) {
            time.spend(false, SPENT, now);
            count += 1;
        }
        count
    }

    #[test]
    fn a_twentieth_of_the_time_goes_into_handshakes() {
        let start = Instant::now();
        let mut time = HandshakeTime::new(start);
        let begun: u32 =
            (0..10_000).map(|ms| begin(&mut time, start + Duration::from_millis(ms))).sum();
        assert_eq!(begun * WHOLE * SPENT, Duration::from_millis(500));
    }

    #[test]
    fn little_is_saved_up() {
        let start = Instant::now();
        let mut time = HandshakeTime::new(start);
        let later = start + Duration::from_secs(3600);
        assert_eq!(begin(&mut time, later), 6);
        assert_eq!(begin(&mut time, later), 0);
    }

    #[test]
    fn without_packets_there_is_as_much_time_as_the_answers_of_clients_leave() {
        let start = Instant::now();
        let mut time = HandshakeTime::new(start);
        assert!(time.is_left(true, start));
        time.spend(true, SPENT, start);
        assert!(!time.is_left(true, start + SPENT));
        assert!(time.is_left(true, time.poll_timeout()));
        assert_eq!(time.poll_timeout(), start + SPENT * WHOLE);
        assert!(time.is_left(false, start), "nothing was taken from packets");
    }
}
