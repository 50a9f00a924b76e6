//! Table `access_events`.

use std::{fmt, str::FromStr};

use adit_proto::{
    AccessEvent, DeviceId, EventId, FlowTuple, ResourceId, Timestamp, UserId, Verdict,
};
use sqlx::{QueryBuilder, Row as _, Sqlite, SqliteConnection, sqlite::SqliteRow};

use super::{
    Change, StoreError,
    row::{RowExt as _, to_integer, to_word},
};

/// Which events a list holds.
#[derive(Debug, Clone, Default)]
pub(crate) struct AccessEventFilter {
    pub(crate) device_id: Option<DeviceId>,
    pub(crate) user_id: Option<UserId>,
    pub(crate) resource_id: Option<ResourceId>,
    pub(crate) verdict: Option<Verdict>,
    /// At or after.
    pub(crate) since: Option<Timestamp>,
    /// Before.
    pub(crate) until: Option<Timestamp>,
}

/// Where a page begins: behind this event, on the way to older ones.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct AccessEventCursor {
    pub(crate) at: Timestamp,
    pub(crate) id: EventId,
}

impl fmt::Display for AccessEventCursor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}", self.at.as_millis(), self.id)
    }
}

impl FromStr for AccessEventCursor {
    type Err = StoreError;

    fn from_str(text: &str) -> Result<Self, StoreError> {
        let corrupt = || StoreError::Corrupt { column: "cursor" };
        let (at, id) = text.split_once('.').ok_or_else(corrupt)?;
        Ok(Self {
            at: Timestamp::from_millis(at.parse().map_err(|_error| corrupt())?),
            id: id.parse().map_err(|_error| corrupt())?,
        })
    }
}

/// Adds an event unless it is known.
pub(crate) async fn insert(change: &mut Change, event: &AccessEvent) -> Result<(), StoreError> {
    sqlx::query(
        "INSERT INTO access_events (id, at, connector_id, device_id, user_id, resource_id, \
         policy_id, protocol, source, source_port, destination, destination_port, verdict, reason, \
         bytes_from_device, bytes_to_device, packets_from_device, packets_to_device, duration_ms) \
         VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?) \
         ON CONFLICT (id) DO NOTHING",
    )
    .bind(event.id.to_string())
    .bind(event.at.as_millis())
    .bind(event.connector_id.to_string())
    .bind(event.device_id.to_string())
    .bind(event.user_id.to_string())
    .bind(event.resource_id.map(|id| id.to_string()))
    .bind(event.policy_id.map(|id| id.to_string()))
    .bind(to_word(&event.flow.protocol))
    .bind(event.flow.source.to_string())
    .bind(event.flow.source_port)
    .bind(event.flow.destination.to_string())
    .bind(event.flow.destination_port)
    .bind(to_word(&event.verdict))
    .bind(to_word(&event.reason))
    .bind(to_integer(event.bytes_from_device))
    .bind(to_integer(event.bytes_to_device))
    .bind(to_integer(event.packets_from_device))
    .bind(to_integer(event.packets_to_device))
    .bind(to_integer(event.duration_ms))
    .execute(change.connection())
    .await?;
    Ok(())
}

/// Newest first, from behind `after`.
pub(crate) async fn list(
    connection: &mut SqliteConnection,
    filter: &AccessEventFilter,
    after: Option<AccessEventCursor>,
    limit: u32,
) -> Result<Vec<AccessEvent>, StoreError> {
    // Built rather than `? IS NULL OR …`, so that the indices serve.
    let mut query = QueryBuilder::<Sqlite>::new("SELECT * FROM access_events WHERE true");
    if let Some(id) = filter.device_id {
        query.push(" AND device_id = ").push_bind(id.to_string());
    }
    if let Some(id) = filter.user_id {
        query.push(" AND user_id = ").push_bind(id.to_string());
    }
    if let Some(id) = filter.resource_id {
        query.push(" AND resource_id = ").push_bind(id.to_string());
    }
    if let Some(verdict) = filter.verdict {
        query.push(" AND verdict = ").push_bind(to_word(&verdict));
    }
    if let Some(since) = filter.since {
        query.push(" AND at >= ").push_bind(since.as_millis());
    }
    if let Some(until) = filter.until {
        query.push(" AND at < ").push_bind(until.as_millis());
    }
    if let Some(after) = after {
        query.push(" AND (at, id) < (").push_bind(after.at.as_millis());
        query.push(", ").push_bind(after.id.to_string()).push(")");
    }
    query.push(" ORDER BY at DESC, id DESC LIMIT ").push_bind(limit);
    let rows = query.build().fetch_all(connection).await?;
    rows.iter().map(record).collect()
}

/// The event at this place, counted from the newest, which is at 0.
pub(crate) async fn nth_newest(
    connection: &mut SqliteConnection,
    n: u32,
) -> Result<Option<AccessEventCursor>, StoreError> {
    let row =
        sqlx::query("SELECT at, id FROM access_events ORDER BY at DESC, id DESC LIMIT 1 OFFSET ?")
            .bind(n)
            .fetch_optional(connection)
            .await?;
    row.map(|row| Ok(AccessEventCursor { at: row.time("at")?, id: row.parsed("id")? })).transpose()
}

/// Removes at most `limit` events, oldest first, up to and with `last`; says how many.
pub(crate) async fn prune(
    change: &mut Change,
    last: AccessEventCursor,
    limit: u32,
) -> Result<u64, StoreError> {
    let result = sqlx::query(
        "DELETE FROM access_events WHERE id IN \
         (SELECT id FROM access_events WHERE (at, id) <= (?, ?) ORDER BY at, id LIMIT ?)",
    )
    .bind(last.at.as_millis())
    .bind(last.id.to_string())
    .bind(limit)
    .execute(change.connection())
    .await?;
    Ok(result.rows_affected())
}

fn record(row: &SqliteRow) -> Result<AccessEvent, StoreError> {
    Ok(AccessEvent {
        id: row.parsed("id")?,
        at: row.time("at")?,
        connector_id: row.parsed("connector_id")?,
        device_id: row.parsed("device_id")?,
        user_id: row.parsed("user_id")?,
        resource_id: row.parsed_option("resource_id")?,
        policy_id: row.parsed_option("policy_id")?,
        flow: FlowTuple {
            protocol: row.word("protocol")?,
            source: row.parsed("source")?,
            source_port: row.try_get("source_port")?,
            destination: row.parsed("destination")?,
            destination_port: row.try_get("destination_port")?,
        },
        verdict: row.word("verdict")?,
        reason: row.word("reason")?,
        bytes_from_device: row.unsigned("bytes_from_device")?,
        bytes_to_device: row.unsigned("bytes_to_device")?,
        packets_from_device: row.unsigned("packets_from_device")?,
        packets_to_device: row.unsigned("packets_to_device")?,
        duration_ms: row.unsigned("duration_ms")?,
    })
}
