//! Public keys and pins, as text.

use std::{fmt, str::FromStr};

use base64::{
    Engine as _, engine::general_purpose::STANDARD, engine::general_purpose::URL_SAFE_NO_PAD,
};
use ed25519_dalek::VerifyingKey;
use serde::{Deserialize, Deserializer, Serialize, Serializer, de};
use sha2::{Digest as _, Sha256};
use subtle::ConstantTimeEq as _;

/// Why a string is not a key or pin.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum KeyError {
    /// Not 32 bytes of base64 in the expected alphabet.
    #[error("expected 32 bytes as {alphabet}")]
    Encoding {
        /// Which alphabet is expected.
        alphabet: &'static str,
    },
    /// 32 bytes that are no point of the curve.
    #[error("not a point of the curve")]
    Point,
}

macro_rules! text_form {
    ($name:ident, $engine:ident, $alphabet:literal, $pattern:literal) => {
        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&$engine.encode(self.as_bytes()))
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                fmt::Display::fmt(self, f)
            }
        }

        impl FromStr for $name {
            type Err = KeyError;

            fn from_str(text: &str) -> Result<Self, KeyError> {
                let bytes: [u8; 32] = $engine
                    .decode(text)
                    .ok()
                    .and_then(|bytes| bytes.try_into().ok())
                    .ok_or(KeyError::Encoding { alphabet: $alphabet })?;
                Self::try_from_bytes(bytes)
            }
        }

        impl Serialize for $name {
            fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                serializer.collect_str(self)
            }
        }

        impl<'de> Deserialize<'de> for $name {
            fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                let text = std::borrow::Cow::<'de, str>::deserialize(deserializer)?;
                text.parse().map_err(de::Error::custom)
            }
        }

        #[cfg(feature = "openapi")]
        impl utoipa::PartialSchema for $name {
            fn schema() -> utoipa::openapi::RefOr<utoipa::openapi::schema::Schema> {
                utoipa::openapi::ObjectBuilder::new()
                    .schema_type(utoipa::openapi::schema::Type::String)
                    .pattern(Some($pattern))
                    .into()
            }
        }

        #[cfg(feature = "openapi")]
        impl utoipa::ToSchema for $name {}
    };
}

/// An X25519 public key of WireGuard: standard base64, as `wg` prints it.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct WireguardPublicKey([u8; 32]);

impl WireguardPublicKey {
    /// Refuses the points of low order, with which a shared secret would be known to all
    /// (RFC 7748 §7).
    ///
    /// # Errors
    ///
    /// [`KeyError::Point`] for such a point.
    pub fn try_from_bytes(bytes: [u8; 32]) -> Result<Self, KeyError> {
        let mut canonical = bytes;
        canonical[31] &= 0x7f;
        if LOW_ORDER_POINTS.contains(&canonical) {
            return Err(KeyError::Point);
        }
        Ok(Self(bytes))
    }

    /// The key as it is on the wire.
    pub const fn as_bytes(&self) -> &[u8; 32] {
        &self.0
    }
}

text_form!(
    WireguardPublicKey,
    STANDARD,
    "standard base64",
    "^[A-Za-z0-9+/]{42}[AEIMQUYcgkosw048]=$"
);

/// SHA-256 of a certificate's SubjectPublicKeyInfo (RFC 7469 §2.4): base64url without padding.
#[derive(Clone, Copy, Eq, Hash)]
#[expect(
    clippy::derived_hash_with_manual_eq,
    reason = "both look at all bytes, only equality does so in constant time"
)]
pub struct Pin([u8; 32]);

impl Pin {
    /// The pin of a DER-encoded SubjectPublicKeyInfo.
    pub fn from_spki(spki_der: &[u8]) -> Self {
        Self(Sha256::digest(spki_der).into())
    }

    fn try_from_bytes(bytes: [u8; 32]) -> Result<Self, KeyError> {
        Ok(Self(bytes))
    }

    /// The digest itself.
    pub const fn as_bytes(&self) -> &[u8; 32] {
        &self.0
    }
}

