//! Table `user_identities`.

use adit_proto::UserId;
use sqlx::SqliteConnection;

use super::{Change, StoreError, row::RowExt as _};

/// Which user an issuer means by a subject.
pub(crate) async fn find_user(
    connection: &mut SqliteConnection,
    issuer: &str,
    subject: &str,
) -> Result<Option<UserId>, StoreError> {
    let row = sqlx::query("SELECT user_id FROM user_identities WHERE issuer = ? AND subject = ?")
        .bind(issuer)
        .bind(subject)
        .fetch_optional(connection)
        .await?;
    row.map(|row| row.parsed("user_id")).transpose()
}

pub(crate) async fn insert(
    change: &mut Change,
    issuer: &str,
    subject: &str,
    user_id: UserId,
) -> Result<(), StoreError> {
    let now = change.now();
    sqlx::query(
        "INSERT INTO user_identities (issuer, subject, user_id, created_at) VALUES (?, ?, ?, ?)",
    )
    .bind(issuer)
    .bind(subject)
    .bind(user_id.to_string())
    .bind(now.as_millis())
    .execute(change.connection())
    .await?;
    Ok(())
}
