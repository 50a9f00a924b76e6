//! Both clocks, read together at the edge and handed down.

use std::time::{Instant, SystemTime};

use adit_proto::Timestamp;

/// One moment: `monotonic` measures waiting, `wall` compares with what others signed.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Now {
    pub(crate) monotonic: Instant,
    pub(crate) wall: Timestamp,
}

impl Now {
    pub(crate) fn read() -> Self {
        Self { monotonic: Instant::now(), wall: SystemTime::now().into() }
    }
}
