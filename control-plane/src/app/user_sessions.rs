//! Sessions: how long a user is signed in on a device.

use std::time::Duration;

use adit_proto::{
    DeviceId, UserSessionId,
    api::{ProblemCode, UserSession},
};

use crate::{
    app::{App, random, revocation},
    error::ApiError,
    store::{
        Actor, ActorId, Change, Versioned, devices, organisation, sign_ins::Authentication,
        user_sessions,
    },
};

/// Begins a session, in place of the one before. What the device does goes on.
pub(crate) async fn start(
    change: &mut Change,
    device_id: DeviceId,
    authentication: &Authentication,
) -> Result<(), ApiError> {
    let organisation = organisation::read(change.connection()).await?.object;
    let authenticated_at = authentication.authenticated_at;
    let ends_at = organisation
        .session_lifetime_s
        .map(|lifetime| authenticated_at.saturating_add(Duration::from_secs(lifetime)));
    let session = UserSession {
        id: UserSessionId::from_uuid(random::new_uuid(change.now())?),
        device_id,
        user_id: authentication.user_id,
        identity_provider_id: authentication.identity_provider_id,
        authenticated_at,
        authentication_methods: authentication.methods.clone(),
        ends_at,
        ended_at: None,
    };
    Ok(user_sessions::replace(change, &session).await?)
}

/// Ends a session and cuts what its device does; one that is over stays as it is. `matches` judges
/// the version that is there.
pub(crate) async fn end(
    app: &App,
    actor: Actor,
    id: UserSessionId,
    matches: impl FnOnce(u64) -> Result<(), ApiError>,
) -> Result<Versioned<UserSession>, ApiError> {
    let mut change = app.store.begin_change(actor).await?;
    let held =
        user_sessions::find(change.connection(), id).await?.ok_or_else(ApiError::not_found)?;
    matches(held.version)?;
    cut(change, held).await
}

/// Ends the session of the device that asks for it.
pub(crate) async fn log_out(app: &App, device_id: DeviceId) -> Result<(), ApiError> {
    let mut change = app.store.begin_change(ActorId::Device(device_id)).await?;
    let held = user_sessions::of_device(change.connection(), device_id).await?;
    let held = held.ok_or_else(|| {
        ApiError::conflict(
            "Nobody signed in on this device: it joined with an enrolment key; use `adit down`.",
        )
    })?;
    cut(change, held).await?;
    Ok(())
}

async fn cut(
    mut change: Change,
    held: Versioned<UserSession>,
) -> Result<Versioned<UserSession>, ApiError> {
    let now = change.now();
    if held.object.is_over(now) {
        return Ok(held);
    }
    let id = held.object.id;
    let ended = Versioned {
        version: held.version + 1,
        object: UserSession { ended_at: Some(now), ..held.object },
    };
    let device = devices::find(change.connection(), ended.object.device_id).await?;
    revocation::revoke_device(&mut change, &device.ok_or_else(ApiError::not_found)?).await?;
    user_sessions::end(&mut change, id, now).await?;
    change.commit("session.end", id, Some(&ended.object)).await?;
    Ok(ended)
}

/// What a device is told whose user is signed in no more.
pub(crate) fn expired() -> ApiError {
    ApiError::new(ProblemCode::SessionExpired, adit_proto::Reason::SessionExpired.remedy())
}
