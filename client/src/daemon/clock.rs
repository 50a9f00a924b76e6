//! The time, as the pure machines are told it.

use std::time::{Duration, Instant, SystemTime};

use adit_proto::Timestamp;

/// One moment by both clocks: one that never jumps, for timers, and the calendar.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Now {
    pub(crate) instant: Instant,
    pub(crate) time: Timestamp,
}

impl Now {
    pub(crate) fn read() -> Self {
        Self { instant: Instant::now(), time: SystemTime::now().into() }
    }

    /// A later moment.
    #[cfg(test)]
    pub(crate) fn after(self, duration: Duration) -> Self {
        Self { instant: self.instant + duration, time: self.time.saturating_add(duration) }
    }

    /// When `past` was, by the calendar.
    pub(crate) fn time_of(self, past: Instant) -> Timestamp {
        let ago: Duration = self.instant.saturating_duration_since(past);
        self.time.saturating_sub(ago)
    }
}
