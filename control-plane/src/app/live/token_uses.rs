//! When the last use of each API token was written down.

use std::{
    collections::BTreeMap,
    sync::{Mutex, PoisonError},
    time::Duration,
};

use adit_proto::{ApiTokenId, Timestamp};

/// A use is written down this often at most: a read must not cost a write.
const INTERVAL: Duration = Duration::from_mins(1);

/// As many entries as tokens were used while the process runs.
#[derive(Debug, Default)]
pub(crate) struct TokenUses {
    written_at: Mutex<BTreeMap<ApiTokenId, Timestamp>>,
}

impl TokenUses {
    /// Whether the caller is to write this use down. Answers so once an interval, even if the
    /// caller fails.
    pub(crate) fn is_due(&self, id: ApiTokenId, now: Timestamp) -> bool {
        let mut written_at = self.written_at.lock().unwrap_or_else(PoisonError::into_inner);
        let due = written_at.get(&id).is_none_or(|at| *at <= now.saturating_sub(INTERVAL));
        if due {
            written_at.insert(id, now);
        }
        due
    }

    pub(crate) fn remove(&self, id: ApiTokenId) {
        self.written_at.lock().unwrap_or_else(PoisonError::into_inner).remove(&id);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use uuid::Uuid;

    #[test]
    fn a_use_is_due_once_a_minute_for_each_token() {
        let uses = TokenUses::default();
        let now = Timestamp::from_millis(1_000_000);
        let [one, other] = [1, 2].map(|number| ApiTokenId::from_uuid(Uuid::from_u128(number)));
        assert!(uses.is_due(one, now));
        assert!(!uses.is_due(one, now.saturating_add(INTERVAL - Duration::from_millis(1))));
        assert!(uses.is_due(other, now));
        assert!(uses.is_due(one, now.saturating_add(INTERVAL)));
    }
}
