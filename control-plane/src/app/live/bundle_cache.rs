//! The newest signed bundle of each connector.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use adit_proto::ConnectorId;

/// Signed bundles by connector, the newest of each.
#[derive(Debug, Default)]
pub(crate) struct BundleCache {
    tokens: Mutex<BTreeMap<ConnectorId, (u64, Arc<str>)>>,
}

impl BundleCache {
    /// The bundle of exactly this sequence.
    pub(crate) fn find(&self, connector_id: ConnectorId, sequence: u64) -> Option<Arc<str>> {
        let tokens = self.lock();
        let (held, token) = tokens.get(&connector_id)?;
        (*held == sequence).then(|| Arc::clone(token))
    }

    pub(crate) fn insert(&self, connector_id: ConnectorId, sequence: u64, token: Arc<str>) {
        let mut tokens = self.lock();
        let entry = tokens.entry(connector_id).or_insert_with(|| (sequence, Arc::clone(&token)));
        if entry.0 < sequence {
            *entry = (sequence, token);
        }
    }

    pub(crate) fn remove(&self, connector_id: ConnectorId) {
        self.lock().remove(&connector_id);
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<ConnectorId, (u64, Arc<str>)>> {
        // No holder can panic half way through a change.
        self.tokens.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use uuid::Uuid;

    #[test]
    fn a_late_older_bundle_does_not_replace_a_newer_one() {
        let cache = BundleCache::default();
        let id = ConnectorId::from_uuid(Uuid::from_u128(1));
        cache.insert(id, 2, "newer".into());
        cache.insert(id, 1, "older".into());
        assert_eq!(cache.find(id, 2).as_deref(), Some("newer"));
        assert_eq!(cache.find(id, 1), None);
    }
}
