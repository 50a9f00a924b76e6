//! Issuing device credentials.

use std::time::Duration;

use adit_proto::{
    Confirmation, Credential, DeviceId, NumericDate,
    api::{CredentialIssued, Device, DeviceState, ProblemCode, User},
};

use crate::{
    app::{App, revocation::next_issue},
    error::ApiError,
    store::{ActorId, devices, groups, organisation, revocations, users},
};

/// Issues a credential to a device that may connect.
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
    let expires_at =
        issued_at.saturating_add(Duration::from_secs(organisation.credential_lifetime_s));
    let newest = record.credential_issued_at.map_or(issued_at, |it| it.max(issued_at));
    let seen_at = change.now();
    devices::set_credential_issued(&mut change, device.id, newest, seen_at).await?;
    change.commit_unaudited().await?;

    let credential = Credential {
        device_id: device.id,
        user_id: user.id,
        groups,
        posture: Vec::new(),
        addresses: device.addresses,
        wireguard_public_key: device.wireguard_public_key,
        confirmation: Confirmation { pin: identity.pin },
        auth_time: NumericDate(record.authenticated_at),
        authentication_methods: Vec::new(),
        issued_at: NumericDate(issued_at),
        expires_at: NumericDate(expires_at),
    };
    let signed = app.signer.sign_credential(credential);
    Ok(CredentialIssued { credential: signed.token().to_owned(), expires_at })
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
