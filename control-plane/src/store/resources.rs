//! Resources.

use adit_proto::{ResourceId, SiteId, api::Resource};
use sqlx::{SqliteConnection, sqlite::SqliteRow};

use super::{
    Change, StoreError, Versioned,
    row::{RowExt as _, to_integer, to_json},
};

pub(crate) async fn insert(change: &mut Change, resource: &Resource) -> Result<(), StoreError> {
    sqlx::query(
        "INSERT INTO resources (id, name, site_id, addresses, filters, tags, version, created_at,
             updated_at)
         VALUES (?, ?, ?, ?, ?, ?, 1, ?, ?)",
    )
    .bind(resource.id.to_string())
    .bind(&resource.name)
    .bind(resource.site_id.to_string())
    .bind(to_json(&resource.addresses))
    .bind(to_json(&resource.filters))
    .bind(to_json(&resource.tags))
    .bind(resource.created_at.as_millis())
    .bind(resource.updated_at.as_millis())
    .execute(change.connection())
    .await?;
    Ok(())
}

pub(crate) async fn find(
    connection: &mut SqliteConnection,
    id: ResourceId,
) -> Result<Option<Versioned<Resource>>, StoreError> {
    let row = sqlx::query("SELECT * FROM resources WHERE id = ?")
        .bind(id.to_string())
        .fetch_optional(connection)
        .await?;
    row.as_ref().map(versioned).transpose()
}

/// Which resources to list.
#[derive(Debug, Default)]
pub(crate) struct Filter {
    pub(crate) name: Option<String>,
    pub(crate) site_id: Option<SiteId>,
    pub(crate) tag: Option<String>,
}

/// Resources after `after`, oldest first.
pub(crate) async fn list(
    connection: &mut SqliteConnection,
    filter: &Filter,
    after: Option<ResourceId>,
    limit: u32,
) -> Result<Vec<Resource>, StoreError> {
    let rows = sqlx::query(
        "SELECT * FROM resources
         WHERE (?1 IS NULL OR name = ?1) AND (?2 IS NULL OR site_id = ?2)
           AND (?3 IS NULL OR EXISTS (SELECT 1 FROM json_each(tags) WHERE value = ?3))
           AND (?4 IS NULL OR id > ?4)
         ORDER BY id LIMIT ?5",
    )
    .bind(&filter.name)
    .bind(filter.site_id.map(|id| id.to_string()))
    .bind(&filter.tag)
    .bind(after.map(|id| id.to_string()))
    .bind(limit)
    .fetch_all(connection)
    .await?;
    rows.iter().map(from_row).collect()
}

/// Every resource, in the order of their ids.
pub(crate) async fn all(connection: &mut SqliteConnection) -> Result<Vec<Resource>, StoreError> {
    let rows = sqlx::query("SELECT * FROM resources ORDER BY id").fetch_all(connection).await?;
    rows.iter().map(from_row).collect()
}

/// The resources of a site, in the order of their ids.
pub(crate) async fn of_site(
    connection: &mut SqliteConnection,
    site_id: SiteId,
) -> Result<Vec<Resource>, StoreError> {
    let rows = sqlx::query("SELECT * FROM resources WHERE site_id = ? ORDER BY id")
        .bind(site_id.to_string())
        .fetch_all(connection)
        .await?;
    rows.iter().map(from_row).collect()
}

/// Replaces what can be changed of a resource that exists.
pub(crate) async fn replace(
    change: &mut Change,
    resource: &Versioned<Resource>,
) -> Result<(), StoreError> {
    sqlx::query(
        "UPDATE resources SET name = ?, addresses = ?, filters = ?, tags = ?, version = ?,
             updated_at = ?
         WHERE id = ?",
    )
    .bind(&resource.object.name)
    .bind(to_json(&resource.object.addresses))
    .bind(to_json(&resource.object.filters))
    .bind(to_json(&resource.object.tags))
    .bind(to_integer(resource.version))
    .bind(resource.object.updated_at.as_millis())
    .bind(resource.object.id.to_string())
    .execute(change.connection())
    .await?;
    Ok(())
}

pub(crate) async fn remove(change: &mut Change, id: ResourceId) -> Result<(), StoreError> {
    sqlx::query("DELETE FROM resources WHERE id = ?")
        .bind(id.to_string())
        .execute(change.connection())
        .await?;
    Ok(())
}

fn versioned(row: &SqliteRow) -> Result<Versioned<Resource>, StoreError> {
    Ok(Versioned { version: row.unsigned("version")?, object: from_row(row)? })
}

fn from_row(row: &SqliteRow) -> Result<Resource, StoreError> {
    Ok(Resource {
        id: row.parsed("id")?,
        name: row.text("name")?,
        site_id: row.parsed("site_id")?,
        addresses: row.json("addresses")?,
        filters: row.json("filters")?,
        tags: row.json("tags")?,
        created_at: row.time("created_at")?,
        updated_at: row.time("updated_at")?,
    })
}
