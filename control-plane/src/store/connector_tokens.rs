//! Table `connector_tokens`.

use adit_proto::{ConnectorTokenId, SiteId, Timestamp, api::ConnectorToken};
use sqlx::{SqliteConnection, sqlite::SqliteRow};

use super::{Change, StoreError, row::RowExt as _};

pub(crate) async fn insert(
    change: &mut Change,
    token: &ConnectorToken,
    digest: &[u8; 32],
) -> Result<(), StoreError> {
    sqlx::query(
        "INSERT INTO connector_tokens (id, name, site_id, secret_hash, expires_at, created_at) \
         VALUES (?, ?, ?, ?, ?, ?)",
    )
    .bind(token.id.to_string())
    .bind(&token.name)
    .bind(token.site_id.to_string())
    .bind(digest.as_slice())
    .bind(token.expires_at.as_millis())
    .bind(token.created_at.as_millis())
    .execute(change.connection())
    .await?;
    Ok(())
}

pub(crate) async fn find(
    connection: &mut SqliteConnection,
    id: ConnectorTokenId,
) -> Result<Option<ConnectorToken>, StoreError> {
    let row = sqlx::query("SELECT * FROM connector_tokens WHERE id = ?")
        .bind(id.to_string())
        .fetch_optional(connection)
        .await?;
    row.as_ref().map(record).transpose()
}

/// Whether a secret is worth the write lock.
pub(crate) async fn is_known(
    connection: &mut SqliteConnection,
    digest: &[u8; 32],
) -> Result<bool, StoreError> {
    let found: Option<i64> =
        sqlx::query_scalar("SELECT 1 FROM connector_tokens WHERE secret_hash = ?")
            .bind(digest.as_slice())
            .fetch_optional(connection)
            .await?;
    Ok(found.is_some())
}

/// Takes a token that has not expired out of the store: whoever gets it may join.
pub(crate) async fn consume(
    change: &mut Change,
    digest: &[u8; 32],
    now: Timestamp,
) -> Result<Option<ConnectorToken>, StoreError> {
    let row = sqlx::query(
        "DELETE FROM connector_tokens WHERE secret_hash = ? AND expires_at > ? RETURNING *",
    )
    .bind(digest.as_slice())
    .bind(now.as_millis())
    .fetch_optional(change.connection())
    .await?;
    row.as_ref().map(record).transpose()
}

/// Of one site, oldest first, from behind `after`.
pub(crate) async fn list(
    connection: &mut SqliteConnection,
    site_id: SiteId,
    name: Option<&str>,
    after: Option<ConnectorTokenId>,
    limit: u32,
) -> Result<Vec<ConnectorToken>, StoreError> {
    let rows = sqlx::query(
        "SELECT * FROM connector_tokens WHERE site_id = ?1 AND id > ?2 \
         AND (?3 IS NULL OR name = ?3) ORDER BY id LIMIT ?4",
    )
    .bind(site_id.to_string())
    .bind(after.map(|id| id.to_string()).unwrap_or_default())
    .bind(name)
    .bind(limit)
    .fetch_all(connection)
    .await?;
    rows.iter().map(record).collect()
}

pub(crate) async fn remove(change: &mut Change, id: ConnectorTokenId) -> Result<(), StoreError> {
    sqlx::query("DELETE FROM connector_tokens WHERE id = ?")
        .bind(id.to_string())
        .execute(change.connection())
        .await?;
    Ok(())
}

fn record(row: &SqliteRow) -> Result<ConnectorToken, StoreError> {
    Ok(ConnectorToken {
        id: row.parsed("id")?,
        name: row.text("name")?,
        site_id: row.parsed("site_id")?,
        expires_at: row.time("expires_at")?,
        created_at: row.time("created_at")?,
    })
}
