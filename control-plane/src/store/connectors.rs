//! Table `connectors`.

use adit_proto::{
    ConnectorId, Pin, SiteId, Timestamp, WireguardPublicKey,
    api::{Connector, ConnectorReport, ConnectorWrite},
};
use sqlx::{Row as _, SqliteConnection, sqlite::SqliteRow};

use super::{
    Change, StoreError,
    row::{RowExt as _, to_integer, to_json},
};

/// A connector with what the API does not show.
#[derive(Debug, Clone)]
pub(crate) struct ConnectorRecord {
    /// `connected` is false: the store does not know.
    pub(crate) connector: Connector,
    pub(crate) version: u64,
    /// DER-encoded SubjectPublicKeyInfo.
    pub(crate) connector_key: Vec<u8>,
    /// Digest of the secret that it joined with.
    pub(crate) joined_with: [u8; 32],
    pub(crate) admin_endpoints: Vec<String>,
    pub(crate) reported_endpoints: Vec<String>,
}

pub(crate) async fn insert(
    change: &mut Change,
    record: &ConnectorRecord,
) -> Result<(), StoreError> {
    let connector = &record.connector;
    sqlx::query(
        "INSERT INTO connectors (id, name, site_id, endpoints, reported_endpoints, connector_key, \
         pin, wireguard_public_key, joined_with, last_seen_at, version, created_at, updated_at) \
         VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
    )
    .bind(connector.id.to_string())
    .bind(&connector.name)
    .bind(connector.site_id.to_string())
    .bind(to_json(&record.admin_endpoints))
    .bind(to_json(&record.reported_endpoints))
    .bind(record.connector_key.as_slice())
    .bind(connector.pin.to_string())
    .bind(connector.wireguard_public_key.to_string())
    .bind(record.joined_with.as_slice())
    .bind(connector.last_seen_at.map(Timestamp::as_millis))
    .bind(to_integer(record.version))
    .bind(connector.created_at.as_millis())
    .bind(connector.updated_at.as_millis())
    .execute(change.connection())
    .await?;
    Ok(())
}

pub(crate) async fn find(
    connection: &mut SqliteConnection,
    id: ConnectorId,
) -> Result<Option<ConnectorRecord>, StoreError> {
    let row = sqlx::query("SELECT * FROM connectors WHERE id = ?")
        .bind(id.to_string())
        .fetch_optional(connection)
        .await?;
    row.as_ref().map(record).transpose()
}

pub(crate) async fn find_by_pin(
    connection: &mut SqliteConnection,
    pin: Pin,
) -> Result<Option<ConnectorRecord>, StoreError> {
    let row = sqlx::query("SELECT * FROM connectors WHERE pin = ?")
        .bind(pin.to_string())
        .fetch_optional(connection)
        .await?;
    row.as_ref().map(record).transpose()
}

/// Whether a connector has this WireGuard key, so that no device may.
pub(crate) async fn has_wireguard_key(
    connection: &mut SqliteConnection,
    key: WireguardPublicKey,
) -> Result<bool, StoreError> {
    let found: Option<i64> =
        sqlx::query_scalar("SELECT 1 FROM connectors WHERE wireguard_public_key = ?")
            .bind(key.to_string())
            .fetch_optional(connection)
            .await?;
    Ok(found.is_some())
}

/// Oldest first, from behind `after`.
pub(crate) async fn list(
    connection: &mut SqliteConnection,
    name: Option<&str>,
    site_id: Option<SiteId>,
    after: Option<ConnectorId>,
    limit: u32,
) -> Result<Vec<ConnectorRecord>, StoreError> {
    let rows = sqlx::query(
        "SELECT * FROM connectors WHERE id > ?1 AND (?2 IS NULL OR name = ?2) \
         AND (?3 IS NULL OR site_id = ?3) ORDER BY id LIMIT ?4",
    )
    .bind(after.map(|id| id.to_string()).unwrap_or_default())
    .bind(name)
    .bind(site_id.map(|id| id.to_string()))
    .bind(limit)
    .fetch_all(connection)
    .await?;
    rows.iter().map(record).collect()
}

pub(crate) async fn all(connection: &mut SqliteConnection) -> Result<Vec<Connector>, StoreError> {
    let rows = sqlx::query("SELECT * FROM connectors ORDER BY id").fetch_all(connection).await?;
    rows.iter().map(|row| Ok(record(row)?.connector)).collect()
}

/// Writes what an administrator may change.
pub(crate) async fn replace(
    change: &mut Change,
    id: ConnectorId,
    write: &ConnectorWrite,
    now: Timestamp,
) -> Result<(), StoreError> {
    sqlx::query(
        "UPDATE connectors SET name = ?, endpoints = ?, updated_at = ?, version = version + 1 \
         WHERE id = ?",
    )
    .bind(&write.name)
    .bind(to_json(&write.endpoints))
    .bind(now.as_millis())
    .bind(id.to_string())
    .execute(change.connection())
    .await?;
    Ok(())
}

/// Writes what a connector says of itself.
pub(crate) async fn set_report(
    change: &mut Change,
    id: ConnectorId,
    report: &ConnectorReport,
    now: Timestamp,
) -> Result<(), StoreError> {
    sqlx::query(
        "UPDATE connectors SET program_version = ?, reported_endpoints = ?, last_seen_at = ?, \
         updated_at = ?, version = version + 1 WHERE id = ?",
    )
    .bind(&report.version)
    .bind(to_json(&report.endpoints))
    .bind(now.as_millis())
    .bind(now.as_millis())
    .bind(id.to_string())
    .execute(change.connection())
    .await?;
    Ok(())
}

pub(crate) async fn set_last_seen(
    change: &mut Change,
    id: ConnectorId,
    now: Timestamp,
) -> Result<(), StoreError> {
    sqlx::query("UPDATE connectors SET last_seen_at = ? WHERE id = ?")
        .bind(now.as_millis())
        .bind(id.to_string())
        .execute(change.connection())
        .await?;
    Ok(())
}

pub(crate) async fn remove(change: &mut Change, id: ConnectorId) -> Result<(), StoreError> {
    sqlx::query("DELETE FROM connectors WHERE id = ?")
        .bind(id.to_string())
        .execute(change.connection())
        .await?;
    Ok(())
}

fn record(row: &SqliteRow) -> Result<ConnectorRecord, StoreError> {
    let admin_endpoints: Vec<String> = row.json("endpoints")?;
    let reported_endpoints: Vec<String> = row.json("reported_endpoints")?;
    let endpoints =
        if admin_endpoints.is_empty() { &reported_endpoints } else { &admin_endpoints }.clone();
    Ok(ConnectorRecord {
        connector: Connector {
            id: row.parsed("id")?,
            name: row.text("name")?,
            site_id: row.parsed("site_id")?,
            endpoints,
            pin: row.parsed("pin")?,
            wireguard_public_key: row.parsed("wireguard_public_key")?,
            version: row.text_option("program_version")?,
            connected: false,
            last_seen_at: row.time_option("last_seen_at")?,
            created_at: row.time("created_at")?,
            updated_at: row.time("updated_at")?,
        },
        version: row.unsigned("version")?,
        connector_key: row.try_get("connector_key")?,
        joined_with: row
            .try_get::<&[u8], _>("joined_with")?
            .try_into()
            .map_err(|_error| StoreError::Corrupt { column: "joined_with" })?,
        admin_endpoints,
        reported_endpoints,
    })
}
