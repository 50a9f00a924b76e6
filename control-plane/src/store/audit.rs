//! The audit log: append-only, each event chained by hash to the one before.

use adit_proto::{
    AuditChain, AuditFault, AuditHead, AuditSpan, Timestamp, api::AuditEvent, audit_hash,
};
use serde_json::Value;
use sqlx::{Row as _, SqliteConnection, sqlite::SqliteRow};

use super::{
    StoreError,
    row::{RowExt as _, to_integer},
};

/// What a change says of itself.
#[derive(Debug)]
pub(super) struct Entry {
    pub(super) at: Timestamp,
    pub(super) actor: String,
    pub(super) operation: &'static str,
    pub(super) object_id: String,
    pub(super) object: Option<Value>,
}

pub(super) async fn append(
    connection: &mut SqliteConnection,
    entry: &Entry,
) -> Result<(), StoreError> {
    let (sequence, previous_hash) = match last(connection).await? {
        Some((sequence, hash)) => (sequence + 1, hash),
        None => (1, String::new()),
    };
    let mut event = AuditEvent {
        sequence,
        at: entry.at,
        actor: entry.actor.clone(),
        operation: entry.operation.to_owned(),
        object_id: entry.object_id.clone(),
        object: entry.object.clone(),
        hash: String::new(),
    };
    event.hash = audit_hash(&previous_hash, &event);
    sqlx::query(
        "INSERT INTO audit_events (sequence, at, actor, operation, object_id, object, hash)
         VALUES (?, ?, ?, ?, ?, ?, ?)",
    )
    .bind(to_integer(event.sequence))
    .bind(event.at.as_millis())
    .bind(event.actor)
    .bind(event.operation)
    .bind(event.object_id)
    .bind(event.object.map(|object| object.to_string()))
    .bind(event.hash)
    .execute(connection)
    .await?;
    Ok(())
}

/// Which events to list.
#[derive(Debug, Default)]
pub(crate) struct Filter {
    pub(crate) actor: Option<String>,
    pub(crate) operation: Option<String>,
    pub(crate) object_id: Option<String>,
}

/// Events with a smaller sequence than `before`, newest first.
pub(crate) async fn list(
    connection: &mut SqliteConnection,
    filter: &Filter,
    before: Option<u64>,
    limit: u32,
) -> Result<Vec<AuditEvent>, StoreError> {
    let rows = sqlx::query(
        "SELECT * FROM audit_events
         WHERE (?1 IS NULL OR sequence < ?1) AND (?2 IS NULL OR actor = ?2)
           AND (?3 IS NULL OR operation = ?3) AND (?4 IS NULL OR object_id = ?4)
         ORDER BY sequence DESC LIMIT ?5",
    )
    .bind(before.map(to_integer))
    .bind(&filter.actor)
    .bind(&filter.operation)
    .bind(&filter.object_id)
    .bind(limit)
    .fetch_all(connection)
    .await?;
    rows.iter().map(from_row).collect()
}

/// Events with a greater sequence than `after`, oldest first.
pub(crate) async fn read_after(
    connection: &mut SqliteConnection,
    after: u64,
    limit: u32,
) -> Result<Vec<AuditEvent>, StoreError> {
    let rows = rows_after(connection, after, limit).await?;
    rows.iter().map(from_row).collect()
}

/// The sequence of the last event before `time`, zero when there is none.
pub(crate) async fn last_before(
    connection: &mut SqliteConnection,
    time: Timestamp,
) -> Result<u64, StoreError> {
    let row =
        sqlx::query("SELECT coalesce(max(sequence), 0) AS sequence FROM audit_events WHERE at < ?")
            .bind(time.as_millis())
            .fetch_one(connection)
            .await?;
    row.unsigned("sequence")
}

/// The end of the log, if it has begun.
pub(crate) async fn head(
    connection: &mut SqliteConnection,
    now: Timestamp,
) -> Result<Option<AuditHead>, StoreError> {
    let last = last(connection).await?;
    Ok(last.map(|(sequence, hash)| AuditHead { sequence, hash, at: now }))
}

/// Whether the log holds exactly the event that the head names.
pub(crate) async fn agrees_with(
    connection: &mut SqliteConnection,
    head: &AuditHead,
) -> Result<bool, StoreError> {
    let row = sqlx::query("SELECT 1 FROM audit_events WHERE sequence = ? AND hash = ?")
        .bind(to_integer(head.sequence))
        .bind(&head.hash)
        .fetch_optional(connection)
        .await?;
    Ok(row.is_some())
}

