//! Joining: a secret is consumed in the same transaction that makes a device or a connector.

use std::time::SystemTime;

use adit_proto::{
    Assertion, ConnectorId, DeviceId, Pin, UserId, WireguardPublicKey,
    api::{
        ClientEnroll, ClientEnrolled, Connector, ConnectorEnroll, ConnectorEnrolled, Device,
        DeviceKind, DeviceState, Organisation, ProblemCode,
    },
};
use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use ipnet::IpNet;
use sqlx::SqliteConnection;

use crate::{
    app::{
        App,
        device_address::{FIRST_HOST_NUMBER, device_addresses, last_host_number},
        random, user_sessions, validate,
    },
    error::ApiError,
    store::{
        ActorId, Change, connector_tokens, connectors,
        connectors::ConnectorRecord,
        devices,
        devices::{DeviceIdentity, DeviceRecord},
        enrollment_keys, organisation, sign_ins,
        sign_ins::Authentication,
    },
};

/// Makes a device for whoever knows the secret of an enrolment key, or the device code of a sign-in
/// that was approved.
///
/// The same client may ask again with the same secret, in case it lost the answer.
pub(crate) async fn enroll_client(
    app: &App,
    enroll: &ClientEnroll,
) -> Result<ClientEnrolled, ApiError> {
    validate::name(&enroll.name)?;
    let device_key = parse_key("/device_key", &enroll.device_key)?;
    let pin = Pin::from_spki(&device_key);
    let joined_with = random::secret_hash(enroll.secret.expose());
    let again = |known: &DeviceRecord| {
        known.device.wireguard_public_key == enroll.wireguard_public_key
            && known.identity.as_ref().is_some_and(|it| it.joined_with == joined_with)
    };

    // Looked at before the write lock is taken, so that strangers cannot hold it.
    let mut snapshot = app.store.snapshot().await?;
    let known = devices::find_by_pin(&mut snapshot, pin).await?;
    if let Some(known) = known.filter(again) {
        let organisation = organisation::read(&mut snapshot).await?.object;
        return Ok(client_enrolled(&known.device, organisation));
    }
    if !enrollment_keys::is_known(&mut snapshot, &joined_with).await?
        && sign_ins::find_by_device_code(&mut snapshot, &joined_with).await?.is_none()
    {
        return Err(join_refused());
    }
    drop(snapshot);

    let id = DeviceId::from_uuid(random::new_uuid(SystemTime::now().into())?);
    let mut change = app.store.begin_change(ActorId::Device(id)).await?;
    let now = change.now();
    let organisation = organisation::read(change.connection()).await?.object;
    let known = devices::find_by_pin(change.connection(), pin).await?;
    if let Some(known) = known.filter(again) {
        return Ok(client_enrolled(&known.device, organisation));
    }
    let Admission { user_id, approved, authentication } =
        admit(&mut change, &joined_with, &organisation).await?;
    let wireguard_public_key = enroll.wireguard_public_key;
    refuse_taken_key(change.connection(), wireguard_public_key).await?;
    let host_number = next_host_number(&mut change, &organisation.device_ranges).await?;
    let device = Device {
        id,
        name: enroll.name.clone(),
        user_id,
        kind: DeviceKind::Client,
        state: if approved { DeviceState::Approved } else { DeviceState::Pending },
        addresses: device_addresses(&organisation.device_ranges, host_number),
        wireguard_public_key,
        last_seen_at: None,
        created_at: now,
        updated_at: now,
    };
    let record = DeviceRecord {
        device,
        version: 1,
        host_number,
        identity: Some(DeviceIdentity { device_key, pin, joined_with }),
        authenticated_at: now,
        credential_issued_at: None,
    };
    devices::insert(&mut change, &record).await?;
    if let Some(authentication) = authentication {
        user_sessions::start(&mut change, id, &authentication).await?;
    }
    change.commit_unannounced("device.enroll", id, Some(&record.device)).await?;
    tracing::info!(device_id = %id, %user_id, "Enrolled device");
    Ok(client_enrolled(&record.device, organisation))
}

