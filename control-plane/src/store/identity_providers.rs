//! Table `identity_providers`.

use adit_proto::{IdentityProviderId, Timestamp};
use sqlx::{Row as _, SqliteConnection, sqlite::SqliteRow};

use super::{
    Change, StoreError, Versioned,
    row::{RowExt as _, to_integer, to_json},
};

/// A provider as it is kept.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct ProviderRecord {
    pub(crate) id: IdentityProviderId,
    pub(crate) name: String,
    pub(crate) issuer: String,
    pub(crate) client_id: String,
    pub(crate) sealed_client_secret: Option<Vec<u8>>,
    pub(crate) groups_claim: Option<String>,
    pub(crate) scopes: Vec<String>,
    pub(crate) created_at: Timestamp,
    pub(crate) updated_at: Timestamp,
}

pub(crate) async fn insert(
    change: &mut Change,
    provider: &ProviderRecord,
) -> Result<(), StoreError> {
    sqlx::query(
        "INSERT INTO identity_providers (id, name, issuer, client_id, sealed_client_secret, \
         groups_claim, scopes, version, created_at, updated_at) \
         VALUES (?, ?, ?, ?, ?, ?, ?, 1, ?, ?)",
    )
    .bind(provider.id.to_string())
    .bind(&provider.name)
    .bind(&provider.issuer)
    .bind(&provider.client_id)
    .bind(provider.sealed_client_secret.as_deref())
    .bind(&provider.groups_claim)
    .bind(to_json(&provider.scopes))
    .bind(provider.created_at.as_millis())
    .bind(provider.updated_at.as_millis())
    .execute(change.connection())
    .await?;
    Ok(())
}

pub(crate) async fn find(
    connection: &mut SqliteConnection,
    id: IdentityProviderId,
) -> Result<Option<Versioned<ProviderRecord>>, StoreError> {
    let row = sqlx::query("SELECT * FROM identity_providers WHERE id = ?")
        .bind(id.to_string())
        .fetch_optional(connection)
        .await?;
    row.as_ref()
        .map(|row| Ok(Versioned { version: row.unsigned("version")?, object: from_row(row)? }))
        .transpose()
}

/// Oldest first, from behind `after`.
pub(crate) async fn list(
    connection: &mut SqliteConnection,
    name: Option<&str>,
    after: Option<IdentityProviderId>,
    limit: u32,
) -> Result<Vec<ProviderRecord>, StoreError> {
    let rows = sqlx::query(
        "SELECT * FROM identity_providers WHERE id > ?1 AND (?2 IS NULL OR name = ?2) \
         ORDER BY id LIMIT ?3",
    )
    .bind(after.map(|id| id.to_string()).unwrap_or_default())
    .bind(name)
    .bind(limit)
    .fetch_all(connection)
    .await?;
    rows.iter().map(from_row).collect()
}

/// Replaces what can be changed of a provider that exists.
pub(crate) async fn replace(
    change: &mut Change,
    provider: &Versioned<ProviderRecord>,
) -> Result<(), StoreError> {
    let Versioned { version, object } = provider;
    sqlx::query(
        "UPDATE identity_providers SET name = ?, issuer = ?, client_id = ?, \
         sealed_client_secret = ?, groups_claim = ?, scopes = ?, version = ?, updated_at = ? \
         WHERE id = ?",
    )
    .bind(&object.name)
    .bind(&object.issuer)
    .bind(&object.client_id)
    .bind(object.sealed_client_secret.as_deref())
    .bind(&object.groups_claim)
    .bind(to_json(&object.scopes))
    .bind(to_integer(*version))
    .bind(object.updated_at.as_millis())
    .bind(object.id.to_string())
    .execute(change.connection())
    .await?;
    Ok(())
}

/// Deletes a provider. Users, their sessions and its groups stay.
pub(crate) async fn remove(change: &mut Change, id: IdentityProviderId) -> Result<(), StoreError> {
    sqlx::query("DELETE FROM identity_providers WHERE id = ?")
        .bind(id.to_string())
        .execute(change.connection())
        .await?;
    Ok(())
}

fn from_row(row: &SqliteRow) -> Result<ProviderRecord, StoreError> {
    Ok(ProviderRecord {
        id: row.parsed("id")?,
        name: row.text("name")?,
        issuer: row.text("issuer")?,
        client_id: row.text("client_id")?,
        sealed_client_secret: row.try_get("sealed_client_secret")?,
        groups_claim: row.text_option("groups_claim")?,
        scopes: row.json("scopes")?,
        created_at: row.time("created_at")?,
        updated_at: row.time("updated_at")?,
    })
}
