//! Table `devices`.

use adit_proto::{
    DeviceId, GroupId, Pin, Timestamp, UserId, WireguardDevice, WireguardPublicKey,
    api::{Device, DeviceKind, DeviceState},
};
use sqlx::{Row as _, SqliteConnection, sqlite::SqliteRow};

use super::{
    Change, StoreError,
    row::{RowExt as _, to_integer, to_word},
};

/// A device with what the API does not show.
#[derive(Debug, Clone)]
pub(crate) struct DeviceRecord {
    pub(crate) device: Device,
    pub(crate) version: u64,
    pub(crate) host_number: u32,
    /// Absent for a plain WireGuard device.
    pub(crate) identity: Option<DeviceIdentity>,
    pub(crate) authenticated_at: Timestamp,
    pub(crate) credential_issued_at: Option<Timestamp>,
}

/// How a client proves which device it is.
#[derive(Debug, Clone)]
pub(crate) struct DeviceIdentity {
    /// DER-encoded SubjectPublicKeyInfo.
    pub(crate) device_key: Vec<u8>,
    pub(crate) pin: Pin,
    /// Digest of the secret that it joined with.
    pub(crate) joined_with: [u8; 32],
}

/// Which devices a list holds.
#[derive(Debug, Clone, Default)]
pub(crate) struct DeviceFilter {
    pub(crate) name: Option<String>,
    pub(crate) user_id: Option<UserId>,
    pub(crate) state: Option<DeviceState>,
}

pub(crate) async fn insert(change: &mut Change, record: &DeviceRecord) -> Result<(), StoreError> {
    let DeviceRecord { device, identity, .. } = record;
    let address =
        |index: usize| device.addresses.get(index).map(ToString::to_string).unwrap_or_default();
    sqlx::query(
        "INSERT INTO devices (id, name, user_id, kind, state, host_number, ipv4, ipv6, \
         wireguard_public_key, device_key, pin, joined_with, authenticated_at, version, \
         created_at, updated_at) \
         VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
    )
    .bind(device.id.to_string())
    .bind(&device.name)
    .bind(device.user_id.to_string())
    .bind(to_word(&device.kind))
    .bind(to_word(&device.state))
    .bind(record.host_number)
    .bind(address(0))
    .bind(address(1))
    .bind(device.wireguard_public_key.to_string())
    .bind(identity.as_ref().map(|identity| identity.device_key.as_slice()))
    .bind(identity.as_ref().map(|identity| identity.pin.to_string()))
    .bind(identity.as_ref().map(|identity| identity.joined_with.as_slice()))
    .bind(record.authenticated_at.as_millis())
    .bind(to_integer(record.version))
    .bind(device.created_at.as_millis())
    .bind(device.updated_at.as_millis())
    .execute(change.connection())
    .await?;
    Ok(())
}

pub(crate) async fn find(
    connection: &mut SqliteConnection,
    id: DeviceId,
) -> Result<Option<DeviceRecord>, StoreError> {
    let row = sqlx::query("SELECT * FROM devices WHERE id = ?")
        .bind(id.to_string())
        .fetch_optional(connection)
        .await?;
    row.as_ref().map(record).transpose()
}

pub(crate) async fn find_by_pin(
    connection: &mut SqliteConnection,
    pin: Pin,
) -> Result<Option<DeviceRecord>, StoreError> {
    let row = sqlx::query("SELECT * FROM devices WHERE pin = ?")
        .bind(pin.to_string())
        .fetch_optional(connection)
        .await?;
    row.as_ref().map(record).transpose()
}

/// Whether a device has this WireGuard key, so that no other may.
pub(crate) async fn has_wireguard_key(
    connection: &mut SqliteConnection,
    key: WireguardPublicKey,
) -> Result<bool, StoreError> {
    let found: Option<i64> =
        sqlx::query_scalar("SELECT 1 FROM devices WHERE wireguard_public_key = ?")
            .bind(key.to_string())
            .fetch_optional(connection)
            .await?;
    Ok(found.is_some())
}

/// Oldest first, from behind `after`.
pub(crate) async fn list(
    connection: &mut SqliteConnection,
    filter: &DeviceFilter,
    after: Option<DeviceId>,
    limit: u32,
) -> Result<Vec<DeviceRecord>, StoreError> {
    let rows = sqlx::query(
        "SELECT * FROM devices WHERE id > ?1 AND (?2 IS NULL OR name = ?2) \
         AND (?3 IS NULL OR user_id = ?3) AND (?4 IS NULL OR state = ?4) ORDER BY id LIMIT ?5",
    )
    .bind(after.map(|id| id.to_string()).unwrap_or_default())
    .bind(filter.name.as_deref())
    .bind(filter.user_id.map(|id| id.to_string()))
    .bind(filter.state.as_ref().map(to_word))
    .bind(limit)
    .fetch_all(connection)
    .await?;
    rows.iter().map(record).collect()
}

