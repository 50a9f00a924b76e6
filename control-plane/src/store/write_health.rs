//! Whether the database can be written to, as far as the last write tells.

use std::{
    sync::{Mutex, PoisonError},
    time::{Duration, Instant},
};

/// For how long a successful write vouches for the next one.
const TRUST: Duration = Duration::from_secs(10);

/// What is known of the last write.
#[derive(Debug)]
pub(super) struct WriteHealth(Mutex<State>);

#[derive(Debug, Clone, Copy)]
enum State {
    Good { since: Instant },
    Unknown,
    Bad,
}

impl WriteHealth {
    /// After a write that succeeded at `now`.
    pub(super) const fn new(now: Instant) -> Self {
        Self(Mutex::new(State::Good { since: now }))
    }

    pub(super) fn record_success(&self, now: Instant) {
        self.set(State::Good { since: now });
    }

    pub(super) fn record_failure(&self) {
        self.set(State::Bad);
    }

    /// A change was given up, for whatever reason: an earlier success vouches no longer.
    pub(super) fn record_abandoned(&self) {
        if self.is_good() {
            self.set(State::Unknown);
        }
    }

    /// Whether no write is known to have failed since the last that succeeded.
    pub(super) fn is_good(&self) -> bool {
        !matches!(self.state(), State::Bad)
    }

    /// Whether the last write succeeded, and lately.
    pub(super) fn is_known_good(&self, now: Instant) -> bool {
        match self.state() {
            State::Good { since } => now.saturating_duration_since(since) < TRUST,
            State::Unknown | State::Bad => false,
        }
    }

    fn state(&self) -> State {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn set(&self, state: State) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = state;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_success_is_trusted_for_a_while() {
        let start = Instant::now();
        let health = WriteHealth::new(start);
        assert!(health.is_known_good(start + TRUST / 2));
        assert!(!health.is_known_good(start + TRUST));
        assert!(health.is_good());
    }

    #[test]
    fn a_failure_stands_until_the_next_success() {
        let start = Instant::now();
        let health = WriteHealth::new(start);
        health.record_failure();
        health.record_abandoned();
        assert!(!health.is_good() && !health.is_known_good(start));
        health.record_success(start);
        assert!(health.is_good() && health.is_known_good(start));
    }

    #[test]
    fn after_an_abandoned_change_nothing_is_known() {
        let start = Instant::now();
        let health = WriteHealth::new(start);
        health.record_abandoned();
        assert!(health.is_good() && !health.is_known_good(start));
    }
}
