//! Users.

use adit_proto::{
    Revocation, RevokedSubject, UserId,
    api::{User, UserWrite},
};

use crate::{
    app::{App, random, validate},
    error::ApiError,
    store::{Actor, Change, Created, Versioned, revocations, users},
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
    Ok(change.commit_creation("user.create", user.id, &user, created).await?)
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
        revoke(&mut change, id).await?;
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
    revoke(&mut change, id).await?;
    users::remove(&mut change, id).await?;
    change.commit("user.delete", id, None::<&User>).await?;
    Ok(())
}

/// Voids every credential that the user's devices hold.
///
/// Clocks may have been set back since the last was issued, so that one counts too.
pub(super) async fn revoke(change: &mut Change, id: UserId) -> Result<(), ApiError> {
    let last_issued = users::last_credential_issued_at(change.connection(), id).await?;
    let not_before = last_issued.map_or(change.now(), |issued_at| issued_at.max(change.now()));
    revocations::upsert(change, Revocation { subject: RevokedSubject::User(id), not_before })
        .await?;
    Ok(())
}

fn check(write: &UserWrite) -> Result<(), ApiError> {
    validate::name(&write.name)?;
    match &write.email {
        Some(email) => validate::text("/email", email, 254),
        None => Ok(()),
    }
}