/// The largest number given so far.
pub(crate) async fn last_host_number(
    connection: &mut SqliteConnection,
) -> Result<Option<u32>, StoreError> {
    let number: Option<u32> =
        sqlx::query_scalar("SELECT max(host_number) FROM devices").fetch_one(connection).await?;
    Ok(number)
}

/// The smallest number of at least `first` that is not given, when there is a gap.
pub(crate) async fn free_host_number(
    connection: &mut SqliteConnection,
    first: u32,
) -> Result<Option<u32>, StoreError> {
    let number: Option<u32> = sqlx::query_scalar(
        "SELECT min(candidate) FROM (SELECT ?1 AS candidate \
         UNION ALL SELECT host_number + 1 FROM devices WHERE host_number >= ?1) \
         WHERE candidate NOT IN (SELECT host_number FROM devices)",
    )
    .bind(first)
    .fetch_one(connection)
    .await?;
    Ok(number)
}

/// Writes state and time of change.
pub(crate) async fn set_state(change: &mut Change, device: &Device) -> Result<(), StoreError> {
    sqlx::query("UPDATE devices SET state = ?, updated_at = ?, version = version + 1 WHERE id = ?")
        .bind(to_word(&device.state))
        .bind(device.updated_at.as_millis())
        .bind(device.id.to_string())
        .execute(change.connection())
        .await?;
    Ok(())
}

/// Remembers the newest credential, which a revocation must void.
pub(crate) async fn set_credential_issued(
    change: &mut Change,
    id: DeviceId,
    issued_at: Timestamp,
    seen_at: Timestamp,
) -> Result<(), StoreError> {
    sqlx::query("UPDATE devices SET credential_issued_at = ?, last_seen_at = ? WHERE id = ?")
        .bind(issued_at.as_millis())
        .bind(seen_at.as_millis())
        .bind(id.to_string())
        .execute(change.connection())
        .await?;
    Ok(())
}

/// When the newest credential of any of the user's devices was issued.
pub(crate) async fn last_credential_of_user(
    connection: &mut SqliteConnection,
    user_id: UserId,
) -> Result<Option<Timestamp>, StoreError> {
    let millis: Option<i64> =
        sqlx::query_scalar("SELECT max(credential_issued_at) FROM devices WHERE user_id = ?")
            .bind(user_id.to_string())
            .fetch_one(connection)
            .await?;
    Ok(millis.map(Timestamp::from_millis))
}

pub(crate) async fn remove(change: &mut Change, id: DeviceId) -> Result<(), StoreError> {
    sqlx::query("DELETE FROM devices WHERE id = ?")
        .bind(id.to_string())
        .execute(change.connection())
        .await?;
    Ok(())
}

/// Plain WireGuard devices that may connect, with the groups of their owners.
pub(crate) async fn wireguard_devices(
    connection: &mut SqliteConnection,
) -> Result<Vec<WireguardDevice>, StoreError> {
    let rows = sqlx::query(
        "SELECT devices.*, (SELECT json_group_array(group_id) FROM (SELECT group_id \
         FROM group_members WHERE group_members.user_id = devices.user_id ORDER BY group_id)) \
         AS groups_json \
         FROM devices JOIN users ON users.id = devices.user_id \
         WHERE devices.kind = 'wireguard' AND devices.state = 'approved' AND users.disabled = 0 \
         ORDER BY devices.id",
    )
    .fetch_all(connection)
    .await?;
    rows.iter()
        .map(|row| {
            let groups: Vec<GroupId> = row.json("groups_json")?;
            let Device { id, user_id, addresses, wireguard_public_key, .. } = record(row)?.device;
            Ok(WireguardDevice {
                device_id: id,
                user_id,
                groups,
                public_key: wireguard_public_key,
                addresses,
            })
        })
        .collect()
}

fn record(row: &SqliteRow) -> Result<DeviceRecord, StoreError> {
    let identity = match row.try_get::<Option<Vec<u8>>, _>("device_key")? {
        Some(device_key) => Some(DeviceIdentity {
            device_key,
            pin: row.parsed("pin")?,
            joined_with: row
                .try_get::<&[u8], _>("joined_with")?
                .try_into()
                .map_err(|_error| StoreError::Corrupt { column: "joined_with" })?,
        }),
        None => None,
    };
    let kind: DeviceKind = row.word("kind")?;
    Ok(DeviceRecord {
        device: Device {
            id: row.parsed("id")?,
            name: row.text("name")?,
            user_id: row.parsed("user_id")?,
            kind,
            state: row.word("state")?,
            addresses: vec![row.parsed("ipv4")?, row.parsed("ipv6")?],
            wireguard_public_key: row.parsed("wireguard_public_key")?,
            last_seen_at: row.time_option("last_seen_at")?,
            created_at: row.time("created_at")?,
            updated_at: row.time("updated_at")?,
        },
        version: row.unsigned("version")?,
        host_number: row.try_get("host_number")?,
        identity,
        authenticated_at: row.time("authenticated_at")?,
        credential_issued_at: row.time_option("credential_issued_at")?,
    })
}
