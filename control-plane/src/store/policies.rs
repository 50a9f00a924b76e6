//! Policies, and what they name.

use adit_proto::{
    PolicyId, UserId,
    api::{Effect, Policy},
};
use serde::Serialize;
use sqlx::{SqliteConnection, sqlite::SqliteRow};

use super::{
    Change, StoreError, Versioned,
    row::{RowExt as _, to_integer, to_json, to_word},
};

pub(crate) async fn insert(
    change: &mut Change,
    policy: &Versioned<Policy>,
) -> Result<(), StoreError> {
    let Versioned { version, object: policy } = policy;
    sqlx::query(
        "INSERT INTO policies (id, name, effect, subjects, resources, conditions, disabled,
             version, created_at, updated_at)
         VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
    )
    .bind(policy.id.to_string())
    .bind(&policy.name)
    .bind(to_word(&policy.effect))
    .bind(to_json(&policy.subjects))
    .bind(to_json(&policy.resources))
    .bind(to_json(&policy.conditions))
    .bind(policy.disabled)
    .bind(to_integer(*version))
    .bind(policy.created_at.as_millis())
    .bind(policy.updated_at.as_millis())
    .execute(change.connection())
    .await?;
    insert_references(change, policy).await
}

pub(crate) async fn find(
    connection: &mut SqliteConnection,
    id: PolicyId,
) -> Result<Option<Versioned<Policy>>, StoreError> {
    let row = sqlx::query("SELECT * FROM policies WHERE id = ?")
        .bind(id.to_string())
        .fetch_optional(connection)
        .await?;
    row.as_ref().map(versioned).transpose()
}

/// Which policies to list.
#[derive(Debug, Default)]
pub(crate) struct Filter {
    pub(crate) name: Option<String>,
    pub(crate) effect: Option<Effect>,
    /// The id of a user, group, device or resource that they name.
    pub(crate) object_id: Option<String>,
}

/// Policies after `after`, oldest first.
pub(crate) async fn list(
    connection: &mut SqliteConnection,
    filter: &Filter,
    after: Option<PolicyId>,
    limit: u32,
) -> Result<Vec<Policy>, StoreError> {
    let rows = sqlx::query(
        "SELECT * FROM policies
         WHERE (?1 IS NULL OR name = ?1) AND (?2 IS NULL OR effect = ?2)
           AND (?3 IS NULL OR EXISTS (SELECT 1 FROM policy_references
                                      WHERE policy_id = policies.id AND object_id = ?3))
           AND (?4 IS NULL OR id > ?4)
         ORDER BY id LIMIT ?5",
    )
    .bind(&filter.name)
    .bind(filter.effect.as_ref().map(to_word))
    .bind(&filter.object_id)
    .bind(after.map(|id| id.to_string()))
    .bind(limit)
    .fetch_all(connection)
    .await?;
    rows.iter().map(from_row).collect()
}

/// Every policy, in the order of their ids.
pub(crate) async fn all(
    connection: &mut SqliteConnection,
) -> Result<Vec<Versioned<Policy>>, StoreError> {
    let rows = sqlx::query("SELECT * FROM policies ORDER BY id").fetch_all(connection).await?;
    rows.iter().map(versioned).collect()
}

/// Policies that are enabled, in the order of their ids.
pub(crate) async fn enabled(connection: &mut SqliteConnection) -> Result<Vec<Policy>, StoreError> {
    let rows = sqlx::query("SELECT * FROM policies WHERE disabled = 0 ORDER BY id")
        .fetch_all(connection)
        .await?;
    rows.iter().map(from_row).collect()
}

/// A policy that names this user, group, device or resource, and its name.
pub(crate) async fn naming(
    connection: &mut SqliteConnection,
    object_id: &str,
) -> Result<Option<(PolicyId, String)>, StoreError> {
    let row = sqlx::query(
        "SELECT id, name FROM policy_references JOIN policies ON policies.id = policy_id
         WHERE object_id = ? ORDER BY id LIMIT 1",
    )
    .bind(object_id)
    .fetch_optional(connection)
    .await?;
    row.map(|row| Ok((row.parsed("id")?, row.text("name")?))).transpose()
}

/// A policy that names a device of this user, and its name.
pub(crate) async fn naming_device_of(
    connection: &mut SqliteConnection,
    user_id: UserId,
) -> Result<Option<(PolicyId, String)>, StoreError> {
    let row = sqlx::query(
        "SELECT policies.id, policies.name
         FROM devices JOIN policy_references ON object_id = devices.id
         JOIN policies ON policies.id = policy_id
         WHERE user_id = ? ORDER BY policies.id LIMIT 1",
    )
    .bind(user_id.to_string())
    .fetch_optional(connection)
    .await?;
    row.map(|row| Ok((row.parsed("id")?, row.text("name")?))).transpose()
}

