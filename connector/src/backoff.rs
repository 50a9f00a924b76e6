//! Waiting between attempts.

use std::time::Duration;

/// Doubles from half a second to half a minute, with jitter.
#[derive(Debug, Default)]
pub(crate) struct Backoff {
    attempts: u32,
}

impl Backoff {
    const FIRST: Duration = Duration::from_millis(500);
    const LONGEST: Duration = Duration::from_secs(30);

    /// How long to wait before the next attempt.
    pub(crate) fn next_delay(&mut self) -> Duration {
        let doubled = Self::FIRST.saturating_mul(1 << self.attempts.min(10)).min(Self::LONGEST);
        self.attempts = self.attempts.saturating_add(1);
        let mut random = [0; 2];
        // Without randomness all wait alike, which is worse but works.
        let _unseeded: Result<(), getrandom::Error> = getrandom::fill(&mut random);
        let share = f64::from(u16::from_le_bytes(random)) / f64::from(u16::MAX);
        doubled.mul_f64(0.5 + share / 2.0)
    }

    /// The last attempt succeeded.
    pub(crate) const fn reset(&mut self) {
        self.attempts = 0;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waiting_grows_up_to_half_a_minute() {
        let mut backoff = Backoff::default();
        assert!(backoff.next_delay() <= Duration::from_millis(500));
        for _ in 0..100 {
            assert!(backoff.next_delay() <= Duration::from_secs(30));
        }
        assert!(backoff.next_delay() >= Duration::from_secs(15));
        backoff.reset();
        assert!(backoff.next_delay() <= Duration::from_millis(500));
    }
}
