//! A private key.

use std::{fmt, str::FromStr};

use adit_proto::{KeyError, WireguardPublicKey};
use base64::{Engine as _, engine::general_purpose::STANDARD};
use x25519_dalek::{PublicKey, StaticSecret};
use zeroize::Zeroizing;

/// An X25519 private key of WireGuard. It is wiped from memory when dropped and never printed.
#[derive(Clone)]
pub struct WireguardSecret(StaticSecret);

impl WireguardSecret {
    /// Draws a new key.
    ///
    /// # Errors
    ///
    /// When the operating system has no randomness to give.
    pub fn try_generate() -> Result<Self, getrandom::Error> {
        let mut bytes = Zeroizing::new([0; 32]);
        getrandom::fill(bytes.as_mut_slice())?;
        Ok(Self(StaticSecret::from(*bytes)))
    }

    /// The public half.
    pub fn public_key(&self) -> WireguardPublicKey {
        WireguardPublicKey::try_from_bytes(PublicKey::from(&self.0).to_bytes())
            .expect("a clamped scalar is no multiple of the group's order")
    }

    /// The key as text, to be kept in a file that only its owner may read.
    pub fn to_base64(&self) -> Zeroizing<String> {
        let bytes = Zeroizing::new(self.0.to_bytes());
        Zeroizing::new(STANDARD.encode(bytes.as_slice()))
    }

    pub(super) const fn as_x25519(&self) -> &StaticSecret {
        &self.0
    }
}

impl FromStr for WireguardSecret {
    type Err = KeyError;

    fn from_str(text: &str) -> Result<Self, KeyError> {
        const ERROR: KeyError = KeyError::Encoding { alphabet: "standard base64" };
        let decoded = Zeroizing::new(STANDARD.decode(text.trim()).map_err(|_error| ERROR)?);
        let bytes: &[u8; 32] = decoded.as_slice().try_into().map_err(|_error| ERROR)?;
        Ok(Self(StaticSecret::from(*bytes)))
    }
}

impl fmt::Debug for WireguardSecret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("WireguardSecret(..)")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_key_pair_of_rfc_7748_has_its_public_half() {
        // RFC 7748 §6.1.
        let secret: WireguardSecret =
            "dwdtCnMYpX08FsFyUbJmRd9ML4frwJkqsXf7pR25LCo=".parse().unwrap();
        assert_eq!(secret.public_key().to_string(), "hSDwCYkwp1R0i33ctD73Wg2/Og0mOBr066SpjqqbTmo=");
    }

    #[test]
    fn a_key_survives_its_file_and_is_not_printed() {
        let secret = WireguardSecret::try_generate().unwrap();
        let text = secret.to_base64();
        let again: WireguardSecret = format!("{}\n", *text).parse().unwrap();
        assert_eq!(again.public_key(), secret.public_key());
        assert!(!format!("{secret:?}").contains(&text[..8]));
    }

    #[test]
    fn a_short_key_is_refused() {
        assert!("AAAA".parse::<WireguardSecret>().is_err());
    }
}
