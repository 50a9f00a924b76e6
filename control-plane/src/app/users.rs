//! Users.

use adit_proto::{
    UserId,
    api::{User, UserWrite},
};

use crate::{
    app::{
        App,
        policies::{refuse_if_device_named, refuse_if_named},
        random,
        revocation::revoke_user,
        validate,
    },
    error::ApiError,
    store::{Actor, Created, Versioned, users},
};

pub(crate) async fn create(app: &App, actor: Actor, write: UserWrite) -> Result<Created, ApiError> {
    check(&write)?;
    let mut change = app.store.begin_change(actor).await?;
    let now = change.now();
    let user = User {
        id: UserId::from_uuid(random::new_uuid(now)?),
        name: write.name,
        email: write.email,
        disabled: write.disabled,
        created_at: now,
        updated_at: now,
    };
    users::insert(&mut change, &user).await?;
    let created = Created::new("/v1/users", user.id, &user);
    Ok(change.commit_creation_unannounced("user.create", user.id, &user, created).await?)
}

/// Replaces a user; `matches` judges the version that is there.
pub(crate) async fn replace(
    app: &App,
    actor: Actor,
    id: UserId,
    write: UserWrite,
    matches: impl FnOnce(u64) -> Result<(), ApiError>,
) -> Result<Versioned<User>, ApiError> {
    check(&write)?;
    let mut change = app.store.begin_change(actor).await?;
    let held = users::find(change.connection(), id).await?.ok_or_else(ApiError::not_found)?;
    matches(held.version)?;
    let user = Versioned {
        version: held.version + 1,
        object: User {
            id,
            name: write.name,
            email: write.email,
            disabled: write.disabled,
            created_at: held.object.created_at,
            updated_at: change.now(),
        },
    };
    users::replace(&mut change, &user).await?;
    if user.object.disabled && !held.object.disabled {
        revoke_user(&mut change, id).await?;
    }
    change.commit("user.replace", id, Some(&user.object)).await?;
    Ok(user)
}

/// Deletes a user with devices, enrolment keys and memberships, and cuts what the devices do.
pub(crate) async fn remove(
    app: &App,
    actor: Actor,
    id: UserId,
    matches: impl FnOnce(u64) -> Result<(), ApiError>,
) -> Result<(), ApiError> {
    let mut change = app.store.begin_change(actor).await?;
    let held = users::find(change.connection(), id).await?.ok_or_else(ApiError::not_found)?;
    matches(held.version)?;
    refuse_if_named(&mut change, id).await?;
    refuse_if_device_named(&mut change, id).await?;
    revoke_user(&mut change, id).await?;
    users::remove(&mut change, id).await?;
    change.commit("user.delete", id, None::<&User>).await?;
    Ok(())
}

fn check(write: &UserWrite) -> Result<(), ApiError> {
    validate::name(&write.name)?;
    match &write.email {
        Some(email) => validate::text("/email", email, 254),
        None => Ok(()),
    }
}
