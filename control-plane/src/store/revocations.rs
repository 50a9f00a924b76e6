//! Table `revocations`.

use adit_proto::{DeviceId, Revocation, RevokedSubject, Timestamp, UserId};
use sqlx::{Row as _, SqliteConnection, sqlite::SqliteRow};

use super::{Change, StoreError, row::RowExt as _};

/// Voids what was issued at or before `revocation.not_before`; never takes an earlier one back.
pub(crate) async fn upsert(change: &mut Change, revocation: Revocation) -> Result<(), StoreError> {
    sqlx::query(
        "INSERT INTO revocations (subject_id, not_before) VALUES (?, ?) \
         ON CONFLICT (subject_id) DO UPDATE SET not_before = max(not_before, excluded.not_before)",
    )
    .bind(subject_id(revocation.subject))
    .bind(revocation.not_before.as_millis())
    .execute(change.connection())
    .await?;
    Ok(())
}

/// The last instant of issue that is void for this device and user.
pub(crate) async fn last_not_before(
    connection: &mut SqliteConnection,
    device_id: DeviceId,
    user_id: UserId,
) -> Result<Option<Timestamp>, StoreError> {
    let millis: Option<i64> =
        sqlx::query_scalar("SELECT max(not_before) FROM revocations WHERE subject_id IN (?, ?)")
            .bind(device_id.to_string())
            .bind(user_id.to_string())
            .fetch_one(connection)
            .await?;
    Ok(millis.map(Timestamp::from_millis))
}

/// Those that void anything issued at or after `oldest`.
pub(crate) async fn since(
    connection: &mut SqliteConnection,
    oldest: Timestamp,
) -> Result<Vec<Revocation>, StoreError> {
    let rows = sqlx::query("SELECT * FROM revocations WHERE not_before >= ? ORDER BY subject_id")
        .bind(oldest.as_millis())
        .fetch_all(connection)
        .await?;
    rows.iter().map(record).collect()
}

fn subject_id(subject: RevokedSubject) -> String {
    match subject {
        RevokedSubject::Device(id) => id.to_string(),
        RevokedSubject::User(id) => id.to_string(),
    }
}

fn record(row: &SqliteRow) -> Result<Revocation, StoreError> {
    let subject_id: &str = row.try_get("subject_id")?;
    let subject = if let Ok(id) = subject_id.parse() {
        RevokedSubject::Device(id)
    } else {
        RevokedSubject::User(row.parsed("subject_id")?)
    };
    Ok(Revocation { subject, not_before: row.time("not_before")? })
}
