//! Table `user_sessions`.

use adit_proto::{DeviceId, Timestamp, UserId, UserSessionId, api::UserSession};
use sqlx::{SqliteConnection, sqlite::SqliteRow};

use super::{
    Change, StoreError, Versioned,
    row::{RowExt as _, to_json},
};

/// Which sessions a list holds.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct UserSessionFilter {
    pub(crate) user_id: Option<UserId>,
    pub(crate) device_id: Option<DeviceId>,
}

/// Makes this the device's session, in place of the one before.
pub(crate) async fn replace(change: &mut Change, session: &UserSession) -> Result<(), StoreError> {
    sqlx::query("DELETE FROM user_sessions WHERE device_id = ?")
        .bind(session.device_id.to_string())
        .execute(change.connection())
        .await?;
    sqlx::query(
        "INSERT INTO user_sessions (id, device_id, user_id, identity_provider_id, \
         authenticated_at, authentication_methods, ends_at, version) \
         VALUES (?, ?, ?, ?, ?, ?, ?, 1)",
    )
    .bind(session.id.to_string())
    .bind(session.device_id.to_string())
    .bind(session.user_id.to_string())
    .bind(session.identity_provider_id.map(|id| id.to_string()))
    .bind(session.authenticated_at.as_millis())
    .bind(to_json(&session.authentication_methods))
    .bind(session.ends_at.map(Timestamp::as_millis))
    .execute(change.connection())
    .await?;
    Ok(())
}

pub(crate) async fn find(
    connection: &mut SqliteConnection,
    id: UserSessionId,
) -> Result<Option<Versioned<UserSession>>, StoreError> {
    let row = sqlx::query("SELECT * FROM user_sessions WHERE id = ?")
        .bind(id.to_string())
        .fetch_optional(connection)
        .await?;
    row.as_ref().map(versioned).transpose()
}

/// The session of a device; none if nobody ever signed in on it.
pub(crate) async fn of_device(
    connection: &mut SqliteConnection,
    device_id: DeviceId,
) -> Result<Option<Versioned<UserSession>>, StoreError> {
    let row = sqlx::query("SELECT * FROM user_sessions WHERE device_id = ?")
        .bind(device_id.to_string())
        .fetch_optional(connection)
        .await?;
    row.as_ref().map(versioned).transpose()
}

/// Oldest first, from behind `after`.
pub(crate) async fn list(
    connection: &mut SqliteConnection,
    filter: UserSessionFilter,
    after: Option<UserSessionId>,
    limit: u32,
) -> Result<Vec<UserSession>, StoreError> {
    let rows = sqlx::query(
        "SELECT * FROM user_sessions WHERE id > ?1 AND (?2 IS NULL OR user_id = ?2) \
         AND (?3 IS NULL OR device_id = ?3) ORDER BY id LIMIT ?4",
    )
    .bind(after.map(|id| id.to_string()).unwrap_or_default())
    .bind(filter.user_id.map(|id| id.to_string()))
    .bind(filter.device_id.map(|id| id.to_string()))
    .bind(limit)
    .fetch_all(connection)
    .await?;
    rows.iter().map(from_row).collect()
}

/// Ends a session that has not ended.
pub(crate) async fn end(
    change: &mut Change,
    id: UserSessionId,
    ended_at: Timestamp,
) -> Result<(), StoreError> {
    sqlx::query("UPDATE user_sessions SET ended_at = ?, version = version + 1 WHERE id = ?")
        .bind(ended_at.as_millis())
        .bind(id.to_string())
        .execute(change.connection())
        .await?;
    Ok(())
}

fn versioned(row: &SqliteRow) -> Result<Versioned<UserSession>, StoreError> {
    Ok(Versioned { version: row.unsigned("version")?, object: from_row(row)? })
}

fn from_row(row: &SqliteRow) -> Result<UserSession, StoreError> {
    Ok(UserSession {
        id: row.parsed("id")?,
        device_id: row.parsed("device_id")?,
        user_id: row.parsed("user_id")?,
        identity_provider_id: row.parsed_option("identity_provider_id")?,
        authenticated_at: row.time("authenticated_at")?,
        authentication_methods: row.json("authentication_methods")?,
        ends_at: row.time_option("ends_at")?,
        ended_at: row.time_option("ended_at")?,
    })
}
