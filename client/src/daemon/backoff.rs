//! How long to wait before trying again.

use std::time::Duration;

/// Randomness that spreads the timers of many laptops. Not for secrets.
#[derive(Debug, Clone)]
pub(crate) struct Jitter(u64);

impl Jitter {
    pub(crate) fn from_seed(seed: u64) -> Self {
        // xorshift stays at zero for ever.
        Self(seed | 1)
    }

    /// Another source, for another owner.
    pub(crate) fn fork(&mut self) -> Self {
        self.unit();
        Self::from_seed(self.0.rotate_left(32))
    }

    /// A duration up to `fraction` shorter or longer than this one.
    pub(crate) fn spread(&mut self, duration: Duration, fraction: f64) -> Duration {
        duration.mul_f64(1.0 - fraction + 2.0 * fraction * self.unit())
    }

    /// A duration from zero to this one.
    pub(crate) fn up_to(&mut self, duration: Duration) -> Duration {
        duration.mul_f64(self.unit())
    }

    /// A number below `count`, or 0.
    pub(crate) fn below(&mut self, count: usize) -> usize {
        self.unit();
        let drawn = usize::try_from(self.0 >> 33).expect("31 bits fit");
        drawn.checked_rem(count).unwrap_or_default()
    }

    /// From 0 to 1; xorshift64* (Vigna, "An experimental exploration of Marsaglia's xorshift
    /// generators, scrambled").
    fn unit(&mut self) -> f64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        let drawn = u32::try_from(self.0.wrapping_mul(0x2545_f491_4f6c_dd1d) >> 32)
            .expect("the upper half of 64 bits fits into 32");
        f64::from(drawn) / f64::from(u32::MAX)
    }
}

/// Waits that double from `first` to `longest`.
#[derive(Debug, Clone)]
pub(crate) struct Backoff {
    first: Duration,
    longest: Duration,
    failures: u32,
}

impl Backoff {
    pub(crate) const fn new(first: Duration, longest: Duration) -> Self {
        Self { first, longest, failures: 0 }
    }

    /// The wait after one more failure.
    pub(crate) fn next(&mut self, jitter: &mut Jitter) -> Duration {
        let factor = 2_u32.saturating_pow(self.failures.min(30));
        self.failures = self.failures.saturating_add(1);
        jitter.spread(self.first.saturating_mul(factor).min(self.longest), 0.2)
    }

    /// Counts a failure that is followed by no wait.
    pub(crate) fn note_failure(&mut self) {
        self.failures = self.failures.saturating_add(1);
    }

    pub(crate) const fn has_failed(&self) -> bool {
        self.failures > 0
    }

    pub(crate) fn reset(&mut self) {
        self.failures = 0;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waits_double_up_to_the_longest() {
        let mut jitter = Jitter::from_seed(7);
        let mut backoff = Backoff::new(Duration::from_millis(200), Duration::from_secs(10));
        for expected in [200, 400, 800, 1600, 3200, 6400, 10_000, 10_000] {
            let wait = backoff.next(&mut jitter).as_secs_f64() * 1000.0;
            let expected = f64::from(expected);
            assert!((expected * 0.8..=expected * 1.2).contains(&wait), "{wait} for {expected}");
        }
        backoff.reset();
        assert!(backoff.next(&mut jitter) <= Duration::from_millis(240));
    }

    #[test]
    fn jitter_fills_its_range() {
        let mut jitter = Jitter::from_seed(1);
        let drawn: Vec<f64> =
            (0..1000).map(|_| jitter.spread(Duration::from_secs(100), 0.1).as_secs_f64()).collect();
        assert!(drawn.iter().all(|seconds| (90.0..=110.0).contains(seconds)));
        assert!(drawn.iter().any(|seconds| *seconds < 92.0));
        assert!(drawn.iter().any(|seconds| *seconds > 108.0));
    }
}
