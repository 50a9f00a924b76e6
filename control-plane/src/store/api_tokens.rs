//! API tokens, by the hash of their secret.

use adit_proto::{
    ApiTokenId, Timestamp,
    api::{ApiToken, Role},
};
use sqlx::{SqliteConnection, sqlite::SqliteRow};

use super::{
    Change, StoreError,
    row::{RowExt as _, to_json, to_word},
};

pub(crate) async fn insert(
    change: &mut Change,
    token: &ApiToken,
    secret_hash: &[u8; 32],
) -> Result<(), StoreError> {
    sqlx::query(
        "INSERT INTO api_tokens
         (id, name, description, role, scopes, secret_hash, expires_at, created_at)
         VALUES (?, ?, ?, ?, ?, ?, ?, ?)",
    )
    .bind(token.id.to_string())
    .bind(&token.name)
    .bind(&token.description)
    .bind(to_word(&token.role))
    .bind(token.scopes.as_ref().map(to_json))
    .bind(secret_hash.as_slice())
    .bind(token.expires_at.map(Timestamp::as_millis))
    .bind(token.created_at.as_millis())
    .execute(change.connection())
    .await?;
    Ok(())
}

/// The token with this secret. A secret that is unknown and one that is wrong are the same case,
/// and how long the look-up takes says nothing of any secret: what is compared is the hash.
pub(crate) async fn find_by_secret(
    connection: &mut SqliteConnection,
    secret_hash: &[u8; 32],
) -> Result<Option<ApiToken>, StoreError> {
    let row = sqlx::query("SELECT * FROM api_tokens WHERE secret_hash = ?")
        .bind(secret_hash.as_slice())
        .fetch_optional(connection)
        .await?;
    row.as_ref().map(from_row).transpose()
}

pub(crate) async fn find(
    connection: &mut SqliteConnection,
    id: ApiTokenId,
) -> Result<Option<ApiToken>, StoreError> {
    let row = sqlx::query("SELECT * FROM api_tokens WHERE id = ?")
        .bind(id.to_string())
        .fetch_optional(connection)
        .await?;
    row.as_ref().map(from_row).transpose()
}

/// Tokens after `after`, oldest first.
pub(crate) async fn list(
    connection: &mut SqliteConnection,
    name: Option<&str>,
    after: Option<ApiTokenId>,
    limit: u32,
) -> Result<Vec<ApiToken>, StoreError> {
    let rows = sqlx::query(
        "SELECT * FROM api_tokens WHERE (?1 IS NULL OR name = ?1) AND (?2 IS NULL OR id > ?2)
         ORDER BY id LIMIT ?3",
    )
    .bind(name)
    .bind(after.map(|id| id.to_string()))
    .bind(limit)
    .fetch_all(connection)
    .await?;
    rows.iter().map(from_row).collect()
}

/// Whether another token than `id` may do everything and is valid at `now`.
pub(crate) async fn other_owner_exists(
    connection: &mut SqliteConnection,
    id: ApiTokenId,
    now: Timestamp,
) -> Result<bool, StoreError> {
    let row = sqlx::query(
        "SELECT 1 FROM api_tokens
         WHERE id <> ? AND role = ? AND scopes IS NULL AND (expires_at IS NULL OR expires_at > ?)
         LIMIT 1",
    )
    .bind(id.to_string())
    .bind(to_word(&Role::Owner))
    .bind(now.as_millis())
    .fetch_optional(connection)
    .await?;
    Ok(row.is_some())
}

/// Writes down that the token was used now.
pub(crate) async fn mark_used(change: &mut Change, id: ApiTokenId) -> Result<(), StoreError> {
    let now = change.now();
    sqlx::query("UPDATE api_tokens SET last_used_at = ? WHERE id = ?")
        .bind(now.as_millis())
        .bind(id.to_string())
        .execute(change.connection())
        .await?;
    Ok(())
}

pub(crate) async fn remove(change: &mut Change, id: ApiTokenId) -> Result<(), StoreError> {
    sqlx::query("DELETE FROM api_tokens WHERE id = ?")
        .bind(id.to_string())
        .execute(change.connection())
        .await?;
    Ok(())
}

fn from_row(row: &SqliteRow) -> Result<ApiToken, StoreError> {
    Ok(ApiToken {
        id: row.parsed("id")?,
        name: row.text("name")?,
        description: row.text_option("description")?,
        role: row.word("role")?,
        scopes: row.json_option("scopes")?,
        expires_at: row.time_option("expires_at")?,
        last_used_at: row.time_option("last_used_at")?,
        created_at: row.time("created_at")?,
    })
}
