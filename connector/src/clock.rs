//! Both clocks, read together at the edge and handed down.

use std::time::{Instant, SystemTime};

use adit_proto::Timestamp;

/// One moment.
#[derive(Debug, Clone, Copy)]
pub struct Now {
    /// Measures waiting.
    pub monotonic: Instant,
    /// Compares with what others signed.
    pub wall: Timestamp,
}

impl Now {
    pub(crate) fn read() -> Self {
        Self { monotonic: Instant::now(), wall: SystemTime::now().into() }
    }
}
