//! Which connectors hold a stream open at this moment.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::SystemTime,
};

use adit_proto::{ConnectorId, Timestamp};

/// How many streams each connector holds open, and when the last of them closed.
#[derive(Debug, Clone, Default)]
pub(crate) struct Presence {
    connectors: Arc<Mutex<BTreeMap<ConnectorId, Streams>>>,
}

#[derive(Debug, Default)]
struct Streams {
    open: usize,
    closed_at: Option<Timestamp>,
}

/// Counts as one open stream until dropped.
#[derive(Debug)]
pub(crate) struct OpenStream {
    presence: Presence,
    connector_id: ConnectorId,
}

impl Presence {
    pub(crate) fn open(&self, connector_id: ConnectorId) -> OpenStream {
        self.lock().entry(connector_id).or_default().open += 1;
        OpenStream { presence: self.clone(), connector_id }
    }

    pub(crate) fn is_connected(&self, connector_id: ConnectorId) -> bool {
        self.lock().get(&connector_id).is_some_and(|streams| streams.open > 0)
    }

    /// When the connector's last stream closed, if one ever did while this process ran.
    pub(crate) fn closed_at(&self, connector_id: ConnectorId) -> Option<Timestamp> {
        self.lock().get(&connector_id)?.closed_at
    }

    pub(crate) fn remove(&self, connector_id: ConnectorId) {
        self.lock().remove(&connector_id);
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<ConnectorId, Streams>> {
        // No holder can panic half way through a change.
        self.connectors.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for OpenStream {
    fn drop(&mut self) {
        if let Some(streams) = self.presence.lock().get_mut(&self.connector_id) {
            streams.open = streams.open.saturating_sub(1);
            streams.closed_at = Some(SystemTime::now().into());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use uuid::Uuid;

    #[test]
    fn a_connector_is_connected_until_its_last_stream_closes() {
        let presence = Presence::default();
        let id = ConnectorId::from_uuid(Uuid::from_u128(1));
        let first = presence.open(id);
        let second = presence.open(id);
        drop(first);
        assert!(presence.is_connected(id));
        drop(second);
        assert!(!presence.is_connected(id));
        assert!(presence.closed_at(id).is_some());
    }
}
