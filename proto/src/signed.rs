//! Compact JWS (RFC 7515) with EdDSA (RFC 8037): how the organisation signs.

use std::fmt;

use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use ed25519_dalek::{Signature, Signer as _};
use serde::{Deserialize, Serialize, de::DeserializeOwned};

use crate::key::OrganisationKey;

/// Private half of an organisation key. Wiped from memory when dropped.
pub struct SigningKey(ed25519_dalek::SigningKey);

impl SigningKey {
    /// The key of a 32-byte seed, drawn by the caller.
    pub fn from_seed(seed: &[u8; 32]) -> Self {
        Self(ed25519_dalek::SigningKey::from_bytes(seed))
    }

    /// The public half.
    pub fn organisation_key(&self) -> OrganisationKey {
        OrganisationKey::from_verifying_key(self.0.verifying_key())
    }

    fn sign(&self, message: &[u8]) -> [u8; 64] {
        self.0.sign(message).to_bytes()
    }
}

impl fmt::Debug for SigningKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "SigningKey({})", self.organisation_key())
    }
}

/// What a signed payload is, so that one kind is never taken for another (`typ`, RFC 8725 §3.11).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TokenType {
    /// A device credential.
    Credential,
    /// A connector's bundle.
    Bundle,
    /// A client's configuration.
    ClientConfig,
    /// The head of the audit log.
    AuditHead,
}

impl TokenType {
    const fn media_type(self) -> &'static str {
        match self {
            Self::Credential => "adit-credential+jwt",
            Self::Bundle => "adit-bundle+jws",
            Self::ClientConfig => "adit-client-config+jws",
            Self::AuditHead => "adit-audit-head+jws",
        }
    }

    /// Longest token of this kind, in bytes, that is looked at.
    pub const fn max_len(self) -> usize {
        match self {
            Self::Credential => 16 << 10,
            Self::Bundle => 64 << 20,
            Self::ClientConfig => 16 << 20,
            Self::AuditHead => 4 << 10,
        }
    }
}

/// Why a signed token is refused.
#[derive(Debug, thiserror::Error)]
pub enum SignedError {
    /// Longer than [`TokenType::max_len`].
    #[error("token of {len} bytes is longer than {max}")]
    TooLong {
        /// Length found, in bytes.
        len: usize,
        /// Longest allowed, in bytes.
        max: usize,
    },
    /// Not three parts of base64url, or the header is no JSON of the expected members.
    #[error("not a compact JWS")]
    Malformed,
    /// The header's `alg` or `typ` is another.
    #[error("token is of another kind")]
    WrongType,
    /// The header's `kid` names a key that is not trusted.
    #[error("signed by a key that is not the organisation's")]
    UnknownKey,
    /// The signature does not verify.
    #[error("signature does not verify")]
    BadSignature,
    /// Rightly signed, but the payload is not what it should be.
    #[error("payload is not of the expected shape")]
    Payload(#[source] serde_json::Error),
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Header {
    alg: String,
    typ: String,
    kid: String,
}

/// A compact JWS whose signature has been made or verified, with its payload.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Signed<T> {
    payload: T,
    token: String,
}

impl<T> Signed<T> {
    /// What was signed.
    pub const fn payload(&self) -> &T {
        &self.payload
    }

    /// What was signed, alone.
    pub fn into_payload(self) -> T {
        self.payload
    }

