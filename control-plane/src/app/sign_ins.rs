//! Signing in: the control plane is an authorization server for devices (RFC 8628).

use std::{net::IpAddr, time::Duration};

use adit_proto::{
    SignInId, Timestamp,
    api::{
        Device, DeviceAuthorization, DeviceToken, ProblemCode, SignIn, SignInApproval, SignInState,
    },
};

use crate::{
    app::{App, live::INTERVAL, network::Network, random, user_code, user_sessions, validate},
    error::ApiError,
    store::{
        Actor, ActorId, Change, devices, sign_ins,
        sign_ins::{Authentication, SignInRecord},
        users,
    },
};

/// Where users type their codes.
pub(crate) const VERIFICATION_PATH: &str = "/sign-in";

/// How long a user has.
const LIFETIME: Duration = Duration::from_mins(10);

/// How long it is remembered that a code has expired.
const AFTERLIFE: Duration = Duration::from_mins(5);

/// How many sign-ins of devices that have not enrolled may be under way: anyone may begin one.
const MAX_STRANGERS: usize = 1000;

/// How many of them from one network; an office may be behind one address.
const MAX_OF_NETWORK: usize = 50;

/// Who begins a sign-in.
#[derive(Debug)]
pub(crate) enum Asker {
    /// A device that has enrolled.
    Device(Device),
    /// Anyone; with the name that the device would have.
    Stranger(Option<String>),
}

/// How far a sign-in is.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Polled {
    /// It is approved.
    Approved(DeviceToken),
    /// Nobody has decided yet.
    Pending,
    /// Nobody has decided yet, and the client asks too fast.
    TooFast,
    /// Nobody has decided in time.
    Expired,
    /// It was denied.
    Denied,
    /// There is none, or it was used.
    Unknown,
}

/// Why a code that a person has typed leads nowhere.
#[derive(Debug)]
pub(crate) enum CodeRefusal {
    /// It is none, or no more.
    Unknown,
    /// Too many were none lately.
    TooManyTries,
    /// Our fault.
    Failed(ApiError),
}

impl<E: Into<ApiError>> From<E> for CodeRefusal {
    fn from(error: E) -> Self {
        Self::Failed(error.into())
    }
}

/// Begins a sign-in. A device that has enrolled has one at a time.
pub(crate) async fn begin(
    app: &App,
    asker: Asker,
    address: IpAddr,
) -> Result<DeviceAuthorization, ApiError> {
    let (device_id, device_name) = match asker {
        Asker::Device(device) => (Some(device.id), Some(device.name)),
        Asker::Stranger(name) => {
            if let Some(name) = &name {
                validate::name(name)?;
            }
            refuse_too_many(app, address).await?;
            (None, name)
        }
    };
    let device_code = random::new_secret()?;
    let mut change = app.store.begin_change(ActorId::ControlPlane).await?;
    let now = change.now();
    sign_ins::tidy(&mut change, now.saturating_sub(AFTERLIFE), device_id).await?;
    let user_code = user_code::draw()?;
    let sign_in = SignIn {
        id: SignInId::from_uuid(random::new_uuid(now)?),
        user_code: user_code.clone(),
        state: SignInState::Pending,
        device_name,
        device_id,
        address: Some(address.to_canonical().to_string()),
        user_id: None,
        expires_at: now.saturating_add(LIFETIME),
        created_at: now,
    };
    let device_code_hash = random::secret_hash(&device_code);
    let record = SignInRecord { sign_in, device_code_hash, authentication: None };
    sign_ins::insert(&mut change, &record).await?;
    // No change yet, and strangers must not fill the audit log.
    change.commit_unaudited().await?;

    let verification_uri = format!("{}{VERIFICATION_PATH}", app.public_url);
    Ok(DeviceAuthorization {
        device_code: device_code.to_string(),
        verification_uri_complete: format!("{verification_uri}?user_code={user_code}"),
        user_code,
        verification_uri,
        expires_in: LIFETIME.as_secs(),
        interval: INTERVAL.as_secs(),
    })
}

async fn refuse_too_many(app: &App, address: IpAddr) -> Result<(), ApiError> {
    let network = Network::of(address);
    let mut snapshot = app.store.snapshot().await?;
    let is_of_network = |other| Network::of(other) == network;
    let (all, of_network) = sign_ins::count(&mut snapshot, is_of_network).await?;
    if all < MAX_STRANGERS && of_network < MAX_OF_NETWORK {
        return Ok(());
    }
    tracing::warn!(all, of_network, "Refused a sign-in: too many are under way");
    let detail = "Too many sign-ins are under way; try again in a quarter of an hour.";
    Err(ApiError::new(ProblemCode::Unavailable, detail))
}

