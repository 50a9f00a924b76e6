//! Signing in: the client's side of the device authorization grant (RFC 8628).

use std::{path::PathBuf, time::Duration, time::SystemTime};

use adit_proto::{
    JoinToken, JoinTokenKind, Pin, Timestamp,
    api::{
        DEVICE_CODE_GRANT, DeviceAuthorization, DeviceToken, OAUTH_CLIENT_ID, OauthError,
        OauthErrorCode,
    },
};
use adit_tunnel::{ControlPlane, ControlPlaneError};
use tokio::time::sleep;

use super::{
    enrollment::{Enrollment, enroll},
    obstacle,
};
use crate::ipc::{Failure, FailureCode, LoginPrompt};

/// By how much the interval grows when the control plane says so (RFC 8628 §3.5).
const PENALTY: Duration = Duration::from_secs(5);

/// Whatever a control plane says, it is asked no more often.
const SHORTEST_INTERVAL: Duration = Duration::from_secs(1);

/// What a sign-in is for.
#[derive(Debug)]
pub(crate) enum Purpose {
    /// To join as a new device.
    Enroll {
        /// Where the control plane is.
        place: Place,
        /// What the device is to be called.
        name: String,
        /// Where its keys are.
        key_paths: (PathBuf, PathBuf),
    },
    /// To begin another session on this device, in whose name this speaks.
    Renew(ControlPlane),
}

/// What becomes of a sign-in.
#[derive(Debug)]
pub(crate) enum LoginEvent {
    /// The user is to open a page.
    Begun(LoginPrompt),
    /// It is done, or not.
    Ended(Result<SignedIn, Failure>),
}

/// The user is signed in.
#[derive(Debug)]
pub(crate) enum SignedIn {
    /// On a new device.
    Enrolled(Box<Enrollment>),
    /// Anew.
    Renewed,
}

/// Where a control plane is, and whose certificate it shows.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Place {
    /// `https://host:port`.
    pub(crate) url: String,
    /// The pin of its certificate; without it the machine's certificate authorities decide.
    pub(crate) pin: Option<Pin>,
}

impl Place {
    /// Reads `https://host:port`, or the same with `#` and the pin behind it.
    pub(crate) fn parse(text: &str) -> Result<Self, Failure> {
        let text = text.trim();
        let (url, pin) = match text.split_once('#') {
            Some((url, pin)) => (url, Some(pin)),
            None => (text, None),
        };
        let pin = pin
            .map(str::parse)
            .transpose()
            .map_err(|_error| malformed("what follows # is no pin", "copy all of the URL again"))?;
        if !url.starts_with("https://") {
            let next = "adit login https://CONTROL-PLANE (an administrator knows the URL)";
            return Err(malformed("the URL does not begin with https://", next));
        }
        Ok(Self { url: url.trim_end_matches('/').to_owned(), pin })
    }
}

fn malformed(message: &str, next: &str) -> Failure {
    Failure::new(FailureCode::Malformed, message, next)
}

/// Begins a sign-in and waits for its end; says how it goes by `tell`.
pub(crate) async fn log_in<F: Future<Output = ()>>(
    purpose: Purpose,
    tell: impl Fn(LoginEvent) -> F,
) {
    let result = try_log_in(purpose, &tell).await;
    tell(LoginEvent::Ended(result)).await;
}

async fn try_log_in<F: Future<Output = ()>>(
    purpose: Purpose,
    tell: impl Fn(LoginEvent) -> F,
) -> Result<SignedIn, Failure> {
    match purpose {
        Purpose::Renew(control_plane) => {
            sign_in(&control_plane, None, &tell).await?;
            Ok(SignedIn::Renewed)
        }
        Purpose::Enroll { place: Place { url, pin }, name, key_paths } => {
            let pin = match pin {
                Some(pin) => pin,
                None => ControlPlane::learn_pin(&url).await.map_err(|error| untrusted(&error))?,
            };
            let control_plane =
                ControlPlane::try_new(&url, pin).map_err(|error| from_login(&error))?;
            let token = sign_in(&control_plane, Some(&name), &tell).await?;
            let token =
                JoinToken::new(JoinTokenKind::Enrollment, url, pin, token.access_token.clone());
            let enrollment = enroll(token, name, key_paths).await?;
            Ok(SignedIn::Enrolled(enrollment))
        }
    }
}

