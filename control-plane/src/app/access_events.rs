//! The access log: taken in from connectors, kept up to a limit.

use std::time::Duration;

use adit_proto::{ConnectorId, api::AccessEventBatch};

use crate::{
    app::App,
    error::ApiError,
    store::{ActorId, StoreError, access_events},
};

/// Most events in one batch.
const MAX_BATCH: usize = 1000;

/// How many events are kept: at some 400 bytes with their indices, less than half a gigabyte.
const KEPT: u32 = 1_000_000;

/// How often events are counted.
const PRUNE_INTERVAL: Duration = Duration::from_secs(60);

/// How many are deleted at once, so that writers wait for milliseconds at most.
const PRUNE_STEP: u32 = 2000;

/// Takes in a batch. Events that are known already count once.
pub(crate) async fn record(
    app: &App,
    connector_id: ConnectorId,
    batch: &AccessEventBatch,
) -> Result<(), ApiError> {
    if batch.events.len() > MAX_BATCH {
        let detail = format!("A batch has at most {MAX_BATCH} events.");
        return Err(ApiError::invalid("/events", detail));
    }
    if let Some(index) = batch.events.iter().position(|event| event.connector_id != connector_id) {
        return Err(ApiError::invalid(
            format!("/events/{index}/connector_id"),
            "A connector speaks for itself alone.",
        ));
    }
    let mut change = app.store.begin_change(ActorId::Connector(connector_id)).await?;
    for event in &batch.events {
        access_events::insert(&mut change, event).await?;
    }
    Ok(change.commit_unaudited().await?)
}

/// Deletes the oldest events beyond [`KEPT`], for ever.
pub(crate) async fn prune_forever(app: App) {
    let mut interval = tokio::time::interval(PRUNE_INTERVAL);
    interval.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    loop {
        interval.tick().await;
        match prune(&app, KEPT).await {
            Ok(0) => {}
            Ok(deleted) => tracing::debug!(deleted, "Pruned access events"),
            Err(error) => tracing::warn!(
                error = format!("{:#}", anyhow::Error::from(error)),
                "Failed to prune access events"
            ),
        }
    }
}

async fn prune(app: &App, kept: u32) -> Result<u64, StoreError> {
    let mut deleted = 0;
    loop {
        let mut snapshot = app.store.snapshot().await?;
        let Some(last) = access_events::nth_newest(&mut snapshot, kept).await? else {
            return Ok(deleted);
        };
        drop(snapshot);
        let mut change = app.store.begin_change(ActorId::ControlPlane).await?;
        let step = access_events::prune(&mut change, last, PRUNE_STEP).await?;
        change.commit_unaudited().await?;
        deleted += step;
        if step == 0 {
            return Ok(deleted);
        }
    }
}

#[cfg(test)]
mod tests {
    use adit_proto::{AccessEvent, EventId, FlowTuple, Protocol, Reason, Timestamp, Verdict};
    use uuid::Uuid;

    use super::*;
    use crate::{fixture::Fixture, store::access_events::AccessEventFilter};

    #[tokio::test]
    async fn the_newest_events_are_kept_also_among_those_of_one_instant() {
        let fixture = Fixture::new().await;
        let connector_id = ConnectorId::from_uuid(Uuid::from_u128(1));
        let events = (0..6).map(|index| event(connector_id, index)).collect();
        record(&fixture.app, connector_id, &AccessEventBatch { events }).await.unwrap();

        assert_eq!(prune(&fixture.app, 2).await.unwrap(), 4);
        assert_eq!(prune(&fixture.app, 2).await.unwrap(), 0);
        let mut snapshot = fixture.app.store.snapshot().await.unwrap();
        let filter = AccessEventFilter::default();
        let kept = access_events::list(&mut snapshot, &filter, None, 10).await.unwrap();
        assert_eq!(kept, [event(connector_id, 5), event(connector_id, 4)]);
    }

    fn event(connector_id: ConnectorId, index: u8) -> AccessEvent {
        AccessEvent {
            id: EventId::from_uuid(Uuid::from_u128(index.into())),
            at: Timestamp::from_millis(1_767_225_600_000),
            connector_id,
            device_id: adit_proto::DeviceId::from_uuid(Uuid::from_u128(2)),
            user_id: adit_proto::UserId::from_uuid(Uuid::from_u128(3)),
            resource_id: None,
            policy_id: None,
            flow: FlowTuple {
                protocol: Protocol::Icmp,
                source: "fd12::2".parse().unwrap(),
                source_port: 1,
                destination: "10.1.0.1".parse().unwrap(),
                destination_port: 1,
            },
            verdict: Verdict::Deny,
            reason: Reason::NoPolicyPermits,
            bytes_from_device: 0,
            bytes_to_device: 0,
            packets_from_device: 0,
            packets_to_device: 0,
            duration_ms: 0,
        }
    }
}
