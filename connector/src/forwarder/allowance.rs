//! How often a device may do something.

use std::time::{Duration, Instant};

/// A bucket of tokens.
#[derive(Debug, Clone, Copy)]
pub(super) struct Rate {
    /// How long a token takes to come back.
    pub(super) every: Duration,
    /// How many there are at most.
    pub(super) burst: u32,
}

/// What a device has taken out of its bucket, kept as the time at which it will be full again.
#[derive(Debug, Clone, Copy)]
pub(super) struct Allowance {
    full_at: Instant,
}

impl Allowance {
    /// A full bucket.
    pub(super) const fn new(now: Instant) -> Self {
        Self { full_at: now }
    }

    /// Takes a token, if there is one.
    pub(super) fn take(&mut self, rate: Rate, now: Instant) -> bool {
        let full_at = self.full_at.max(now) + rate.every;
        let allowed = full_at.saturating_duration_since(now) <= rate.every * rate.burst;
        if allowed {
            self.full_at = full_at;
        }
        allowed
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_burst_is_allowed_and_then_the_rate() {
        let rate = Rate { every: Duration::from_millis(100), burst: 3 };
        let start = Instant::now();
        let mut allowance = Allowance::new(start);
        let mut taken = |millis| {
            let now = start + Duration::from_millis(millis);
            (0..10).filter(|_try| allowance.take(rate, now)).count()
        };
        assert_eq!(taken(0), 3);
        assert_eq!(taken(99), 0);
        assert_eq!(taken(100), 1);
        assert_eq!(taken(350), 2);
        assert_eq!(taken(60_000), 3);
    }
}
