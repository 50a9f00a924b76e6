//! Users.

use adit_proto::{UserId, api::User};
use sqlx::{SqliteConnection, sqlite::SqliteRow};

use super::{
    Change, StoreError, Versioned,
    row::{RowExt as _, to_integer},
};

pub(crate) async fn insert(change: &mut Change, user: &User) -> Result<(), StoreError> {
    sqlx::query(
        "INSERT INTO users (id, name, email, disabled, version, created_at, updated_at)
         VALUES (?, ?, ?, ?, 1, ?, ?)",
    )
    .bind(user.id.to_string())
    .bind(&user.name)
    .bind(&user.email)
    .bind(user.disabled)
    .bind(user.created_at.as_millis())
    .bind(user.updated_at.as_millis())
    .execute(change.connection())
    .await?;
    Ok(())
}

pub(crate) async fn find(
    connection: &mut SqliteConnection,
    id: UserId,
) -> Result<Option<Versioned<User>>, StoreError> {
    let row = sqlx::query("SELECT * FROM users WHERE id = ?")
        .bind(id.to_string())
        .fetch_optional(connection)
        .await?;
    row.as_ref().map(versioned).transpose()
}

/// Users after `after`, oldest first.
pub(crate) async fn list(
    connection: &mut SqliteConnection,
    name: Option<&str>,
    after: Option<UserId>,
    limit: u32,
) -> Result<Vec<User>, StoreError> {
    let rows = sqlx::query(
        "SELECT * FROM users WHERE (?1 IS NULL OR name = ?1) AND (?2 IS NULL OR id > ?2)
         ORDER BY id LIMIT ?3",
    )
    .bind(name)
    .bind(after.map(|id| id.to_string()))
    .bind(limit)
    .fetch_all(connection)
    .await?;
    rows.iter().map(from_row).collect()
}

/// Replaces what can be changed of a user that exists.
pub(crate) async fn replace(change: &mut Change, user: &Versioned<User>) -> Result<(), StoreError> {
    sqlx::query(
        "UPDATE users SET name = ?, email = ?, disabled = ?, version = ?, updated_at = ?
         WHERE id = ?",
    )
    .bind(&user.object.name)
    .bind(&user.object.email)
    .bind(user.object.disabled)
    .bind(to_integer(user.version))
    .bind(user.object.updated_at.as_millis())
    .bind(user.object.id.to_string())
    .execute(change.connection())
    .await?;
    Ok(())
}

/// Deletes a user, the user's devices, enrolment keys and memberships.
pub(crate) async fn remove(change: &mut Change, id: UserId) -> Result<(), StoreError> {
    sqlx::query("DELETE FROM users WHERE id = ?")
        .bind(id.to_string())
        .execute(change.connection())
        .await?;
    Ok(())
}

fn versioned(row: &SqliteRow) -> Result<Versioned<User>, StoreError> {
    Ok(Versioned { version: row.unsigned("version")?, object: from_row(row)? })
}

pub(super) fn from_row(row: &SqliteRow) -> Result<User, StoreError> {
    Ok(User {
        id: row.parsed("id")?,
        name: row.text("name")?,
        email: row.text_option("email")?,
        disabled: row.flag("disabled")?,
        created_at: row.time("created_at")?,
        updated_at: row.time("updated_at")?,
    })
}