    /// The compact serialisation, to be sent or stored.
    pub fn token(&self) -> &str {
        &self.token
    }
}

impl<T: Serialize> Signed<T> {
    /// Signs a payload.
    ///
    /// # Panics
    ///
    /// When `T` cannot be written as JSON, which no type of this crate does.
    pub fn sign(payload: T, token_type: TokenType, key: &SigningKey) -> Self {
        let header = Header {
            alg: "EdDSA".to_owned(),
            typ: token_type.media_type().to_owned(),
            kid: key.organisation_key().to_string(),
        };
        let json = |result: serde_json::Result<Vec<u8>>| {
            URL_SAFE_NO_PAD.encode(result.expect("types of this crate are representable in JSON"))
        };
        let mut token = json(serde_json::to_vec(&header));
        token.push('.');
        token.push_str(&json(serde_json::to_vec(&payload)));
        let signature = key.sign(token.as_bytes());
        token.push('.');
        URL_SAFE_NO_PAD.encode_string(signature, &mut token);
        Self { payload, token }
    }
}

impl<T: DeserializeOwned> Signed<T> {
    /// Verifies a token against the keys that are trusted, then reads its payload.
    ///
    /// # Errors
    ///
    /// See [`SignedError`]. Nothing of the payload is parsed before the signature is verified.
    pub fn verify(
        token: &str,
        token_type: TokenType,
        trusted_keys: &[OrganisationKey],
    ) -> Result<Self, SignedError> {
        if token.len() > token_type.max_len() {
            return Err(SignedError::TooLong { len: token.len(), max: token_type.max_len() });
        }
        let (message, signature) = token.rsplit_once('.').ok_or(SignedError::Malformed)?;
        let (header, payload) = message.split_once('.').ok_or(SignedError::Malformed)?;
        let decode = |part: &str| URL_SAFE_NO_PAD.decode(part).map_err(|_e| SignedError::Malformed);

        let header: Header =
            serde_json::from_slice(&decode(header)?).map_err(|_error| SignedError::Malformed)?;
        if header.alg != "EdDSA" || header.typ != token_type.media_type() {
            return Err(SignedError::WrongType);
        }
        let key = trusted_keys
            .iter()
            .find(|key| key.to_string() == header.kid)
            .ok_or(SignedError::UnknownKey)?;
        let signature =
            Signature::from_slice(&decode(signature)?).map_err(|_error| SignedError::Malformed)?;
        key.as_verifying_key()
            .verify_strict(message.as_bytes(), &signature)
            .map_err(|_error| SignedError::BadSignature)?;

        let payload = serde_json::from_slice(&decode(payload)?).map_err(SignedError::Payload)?;
        Ok(Self { payload, token: token.to_owned() })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(seed: u8) -> SigningKey {
        SigningKey::from_seed(&[seed; 32])
    }

    fn verify(token: &str, trusted: &SigningKey) -> Result<Signed<u32>, SignedError> {
        Signed::verify(token, TokenType::Bundle, &[trusted.organisation_key()])
    }

    #[test]
    fn what_was_signed_verifies() {
        let signed = Signed::sign(7_u32, TokenType::Bundle, &key(1));
        assert_eq!(verify(signed.token(), &key(1)).unwrap(), signed);
    }

    #[test]
    fn a_foreign_key_is_refused() {
        let signed = Signed::sign(7_u32, TokenType::Bundle, &key(2));
        assert!(matches!(verify(signed.token(), &key(1)), Err(SignedError::UnknownKey)));
    }

    #[test]
    fn a_token_of_another_kind_is_refused() {
        let signed = Signed::sign(7_u32, TokenType::Credential, &key(1));
        assert!(matches!(verify(signed.token(), &key(1)), Err(SignedError::WrongType)));
    }

    #[test]
    fn any_changed_character_is_refused() {
        let signed = Signed::sign(1_234_567_u32, TokenType::Bundle, &key(1));
        for index in 0..signed.token().len() {
            let mut bytes = signed.token().as_bytes().to_vec();
            bytes[index] = if bytes[index] == b'A' { b'B' } else { b'A' };
            let changed = String::from_utf8(bytes).unwrap();
            assert!(verify(&changed, &key(1)).is_err(), "changed at {index}");
        }
    }

    #[test]
    fn the_algorithm_none_is_refused() {
        let header = URL_SAFE_NO_PAD.encode(format!(
            r#"{{"alg":"none","typ":"adit-bundle+jws","kid":"{}"}}"#,
            key(1).organisation_key()
        ));
        assert!(matches!(verify(&format!("{header}.Nw."), &key(1)), Err(SignedError::WrongType)));
    }

    #[test]
    fn the_private_half_is_not_in_debug_output() {
        let debug = format!("{:?}", key(1));
        assert!(!debug.contains("1, 1"), "{debug}");
    }
}
