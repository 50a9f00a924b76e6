//! How a device or connector authenticates a request to the control plane: a token of one minute,
//! bound to the request, signed with ES256 (RFC 7518 §3.4) by its own key. Like DPoP (RFC 9449),
//! without the bearer token.

use std::time::Duration;

use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use p256::{
    ecdsa::{
        Signature, SigningKey, VerifyingKey, signature::Signer as _, signature::Verifier as _,
    },
    pkcs8::DecodePublicKey as _,
};
use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};

use crate::{
    id::{ConnectorId, DeviceId},
    timestamp::Timestamp,
};

/// Who signs an assertion.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum AssertionSubject {
    /// A client.
    Device(DeviceId),
    /// A connector.
    Connector(ConnectorId),
}

/// The claims of an assertion. It stands in `Authorization: Adit <token>`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Assertion {
    /// Who asks.
    pub subject: AssertionSubject,
    /// The request's method, in capitals.
    pub method: String,
    /// The request's path and query.
    pub path: String,
    /// SHA-256 of the body, base64url without padding; of nothing when there is none.
    pub body_sha256: String,
    /// When it was signed.
    pub issued_at: Timestamp,
}

/// Why an assertion is refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum AssertionError {
    /// Not two parts of base64url with the expected claims.
    #[error("not an assertion")]
    Malformed,
    /// The key is not a DER-encoded P-256 public key.
    #[error("not a P-256 public key")]
    Key,
    /// The signature does not verify.
    #[error("signature does not verify")]
    BadSignature,
    /// It speaks of another request.
    #[error("signed for another request")]
    OtherRequest,
    /// It was signed too long ago, or the clocks differ.
    #[error("signed at {issued_at}, too far from now; check the clocks")]
    Stale {
        /// When it was signed.
        issued_at: Timestamp,
    },
}

/// How far an assertion's time may lie from the verifier's, either way.
const MAX_AGE: Duration = Duration::from_secs(60);

/// Longest assertion that is looked at, in bytes.
const MAX_LEN: usize = 4096;

/// Says what a token is, inside what is signed, so that no other signature fits.
const DOMAIN: &str = "adit-assertion.";

impl Assertion {
    /// The scheme of the `Authorization` header.
    pub const SCHEME: &'static str = "Adit";

    /// Signs the claims with a P-256 private key.
    ///
    /// # Panics
    ///
    /// Never: the claims are always representable in JSON.
    pub fn sign(&self, key: &SigningKey) -> String {
        let claims = serde_json::to_vec(self).expect("claims are representable in JSON");
        let mut token = URL_SAFE_NO_PAD.encode(claims);
        let signature: Signature = key.sign(format!("{DOMAIN}{token}").as_bytes());
        token.push('.');
        URL_SAFE_NO_PAD.encode_string(signature.to_bytes(), &mut token);
        token
    }

    /// Whether a key that someone joins with can verify assertions at all.
    ///
    /// # Errors
    ///
    /// [`AssertionError::Key`].
    pub fn validate_key(spki_der: &[u8]) -> Result<(), AssertionError> {
        VerifyingKey::from_public_key_der(spki_der)
            .map(|_key| ())
            .map_err(|_error| AssertionError::Key)
    }

    /// Reads who claims to have signed, in order to look up the key. Proves nothing.
    ///
    /// # Errors
    ///
    /// [`AssertionError::Malformed`].
    pub fn unverified_subject(token: &str) -> Result<AssertionSubject, AssertionError> {
        Ok(parse(token)?.0.subject)
    }

    /// Verifies a token against the signer's key and the request at hand.
    ///
    /// `spki_der` is the DER-encoded SubjectPublicKeyInfo of the signer's key.
    ///
    /// # Errors
    ///
    /// See [`AssertionError`].
    pub fn verify(
        token: &str,
        spki_der: &[u8],
        method: &str,
        path: &str,
        body: &[u8],
        now: Timestamp,
    ) -> Result<Self, AssertionError> {
        let (claims, signature) = parse(token)?;
        let key =
            VerifyingKey::from_public_key_der(spki_der).map_err(|_error| AssertionError::Key)?;
        let signed = token.split_once('.').ok_or(AssertionError::Malformed)?.0;
        key.verify(format!("{DOMAIN}{signed}").as_bytes(), &signature)
            .map_err(|_error| AssertionError::BadSignature)?;
        if claims.method != method
            || claims.path != path
            || claims.body_sha256 != sha256_base64url(body)
        {
            return Err(AssertionError::OtherRequest);
        }
        let age = now
            .saturating_duration_since(claims.issued_at)
            .max(claims.issued_at.saturating_duration_since(now));
        if age > MAX_AGE {
            return Err(AssertionError::Stale { issued_at: claims.issued_at });
        }
        Ok(claims)
    }
}

