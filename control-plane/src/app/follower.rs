//! A connector that waits for the next bundle.

use adit_proto::ConnectorId;
use tokio::sync::watch;

use crate::{
    app::{App, live::OpenStream},
    store::{StoreError, connectors},
};

/// Follows the sequence for one connector. While there is one, the connector is connected.
#[derive(Debug)]
pub(crate) struct Follower {
    app: App,
    connector_id: ConnectorId,
    changes: watch::Receiver<u64>,
    draining: watch::Receiver<bool>,
    told: Option<u64>,
    _open: OpenStream,
}

impl Follower {
    /// `told` is the sequence that the connector knows of.
    pub(crate) fn new(app: App, connector_id: ConnectorId, told: Option<u64>) -> Self {
        let open = app.live.presence.open(connector_id);
        let (changes, draining) = (app.store.changes(), app.draining.clone());
        Self { app, connector_id, changes, draining, told, _open: open }
    }

    /// The next sequence that differs from the one last told; several that come at once are one.
    /// None when the connector was deleted or the program is about to stop.
    ///
    /// # Cancel safety
    ///
    /// A call that is dropped tells nothing: the next one gives the same sequence.
    pub(crate) async fn next(&mut self) -> Result<Option<u64>, StoreError> {
        loop {
            if *self.draining.borrow() {
                return Ok(None);
            }
            let sequence = *self.changes.borrow_and_update();
            if self.told != Some(sequence) {
                let mut snapshot = self.app.store.snapshot().await?;
                if connectors::find(&mut snapshot, self.connector_id).await?.is_none() {
                    return Ok(None);
                }
                self.told = Some(sequence);
                return Ok(Some(sequence));
            }
            tokio::select! {
                changed = self.changes.changed() => if changed.is_err() { return Ok(None) },
                changed = self.draining.changed() => if changed.is_err() { return Ok(None) },
            }
        }
    }
}
