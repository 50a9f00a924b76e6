//! Policies.

use std::fmt::Display;

use adit_policy::{InvalidPolicy, validate_policy};
use adit_proto::{
    PolicyId, Timestamp, UserId,
    api::{Policy, PolicyDryRun, PolicyWrite},
};

use crate::{
    app::{
        App,
        consequence::{check_tests, foresee},
        policy_version, random, validate,
    },
    error::ApiError,
    store::{
        Actor, Change, Created, Versioned,
        policies::{self, Named},
        policy_tests,
    },
};

/// How a change of policies is meant.
#[derive(Debug, Clone, Default)]
pub(crate) struct Intent {
    /// Only to see what it would bring.
    pub(crate) dry_run: bool,
    /// Why, for the history.
    pub(crate) reason: Option<String>,
}

/// What became of a change of policies.
#[derive(Debug)]
pub(crate) enum Written<T> {
    /// It was made.
    Done(T),
    /// It would bring this.
    Foreseen(PolicyDryRun),
}

impl<T> Written<T> {
    /// The same of another answer.
    pub(crate) fn map<U>(self, answer: impl FnOnce(T) -> U) -> Written<U> {
        match self {
            Self::Done(done) => Written::Done(answer(done)),
            Self::Foreseen(foreseen) => Written::Foreseen(foreseen),
        }
    }
}

pub(crate) async fn create(
    app: &App,
    actor: Actor,
    write: PolicyWrite,
    intent: Intent,
) -> Result<Written<Created>, ApiError> {
    check(&write)?;
    let mut change = app.store.begin_change(actor).await?;
    check_references(&mut change, &write).await?;
    let now = change.now();
    let id = PolicyId::from_uuid(random::new_uuid(now)?);
    let policy = Versioned { version: 1, object: as_written(id, write.clone(), now, now) };
    policies::insert(&mut change, &policy).await?;
    if intent.dry_run {
        return Ok(Written::Foreseen(foresee(app, change).await?));
    }
    check_tests(app, &mut change).await?;
    let (operation, reason) = ("policy.create", intent.reason.as_deref());
    policy_version::record(&mut change, operation, reason, id, Some(&write)).await?;
    let created = Created::new("/v1/policies", id, &policy.object);
    let created = change.commit_creation(operation, id, &policy.object, created).await?;
    Ok(Written::Done(created))
}

/// Replaces a policy; `matches` judges the version that is there.
pub(crate) async fn replace(
    app: &App,
    actor: Actor,
    id: PolicyId,
    write: PolicyWrite,
    intent: Intent,
    matches: impl FnOnce(u64) -> Result<(), ApiError>,
) -> Result<Written<Versioned<Policy>>, ApiError> {
    check(&write)?;
    let mut change = app.store.begin_change(actor).await?;
    let held = policies::find(change.connection(), id).await?.ok_or_else(ApiError::not_found)?;
    matches(held.version)?;
    check_references(&mut change, &write).await?;
    let policy = Versioned {
        version: held.version + 1,
        object: as_written(id, write.clone(), held.object.created_at, change.now()),
    };
    policies::replace(&mut change, &policy).await?;
    if intent.dry_run {
        return Ok(Written::Foreseen(foresee(app, change).await?));
    }
    check_tests(app, &mut change).await?;
    let (operation, reason) = ("policy.replace", intent.reason.as_deref());
    policy_version::record(&mut change, operation, reason, id, Some(&write)).await?;
    change.commit(operation, id, Some(&policy.object)).await?;
    Ok(Written::Done(policy))
}

pub(crate) async fn remove(
    app: &App,
    actor: Actor,
    id: PolicyId,
    intent: Intent,
    matches: impl FnOnce(u64) -> Result<(), ApiError>,
) -> Result<Written<()>, ApiError> {
    let mut change = app.store.begin_change(actor).await?;
    let held = policies::find(change.connection(), id).await?.ok_or_else(ApiError::not_found)?;
    matches(held.version)?;
    policies::remove(&mut change, id).await?;
    if intent.dry_run {
        return Ok(Written::Foreseen(foresee(app, change).await?));
    }
    check_tests(app, &mut change).await?;
    let (operation, reason) = ("policy.delete", intent.reason.as_deref());
    policy_version::record(&mut change, operation, reason, id, None::<&Policy>).await?;
    change.commit(operation, id, None::<&Policy>).await?;
    Ok(Written::Done(()))
}

/// The policy that someone wants to have.
pub(crate) fn as_written(
    id: PolicyId,
    write: PolicyWrite,
    created_at: Timestamp,
    updated_at: Timestamp,
) -> Policy {
    let PolicyWrite { name, effect, subjects, resources, conditions, disabled } = write;
    Policy { id, name, effect, subjects, resources, conditions, disabled, created_at, updated_at }
}

/// What one would write to have this policy.
pub(crate) fn to_write(policy: Policy) -> PolicyWrite {
    let Policy { name, effect, subjects, resources, conditions, disabled, .. } = policy;
    PolicyWrite { name, effect, subjects, resources, conditions, disabled }
}

/// Refuses to delete what a policy names: a policy that lost its last name would mean another
/// thing than what was written. What a policy test names has to stay for the same reason.
pub(crate) async fn refuse_if_named(change: &mut Change, id: impl Display) -> Result<(), ApiError> {
    let (id, connection) = (id.to_string(), change.connection());
    let policy = policies::naming(&mut *connection, &id).await?;
    still_named("This", policy, policy_tests::naming(connection, &id).await?)
}

/// As [`refuse_if_named`], of the devices that go with a user.
pub(crate) async fn refuse_if_device_named(
    change: &mut Change,
    user_id: UserId,
) -> Result<(), ApiError> {
    let connection = change.connection();
    let policy = policies::naming_device_of(&mut *connection, user_id).await?;
    let test = policy_tests::naming_device_of(connection, user_id).await?;
    still_named("A device of this user", policy, test)
}

fn still_named(
    what: &str,
    policy: Option<(PolicyId, String)>,
    test: Option<String>,
) -> Result<(), ApiError> {
    if let Some((id, name)) = policy {
        return Err(ApiError::conflict(format!(
            "{what} is named by the policy `{name}` ({id}); change or delete the policy first."
        )));
    }
    match test {
        Some(name) => Err(ApiError::conflict(format!(
            "{what} is named by the policy test `{name}`; change or delete the test first."
        ))),
        None => Ok(()),
    }
}

pub(crate) fn check(write: &PolicyWrite) -> Result<(), ApiError> {
    validate::name(&write.name)?;
    validate_policy(write)
        .map_err(|InvalidPolicy { field, message }| ApiError::invalid(field, message))
}

pub(crate) async fn check_references(
    change: &mut Change,
    write: &PolicyWrite,
) -> Result<(), ApiError> {
    let lists = [
        (Named::Users, serde_json::json!(write.subjects.users), "/subjects/users"),
        (Named::Groups, serde_json::json!(write.subjects.groups), "/subjects/groups"),
        (Named::Devices, serde_json::json!(write.subjects.devices), "/subjects/devices"),
        (Named::Resources, serde_json::json!(write.resources.ids), "/resources/ids"),
    ];
    for (named, ids, field) in lists {
        if let Some(index) = policies::first_missing(change.connection(), named, &ids).await? {
            let detail = "There is no such object; check the id.";
            return Err(ApiError::invalid(format!("{field}/{index}"), detail));
        }
    }
    Ok(())
}
