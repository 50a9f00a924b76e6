//! The access log: from the data plane's records to the control plane, in batches.

use std::time::Duration;

use adit_proto::{AccessEvent, ConnectorId, EventId, api::AccessEventBatch};
use adit_tunnel::{ControlPlane, ControlPlaneError};
use tokio::{
    sync::{mpsc, watch},
    time::Instant,
};
use tracing::{debug, warn};

use crate::{backoff::Backoff, data_plane::DataPlaneMetrics, forwarder::FlowRecord};

/// How many records wait at most while the control plane is away; then they are dropped and
/// counted by the data plane.
pub(crate) const QUEUE: usize = 65_536;

/// What has become of access events.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct EventCounters {
    pub(crate) sent: u64,
    /// Refused by the control plane, so of no use to anyone.
    pub(crate) refused: u64,
}

/// Sends access events until the data plane has ended and all are sent.
pub(crate) struct EventUploader {
    pub(crate) control_plane: ControlPlane,
    pub(crate) connector_id: ConnectorId,
    pub(crate) records: mpsc::Receiver<FlowRecord>,
    pub(crate) counters: watch::Sender<EventCounters>,
}

impl EventUploader {
    pub(crate) async fn run(mut self) {
        while let Some(batch) = self.next_batch().await {
            self.send(batch).await;
        }
    }

    /// Waits until there is a batch's worth, or a second has passed since its first record.
    async fn next_batch(&mut self) -> Option<AccessEventBatch> {
        const MAX_EVENTS: usize = 1000;
        const ENOUGH: usize = 500;
        const LINGER: Duration = Duration::from_secs(1);

        let mut records = Vec::new();
        if self.records.recv_many(&mut records, MAX_EVENTS).await == 0 {
            return None;
        }
        let deadline = Instant::now() + LINGER;
        while records.len() < ENOUGH {
            let room = MAX_EVENTS - records.len();
            let more = self.records.recv_many(&mut records, room);
            match tokio::time::timeout_at(deadline, more).await {
                Ok(0) => break,
                Ok(_more) => {}
                Err(_elapsed) => break,
            }
        }
        let events = records.into_iter().map(|record| self.event(record)).collect();
        Some(AccessEventBatch { events })
    }

    async fn send(&self, batch: AccessEventBatch) {
        let count = u64::try_from(batch.events.len()).unwrap_or(u64::MAX);
        let mut backoff = Backoff::default();
        loop {
            let result: Result<(), ControlPlaneError> =
                self.control_plane.post("/v1/connector/access-events", &batch).await;
            match result {
                Ok(()) => {
                    self.counters.send_modify(|counters| counters.sent += count);
                    return;
                }
                Err(ControlPlaneError::Refused(problem)) if is_final(problem.status) => {
                    warn!(code = ?problem.code, detail = problem.detail, count,
                        "Control plane refused access events");
                    self.counters.send_modify(|counters| counters.refused += count);
                    return;
                }
                Err(error) => {
                    let error: &dyn std::error::Error = &error;
                    debug!(error, count, "Access events wait for the control plane");
                }
            }
            tokio::time::sleep(backoff.next_delay()).await;
        }
    }

    fn event(&self, record: FlowRecord) -> AccessEvent {
        AccessEvent {
            id: event_id(record.at.as_millis()),
            at: record.at,
            connector_id: self.connector_id,
            device_id: record.device_id,
            user_id: record.user_id,
            resource_id: record.resource_id,
            policy_id: record.policy_id,
            flow: record.flow,
            verdict: record.verdict,
            reason: record.reason,
            bytes_from_device: record.from_device.bytes,
            bytes_to_device: record.to_device.bytes,
            packets_from_device: record.from_device.packets,
            packets_to_device: record.to_device.packets,
            duration_ms: u64::try_from(record.duration.as_millis()).unwrap_or(u64::MAX),
        }
    }
}

/// Says once a minute how many access events were lost, until the data plane has ended.
pub(crate) async fn warn_of_losses(mut metrics: watch::Receiver<DataPlaneMetrics>) {
    const INTERVAL: Duration = Duration::from_secs(60);

    let mut told = 0;
    while metrics.changed().await.is_ok() {
        let lost = metrics.borrow_and_update().losses.records;
        if lost > told {
            warn!(lost = lost - told, "Lost access events, the control plane takes none");
            told = lost;
            tokio::time::sleep(INTERVAL).await;
        }
    }
}

/// Whether the same batch would be refused again. Not when we are not known at this moment, which
/// a clock that is set right, or a restored database, may cure.
const fn is_final(status: u16) -> bool {
    matches!(status, 400 | 413 | 415 | 422)
}

/// Ids grow with time, which is kind to the database.
fn event_id(unix_millis: i64) -> EventId {
    let mut random = [0; 10];
    // An id is a name and no secret: should randomness fail, the batch's others still differ.
    let _unseeded: Result<(), getrandom::Error> = getrandom::fill(&mut random);
    let millis = u64::try_from(unix_millis).unwrap_or_default();
    EventId::from_uuid(uuid::Builder::from_unix_timestamp_millis(millis, &random).into_uuid())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_differ_within_a_millisecond_and_grow_with_time() {
        assert_ne!(event_id(1_000), event_id(1_000));
        assert!(event_id(1_000) < event_id(2_000));
    }
}