/// Walks the whole log. Says what is wrong with it, if anything.
pub(crate) async fn verify(
    connection: &mut SqliteConnection,
    mut chain: AuditChain,
) -> Result<Result<AuditSpan, AuditFault>, StoreError> {
    let mut after = 0;
    loop {
        let rows = rows_after(connection, after, STEP).await?;
        if rows.is_empty() {
            return Ok(chain.finish());
        }
        for row in &rows {
            let sequence = row.unsigned("sequence")?;
            let checked = match from_row(row) {
                Ok(event) => chain.handle_event(&event),
                // A row that does not parse was tampered with.
                Err(StoreError::Corrupt { .. }) => Err(AuditFault::Changed { sequence }),
                Err(error) => return Err(error),
            };
            if let Err(fault) = checked {
                return Ok(Err(fault));
            }
            after = sequence;
        }
    }
}

/// Few enough events to hold in memory, enough to be quick.
pub(crate) const STEP: u32 = 1000;

async fn rows_after(
    connection: &mut SqliteConnection,
    after: u64,
    limit: u32,
) -> Result<Vec<SqliteRow>, StoreError> {
    let rows =
        sqlx::query("SELECT * FROM audit_events WHERE sequence > ? ORDER BY sequence LIMIT ?")
            .bind(to_integer(after))
            .bind(limit)
            .fetch_all(connection)
            .await?;
    Ok(rows)
}

async fn last(connection: &mut SqliteConnection) -> Result<Option<(u64, String)>, StoreError> {
    let row = sqlx::query("SELECT sequence, hash FROM audit_events ORDER BY sequence DESC LIMIT 1")
        .fetch_optional(connection)
        .await?;
    row.map(|row| Ok((row.unsigned("sequence")?, row.text("hash")?))).transpose()
}

fn from_row(row: &SqliteRow) -> Result<AuditEvent, StoreError> {
    let object = row
        .try_get::<Option<&str>, _>("object")?
        .map(|text| {
            serde_json::from_str(text).map_err(|_error| StoreError::Corrupt { column: "object" })
        })
        .transpose()?;
    Ok(AuditEvent {
        sequence: row.unsigned("sequence")?,
        at: row.time("at")?,
        actor: row.text("actor")?,
        operation: row.text("operation")?,
        object_id: row.text("object_id")?,
        object,
        hash: row.text("hash")?,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fixture::Fixture;

    async fn verify_after(statements: &[&'static str]) -> Result<AuditSpan, AuditFault> {
        let fixture = Fixture::new().await;
        for name in ["ada", "bob", "eve"] {
            fixture.user(name).await;
        }
        let mut change =
            fixture.app.store.begin_change(super::super::ActorId::ControlPlane).await.unwrap();
        for trigger in ["changed", "deleted"] {
            let drop = format!("DROP TRIGGER audit_events_are_not_{trigger}");
            let drop = sqlx::AssertSqlSafe(drop);
            sqlx::query(drop).execute(change.connection()).await.unwrap();
        }
        for statement in statements {
            sqlx::query(*statement).execute(change.connection()).await.unwrap();
        }
        verify(change.connection(), AuditChain::from_first([])).await.unwrap()
    }

    #[tokio::test]
    async fn an_untouched_log_is_whole() {
        let span = AuditSpan { first: 1, last: 4, anchored: true };
        assert_eq!(verify_after(&[]).await, Ok(span));
    }

    #[tokio::test]
    async fn each_changed_column_breaks_the_chain() {
        for statement in [
            "UPDATE audit_events SET actor = 'usr_x' WHERE sequence = 2",
            "UPDATE audit_events SET at = at + 1 WHERE sequence = 2",
            "UPDATE audit_events SET operation = 'user.replace' WHERE sequence = 2",
            "UPDATE audit_events SET object_id = 'usr_x' WHERE sequence = 2",
            "UPDATE audit_events SET object = NULL WHERE sequence = 2",
            "UPDATE audit_events SET object = 'no json' WHERE sequence = 2",
            "UPDATE audit_events SET hash = 'x' WHERE sequence = 2",
        ] {
            assert_eq!(
                verify_after(&[statement]).await,
                Err(AuditFault::Changed { sequence: 2 }),
                "{statement}"
            );
        }
    }

    #[tokio::test]
    async fn a_missing_event_breaks_the_chain() {
        let removed = verify_after(&["DELETE FROM audit_events WHERE sequence = 2"]).await;
        assert_eq!(removed, Err(AuditFault::Removed { sequence: 2 }));
        let renumbered = verify_after(&[
            "DELETE FROM audit_events WHERE sequence = 2",
            "UPDATE audit_events SET sequence = sequence - 1 WHERE sequence > 2",
        ])
        .await;
        assert_eq!(renumbered, Err(AuditFault::Changed { sequence: 2 }));
    }

    #[tokio::test]
    async fn the_log_is_append_only() {
        let fixture = Fixture::new().await;
        for statement in ["DELETE FROM audit_events", "UPDATE audit_events SET actor = 'x'"] {
            let mut change =
                fixture.app.store.begin_change(super::super::ActorId::ControlPlane).await.unwrap();
            sqlx::query(statement).execute(change.connection()).await.unwrap_err();
        }
    }
}
