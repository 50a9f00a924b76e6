//! The device credential: what a laptop shows to a connector.

use std::net::IpAddr;
use std::time::Duration;

use serde::{Deserialize, Deserializer, Serialize, Serializer, de};

use crate::{
    id::{DeviceId, GroupId, UserId},
    key::{OrganisationKey, Pin, WireguardPublicKey},
    signed::{Signed, SignedError, TokenType},
    timestamp::Timestamp,
};

/// Seconds since the Unix epoch as RFC 7519 §2 has it, with milliseconds as the fraction.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct NumericDate(pub Timestamp);

impl Serialize for NumericDate {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        #[expect(
            clippy::cast_precision_loss,
            reason = "clamped times stay below 2^53 milliseconds"
        )]
        let seconds = self.0.as_millis() as f64 / 1000.0;
        serializer.serialize_f64(seconds)
    }
}

impl<'de> Deserialize<'de> for NumericDate {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let seconds = f64::deserialize(deserializer)?;
        if !seconds.is_finite() {
            return Err(de::Error::custom("expected seconds since the epoch"));
        }
        #[expect(clippy::cast_possible_truncation, reason = "`as` saturates, the clamp follows")]
        let millis = (seconds * 1000.0).round() as i64;
        Ok(Self(Timestamp::from_millis(millis)))
    }
}

/// Proof of possession (RFC 7800): the pin of the key that the TLS peer must hold.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Confirmation {
    /// SHA-256 of the device key's SubjectPublicKeyInfo.
    #[serde(rename = "x5t#S256")]
    pub pin: Pin,
}

/// Who a device is, for about an hour, with no call to anyone.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Credential {
    /// The device.
    #[serde(rename = "sub")]
    pub device_id: DeviceId,
    /// The user it belongs to.
    pub user_id: UserId,
    /// Groups of the user.
    pub groups: Vec<GroupId>,
    /// Posture labels of the device.
    pub posture: Vec<String>,
    /// Addresses of the device inside the tunnel.
    pub addresses: Vec<IpAddr>,
    /// The device's WireGuard key.
    pub wireguard_public_key: WireguardPublicKey,
    /// The device key that must be shown in the TLS handshake.
    #[serde(rename = "cnf")]
    pub confirmation: Confirmation,
    /// When the user last signed in.
    pub auth_time: NumericDate,
    /// How the user proved to be it, as the identity provider says (RFC 8176): `pwd`, `mfa`, `hwk`.
    #[serde(rename = "amr")]
    pub authentication_methods: Vec<String>,
    /// When this was issued; revocations compare with it.
    #[serde(rename = "iat")]
    pub issued_at: NumericDate,
    /// When this expires.
    #[serde(rename = "exp")]
    pub expires_at: NumericDate,
}

/// How far a connector's clock and the control plane's may differ.
const MAX_CLOCK_SKEW: Duration = Duration::from_secs(60);

/// Why a connector refuses a credential.
#[derive(Debug, thiserror::Error)]
pub enum CredentialError {
    /// The token itself is not one of the organisation's.
    #[error("credential is not valid")]
    Signed(#[from] SignedError),
    /// The TLS peer holds another key than the credential names.
    #[error("credential belongs to another device key")]
    WrongKey,
    /// It has expired.
    #[error("credential expired at {expires_at}")]
    Expired {
        /// When.
        expires_at: Timestamp,
    },
    /// It was issued in the future, beyond what clocks may differ.
    #[error("credential was issued at {issued_at}, which lies ahead; check the clocks")]
    NotYetValid {
        /// When.
        issued_at: Timestamp,
    },
}

impl Credential {
    /// Verifies a credential that the holder of `peer_pin` presents.
    ///
    /// # Errors
    ///
    /// See [`CredentialError`]. Revocation is not looked at: that is the bundle's.
    pub fn verify(
        token: &str,
        trusted_keys: &[OrganisationKey],
        peer_pin: &Pin,
        now: Timestamp,
    ) -> Result<Self, CredentialError> {
        let credential: Self =
            Signed::verify(token, TokenType::Credential, trusted_keys)?.into_payload();
        if credential.confirmation.pin != *peer_pin {
            return Err(CredentialError::WrongKey);
        }
        if credential.expires_at.0 <= now {
            return Err(CredentialError::Expired { expires_at: credential.expires_at.0 });
        }
        if credential.issued_at.0 > now.saturating_add(MAX_CLOCK_SKEW) {
            return Err(CredentialError::NotYetValid { issued_at: credential.issued_at.0 });
        }
        Ok(credential)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::signed::SigningKey;
    use uuid::Uuid;

    const NOW: i64 = 1_767_225_600_123;

    fn at(offset_millis: i64) -> Timestamp {
        Timestamp::from_millis(NOW + offset_millis)
    }

    fn credential() -> Credential {
        Credential {
            device_id: DeviceId::from_uuid(Uuid::from_u128(1)),
            user_id: UserId::from_uuid(Uuid::from_u128(2)),
            groups: vec![],
            posture: vec![],
            addresses: vec!["100.80.0.1".parse().unwrap()],
            wireguard_public_key: WireguardPublicKey::try_from_bytes([9; 32]).unwrap(),
            confirmation: Confirmation { pin: Pin::from_spki(b"device") },
            auth_time: NumericDate(at(-1)),
            authentication_methods: vec!["pwd".into()],
            issued_at: NumericDate(at(0)),
            expires_at: NumericDate(at(1000)),
        }
    }

    fn verify(
        credential: Credential,
        spki: &[u8],
        now: Timestamp,
    ) -> Result<Credential, CredentialError> {
        let key = SigningKey::from_seed(&[1; 32]);
        let token = Signed::sign(credential, TokenType::Credential, &key);
        Credential::verify(token.token(), &[key.organisation_key()], &Pin::from_spki(spki), now)
    }

    #[test]
    fn milliseconds_survive_the_round_trip() {
        assert_eq!(verify(credential(), b"device", at(0)).unwrap(), credential());
    }

    #[test]
    fn the_holder_of_another_key_is_refused() {
        assert!(matches!(verify(credential(), b"other", at(0)), Err(CredentialError::WrongKey)));
    }

    #[test]
    fn it_ends_with_its_last_millisecond() {
        assert!(verify(credential(), b"device", at(999)).is_ok());
        assert!(matches!(
            verify(credential(), b"device", at(1000)),
            Err(CredentialError::Expired { .. })
        ));
    }

    #[test]
    fn one_from_the_far_future_is_refused() {
        assert!(matches!(
            verify(credential(), b"device", at(-60_001)),
            Err(CredentialError::NotYetValid { .. })
        ));
    }
}
