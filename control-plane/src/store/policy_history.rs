//! The versions of the policies and policy tests, each with what it changed.

use std::fmt::Display;

use adit_proto::{
    PolicyId, PolicyTestId,
    api::{PolicyTestWrite, PolicyVersion, PolicyWrite},
};
use serde::Serialize;
use sqlx::{SqliteConnection, sqlite::SqliteRow};

use super::{
    Change, StoreError,
    row::{RowExt as _, to_integer, to_json},
};

/// How many versions are kept at least.
const KEPT: u64 = 1000;

/// How many more there are before the oldest are removed.
const SURPLUS: u64 = 100;

/// What policies and policy tests were like at a version.
#[derive(Debug, Default)]
pub(crate) struct Content {
    pub(crate) policies: Vec<(PolicyId, PolicyWrite)>,
    pub(crate) tests: Vec<(PolicyTestId, PolicyTestWrite)>,
}

/// The newest version.
pub(crate) async fn newest(connection: &mut SqliteConnection) -> Result<u64, StoreError> {
    let row = sqlx::query("SELECT max(version) AS version FROM policy_versions")
        .fetch_one(connection)
        .await?;
    row.unsigned("version")
}

/// Begins a version, whose number it gives.
pub(crate) async fn begin(
    change: &mut Change,
    operation: &'static str,
    reason: Option<&str>,
) -> Result<u64, StoreError> {
    let version = newest(change.connection()).await? + 1;
    let (actor, now) = (change.actor().to_string(), change.now());
    sqlx::query(
        "INSERT INTO policy_versions (version, actor, operation, reason, created_at)
         VALUES (?, ?, ?, ?, ?)",
    )
    .bind(to_integer(version))
    .bind(actor)
    .bind(operation)
    .bind(reason)
    .bind(now.as_millis())
    .execute(change.connection())
    .await?;
    if version.is_multiple_of(SURPLUS) {
        forget_before(change.connection(), version.saturating_sub(KEPT)).await?;
    }
    Ok(version)
}

/// Records what a version makes of an object; none when it is deleted.
pub(crate) async fn record(
    change: &mut Change,
    version: u64,
    id: impl Display,
    object: Option<&impl Serialize>,
) -> Result<(), StoreError> {
    sqlx::query("INSERT INTO policy_version_objects (object_id, version, object) VALUES (?, ?, ?)")
        .bind(id.to_string())
        .bind(to_integer(version))
        .bind(object.map(to_json))
        .execute(change.connection())
        .await?;
    Ok(())
}

/// Versions before `before`, newest first.
pub(crate) async fn list(
    connection: &mut SqliteConnection,
    before: Option<u64>,
    limit: u32,
) -> Result<Vec<PolicyVersion>, StoreError> {
    let rows = sqlx::query(
        "SELECT * FROM policy_versions WHERE (?1 IS NULL OR version < ?1)
         ORDER BY version DESC LIMIT ?2",
    )
    .bind(before.map(to_integer))
    .bind(limit)
    .fetch_all(connection)
    .await?;
    rows.iter().map(from_row).collect()
}

pub(crate) async fn find(
    connection: &mut SqliteConnection,
    version: u64,
) -> Result<Option<PolicyVersion>, StoreError> {
    let row = sqlx::query("SELECT * FROM policy_versions WHERE version = ?")
        .bind(to_integer(version))
        .fetch_optional(connection)
        .await?;
    row.as_ref().map(from_row).transpose()
}

/// What a version that is kept consisted of.
pub(crate) async fn content(
    connection: &mut SqliteConnection,
    version: u64,
) -> Result<Content, StoreError> {
    let rows = sqlx::query(
        "SELECT object_id, object FROM policy_version_objects AS this
         WHERE object IS NOT NULL AND version =
             (SELECT max(version) FROM policy_version_objects
              WHERE object_id = this.object_id AND version <= ?)
         ORDER BY object_id",
    )
    .bind(to_integer(version))
    .fetch_all(connection)
    .await?;
    let mut content = Content::default();
    for row in rows {
        match row.parsed::<PolicyId>("object_id") {
            Ok(id) => content.policies.push((id, row.json("object")?)),
            Err(_) => content.tests.push((row.parsed("object_id")?, row.json("object")?)),
        }
    }
    Ok(content)
}

/// Removes the versions before `oldest`, and of objects what only those need.
async fn forget_before(connection: &mut SqliteConnection, oldest: u64) -> Result<(), StoreError> {
    let oldest = to_integer(oldest);
    sqlx::query("DELETE FROM policy_versions WHERE version < ?")
        .bind(oldest)
        .execute(&mut *connection)
        .await?;
    sqlx::query(
        "DELETE FROM policy_version_objects AS this
         WHERE version < ?1 AND EXISTS
             (SELECT 1 FROM policy_version_objects AS later
              WHERE later.object_id = this.object_id
                AND later.version > this.version AND later.version <= ?1)",
    )
    .bind(oldest)
    .execute(&mut *connection)
    .await?;
    sqlx::query("DELETE FROM policy_version_objects WHERE version <= ? AND object IS NULL")
        .bind(oldest)
        .execute(&mut *connection)
        .await?;
    Ok(())
}

fn from_row(row: &SqliteRow) -> Result<PolicyVersion, StoreError> {
    Ok(PolicyVersion {
        version: row.unsigned("version")?,
        created_at: row.time("created_at")?,
        actor: row.text("actor")?,
        operation: row.text("operation")?,
        reason: row.text_option("reason")?,
    })
}
