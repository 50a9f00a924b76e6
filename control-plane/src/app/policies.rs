//! Policies.

use std::fmt::Display;

use adit_policy::{InvalidPolicy, validate_policy};
use adit_proto::{
    PolicyId,
    api::{Policy, PolicyWrite},
};

use crate::{
    app::{App, random, validate},
    error::ApiError,
    store::{
        Actor, Change, Created, Versioned,
        policies::{self, Named},
    },
};

pub(crate) async fn create(
    app: &App,
    actor: Actor,
    write: PolicyWrite,
) -> Result<Created, ApiError> {
    check(&write)?;
    let mut change = app.store.begin_change(actor).await?;
    check_references(&mut change, &write).await?;
    let now = change.now();
    let id = PolicyId::from_uuid(random::new_uuid(now)?);
    let policy = Policy {
        id,
        name: write.name,
        effect: write.effect,
        subjects: write.subjects,
        resources: write.resources,
        conditions: write.conditions,
        disabled: write.disabled,
        created_at: now,
        updated_at: now,
    };
    policies::insert(&mut change, &policy).await?;
    let created = Created::new("/v1/policies", id, &policy);
    Ok(change.commit_creation("policy.create", id, &policy, created).await?)
}

/// Replaces a policy; `matches` judges the version that is there.
pub(crate) async fn replace(
    app: &App,
    actor: Actor,
    id: PolicyId,
    write: PolicyWrite,
    matches: impl FnOnce(u64) -> Result<(), ApiError>,
) -> Result<Versioned<Policy>, ApiError> {
    check(&write)?;
    let mut change = app.store.begin_change(actor).await?;
    let held = policies::find(change.connection(), id).await?.ok_or_else(ApiError::not_found)?;
    matches(held.version)?;
    check_references(&mut change, &write).await?;
    let policy = Versioned {
        version: held.version + 1,
        object: Policy {
            id,
            name: write.name,
            effect: write.effect,
            subjects: write.subjects,
            resources: write.resources,
            conditions: write.conditions,
            disabled: write.disabled,
            created_at: held.object.created_at,
            updated_at: change.now(),
        },
    };
    policies::replace(&mut change, &policy).await?;
    change.commit("policy.replace", id, Some(&policy.object)).await?;
    Ok(policy)
}

pub(crate) async fn remove(
    app: &App,
    actor: Actor,
    id: PolicyId,
    matches: impl FnOnce(u64) -> Result<(), ApiError>,
) -> Result<(), ApiError> {
    let mut change = app.store.begin_change(actor).await?;
    let held = policies::find(change.connection(), id).await?.ok_or_else(ApiError::not_found)?;
    matches(held.version)?;
    policies::remove(&mut change, id).await?;
    change.commit("policy.delete", id, None::<&Policy>).await?;
    Ok(())
}

/// Refuses to delete what a policy names: a policy that lost its last name would mean another
/// thing than what was written.
pub(crate) async fn refuse_if_named(change: &mut Change, id: impl Display) -> Result<(), ApiError> {
    match policies::naming(change.connection(), &id.to_string()).await? {
        Some(policy) => Err(still_named("This", &policy)),
        None => Ok(()),
    }
}

pub(crate) fn still_named(what: &str, (id, name): &(PolicyId, String)) -> ApiError {
    ApiError::conflict(format!(
        "{what} is named by the policy `{name}` ({id}); change or delete the policy first."
    ))
}

fn check(write: &PolicyWrite) -> Result<(), ApiError> {
    validate::name(&write.name)?;
    validate_policy(write)
        .map_err(|InvalidPolicy { field, message }| ApiError::invalid(field, message))
}

async fn check_references(change: &mut Change, write: &PolicyWrite) -> Result<(), ApiError> {
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
