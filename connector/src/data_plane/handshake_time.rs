//! How much of a lane's time goes into handshakes.

use std::time::{Duration, Instant};

/// The time for handshakes while there are packets to carry: a twentieth, so that a flood takes no
/// more than that from live flows. While there are none, nobody asks for it.
pub(super) struct HandshakeTime {
    /// From when there is some.
    from: Instant,
}

/// One part in so many.
const SHARE: u32 = 20;

/// For which time is saved up, and so how many handshakes are begun in a row: some ten.
const SAVED: Duration = Duration::from_millis(100);

/// Of what it takes to begin a handshake, the client's answer takes as much again: its certificate
/// is verified then.
const WHOLE: u32 = 2;

impl HandshakeTime {
    pub(super) const fn new(now: Instant) -> Self {
        Self { from: now }
    }

    /// Whether a handshake may be begun although there are packets to carry.
    pub(super) fn is_left(&self, now: Instant) -> bool {
        self.from <= now
    }

    /// Notes how long it took to begin one.
    pub(super) fn spend(&mut self, spent: Duration, now: Instant) {
        let saved_since = now.checked_sub(SAVED).unwrap_or(now);
        self.from = self.from.max(saved_since) + spent * WHOLE * SHARE;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SPENT: Duration = Duration::from_micros(500);

    /// Begins as many handshakes as there is time for.
    fn begin(time: &mut HandshakeTime, now: Instant) -> u32 {
        let mut count = 0;
        while time.is_left(now) {
            time.spend(SPENT, now);
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
}