/// What a policy can name.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Named {
    Users,
    Groups,
    Devices,
    Resources,
}

/// The index of the first of `ids` that does not exist.
pub(crate) async fn first_missing(
    connection: &mut SqliteConnection,
    named: Named,
    ids: &impl Serialize,
) -> Result<Option<u64>, StoreError> {
    let query = match named {
        Named::Users => {
            "SELECT key FROM json_each(?) WHERE value NOT IN (SELECT id FROM users) LIMIT 1"
        }
        Named::Groups => {
            r#"SELECT key FROM json_each(?) WHERE value NOT IN (SELECT id FROM "groups") LIMIT 1"#
        }
        Named::Devices => {
            "SELECT key FROM json_each(?) WHERE value NOT IN (SELECT id FROM devices) LIMIT 1"
        }
        Named::Resources => {
            "SELECT key FROM json_each(?) WHERE value NOT IN (SELECT id FROM resources) LIMIT 1"
        }
    };
    let row = sqlx::query(query).bind(to_json(ids)).fetch_optional(connection).await?;
    row.map(|row| row.unsigned("key")).transpose()
}

/// The ids of all objects of a kind, and their names.
pub(crate) async fn names(
    connection: &mut SqliteConnection,
    named: Named,
) -> Result<Vec<(String, String)>, StoreError> {
    let query = match named {
        Named::Users => "SELECT id, name FROM users",
        Named::Groups => r#"SELECT id, name FROM "groups""#,
        Named::Devices => "SELECT id, name FROM devices",
        Named::Resources => "SELECT id, name FROM resources",
    };
    let rows = sqlx::query(query).fetch_all(connection).await?;
    rows.iter().map(|row| Ok((row.text("id")?, row.text("name")?))).collect()
}

/// Replaces what can be changed of a policy that exists.
pub(crate) async fn replace(
    change: &mut Change,
    policy: &Versioned<Policy>,
) -> Result<(), StoreError> {
    let Versioned { version, object } = policy;
    sqlx::query(
        "UPDATE policies SET name = ?, effect = ?, subjects = ?, resources = ?, conditions = ?,
             disabled = ?, version = ?, updated_at = ?
         WHERE id = ?",
    )
    .bind(&object.name)
    .bind(to_word(&object.effect))
    .bind(to_json(&object.subjects))
    .bind(to_json(&object.resources))
    .bind(to_json(&object.conditions))
    .bind(object.disabled)
    .bind(to_integer(*version))
    .bind(object.updated_at.as_millis())
    .bind(object.id.to_string())
    .execute(change.connection())
    .await?;
    sqlx::query("DELETE FROM policy_references WHERE policy_id = ?")
        .bind(object.id.to_string())
        .execute(change.connection())
        .await?;
    insert_references(change, object).await
}

pub(crate) async fn remove(change: &mut Change, id: PolicyId) -> Result<(), StoreError> {
    sqlx::query("DELETE FROM policies WHERE id = ?")
        .bind(id.to_string())
        .execute(change.connection())
        .await?;
    Ok(())
}

async fn insert_references(change: &mut Change, policy: &Policy) -> Result<(), StoreError> {
    let users = policy.subjects.users.iter().map(ToString::to_string);
    let groups = policy.subjects.groups.iter().map(ToString::to_string);
    let devices = policy.subjects.devices.iter().map(ToString::to_string);
    let resources = policy.resources.ids.iter().map(ToString::to_string);
    let object_ids: Vec<String> = users.chain(groups).chain(devices).chain(resources).collect();
    sqlx::query(
        "INSERT OR IGNORE INTO policy_references (policy_id, object_id)
         SELECT ?1, value FROM json_each(?2)",
    )
    .bind(policy.id.to_string())
    .bind(to_json(&object_ids))
    .execute(change.connection())
    .await?;
    Ok(())
}

fn versioned(row: &SqliteRow) -> Result<Versioned<Policy>, StoreError> {
    Ok(Versioned { version: row.unsigned("version")?, object: from_row(row)? })
}

fn from_row(row: &SqliteRow) -> Result<Policy, StoreError> {
    Ok(Policy {
        id: row.parsed("id")?,
        name: row.text("name")?,
        effect: row.word("effect")?,
        subjects: row.json("subjects")?,
        resources: row.json("resources")?,
        conditions: row.json("conditions")?,
        disabled: row.flag("disabled")?,
        created_at: row.time("created_at")?,
        updated_at: row.time("updated_at")?,
    })
}