/// Asks for codes, then again and again whether the user is signed in.
async fn sign_in<F: Future<Output = ()>>(
    control_plane: &ControlPlane,
    device_name: Option<&str>,
    tell: impl Fn(LoginEvent) -> F,
) -> Result<DeviceToken, Failure> {
    let mut parameters = vec![("client_id", OAUTH_CLIENT_ID)];
    parameters.extend(device_name.map(|name| ("device_name", name)));
    let begun: DeviceAuthorization = control_plane
        .post_form("/v1/device-authorization", &parameters)
        .await
        .map_err(|error| from_login(&error))?
        .map_err(|refusal| from_refusal(&refusal))?;
    let lifetime = Duration::from_secs(begun.expires_in);
    let now: Timestamp = SystemTime::now().into();
    tell(LoginEvent::Begun(LoginPrompt {
        user_code: begun.user_code.clone(),
        verification_uri: begun.verification_uri.clone(),
        verification_uri_complete: begun.verification_uri_complete.clone(),
        expires_at: now.saturating_add(lifetime),
    }))
    .await;

    let mut interval = Duration::from_secs(begun.interval).max(SHORTEST_INTERVAL);
    let parameters = [
        ("grant_type", DEVICE_CODE_GRANT),
        ("client_id", OAUTH_CLIENT_ID),
        ("device_code", begun.device_code.as_str()),
    ];
    loop {
        sleep(interval).await;
        match control_plane.post_form("/v1/token", &parameters).await {
            Ok(Ok(token)) => return Ok(token),
            Ok(Err(refusal)) => match refusal.error {
                OauthErrorCode::AuthorizationPending | OauthErrorCode::TemporarilyUnavailable => {}
                OauthErrorCode::SlowDown => interval = interval.saturating_add(PENALTY),
                OauthErrorCode::ExpiredToken
                | OauthErrorCode::AccessDenied
                | OauthErrorCode::InvalidRequest
                | OauthErrorCode::InvalidClient
                | OauthErrorCode::InvalidGrant
                | OauthErrorCode::UnsupportedGrantType => return Err(from_refusal(&refusal)),
            },
            // RFC 8628 §3.5: after a failure of the network, ask more slowly.
            Err(ControlPlaneError::Unreachable { .. } | ControlPlaneError::Silent { .. }) => {
                if Timestamp::from(SystemTime::now()) > now.saturating_add(lifetime) {
                    return Err(expired());
                }
                interval = interval.saturating_mul(2).min(Duration::from_secs(15));
            }
            Err(error) => return Err(from_login(&error)),
        }
    }
}

fn from_refusal(refusal: &OauthError) -> Failure {
    match refusal.error {
        OauthErrorCode::ExpiredToken => expired(),
        OauthErrorCode::AccessDenied => Failure::new(
            FailureCode::LoginDenied,
            "the sign-in was denied",
            "ask an administrator, then: adit login",
        ),
        OauthErrorCode::TemporarilyUnavailable => Failure::new(
            FailureCode::ControlPlaneRefused,
            format!("the control plane refuses: {}", refusal.error_description),
            "adit login, in some minutes",
        ),
        OauthErrorCode::AuthorizationPending
        | OauthErrorCode::SlowDown
        | OauthErrorCode::InvalidRequest
        | OauthErrorCode::InvalidClient
        | OauthErrorCode::InvalidGrant
        | OauthErrorCode::UnsupportedGrantType => Failure::new(
            FailureCode::ControlPlaneRefused,
            format!("the control plane refuses: {}", refusal.error_description),
            "adit login",
        ),
    }
}

fn expired() -> Failure {
    Failure::new(FailureCode::TimedOut, "nobody signed in before the code expired", "adit login")
}

fn from_login(error: &ControlPlaneError) -> Failure {
    match error {
        ControlPlaneError::PinMismatch { .. } => Failure::new(
            FailureCode::PinMismatch,
            "the control plane shows another certificate than the pin names",
            "ask an administrator for the URL with its pin; if that does not help, someone is in \
             between",
        ),
        ControlPlaneError::Url { .. }
        | ControlPlaneError::Unreachable { .. }
        | ControlPlaneError::Refused(_)
        | ControlPlaneError::Unexpected { .. }
        | ControlPlaneError::Silent { .. } => obstacle::from_control_plane(error),
    }
}

/// There was no pin, and the certificate is most likely the control plane's own.
fn untrusted(error: &ControlPlaneError) -> Failure {
    Failure::new(
        FailureCode::ControlPlaneUnreachable,
        obstacle::chain(error),
        "check URL and network; if the certificate is the control plane's own, ask an \
         administrator for the URL with its pin: adit login https://CONTROL-PLANE#PIN",
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_place_is_a_url_with_or_without_a_pin() {
        let pin = Pin::from_spki(b"spki");
        let place = Place::parse(&format!("https://c.example:8443/#{pin}")).unwrap();
        assert_eq!(place, Place { url: "https://c.example:8443".to_owned(), pin: Some(pin) });
        assert_eq!(Place::parse("https://c.example").unwrap().pin, None);
        for text in ["c.example", "http://c.example", "https://c.example#", "https://c.example#x"] {
            assert_eq!(Place::parse(text).unwrap_err().code, FailureCode::Malformed, "{text}");
        }
    }
}