/// Says how far a sign-in is.
pub(crate) async fn poll(app: &App, device_code: &str, now: Timestamp) -> Result<Polled, ApiError> {
    let digest = random::secret_hash(device_code);
    let mut snapshot = app.store.snapshot().await?;
    let found = sign_ins::find_by_device_code(&mut snapshot, &digest).await?;
    let Some(SignInRecord { sign_in, .. }) = found else { return Ok(Polled::Unknown) };
    if sign_in.expires_at <= now {
        return Ok(Polled::Expired);
    }
    Ok(match sign_in.state {
        SignInState::Pending if app.live.poll_pace.is_kept(digest, now) => Polled::Pending,
        SignInState::Pending => Polled::TooFast,
        SignInState::Approved => Polled::Approved(DeviceToken {
            access_token: device_code.to_owned(),
            token_type: "N_A".to_owned(),
            expires_in: sign_in.expires_at.saturating_duration_since(now).as_secs(),
        }),
        SignInState::Denied => Polled::Denied,
    })
}

/// The sign-in whose code a person has typed, if it still waits.
pub(crate) async fn find_by_user_code(
    app: &App,
    typed: &str,
    address: IpAddr,
    now: Timestamp,
) -> Result<SignIn, CodeRefusal> {
    let network = Network::of(address);
    if !app.live.code_tries.may_try(network, now) {
        tracing::warn!(%address, "Refused a user code: too many were wrong");
        return Err(CodeRefusal::TooManyTries);
    }
    let mut snapshot = app.store.snapshot().await?;
    let found = match user_code::parse(typed) {
        Some(code) => sign_ins::find_by_user_code(&mut snapshot, &code).await?,
        None => None,
    };
    let waiting = found.map(|record| record.sign_in).filter(|sign_in| is_waiting(sign_in, now));
    waiting.ok_or_else(|| {
        app.live.code_tries.note_wrong(network, now);
        CodeRefusal::Unknown
    })
}

fn is_waiting(sign_in: &SignIn, now: Timestamp) -> bool {
    sign_in.state == SignInState::Pending && sign_in.expires_at > now
}

/// Signs a user in, because an administrator says so.
pub(crate) async fn approve(
    app: &App,
    actor: Actor,
    id: SignInId,
    approval: SignInApproval,
) -> Result<SignIn, ApiError> {
    let mut change = app.store.begin_change(actor).await?;
    let sign_in = find_waiting(&mut change, id).await?;
    if users::find(change.connection(), approval.user_id).await?.is_none() {
        return Err(ApiError::invalid("/user_id", "There is no such user; check the id."));
    }
    let authentication = Authentication {
        user_id: approval.user_id,
        identity_provider_id: None,
        authenticated_at: change.now(),
        methods: Vec::new(),
    };
    let sign_in = grant(&mut change, sign_in, &authentication).await?;
    change.commit_unannounced("sign-in.approve", id, Some(&sign_in)).await?;
    tracing::info!(user_id = %approval.user_id, "Approved a sign-in");
    Ok(sign_in)
}

/// Refuses a sign-in, because an administrator says so.
pub(crate) async fn deny(app: &App, actor: Actor, id: SignInId) -> Result<SignIn, ApiError> {
    let mut change = app.store.begin_change(actor).await?;
    let sign_in = find_waiting(&mut change, id).await?;
    sign_ins::deny(&mut change, id).await?;
    let sign_in = SignIn { state: SignInState::Denied, ..sign_in };
    change.commit_unannounced("sign-in.deny", id, Some(&sign_in)).await?;
    Ok(sign_in)
}

/// A sign-in about which nobody has decided.
pub(crate) async fn find_waiting(change: &mut Change, id: SignInId) -> Result<SignIn, ApiError> {
    let record = sign_ins::find(change.connection(), id).await?.ok_or_else(ApiError::not_found)?;
    if !is_waiting(&record.sign_in, change.now()) {
        return Err(ApiError::conflict(
            "This sign-in was decided or has expired; run `adit login` again.",
        ));
    }
    Ok(record.sign_in)
}

/// Writes down whose a sign-in is. On a device that has enrolled the session begins at once; a new
/// one enrols first.
pub(crate) async fn grant(
    change: &mut Change,
    sign_in: SignIn,
    authentication: &Authentication,
) -> Result<SignIn, ApiError> {
    let user_id = authentication.user_id;
    let user = users::find(change.connection(), user_id).await?;
    if user.is_none_or(|user| user.object.disabled) {
        return Err(ApiError::conflict("The user is disabled; enable the user first."));
    }
    if let Some(device_id) = sign_in.device_id {
        let record =
            devices::find(change.connection(), device_id).await?.ok_or_else(ApiError::not_found)?;
        if record.device.user_id != user_id {
            return Err(ApiError::conflict(
                "The device belongs to another user; enrol it anew with `adit login --replace`.",
            ));
        }
        user_sessions::start(change, device_id, authentication).await?;
    }
    sign_ins::approve(change, sign_in.id, authentication).await?;
    Ok(SignIn { state: SignInState::Approved, user_id: Some(user_id), ..sign_in })
}
