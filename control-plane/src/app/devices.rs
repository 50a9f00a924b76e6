//! Devices: plain WireGuard ones are made here, all are approved, revoked and deleted.

use adit_proto::{
    DeviceId,
    api::{Device, DeviceKind, DeviceState, WireguardDeviceWrite},
};

use crate::{
    app::{
        App, client_config,
        device_address::device_addresses,
        enroll::{next_host_number, refuse_taken_key},
        policies::refuse_if_named,
        random, revocation, validate,
        wireguard_config::wireguard_config,
    },
    error::ApiError,
    store::{Actor, Created, Versioned, devices, devices::DeviceRecord, organisation, users},
};

/// Registers a plain WireGuard device. Whoever does so has approved it.
pub(crate) async fn create(
    app: &App,
    actor: Actor,
    write: WireguardDeviceWrite,
) -> Result<Created, ApiError> {
    validate::name(&write.name)?;
    let mut change = app.store.begin_change(actor).await?;
    let now = change.now();
    if users::find(change.connection(), write.user_id).await?.is_none() {
        return Err(ApiError::invalid("/user_id", "There is no such user; check the id."));
    }
    refuse_taken_key(change.connection(), write.wireguard_public_key).await?;
    let ranges = organisation::read(change.connection()).await?.object.device_ranges;
    let host_number = next_host_number(&mut change, &ranges).await?;
    let device = Device {
        id: DeviceId::from_uuid(random::new_uuid(now)?),
        name: write.name,
        user_id: write.user_id,
        kind: DeviceKind::Wireguard,
        state: DeviceState::Approved,
        addresses: device_addresses(&ranges, host_number),
        wireguard_public_key: write.wireguard_public_key,
        last_seen_at: None,
        created_at: now,
        updated_at: now,
    };
    let record = DeviceRecord {
        device,
        version: 1,
        host_number,
        identity: None,
        authenticated_at: now,
        credential_issued_at: None,
    };
    devices::insert(&mut change, &record).await?;
    let device = record.device;
    let created = Created::new("/v1/devices", device.id, &device);
    Ok(change.commit_creation("device.create", device.id, &device, created).await?)
}

/// Lets a device connect, also one that was revoked; `matches` judges the version that is there.
pub(crate) async fn approve(
    app: &App,
    actor: Actor,
    id: DeviceId,
    matches: impl FnOnce(u64) -> Result<(), ApiError>,
) -> Result<Versioned<Device>, ApiError> {
    let mut change = app.store.begin_change(actor).await?;
    let record = devices::find(change.connection(), id).await?.ok_or_else(ApiError::not_found)?;
    matches(record.version)?;
    if record.device.state == DeviceState::Approved {
        return Ok(Versioned { version: record.version, object: record.device });
    }
    let object = Device { state: DeviceState::Approved, updated_at: change.now(), ..record.device };
    devices::set_state(&mut change, &object).await?;
    match object.kind {
        // A bundle lists it.
        DeviceKind::Wireguard => {
            change.commit("device.approve", id, Some(&object)).await?;
        }
        // It asks for a credential itself.
        DeviceKind::Client => {
            change.commit_unannounced("device.approve", id, Some(&object)).await?;
        }
    }
    Ok(Versioned { version: record.version + 1, object })
}

/// Cuts what a device does, and refuses it until it is approved anew; `matches` judges the version
/// that is there.
pub(crate) async fn revoke(
    app: &App,
    actor: Actor,
    id: DeviceId,
    matches: impl FnOnce(u64) -> Result<(), ApiError>,
) -> Result<Versioned<Device>, ApiError> {
    let mut change = app.store.begin_change(actor).await?;
    let record = devices::find(change.connection(), id).await?.ok_or_else(ApiError::not_found)?;
    matches(record.version)?;
    revocation::revoke_device(&mut change, &record).await?;
    let object = Device { state: DeviceState::Revoked, updated_at: change.now(), ..record.device };
    devices::set_state(&mut change, &object).await?;
    change.commit("device.revoke", id, Some(&object)).await?;
    Ok(Versioned { version: record.version + 1, object })
}

/// Deletes a device and cuts what it does; `matches` judges the version that is there.
pub(crate) async fn remove(
    app: &App,
    actor: Actor,
    id: DeviceId,
    matches: impl FnOnce(u64) -> Result<(), ApiError>,
) -> Result<(), ApiError> {
    let mut change = app.store.begin_change(actor).await?;
    let record = devices::find(change.connection(), id).await?.ok_or_else(ApiError::not_found)?;
    matches(record.version)?;
    refuse_if_named(&mut change, id).await?;
    revocation::revoke_device(&mut change, &record).await?;
    devices::remove(&mut change, id).await?;
    change.commit("device.delete", id, None::<&Device>).await?;
    Ok(())
}

/// The file that makes a plain WireGuard device of whoever holds the private key.
pub(crate) async fn configuration_file(app: &App, id: DeviceId) -> Result<String, ApiError> {
    let mut snapshot = app.store.snapshot().await?;
    let device = devices::find(&mut snapshot, id).await?.ok_or_else(ApiError::not_found)?.device;
    match device.kind {
        DeviceKind::Wireguard => {}
        DeviceKind::Client => {
            return Err(ApiError::conflict(
                "This device runs the Adit client, which configures itself.",
            ));
        }
    }
    let config = client_config::current(app, &mut snapshot, &device).await?;
    Ok(wireguard_config(&device, &config))
}
