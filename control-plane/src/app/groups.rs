//! Groups and memberships.

use adit_proto::{
    GroupId, UserId,
    api::{Group, GroupWrite},
};
use serde_json::json;

use crate::{
    app::{
        App, consequence::check_tests, policies::refuse_if_named, random, revocation::revoke_user,
        validate,
    },
    error::ApiError,
    store::{Actor, Change, Created, Versioned, groups, users},
};

pub(crate) async fn create(
    app: &App,
    actor: Actor,
    write: GroupWrite,
) -> Result<Created, ApiError> {
    validate::name(&write.name)?;
    let mut change = app.store.begin_change(actor).await?;
    let now = change.now();
    let id = GroupId::from_uuid(random::new_uuid(now)?);
    let group = Group {
        id,
        name: write.name,
        identity_provider_id: None,
        created_at: now,
        updated_at: now,
    };
    groups::insert(&mut change, &group).await?;
    let created = Created::new("/v1/groups", id, &group);
    Ok(change.commit_creation_unannounced("group.create", id, &group, created).await?)
}

/// Replaces a group; `matches` judges the version that is there.
pub(crate) async fn replace(
    app: &App,
    actor: Actor,
    id: GroupId,
    write: GroupWrite,
    matches: impl FnOnce(u64) -> Result<(), ApiError>,
) -> Result<Versioned<Group>, ApiError> {
    validate::name(&write.name)?;
    let mut change = app.store.begin_change(actor).await?;
    let held = groups::find(change.connection(), id).await?.ok_or_else(ApiError::not_found)?;
    matches(held.version)?;
    let group = Versioned {
        version: held.version + 1,
        object: Group { name: write.name, updated_at: change.now(), ..held.object },
    };
    groups::replace(&mut change, &group).await?;
    change.commit_unannounced("group.replace", id, Some(&group.object)).await?;
    Ok(group)
}

/// Deletes a group that no policy names; so nobody's rights change.
pub(crate) async fn remove(
    app: &App,
    actor: Actor,
    id: GroupId,
    matches: impl FnOnce(u64) -> Result<(), ApiError>,
) -> Result<(), ApiError> {
    let mut change = app.store.begin_change(actor).await?;
    let held = groups::find(change.connection(), id).await?.ok_or_else(ApiError::not_found)?;
    matches(held.version)?;
    refuse_if_named(&mut change, id).await?;
    groups::remove(&mut change, id).await?;
    change.commit("group.delete", id, None::<&Group>).await?;
    Ok(())
}

/// Puts a user into a group. Credentials hold groups, so those issued before are void.
pub(crate) async fn insert_member(
    app: &App,
    actor: Actor,
    id: GroupId,
    user_id: UserId,
) -> Result<(), ApiError> {
    let mut change = app.store.begin_change(actor).await?;
    find_both(&mut change, id, user_id).await?;
    if groups::insert_member(&mut change, id, user_id).await? {
        revoke_user(&mut change, user_id).await?;
        check_tests(app, &mut change).await?;
        let member = json!({ "user_id": user_id });
        change.commit("group.member.add", id, Some(&member)).await?;
    }
    Ok(())
}

/// Takes a user out of a group. Credentials hold groups, so those issued before are void.
pub(crate) async fn remove_member(
    app: &App,
    actor: Actor,
    id: GroupId,
    user_id: UserId,
) -> Result<(), ApiError> {
    let mut change = app.store.begin_change(actor).await?;
    find_both(&mut change, id, user_id).await?;
    if !groups::remove_member(&mut change, id, user_id).await? {
        return Err(ApiError::not_found());
    }
    revoke_user(&mut change, user_id).await?;
    check_tests(app, &mut change).await?;
    let member = json!({ "user_id": user_id });
    change.commit("group.member.remove", id, Some(&member)).await?;
    Ok(())
}

async fn find_both(change: &mut Change, id: GroupId, user_id: UserId) -> Result<(), ApiError> {
    let group = groups::find(change.connection(), id).await?.ok_or_else(ApiError::not_found)?;
    if group.object.identity_provider_id.is_some() {
        return Err(ApiError::conflict(
            "The identity provider says who is in this group; change it there, and sign in anew.",
        ));
    }
    users::find(change.connection(), user_id).await?.ok_or_else(ApiError::not_found)?;
    Ok(())
}
