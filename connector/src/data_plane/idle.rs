//! How busy a lane is.

use std::time::{Duration, Instant};

/// The time that a lane has waited for something to do.
#[derive(Debug)]
pub(super) struct Idle {
    since: Instant,
    waited: Duration,
}

impl Idle {
    pub(super) const fn new(now: Instant) -> Self {
        Self { since: now, waited: Duration::ZERO }
    }

    pub(super) fn note(&mut self, waited: Duration) {
        self.waited += waited;
    }

    /// How much of its time the lane was busy since this was asked last, in per cent.
    pub(super) fn take_load(&mut self, now: Instant) -> u8 {
        let Self { since, waited } = std::mem::replace(self, Self::new(now));
        let elapsed = now.saturating_duration_since(since).as_micros().max(1);
        let busy = elapsed.saturating_sub(waited.as_micros());
        u8::try_from(busy * 100 / elapsed).unwrap_or(100)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn load_is_what_was_not_waited() {
        let start = Instant::now();
        let mut idle = Idle::new(start);
        idle.note(Duration::from_millis(250));
        let end = start + Duration::from_secs(1);
        assert_eq!(idle.take_load(end), 75);
        idle.note(Duration::from_secs(3));
        assert_eq!(idle.take_load(end + Duration::from_secs(1)), 0);
        assert_eq!(idle.take_load(end + Duration::from_secs(2)), 100);
    }
}
