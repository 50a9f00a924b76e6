//! Joining an organisation.

use std::{path::PathBuf, time::SystemTime};

use adit_proto::{
    JoinToken, JoinTokenKind,
    api::{ClientEnroll, ClientEnrolled, DeviceState, ProblemCode},
};
use adit_tunnel::{
    ControlPlane, ControlPlaneError, IdentityError, KeyPair, WireguardSecret,
    load_or_create_wireguard_secret,
};

use super::{identity::Identity, obstacle};
use crate::ipc::{Failure, FailureCode};

/// A device that has joined, not yet on disk.
pub(crate) struct Enrollment {
    pub(crate) identity: Identity,
    pub(crate) state: DeviceState,
    pub(crate) device_key: KeyPair,
    pub(crate) wireguard_secret: WireguardSecret,
}

impl std::fmt::Debug for Enrollment {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Enrollment").field("identity", &self.identity).finish_non_exhaustive()
    }
}

/// Reads an enrolment key.
pub(crate) fn parse_key(text: &str) -> Result<JoinToken, Failure> {
    let damaged = |message: String| {
        Failure::new(
            FailureCode::KeyDamaged,
            message,
            "copy all of the key again; it begins with adit_enroll_",
        )
    };
    let token: JoinToken = text.parse().map_err(|error| damaged(format!("{error}")))?;
    match token.kind() {
        JoinTokenKind::Enrollment => Ok(token),
        JoinTokenKind::Connector => {
            Err(damaged("this is a connector's token, not an enrolment key".to_owned()))
        }
    }
}

/// Makes the keys and joins with them.
///
/// A try that failed on the way leaves its keys behind, and the next uses them again.
pub(crate) async fn enroll(
    token: JoinToken,
    name: String,
    (device_key_path, wireguard_key_path): (PathBuf, PathBuf),
) -> Result<Box<Enrollment>, Failure> {
    let storage = |error: IdentityError| {
        Failure::new(
            FailureCode::Storage,
            obstacle::chain(&error),
            "make room in the state directory, then enrol again with the same key",
        )
    };
    let control_plane = ControlPlane::try_new(token.url(), *token.pin())
        .map_err(|error| obstacle::from_enrollment(&error))?;
    let mut has_fresh_keys = false;
    let (device_key, wireguard_secret, enrolled) = loop {
        let device_key = KeyPair::load_or_create(&device_key_path).map_err(storage)?;
        let wireguard_secret =
            load_or_create_wireguard_secret(&wireguard_key_path).map_err(storage)?;
        let request = ClientEnroll {
            secret: token.secret().to_owned().into(),
            name: name.clone(),
            device_key: device_key.spki_base64url(),
            wireguard_public_key: wireguard_secret.public_key(),
        };
        let answer: Result<ClientEnrolled, ControlPlaneError> =
            control_plane.post("/v1/client/enroll", &request).await;
        match answer {
            Ok(enrolled) => break (device_key, wireguard_secret, enrolled),
            // An earlier try went through and its answer was lost.
            Err(error) if error.code() == Some(ProblemCode::Conflict) && !has_fresh_keys => {
                has_fresh_keys = true;
                for path in [&device_key_path, &wireguard_key_path] {
                    let _ = std::fs::remove_file(path);
                }
            }
            Err(error) => return Err(obstacle::from_enrollment(&error)),
        }
    };
    let identity = Identity {
        device_id: enrolled.device_id,
        control_plane_url: token.url().to_owned(),
        control_plane_pin: *token.pin(),
        organisation_keys: enrolled.organisation_keys,
        enrolled_at: SystemTime::now().into(),
    };
    Ok(Box::new(Enrollment { identity, state: enrolled.state, device_key, wireguard_secret }))
}

/// The name of this machine, as far as the control plane takes it.
pub(crate) fn host_name() -> String {
    let name = crate::platform::host_name();
    let name: String = name.chars().filter(|char| !char.is_control()).take(100).collect();
    if name.is_empty() { "unnamed".to_owned() } else { name }
}

#[cfg(test)]
mod tests {
    use adit_proto::Pin;

    use super::*;

    fn token(kind: JoinTokenKind) -> String {
        let url = "https://control.example:8443".to_owned();
        JoinToken::new(kind, url, Pin::from_spki(b"spki"), "secret".to_owned()).to_token()
    }

    #[test]
    fn an_enrolment_key_is_read() {
        let key = parse_key(&token(JoinTokenKind::Enrollment)).unwrap();
        assert_eq!(key.url(), "https://control.example:8443");
    }

    #[test]
    fn a_connectors_token_is_no_enrolment_key() {
        let failure = parse_key(&token(JoinTokenKind::Connector)).unwrap_err();
        assert_eq!(failure.code, FailureCode::KeyDamaged);
    }

    #[test]
    fn a_key_cut_short_is_damaged() {
        let whole = token(JoinTokenKind::Enrollment);
        let failure = parse_key(&whole[..whole.len() - 5]).unwrap_err();
        assert_eq!(failure.code, FailureCode::KeyDamaged);
    }
}
