//! How fast clients ask whether they are signed in (RFC 8628 §3.5).

use std::{
    collections::BTreeMap,
    sync::{Mutex, PoisonError},
    time::Duration,
};

use adit_proto::Timestamp;

/// How long a client is told to wait between two questions.
pub(crate) const INTERVAL: Duration = Duration::from_secs(2);

/// By how much the interval grows when a client does not keep it.
const PENALTY: Duration = Duration::from_secs(5);

/// How much sooner than it was sent a question may seem to come.
const TOLERANCE: Duration = Duration::from_millis(500);

/// After this long a code has expired.
const MEMORY: Duration = Duration::from_mins(20);

/// When each code was last asked for, and how long to wait since. Holds codes that exist only, so
/// it is bounded as their table is.
#[derive(Debug, Default)]
pub(crate) struct PollPace {
    held: Mutex<BTreeMap<[u8; 32], Pace>>,
}

#[derive(Debug, Clone, Copy)]
struct Pace {
    last: Timestamp,
    interval: Duration,
}

impl PollPace {
    /// Whether the client has waited long enough.
    pub(crate) fn is_kept(&self, device_code_hash: [u8; 32], now: Timestamp) -> bool {
        let mut held = self.held.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(pace) = held.get_mut(&device_code_hash) {
            let waited = now.saturating_duration_since(pace.last);
            let is_kept = waited.saturating_add(TOLERANCE) >= pace.interval;
            if !is_kept {
                pace.interval = pace.interval.saturating_add(PENALTY);
            }
            pace.last = now;
            return is_kept;
        }
        held.retain(|_, pace| pace.last > now.saturating_sub(MEMORY));
        held.insert(device_code_hash, Pace { last: now, interval: INTERVAL });
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_asks_too_fast_must_wait_five_seconds_longer_from_then_on() {
        let pace = PollPace::default();
        let at = |seconds: i64| Timestamp::from_millis(1_000_000 + seconds * 1000);
        assert!(pace.is_kept([1; 32], at(0)));
        assert!(pace.is_kept([1; 32], at(2)));
        assert!(!pace.is_kept([1; 32], at(3)));
        assert!(!pace.is_kept([1; 32], at(9)));
        assert!(pace.is_kept([1; 32], at(21)));
        assert!(pace.is_kept([2; 32], at(21)));
    }
}
