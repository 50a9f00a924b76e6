//! Table `enrollment_keys`.

use adit_proto::{EnrollmentKeyId, Timestamp, UserId, api::EnrollmentKey};
use sqlx::{Row as _, SqliteConnection, sqlite::SqliteRow};

use super::{Change, StoreError, Versioned, row::RowExt as _};

pub(crate) async fn insert(
    change: &mut Change,
    key: &EnrollmentKey,
    digest: &[u8; 32],
) -> Result<(), StoreError> {
    sqlx::query(
        "INSERT INTO enrollment_keys (id, name, user_id, secret_hash, uses_left, approved, \
         expires_at, version, created_at) VALUES (?, ?, ?, ?, ?, ?, ?, 1, ?)",
    )
    .bind(key.id.to_string())
    .bind(&key.name)
    .bind(key.user_id.to_string())
    .bind(digest.as_slice())
    .bind(key.uses_left)
    .bind(key.approved)
    .bind(key.expires_at.as_millis())
    .bind(key.created_at.as_millis())
    .execute(change.connection())
    .await?;
    Ok(())
}

pub(crate) async fn find(
    connection: &mut SqliteConnection,
    id: EnrollmentKeyId,
) -> Result<Option<Versioned<EnrollmentKey>>, StoreError> {
    let row = sqlx::query("SELECT * FROM enrollment_keys WHERE id = ?")
        .bind(id.to_string())
        .fetch_optional(connection)
        .await?;
    row.as_ref()
        .map(|row| Ok(Versioned { version: row.unsigned("version")?, object: record(row)? }))
        .transpose()
}

/// Whether a secret is worth the write lock.
pub(crate) async fn is_known(
    connection: &mut SqliteConnection,
    digest: &[u8; 32],
) -> Result<bool, StoreError> {
    let found: Option<i64> =
        sqlx::query_scalar("SELECT 1 FROM enrollment_keys WHERE secret_hash = ?")
            .bind(digest.as_slice())
            .fetch_optional(connection)
            .await?;
    Ok(found.is_some())
}

/// Takes one use of a key that has one left and has not expired, and whose user is not disabled.
pub(crate) async fn consume(
    change: &mut Change,
    digest: &[u8; 32],
    now: Timestamp,
) -> Result<Option<EnrollmentKey>, StoreError> {
    let row = sqlx::query(
        "UPDATE enrollment_keys SET uses_left = uses_left - 1, version = version + 1 \
         WHERE secret_hash = ? AND expires_at > ? AND uses_left > 0 \
         AND EXISTS (SELECT 1 FROM users WHERE users.id = user_id AND users.disabled = 0) \
         RETURNING *",
    )
    .bind(digest.as_slice())
    .bind(now.as_millis())
    .fetch_optional(change.connection())
    .await?;
    row.as_ref().map(record).transpose()
}

/// Oldest first, from behind `after`.
pub(crate) async fn list(
    connection: &mut SqliteConnection,
    name: Option<&str>,
    user_id: Option<UserId>,
    after: Option<EnrollmentKeyId>,
    limit: u32,
) -> Result<Vec<EnrollmentKey>, StoreError> {
    let rows = sqlx::query(
        "SELECT * FROM enrollment_keys WHERE id > ?1 AND (?2 IS NULL OR name = ?2) \
         AND (?3 IS NULL OR user_id = ?3) ORDER BY id LIMIT ?4",
    )
    .bind(after.map(|id| id.to_string()).unwrap_or_default())
    .bind(name)
    .bind(user_id.map(|id| id.to_string()))
    .bind(limit)
    .fetch_all(connection)
    .await?;
    rows.iter().map(record).collect()
}

pub(crate) async fn remove(change: &mut Change, id: EnrollmentKeyId) -> Result<(), StoreError> {
    sqlx::query("DELETE FROM enrollment_keys WHERE id = ?")
        .bind(id.to_string())
        .execute(change.connection())
        .await?;
    Ok(())
}

fn record(row: &SqliteRow) -> Result<EnrollmentKey, StoreError> {
    Ok(EnrollmentKey {
        id: row.parsed("id")?,
        name: row.text("name")?,
        user_id: row.parsed("user_id")?,
        uses_left: row.try_get("uses_left")?,
        approved: row.flag("approved")?,
        expires_at: row.time("expires_at")?,
        created_at: row.time("created_at")?,
    })
}