/// SHA-256 as base64url without padding.
pub fn sha256_base64url(bytes: &[u8]) -> String {
    URL_SAFE_NO_PAD.encode(Sha256::digest(bytes))
}

fn parse(token: &str) -> Result<(Assertion, Signature), AssertionError> {
    if token.len() > MAX_LEN {
        return Err(AssertionError::Malformed);
    }
    let (claims, signature) = token.split_once('.').ok_or(AssertionError::Malformed)?;
    let decode = |part: &str| URL_SAFE_NO_PAD.decode(part).map_err(|_e| AssertionError::Malformed);
    let claims: Assertion =
        serde_json::from_slice(&decode(claims)?).map_err(|_error| AssertionError::Malformed)?;
    let signature =
        Signature::from_slice(&decode(signature)?).map_err(|_error| AssertionError::Malformed)?;
    Ok((claims, signature))
}

#[cfg(test)]
mod tests {
    use super::*;
    use p256::pkcs8::EncodePublicKey as _;
    use uuid::Uuid;

    fn key(seed: u8) -> SigningKey {
        SigningKey::from_slice(&[seed; 32]).unwrap()
    }

    fn spki(key: &SigningKey) -> Vec<u8> {
        p256::PublicKey::from(key.verifying_key()).to_public_key_der().unwrap().into_vec()
    }

    fn assertion() -> Assertion {
        Assertion {
            subject: AssertionSubject::Device(DeviceId::from_uuid(Uuid::from_u128(1))),
            method: "POST".to_owned(),
            path: "/v1/client/credential".to_owned(),
            body_sha256: sha256_base64url(b"{}"),
            issued_at: Timestamp::from_millis(1_000_000),
        }
    }

    fn verify(
        token: &str,
        path: &str,
        body: &[u8],
        millis: i64,
    ) -> Result<Assertion, AssertionError> {
        let now = Timestamp::from_millis(millis);
        Assertion::verify(token, &spki(&key(1)), "POST", path, body, now)
    }

    #[test]
    fn the_signer_of_this_request_is_accepted() {
        let token = assertion().sign(&key(1));
        assert_eq!(verify(&token, "/v1/client/credential", b"{}", 1_000_000), Ok(assertion()));
        assert_eq!(Assertion::unverified_subject(&token), Ok(assertion().subject));
    }

    #[test]
    fn another_path_or_body_is_refused() {
        let token = assertion().sign(&key(1));
        let refused = Err(AssertionError::OtherRequest);
        assert_eq!(verify(&token, "/v1/client/config", b"{}", 1_000_000), refused);
        assert_eq!(verify(&token, "/v1/client/credential", b"{ }", 1_000_000), refused);
    }

    #[test]
    fn another_signer_is_refused() {
        let token = assertion().sign(&key(2));
        let result = verify(&token, "/v1/client/credential", b"{}", 1_000_000);
        assert_eq!(result, Err(AssertionError::BadSignature));
    }

    #[test]
    fn only_a_p_256_key_can_verify_assertions() {
        assert_eq!(Assertion::validate_key(&spki(&key(1))), Ok(()));
        assert_eq!(Assertion::validate_key(b"key"), Err(AssertionError::Key));
    }

    #[test]
    fn an_old_assertion_is_refused() {
        let token = assertion().sign(&key(1));
        for millis in [1_000_000 + 60_001, 1_000_000 - 60_001] {
            let result = verify(&token, "/v1/client/credential", b"{}", millis);
            assert!(matches!(result, Err(AssertionError::Stale { .. })));
        }
    }
}
