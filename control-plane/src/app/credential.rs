//! Issuing device credentials.

use std::time::Duration;

use adit_proto::{
    Confirmation, Credential, DeviceId, NumericDate,
    api::{CredentialIssued, Device, DeviceState, ProblemCode, User},
};

use crate::{
    app::{App, revocation::next_issue, user_sessions::expired},
    error::ApiError,
    store::{ActorId, devices, groups, organisation, revocations, user_sessions, users},
};

/// Issues a credential to a device that may connect. It does not outlive the user's session.
///
/// Reads and writes in one transaction: a revocation comes before it, and is obeyed, or after
/// it, and voids it.
pub(crate) async fn issue(app: &App, device_id: DeviceId) -> Result<CredentialIssued, ApiError> {
    let mut change = app.store.begin_change(ActorId::Device(device_id)).await?;
    let record = devices::find(change.connection(), device_id)
        .await?
        .ok_or_else(ApiError::not_authenticated)?;
    let identity = record.identity.ok_or_else(ApiError::not_authenticated)?;
    let device = record.device;
    let user = users::find(change.connection(), device.user_id)
        .await?
        .ok_or_else(ApiError::not_authenticated)?
        .object;
    refuse_unless_approved(&device, &user)?;
    let groups = groups::of_user(change.connection(), user.id).await?;
    let organisation = organisation::read(change.connection()).await?.object;
    let not_before = revocations::last_not_before(change.connection(), device.id, user.id).await?;

    let issued_at = next_issue(change.now(), not_before);
    let session = user_sessions::of_device(change.connection(), device.id).await?;
    let session = session.map(|session| session.object);
    if session.as_ref().is_some_and(|session| session.is_over(issued_at)) {
        return Err(expired());
    }
    let session_ends_at = session.as_ref().and_then(|session| session.ends_at);
    let lifetime = Duration::from_secs(organisation.credential_lifetime_s);
    let expires_at = issued_at.saturating_add(lifetime);
    let expires_at = session_ends_at.map_or(expires_at, |ends_at| ends_at.min(expires_at));
    let newest = record.credential_issued_at.map_or(issued_at, |it| it.max(issued_at));
    let seen_at = change.now();
    devices::set_credential_issued(&mut change, device.id, newest, seen_at).await?;
    change.commit_unaudited().await?;

    let (authenticated_at, authentication_methods) = match session {
        Some(session) => (session.authenticated_at, session.authentication_methods),
        None => (record.authenticated_at, Vec::new()),
    };
    let credential = Credential {
        device_id: device.id,
        user_id: user.id,
        groups,
        posture: Vec::new(),
        addresses: device.addresses,
        wireguard_public_key: device.wireguard_public_key,
        confirmation: Confirmation { pin: identity.pin },
        auth_time: NumericDate(authenticated_at),
        authentication_methods,
        issued_at: NumericDate(issued_at),
        expires_at: NumericDate(expires_at),
    };
    let signed = app.signer.sign_credential(credential);
    let credential = signed.token().to_owned();
    Ok(CredentialIssued { credential, expires_at, session_ends_at })
}
/// Refuses a device that waits, or that was revoked, or whose user is disabled.
pub(crate) fn refuse_unless_approved(device: &Device, user: &User) -> Result<(), ApiError> {
    if user.disabled {
        return Err(ApiError::new(
            ProblemCode::DeviceRevoked,
            "The user of this device is disabled; ask an administrator.",
        ));
    }
    match device.state {
        DeviceState::Approved => Ok(()),
        DeviceState::Pending => Err(ApiError::new(
            ProblemCode::DevicePending,
            "The device waits for approval; ask an administrator.",
        )),
        DeviceState::Revoked => Err(ApiError::new(
            ProblemCode::DeviceRevoked,
            "Access of this device was revoked; ask an administrator.",
        )),
    }
}
