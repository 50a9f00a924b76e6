//! The one organisation.

use adit_proto::{OrganisationId, OrganisationKey, Timestamp, api::Organisation};
use ipnet::{Ipv4Net, Ipv6Net};
use sqlx::{Row as _, SqliteConnection, SqliteExecutor};

use super::{
    Change, StoreError, Versioned,
    row::{RowExt as _, to_integer},
};

/// What is drawn at the first run and never changes.
#[derive(Debug, Clone)]
pub(crate) struct Origin {
    pub(crate) id: OrganisationId,
    pub(crate) ipv4_range: Ipv4Net,
    pub(crate) ipv6_range: Ipv6Net,
    pub(crate) signing_key: OrganisationKey,
}

/// What can be changed.
#[derive(Debug, Clone)]
pub(crate) struct Settings {
    pub(crate) name: String,
    pub(crate) approve_devices: bool,
    pub(crate) max_offline_s: u64,
    pub(crate) credential_lifetime_s: u64,
    pub(crate) session_lifetime_s: Option<u64>,
}

pub(crate) async fn insert(
    change: &mut Change,
    origin: &Origin,
    settings: &Settings,
) -> Result<(), StoreError> {
    let now: Timestamp = change.now();
    sqlx::query(
        "INSERT INTO organisation (singleton, id, name, ipv4_range, ipv6_range, signing_key,
             approve_devices, max_offline_s, credential_lifetime_s, session_lifetime_s, sequence,
             version, created_at)
         VALUES (1, ?, ?, ?, ?, ?, ?, ?, ?, ?, 0, 1, ?)",
    )
    .bind(origin.id.to_string())
    .bind(&settings.name)
    .bind(origin.ipv4_range.to_string())
    .bind(origin.ipv6_range.to_string())
    .bind(origin.signing_key.to_string())
    .bind(settings.approve_devices)
    .bind(to_integer(settings.max_offline_s))
    .bind(to_integer(settings.credential_lifetime_s))
    .bind(settings.session_lifetime_s.map(to_integer))
    .bind(now.as_millis())
    .execute(change.connection())
    .await?;
    Ok(())
}

/// The organisation; none before the first run.
pub(crate) async fn find(
    connection: &mut SqliteConnection,
) -> Result<Option<Versioned<Organisation>>, StoreError> {
    let row = sqlx::query("SELECT * FROM organisation").fetch_optional(connection).await?;
    let Some(row) = row else { return Ok(None) };
    let ipv4_range: Ipv4Net = row.parsed("ipv4_range")?;
    let ipv6_range: Ipv6Net = row.parsed("ipv6_range")?;
    let object = Organisation {
        id: row.parsed("id")?,
        name: row.text("name")?,
        device_ranges: vec![ipv4_range.into(), ipv6_range.into()],
        keys: vec![row.parsed("signing_key")?],
        approve_devices: row.flag("approve_devices")?,
        max_offline_s: row.unsigned("max_offline_s")?,
        credential_lifetime_s: row.unsigned("credential_lifetime_s")?,
        session_lifetime_s: row.unsigned_option("session_lifetime_s")?,
        created_at: row.time("created_at")?,
    };
    Ok(Some(Versioned { version: row.unsigned("version")?, object }))
}

/// The organisation of a store that has been through its first run.
pub(crate) async fn read(
    connection: &mut SqliteConnection,
) -> Result<Versioned<Organisation>, StoreError> {
    find(connection).await?.ok_or(StoreError::Corrupt { column: "organisation" })
}

/// Replaces what can be changed.
pub(crate) async fn replace(change: &mut Change, settings: &Settings) -> Result<(), StoreError> {
    sqlx::query(
        "UPDATE organisation SET name = ?, approve_devices = ?, max_offline_s = ?,
             credential_lifetime_s = ?, session_lifetime_s = ?, version = version + 1",
    )
    .bind(&settings.name)
    .bind(settings.approve_devices)
    .bind(to_integer(settings.max_offline_s))
    .bind(to_integer(settings.credential_lifetime_s))
    .bind(settings.session_lifetime_s.map(to_integer))
    .execute(change.connection())
    .await?;
    Ok(())
}

/// The sequence of the last change; none before the first run.
pub(crate) async fn sequence(executor: impl SqliteExecutor<'_>) -> Result<Option<u64>, StoreError> {
    let row = sqlx::query("SELECT sequence FROM organisation").fetch_optional(executor).await?;
    row.map(|row| row.unsigned("sequence")).transpose()
}

pub(super) async fn count_up(connection: &mut SqliteConnection) -> Result<u64, StoreError> {
    let row = sqlx::query("UPDATE organisation SET sequence = sequence + 1 RETURNING sequence")
        .fetch_one(connection)
        .await?;
    row.unsigned("sequence")
}

/// Writes a page that a rollback takes back.
pub(super) async fn touch(connection: &mut SqliteConnection) -> Result<(), StoreError> {
    let row = sqlx::query("UPDATE organisation SET sequence = sequence RETURNING sequence")
        .fetch_one(connection)
        .await?;
    row.try_get::<i64, _>("sequence")?;
    Ok(())
}
