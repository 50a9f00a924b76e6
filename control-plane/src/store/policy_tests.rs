//! Policy tests, and what they name.

use adit_proto::{
    PolicyTestId, UserId,
    api::{PolicyTest, TestSubject, TestTarget},
};
use sqlx::{SqliteConnection, sqlite::SqliteRow};

use super::{
    Change, StoreError, Versioned,
    row::{RowExt as _, to_integer, to_json, to_word},
};

pub(crate) async fn insert(
    change: &mut Change,
    test: &Versioned<PolicyTest>,
) -> Result<(), StoreError> {
    let Versioned { version, object } = test;
    let subject_id = match &object.subject {
        TestSubject::User(id) => id.to_string(),
        TestSubject::Group(id) => id.to_string(),
        TestSubject::Device(id) => id.to_string(),
    };
    let (resource_id, flow) = match &object.target {
        TestTarget::Resource(id) => (Some(id.to_string()), None),
        TestTarget::Flow(flow) => (None, Some(to_json(flow))),
    };
    sqlx::query(
        "INSERT INTO policy_tests (id, name, subject_id, resource_id, flow, facts, expect,
             version, created_at, updated_at)
         VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
    )
    .bind(object.id.to_string())
    .bind(&object.name)
    .bind(subject_id)
    .bind(resource_id)
    .bind(flow)
    .bind(to_json(&object.facts))
    .bind(to_word(&object.expect))
    .bind(to_integer(*version))
    .bind(object.created_at.as_millis())
    .bind(object.updated_at.as_millis())
    .execute(change.connection())
    .await?;
    Ok(())
}

pub(crate) async fn find(
    connection: &mut SqliteConnection,
    id: PolicyTestId,
) -> Result<Option<Versioned<PolicyTest>>, StoreError> {
    let row = sqlx::query("SELECT * FROM policy_tests WHERE id = ?")
        .bind(id.to_string())
        .fetch_optional(connection)
        .await?;
    row.as_ref().map(versioned).transpose()
}

/// Tests after `after`, oldest first.
pub(crate) async fn list(
    connection: &mut SqliteConnection,
    name: Option<&str>,
    after: Option<PolicyTestId>,
    limit: u32,
) -> Result<Vec<PolicyTest>, StoreError> {
    let rows = sqlx::query(
        "SELECT * FROM policy_tests WHERE (?1 IS NULL OR name = ?1) AND (?2 IS NULL OR id > ?2)
         ORDER BY id LIMIT ?3",
    )
    .bind(name)
    .bind(after.map(|id| id.to_string()))
    .bind(limit)
    .fetch_all(connection)
    .await?;
    rows.iter().map(from_row).collect()
}

/// Every test, in the order of their ids.
pub(crate) async fn all(
    connection: &mut SqliteConnection,
) -> Result<Vec<Versioned<PolicyTest>>, StoreError> {
    let rows = sqlx::query("SELECT * FROM policy_tests ORDER BY id").fetch_all(connection).await?;
    rows.iter().map(versioned).collect()
}

/// The name of a test that names this user, group, device or resource.
pub(crate) async fn naming(
    connection: &mut SqliteConnection,
    object_id: &str,
) -> Result<Option<String>, StoreError> {
    let row = sqlx::query(
        "SELECT name FROM policy_tests WHERE subject_id = ?1 OR resource_id = ?1
         ORDER BY id LIMIT 1",
    )
    .bind(object_id)
    .fetch_optional(connection)
    .await?;
    row.map(|row| row.text("name")).transpose()
}

/// The name of a test that names a device of this user.
pub(crate) async fn naming_device_of(
    connection: &mut SqliteConnection,
    user_id: UserId,
) -> Result<Option<String>, StoreError> {
    let row = sqlx::query(
        "SELECT policy_tests.name FROM devices JOIN policy_tests ON subject_id = devices.id
         WHERE user_id = ? ORDER BY policy_tests.id LIMIT 1",
    )
    .bind(user_id.to_string())
    .fetch_optional(connection)
    .await?;
    row.map(|row| row.text("name")).transpose()
}

pub(crate) async fn remove(change: &mut Change, id: PolicyTestId) -> Result<(), StoreError> {
    sqlx::query("DELETE FROM policy_tests WHERE id = ?")
        .bind(id.to_string())
        .execute(change.connection())
        .await?;
    Ok(())
}

fn versioned(row: &SqliteRow) -> Result<Versioned<PolicyTest>, StoreError> {
    Ok(Versioned { version: row.unsigned("version")?, object: from_row(row)? })
}

fn from_row(row: &SqliteRow) -> Result<PolicyTest, StoreError> {
    let subject = row.parsed("subject_id").map(TestSubject::User);
    let subject = subject.or_else(|_error| row.parsed("subject_id").map(TestSubject::Group));
    let subject = subject.or_else(|_error| row.parsed("subject_id").map(TestSubject::Device))?;
    let target = match row.parsed_option("resource_id")? {
        Some(id) => TestTarget::Resource(id),
        None => TestTarget::Flow(row.json("flow")?),
    };
    Ok(PolicyTest {
        id: row.parsed("id")?,
        name: row.text("name")?,
        subject,
        target,
        facts: row.json("facts")?,
        expect: row.word("expect")?,
        created_at: row.time("created_at")?,
        updated_at: row.time("updated_at")?,
    })
}