impl PartialEq for Pin {
    fn eq(&self, other: &Self) -> bool {
        self.0.ct_eq(&other.0).into()
    }
}

text_form!(
    Pin,
    URL_SAFE_NO_PAD,
    "base64url without padding",
    "^[A-Za-z0-9_-]{42}[AEIMQUYcgkosw048]$"
);

/// An Ed25519 public key with which the organisation's signatures are checked: base64url without
/// padding. Its own text is its key id (`kid`).
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct OrganisationKey(VerifyingKey);

impl OrganisationKey {
    fn try_from_bytes(bytes: [u8; 32]) -> Result<Self, KeyError> {
        let key = VerifyingKey::from_bytes(&bytes).map_err(|_error| KeyError::Point)?;
        if key.is_weak() {
            return Err(KeyError::Point);
        }
        Ok(Self(key))
    }

    pub(crate) const fn from_verifying_key(key: VerifyingKey) -> Self {
        Self(key)
    }

    pub(crate) const fn as_verifying_key(&self) -> &VerifyingKey {
        &self.0
    }

    fn as_bytes(&self) -> &[u8; 32] {
        self.0.as_bytes()
    }
}

text_form!(
    OrganisationKey,
    URL_SAFE_NO_PAD,
    "base64url without padding",
    "^[A-Za-z0-9_-]{42}[AEIMQUYcgkosw048]$"
);

/// The points of low order on Curve25519 and its twist, little-endian, from the paper "Curve25519:
/// new Diffie-Hellman speed records" and the list at <https://cr.yp.to/ecdh.html#validate>.
const LOW_ORDER_POINTS: [[u8; 32]; 7] = [
    [0; 32],
    with_ends(1, 0),
    [
        0xe0, 0xeb, 0x7a, 0x7c, 0x3b, 0x41, 0xb8, 0xae, 0x16, 0x56, 0xe3, 0xfa, 0xf1, 0x9f, 0xc4,
        0x6a, 0xda, 0x09, 0x8d, 0xeb, 0x9c, 0x32, 0xb1, 0xfd, 0x86, 0x62, 0x05, 0x16, 0x5f, 0x49,
        0xb8, 0x00,
    ],
    [
        0x5f, 0x9c, 0x95, 0xbc, 0xa3, 0x50, 0x8c, 0x24, 0xb1, 0xd0, 0xb1, 0x55, 0x9c, 0x83, 0xef,
        0x5b, 0x04, 0x44, 0x5c, 0xc4, 0x58, 0x1c, 0x8e, 0x86, 0xd8, 0x22, 0x4e, 0xdd, 0xd0, 0x9f,
        0x11, 0x57,
    ],
    all_ones_from(0xec),
    all_ones_from(0xed),
    all_ones_from(0xee),
];

const fn with_ends(first: u8, last: u8) -> [u8; 32] {
    let mut bytes = [0; 32];
    bytes[0] = first;
    bytes[31] = last;
    bytes
}

const fn all_ones_from(first: u8) -> [u8; 32] {
    let mut bytes = [0xff; 32];
    bytes[0] = first;
    bytes[31] = 0x7f;
    bytes
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_wireguard_key_survives_a_round_trip() {
        let text = "xTIBA5rboUvnH4htodjb6e697QjLERt1NAB4mZqp8Dg=";
        assert_eq!(text.parse::<WireguardPublicKey>().unwrap().to_string(), text);
    }

    #[test]
    fn keys_of_low_order_are_refused() {
        for point in LOW_ORDER_POINTS {
            assert_eq!(WireguardPublicKey::try_from_bytes(point), Err(KeyError::Point));
            let mut with_high_bit = point;
            with_high_bit[31] |= 0x80;
            assert_eq!(WireguardPublicKey::try_from_bytes(with_high_bit), Err(KeyError::Point));
        }
    }

    #[test]
    fn a_short_key_is_refused() {
        assert!("AAAA".parse::<WireguardPublicKey>().is_err());
        assert!("AAAA".parse::<Pin>().is_err());
    }
}
