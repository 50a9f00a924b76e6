//! Sites.

use adit_proto::{SiteId, api::Site};
use sqlx::{SqliteConnection, sqlite::SqliteRow};

use super::{
    Change, StoreError, Versioned,
    row::{RowExt as _, to_integer},
};

pub(crate) async fn insert(change: &mut Change, site: &Site) -> Result<(), StoreError> {
    sqlx::query(
        "INSERT INTO sites (id, name, version, created_at, updated_at) VALUES (?, ?, 1, ?, ?)",
    )
    .bind(site.id.to_string())
    .bind(&site.name)
    .bind(site.created_at.as_millis())
    .bind(site.updated_at.as_millis())
    .execute(change.connection())
    .await?;
    Ok(())
}

pub(crate) async fn find(
    connection: &mut SqliteConnection,
    id: SiteId,
) -> Result<Option<Versioned<Site>>, StoreError> {
    let row = sqlx::query("SELECT * FROM sites WHERE id = ?")
        .bind(id.to_string())
        .fetch_optional(connection)
        .await?;
    row.as_ref().map(versioned).transpose()
}

/// Sites after `after`, oldest first.
pub(crate) async fn list(
    connection: &mut SqliteConnection,
    name: Option<&str>,
    after: Option<SiteId>,
    limit: u32,
) -> Result<Vec<Site>, StoreError> {
    let rows = sqlx::query(
        "SELECT * FROM sites WHERE (?1 IS NULL OR name = ?1) AND (?2 IS NULL OR id > ?2)
         ORDER BY id LIMIT ?3",
    )
    .bind(name)
    .bind(after.map(|id| id.to_string()))
    .bind(limit)
    .fetch_all(connection)
    .await?;
    rows.iter().map(from_row).collect()
}

/// Every site, in the order of their ids.
pub(crate) async fn all(connection: &mut SqliteConnection) -> Result<Vec<Site>, StoreError> {
    let rows = sqlx::query("SELECT * FROM sites ORDER BY id").fetch_all(connection).await?;
    rows.iter().map(from_row).collect()
}

/// Replaces what can be changed of a site that exists.
pub(crate) async fn replace(change: &mut Change, site: &Versioned<Site>) -> Result<(), StoreError> {
    sqlx::query("UPDATE sites SET name = ?, version = ?, updated_at = ? WHERE id = ?")
        .bind(&site.object.name)
        .bind(to_integer(site.version))
        .bind(site.object.updated_at.as_millis())
        .bind(site.object.id.to_string())
        .execute(change.connection())
        .await?;
    Ok(())
}

/// Deletes a site and its connector tokens; refused while it has resources or connectors.
pub(crate) async fn remove(change: &mut Change, id: SiteId) -> Result<(), StoreError> {
    sqlx::query("DELETE FROM sites WHERE id = ?")
        .bind(id.to_string())
        .execute(change.connection())
        .await?;
    Ok(())
}

fn versioned(row: &SqliteRow) -> Result<Versioned<Site>, StoreError> {
    Ok(Versioned { version: row.unsigned("version")?, object: from_row(row)? })
}

fn from_row(row: &SqliteRow) -> Result<Site, StoreError> {
    Ok(Site {
        id: row.parsed("id")?,
        name: row.text("name")?,
        created_at: row.time("created_at")?,
        updated_at: row.time("updated_at")?,
    })
}
