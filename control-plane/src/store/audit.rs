//! The audit log: append-only, each event chained by hash to the one before.

use std::collections::BTreeMap;

use adit_proto::{Timestamp, api::AuditEvent, sha256_base64url};
use serde_json::{Value, json};
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

/// Whether the log is whole.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Chain {
    /// Every event follows from the one before.
    Whole {
        /// How many there are.
        events: u64,
    },
    /// The event with this sequence was changed, or one before it is missing.
    Broken {
        /// Where the chain breaks.
        sequence: u64,
    },
}

pub(super) async fn append(
    connection: &mut SqliteConnection,
    entry: &Entry,
) -> Result<(), StoreError> {
    let last =
        sqlx::query("SELECT sequence, hash FROM audit_events ORDER BY sequence DESC LIMIT 1")
            .fetch_optional(&mut *connection)
            .await?;
    let (sequence, previous_hash) = match last {
        Some(row) => (row.unsigned("sequence")? + 1, row.text("hash")?),
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
    event.hash = chain_hash(&previous_hash, &event);
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

/// Walks the whole chain.
pub(crate) async fn verify(connection: &mut SqliteConnection) -> Result<Chain, StoreError> {
    /// Few enough to hold in memory, enough to be quick.
    const STEP: i64 = 1000;
    let mut previous_hash = String::new();
    let mut sequence = 0;
    loop {
        let rows =
            sqlx::query("SELECT * FROM audit_events WHERE sequence > ? ORDER BY sequence LIMIT ?")
                .bind(to_integer(sequence))
                .bind(STEP)
                .fetch_all(&mut *connection)
                .await?;
        if rows.is_empty() {
            return Ok(Chain::Whole { events: sequence });
        }
        for row in &rows {
            // Read before anything is judged: a row that does not parse was tampered with.
            let event = match from_row(row) {
                Ok(event) => event,
                Err(StoreError::Corrupt { .. }) => {
                    return Ok(Chain::Broken { sequence: row.unsigned("sequence")? });
                }
                Err(error) => return Err(error),
            };
            if event.sequence != sequence + 1 || event.hash != chain_hash(&previous_hash, &event) {
                return Ok(Chain::Broken { sequence: event.sequence });
            }
            sequence = event.sequence;
            previous_hash = event.hash;
        }
    }
}

/// SHA-256 over the previous hash, a line feed, and the event as a JSON array without white space
/// and with members of objects in alphabetical order: whoever holds the events can check the chain.
fn chain_hash(previous_hash: &str, event: &AuditEvent) -> String {
    let content = json!([
        event.sequence,
        event.at,
        event.actor,
        event.operation,
        event.object_id,
        event.object.as_ref().map(alphabetical)
    ]);
    sha256_base64url(format!("{previous_hash}\n{content}").as_bytes())
}

/// The same value with the members of its objects in alphabetical order.
fn alphabetical(value: &Value) -> Value {
    match value {
        Value::Object(members) => {
            let sorted: BTreeMap<_, _> =
                members.iter().map(|(name, member)| (name.clone(), alphabetical(member))).collect();
            Value::Object(sorted.into_iter().collect())
        }
        Value::Array(items) => items.iter().map(alphabetical).collect(),
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => value.clone(),
    }
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

    async fn verify_after(statements: &[&'static str]) -> Chain {
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
        verify(change.connection()).await.unwrap()
    }

    #[tokio::test]
    async fn an_untouched_log_is_whole() {
        assert_eq!(verify_after(&[]).await, Chain::Whole { events: 4 });
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
                Chain::Broken { sequence: 2 },
                "{statement}"
            );
        }
    }

    #[tokio::test]
    async fn a_missing_event_breaks_the_chain() {
        let removed = verify_after(&["DELETE FROM audit_events WHERE sequence = 2"]).await;
        assert_eq!(removed, Chain::Broken { sequence: 3 });
        let renumbered = verify_after(&[
            "DELETE FROM audit_events WHERE sequence = 2",
            "UPDATE audit_events SET sequence = sequence - 1 WHERE sequence > 2",
        ])
        .await;
        assert_eq!(renumbered, Chain::Broken { sequence: 2 });
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