/// Makes a connector for whoever knows the secret of a connector token.
///
/// The same connector may ask again with the same secret, in case it lost the answer.
pub(crate) async fn enroll_connector(
    app: &App,
    enroll: &ConnectorEnroll,
) -> Result<ConnectorEnrolled, ApiError> {
    let connector_key = parse_key("/connector_key", &enroll.connector_key)?;
    let pin = Pin::from_spki(&connector_key);
    let joined_with = random::secret_hash(enroll.secret.expose());
    let again = |known: &ConnectorRecord| {
        known.connector.wireguard_public_key == enroll.wireguard_public_key
            && known.joined_with == joined_with
    };

    // Looked at before the write lock is taken, so that strangers cannot hold it.
    let mut snapshot = app.store.snapshot().await?;
    let known = connectors::find_by_pin(&mut snapshot, pin).await?;
    if let Some(known) = known.filter(again) {
        let organisation = organisation::read(&mut snapshot).await?.object;
        return Ok(connector_enrolled(&known.connector, organisation));
    }
    if !connector_tokens::is_known(&mut snapshot, &joined_with).await? {
        return Err(join_refused());
    }
    drop(snapshot);

    let id = ConnectorId::from_uuid(random::new_uuid(SystemTime::now().into())?);
    let mut change = app.store.begin_change(ActorId::Connector(id)).await?;
    let now = change.now();
    let organisation = organisation::read(change.connection()).await?.object;
    let known = connectors::find_by_pin(change.connection(), pin).await?;
    if let Some(known) = known.filter(again) {
        return Ok(connector_enrolled(&known.connector, organisation));
    }
    let token = connector_tokens::consume(&mut change, &joined_with, now)
        .await?
        .ok_or_else(join_refused)?;
    refuse_taken_key(change.connection(), enroll.wireguard_public_key).await?;
    let record = ConnectorRecord {
        connector: Connector {
            id,
            name: token.name,
            site_id: token.site_id,
            endpoints: Vec::new(),
            pin,
            wireguard_public_key: enroll.wireguard_public_key,
            version: None,
            connected: false,
            last_seen_at: Some(now),
            created_at: now,
            updated_at: now,
        },
        version: 1,
        connector_key,
        joined_with,
        admin_endpoints: Vec::new(),
        reported_endpoints: Vec::new(),
    };
    connectors::insert(&mut change, &record).await?;
    change.commit("connector.enroll", id, Some(&record.connector)).await?;
    tracing::info!(connector_id = %id, site_id = %token.site_id, "Enrolled connector");
    Ok(connector_enrolled(&record.connector, organisation))
}

/// What a secret that was consumed entitles to.
struct Admission {
    user_id: UserId,
    /// Whether the device needs no approval.
    approved: bool,
    /// With which a session begins; none for a machine.
    authentication: Option<Authentication>,
}

async fn admit(
    change: &mut Change,
    joined_with: &[u8; 32],
    organisation: &Organisation,
) -> Result<Admission, ApiError> {
    let now = change.now();
    if let Some(key) = enrollment_keys::consume(change, joined_with, now).await? {
        let (user_id, approved) = (key.user_id, key.approved);
        return Ok(Admission { user_id, approved, authentication: None });
    }
    let authentication =
        sign_ins::consume(change, joined_with, now).await?.ok_or_else(join_refused)?;
    Ok(Admission {
        user_id: authentication.user_id,
        approved: !organisation.approve_devices,
        authentication: Some(authentication),
    })
}

/// The number of a new device. Numbers go up, so that one is given anew only when all were.
pub(crate) async fn next_host_number(
    change: &mut Change,
    ranges: &[IpNet],
) -> Result<u32, ApiError> {
    let last = last_host_number(ranges);
    let next = devices::last_host_number(change.connection())
        .await?
        .map_or(FIRST_HOST_NUMBER, |given| given.saturating_add(1));
    if next <= last {
        return Ok(next);
    }
    devices::free_host_number(change.connection(), FIRST_HOST_NUMBER)
        .await?
        .filter(|free| *free <= last)
        .ok_or_else(|| {
            ApiError::conflict("All addresses are given; delete devices that are no longer used.")
        })
}

/// A WireGuard key names one device or connector.
pub(crate) async fn refuse_taken_key(
    connection: &mut SqliteConnection,
    key: WireguardPublicKey,
) -> Result<(), ApiError> {
    if connectors::has_wireguard_key(connection, key).await?
        || devices::has_wireguard_key(connection, key).await?
    {
        return Err(ApiError {
            field: Some("/wireguard_public_key".to_owned()),
            ..ApiError::conflict(
                "Another device or connector has this WireGuard key; make a new one.",
            )
        });
    }
    Ok(())
}

fn parse_key(field: &'static str, text: &str) -> Result<Vec<u8>, ApiError> {
    URL_SAFE_NO_PAD
        .decode(text)
        .ok()
        .filter(|spki| Assertion::validate_key(spki).is_ok())
        .ok_or_else(|| {
            let detail = "Send a DER-encoded P-256 public key as base64url without padding.";
            ApiError::invalid(field, detail)
        })
}

/// One answer for all cases, so that nobody learns which secrets once were.
fn join_refused() -> ApiError {
    ApiError::new(
        ProblemCode::JoinRefused,
        "The token is unknown, used up or expired; ask an administrator for a new one.",
    )
}

fn client_enrolled(device: &Device, organisation: Organisation) -> ClientEnrolled {
    ClientEnrolled {
        device_id: device.id,
        state: device.state,
        organisation_keys: organisation.keys,
    }
}

fn connector_enrolled(connector: &Connector, organisation: Organisation) -> ConnectorEnrolled {
    ConnectorEnrolled {
        connector_id: connector.id,
        site_id: connector.site_id,
        organisation_id: organisation.id,
        organisation_keys: organisation.keys,
    }
}
