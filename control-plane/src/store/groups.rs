//! Groups and their members.

use adit_proto::{
    GroupId, IdentityProviderId, UserId,
    api::{Group, User},
};
use sqlx::{SqliteConnection, sqlite::SqliteRow};

use super::{
    Change, StoreError, Versioned,
    row::{RowExt as _, to_integer},
    users,
};

pub(crate) async fn insert(change: &mut Change, group: &Group) -> Result<(), StoreError> {
    sqlx::query(
        r#"INSERT INTO "groups" (id, name, identity_provider_id, version, created_at, updated_at)
           VALUES (?, ?, ?, 1, ?, ?)"#,
    )
    .bind(group.id.to_string())
    .bind(&group.name)
    .bind(group.identity_provider_id.map(|id| id.to_string()))
    .bind(group.created_at.as_millis())
    .bind(group.updated_at.as_millis())
    .execute(change.connection())
    .await?;
    Ok(())
}

pub(crate) async fn find(
    connection: &mut SqliteConnection,
    id: GroupId,
) -> Result<Option<Versioned<Group>>, StoreError> {
    let row = sqlx::query(r#"SELECT * FROM "groups" WHERE id = ?"#)
        .bind(id.to_string())
        .fetch_optional(connection)
        .await?;
    row.as_ref().map(versioned).transpose()
}

/// Groups after `after`, oldest first.
pub(crate) async fn list(
    connection: &mut SqliteConnection,
    name: Option<&str>,
    after: Option<GroupId>,
    limit: u32,
) -> Result<Vec<Group>, StoreError> {
    let rows = sqlx::query(
        r#"SELECT * FROM "groups" WHERE (?1 IS NULL OR name = ?1) AND (?2 IS NULL OR id > ?2)
           ORDER BY id LIMIT ?3"#,
    )
    .bind(name)
    .bind(after.map(|id| id.to_string()))
    .bind(limit)
    .fetch_all(connection)
    .await?;
    rows.iter().map(from_row).collect()
}

/// Replaces what can be changed of a group that exists.
pub(crate) async fn replace(
    change: &mut Change,
    group: &Versioned<Group>,
) -> Result<(), StoreError> {
    sqlx::query(r#"UPDATE "groups" SET name = ?, version = ?, updated_at = ? WHERE id = ?"#)
        .bind(&group.object.name)
        .bind(to_integer(group.version))
        .bind(group.object.updated_at.as_millis())
        .bind(group.object.id.to_string())
        .execute(change.connection())
        .await?;
    Ok(())
}

/// Deletes a group and its memberships.
pub(crate) async fn remove(change: &mut Change, id: GroupId) -> Result<(), StoreError> {
    sqlx::query(r#"DELETE FROM "groups" WHERE id = ?"#)
        .bind(id.to_string())
        .execute(change.connection())
        .await?;
    Ok(())
}

/// Members after `after`, oldest user first.
pub(crate) async fn members(
    connection: &mut SqliteConnection,
    id: GroupId,
    name: Option<&str>,
    after: Option<UserId>,
    limit: u32,
) -> Result<Vec<User>, StoreError> {
    let rows = sqlx::query(
        "SELECT users.* FROM group_members JOIN users ON users.id = group_members.user_id
         WHERE group_id = ?1 AND (?2 IS NULL OR name = ?2) AND (?3 IS NULL OR users.id > ?3)
         ORDER BY users.id LIMIT ?4",
    )
    .bind(id.to_string())
    .bind(name)
    .bind(after.map(|id| id.to_string()))
    .bind(limit)
    .fetch_all(connection)
    .await?;
    rows.iter().map(users::from_row).collect()
}

/// The groups of a user, in the order of their ids.
pub(crate) async fn of_user(
    connection: &mut SqliteConnection,
    user_id: UserId,
) -> Result<Vec<GroupId>, StoreError> {
    let rows =
        sqlx::query("SELECT group_id FROM group_members WHERE user_id = ? ORDER BY group_id")
            .bind(user_id.to_string())
            .fetch_all(connection)
            .await?;
    rows.iter().map(|row| row.parsed("group_id")).collect()
}

/// The groups of a user that belong to a provider.
pub(crate) async fn of_user_by_provider(
    connection: &mut SqliteConnection,
    user_id: UserId,
    provider_id: IdentityProviderId,
) -> Result<Vec<GroupId>, StoreError> {
    let rows = sqlx::query(
        r#"SELECT group_id FROM group_members JOIN "groups" ON "groups".id = group_id
           WHERE user_id = ? AND identity_provider_id = ? ORDER BY group_id"#,
    )
    .bind(user_id.to_string())
    .bind(provider_id.to_string())
    .fetch_all(connection)
    .await?;
    rows.iter().map(|row| row.parsed("group_id")).collect()
}

/// Whether the user was not a member before.
pub(crate) async fn insert_member(
    change: &mut Change,
    id: GroupId,
    user_id: UserId,
) -> Result<bool, StoreError> {
    let done = sqlx::query("INSERT OR IGNORE INTO group_members (group_id, user_id) VALUES (?, ?)")
        .bind(id.to_string())
        .bind(user_id.to_string())
        .execute(change.connection())
        .await?;
    Ok(done.rows_affected() > 0)
}

/// Whether the user was a member before.
pub(crate) async fn remove_member(
    change: &mut Change,
    id: GroupId,
    user_id: UserId,
) -> Result<bool, StoreError> {
    let done = sqlx::query("DELETE FROM group_members WHERE group_id = ? AND user_id = ?")
        .bind(id.to_string())
        .bind(user_id.to_string())
        .execute(change.connection())
        .await?;
    Ok(done.rows_affected() > 0)
}

fn versioned(row: &SqliteRow) -> Result<Versioned<Group>, StoreError> {
    Ok(Versioned { version: row.unsigned("version")?, object: from_row(row)? })
}

fn from_row(row: &SqliteRow) -> Result<Group, StoreError> {
    Ok(Group {
        id: row.parsed("id")?,
        name: row.text("name")?,
        identity_provider_id: row.parsed_option("identity_provider_id")?,
        created_at: row.time("created_at")?,
        updated_at: row.time("updated_at")?,
    })
}
