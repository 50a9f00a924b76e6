//! Table `sign_ins`.

use std::net::IpAddr;

use adit_proto::{
    IdentityProviderId, SignInId, Timestamp, UserId,
    api::{SignIn, SignInState},
};
use sqlx::{Row as _, SqliteConnection, sqlite::SqliteRow};

use super::{
    Change, StoreError,
    row::{RowExt as _, to_json, to_word},
};

/// A user has proved to be it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Authentication {
    pub(crate) user_id: UserId,
    /// To whom; none when an administrator says so.
    pub(crate) identity_provider_id: Option<IdentityProviderId>,
    pub(crate) authenticated_at: Timestamp,
    pub(crate) methods: Vec<String>,
}

/// A sign-in with what the API does not show.
#[derive(Debug, Clone)]
pub(crate) struct SignInRecord {
    pub(crate) sign_in: SignIn,
    pub(crate) device_code_hash: [u8; 32],
    /// Present once it is approved.
    pub(crate) authentication: Option<Authentication>,
}

pub(crate) async fn insert(change: &mut Change, record: &SignInRecord) -> Result<(), StoreError> {
    let sign_in = &record.sign_in;
    sqlx::query(
        "INSERT INTO sign_ins (id, device_code_hash, user_code, state, device_name, device_id, \
         address, expires_at, created_at) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)",
    )
    .bind(sign_in.id.to_string())
    .bind(record.device_code_hash.as_slice())
    .bind(&sign_in.user_code)
    .bind(to_word(&sign_in.state))
    .bind(&sign_in.device_name)
    .bind(sign_in.device_id.map(|id| id.to_string()))
    .bind(&sign_in.address)
    .bind(sign_in.expires_at.as_millis())
    .bind(sign_in.created_at.as_millis())
    .execute(change.connection())
    .await?;
    Ok(())
}

pub(crate) async fn find(
    connection: &mut SqliteConnection,
    id: SignInId,
) -> Result<Option<SignInRecord>, StoreError> {
    let row = sqlx::query("SELECT * FROM sign_ins WHERE id = ?")
        .bind(id.to_string())
        .fetch_optional(connection)
        .await?;
    row.as_ref().map(record).transpose()
}

pub(crate) async fn find_by_device_code(
    connection: &mut SqliteConnection,
    device_code_hash: &[u8; 32],
) -> Result<Option<SignInRecord>, StoreError> {
    let row = sqlx::query("SELECT * FROM sign_ins WHERE device_code_hash = ?")
        .bind(device_code_hash.as_slice())
        .fetch_optional(connection)
        .await?;
    row.as_ref().map(record).transpose()
}

pub(crate) async fn find_by_user_code(
    connection: &mut SqliteConnection,
    user_code: &str,
) -> Result<Option<SignInRecord>, StoreError> {
    let row = sqlx::query("SELECT * FROM sign_ins WHERE user_code = ?")
        .bind(user_code)
        .fetch_optional(connection)
        .await?;
    row.as_ref().map(record).transpose()
}

/// Those that have not expired, oldest first, from behind `after`.
pub(crate) async fn list(
    connection: &mut SqliteConnection,
    state: Option<SignInState>,
    now: Timestamp,
    after: Option<SignInId>,
    limit: u32,
) -> Result<Vec<SignIn>, StoreError> {
    let rows = sqlx::query(
        "SELECT * FROM sign_ins WHERE id > ?1 AND (?2 IS NULL OR state = ?2) \
         AND expires_at > ?3 ORDER BY id LIMIT ?4",
    )
    .bind(after.map(|id| id.to_string()).unwrap_or_default())
    .bind(state.as_ref().map(to_word))
    .bind(now.as_millis())
    .bind(limit)
    .fetch_all(connection)
    .await?;
    rows.iter().map(|row| Ok(record(row)?.sign_in)).collect()
}

