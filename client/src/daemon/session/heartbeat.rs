//! Pings by which the death of a connector is noticed where the connection is slow to notice it.

use std::time::{Duration, Instant};

use crate::carrier::SessionCarrier;

/// As over HTTP/2, so that a dead connector is noticed within 13 s by either.
const INTERVAL: Duration = Duration::from_secs(5);
const PATIENCE: Duration = Duration::from_secs(8);

/// When to ask, and when to give up: a state machine without input and output.
///
/// QUIC by itself notices after an idle timeout of 30 s; HTTP/2 has pings of its own.
#[derive(Debug)]
pub(super) struct Heartbeat {
    due: Option<Instant>,
    is_asked: bool,
}

/// What is due.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Beat {
    Ask,
    GiveUp,
}

impl Heartbeat {
    pub(super) fn new(carrier: SessionCarrier, now: Instant) -> Self {
        let due = match carrier {
            SessionCarrier::Http2 => None,
            SessionCarrier::Quic => Some(now + INTERVAL),
        };
        Self { due, is_asked: false }
    }

    /// The connector has said something.
    pub(super) fn handle_heard(&mut self, now: Instant) {
        self.due = self.due.map(|_before| now + INTERVAL);
        self.is_asked = false;
    }

    pub(super) const fn poll_timeout(&self) -> Option<Instant> {
        self.due
    }

    /// To be called when [`Self::poll_timeout`] is over.
    pub(super) fn handle_timeout(&mut self, now: Instant) -> Beat {
        if std::mem::replace(&mut self.is_asked, true) {
            return Beat::GiveUp;
        }
        self.due = Some(now + PATIENCE);
        Beat::Ask
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn whoever_is_silent_is_asked_and_then_given_up() {
        let start = Instant::now();
        let mut heartbeat = Heartbeat::new(SessionCarrier::Quic, start);
        assert_eq!(heartbeat.poll_timeout(), Some(start + INTERVAL));
        assert_eq!(heartbeat.handle_timeout(start + INTERVAL), Beat::Ask);
        assert_eq!(heartbeat.poll_timeout(), Some(start + INTERVAL + PATIENCE));
        assert_eq!(heartbeat.handle_timeout(start + INTERVAL + PATIENCE), Beat::GiveUp);
    }

    #[test]
    fn whoever_answers_is_asked_again_later() {
        let start = Instant::now();
        let mut heartbeat = Heartbeat::new(SessionCarrier::Quic, start);
        heartbeat.handle_timeout(start + INTERVAL);
        let now = start + INTERVAL * 2;
        heartbeat.handle_heard(now);
        assert_eq!(heartbeat.poll_timeout(), Some(now + INTERVAL));
        assert_eq!(heartbeat.handle_timeout(now + INTERVAL), Beat::Ask);
    }

    #[test]
    fn http2_needs_none() {
        let mut heartbeat = Heartbeat::new(SessionCarrier::Http2, Instant::now());
        heartbeat.handle_heard(Instant::now());
        assert_eq!(heartbeat.poll_timeout(), None);
    }
}