/// How many there are in all, and how many of them were asked for from this network.
pub(crate) async fn count(
    connection: &mut SqliteConnection,
    is_of_network: impl Fn(IpAddr) -> bool,
) -> Result<(usize, usize), StoreError> {
    let rows = sqlx::query("SELECT address FROM sign_ins WHERE device_id IS NULL")
        .fetch_all(connection)
        .await?;
    let mut of_network = 0;
    for row in &rows {
        let address = row.parsed_option("address")?;
        of_network += usize::from(address.is_some_and(&is_of_network));
    }
    Ok((rows.len(), of_network))
}

/// Writes what was proved and who is signed in thereby.
pub(crate) async fn approve(
    change: &mut Change,
    id: SignInId,
    authentication: &Authentication,
) -> Result<(), StoreError> {
    sqlx::query(
        "UPDATE sign_ins SET state = ?, user_id = ?, identity_provider_id = ?, \
         authenticated_at = ?, authentication_methods = ? WHERE id = ?",
    )
    .bind(to_word(&SignInState::Approved))
    .bind(authentication.user_id.to_string())
    .bind(authentication.identity_provider_id.map(|id| id.to_string()))
    .bind(authentication.authenticated_at.as_millis())
    .bind(to_json(&authentication.methods))
    .bind(id.to_string())
    .execute(change.connection())
    .await?;
    Ok(())
}

/// Unless someone has decided already.
pub(crate) async fn deny(change: &mut Change, id: SignInId) -> Result<(), StoreError> {
    sqlx::query("UPDATE sign_ins SET state = ? WHERE id = ? AND state = 'pending'")
        .bind(to_word(&SignInState::Denied))
        .bind(id.to_string())
        .execute(change.connection())
        .await?;
    Ok(())
}

/// Takes an approved sign-in of a new device away, so that it is used once.
pub(crate) async fn consume(
    change: &mut Change,
    device_code_hash: &[u8; 32],
    now: Timestamp,
) -> Result<Option<Authentication>, StoreError> {
    let row = sqlx::query(
        "DELETE FROM sign_ins WHERE device_code_hash = ? AND state = 'approved' \
         AND device_id IS NULL AND expires_at > ? \
         AND EXISTS (SELECT 1 FROM users WHERE users.id = user_id AND users.disabled = 0) \
         RETURNING *",
    )
    .bind(device_code_hash.as_slice())
    .bind(now.as_millis())
    .fetch_optional(change.connection())
    .await?;
    let record = row.as_ref().map(record).transpose()?;
    Ok(record.and_then(|record| record.authentication))
}

/// Forgets those that expired before `before`, and, of a device that asks anew, the one before.
pub(crate) async fn tidy(
    change: &mut Change,
    before: Timestamp,
    device_id: Option<adit_proto::DeviceId>,
) -> Result<(), StoreError> {
    sqlx::query("DELETE FROM sign_ins WHERE expires_at <= ? OR device_id = ?")
        .bind(before.as_millis())
        .bind(device_id.map(|id| id.to_string()))
        .execute(change.connection())
        .await?;
    Ok(())
}

fn record(row: &SqliteRow) -> Result<SignInRecord, StoreError> {
    let user_id: Option<UserId> = row.parsed_option("user_id")?;
    let authentication = match user_id {
        Some(user_id) => Some(Authentication {
            user_id,
            identity_provider_id: row.parsed_option("identity_provider_id")?,
            authenticated_at: row.time("authenticated_at")?,
            methods: row.json("authentication_methods")?,
        }),
        None => None,
    };
    Ok(SignInRecord {
        sign_in: SignIn {
            id: row.parsed("id")?,
            user_code: row.text("user_code")?,
            state: row.word("state")?,
            device_name: row.text_option("device_name")?,
            device_id: row.parsed_option("device_id")?,
            address: row.text_option("address")?,
            user_id,
            expires_at: row.time("expires_at")?,
            created_at: row.time("created_at")?,
        },
        device_code_hash: row
            .try_get::<&[u8], _>("device_code_hash")?
            .try_into()
            .map_err(|_error| StoreError::Corrupt { column: "device_code_hash" })?,
        authentication,
    })
}
