//! How a client proves that it has the address it sends from (RFC 9000 §8.1.2).

use std::{
    fmt,
    net::{IpAddr, SocketAddr},
    time::{SystemTime, UNIX_EPOCH},
};

use aws_lc_rs::{
    aead::{AES_128_GCM, Aad, LessSafeKey, Nonce, UnboundKey},
    hmac,
};
use quinn_proto::{
    ConnectionId,
    crypto::{AeadKey, CryptoError, HandshakeTokenKey},
};

use super::initial::VERSION;
use crate::{Endpoint, KeyPair};

/// Who wants to connect and has not proven its address.
#[derive(Debug, Clone)]
pub struct Unproven {
    pub(super) from: Endpoint,
    /// By what it calls us.
    pub(super) to_id: ConnectionId,
    /// By what it wants to be called.
    pub(super) from_id: ConnectionId,
}

impl Unproven {
    /// Where the answer goes.
    pub const fn endpoint(&self) -> Endpoint {
        self.from
    }
}

/// Asks for proofs of addresses. Costs little and remembers nothing, so that it may be asked of
/// everybody, by any thread.
pub struct RetrySource {
    tokens: TokenKey,
    integrity: LessSafeKey,
}

impl RetrySource {
    /// For the connector of this identity.
    pub fn new(identity: &KeyPair) -> Self {
        /// RFC 9001 §5.8.
        const KEY: [u8; 16] = [
            0xbe, 0x0c, 0x69, 0x0b, 0x9f, 0x66, 0x57, 0x5a, 0x1d, 0x76, 0x6b, 0x54, 0xe3, 0x68,
            0xc8, 0x4e,
        ];

        let integrity = UnboundKey::new(&AES_128_GCM, &KEY).expect("the key has the right length");
        Self { tokens: TokenKey::new(identity), integrity: LessSafeKey::new(integrity) }
    }

    /// The Retry packet (RFC 9000 §17.2.5) for a client, which is a tenth as long as what it sent.
    pub fn retry(&self, client: &Unproven, now: SystemTime) -> Vec<u8> {
        const KIND: u8 = 0xf0;
        /// RFC 9001 §5.8.
        const NONCE: [u8; 12] =
            [0x46, 0x15, 0x99, 0xd3, 0x5d, 0x63, 0x2b, 0xf2, 0x23, 0x98, 0x25, 0xbb];

        /// The client sends to it as to one of its own making (RFC 9000 §7.2).
        const ID_LEN: usize = 8;

        let mut id = [0; ID_LEN];
        // Without randomness two clients of one address take each other's connection, at worst.
        let _ = getrandom::fill(&mut id);
        // What is authenticated begins with the id that the client knows it by.
        let mut bytes = Vec::with_capacity(192);
        put_id(&mut bytes, &client.to_id);
        let prefix_len = bytes.len();
        bytes.push(KIND);
        bytes.extend(VERSION.to_be_bytes());
        put_id(&mut bytes, &client.from_id);
        put_id(&mut bytes, &ConnectionId::new(&id));
        bytes.extend(self.tokens.token(client.from.remote(), &client.to_id, now));
        let nonce = Nonce::assume_unique_for_key(NONCE);
        let tag = self
            .integrity
            .seal_in_place_separate_tag(nonce, Aad::from(&bytes), &mut [])
            .expect("nothing is short enough to be sealed");
        bytes.extend(tag.as_ref());
        bytes.split_off(prefix_len)
    }
}

impl fmt::Debug for RetrySource {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RetrySource").finish_non_exhaustive()
    }
}

/// Makes tokens and knows them again.
///
/// A token is what quinn expects there, then the first bytes of its MAC where quinn expects a nonce.
/// Nothing in it is secret, and a MAC needs no key of its own for each token, as quinn's cipher does.
/// Of the connector's key, so that all lanes know the tokens of each.
#[derive(Clone)]
pub(super) struct TokenKey(hmac::Key);

const MAC_LEN: usize = 16;

/// quinn's name for a token of a Retry packet.
const OF_RETRY: u8 = 0;

impl TokenKey {
    pub(super) fn new(identity: &KeyPair) -> Self {
        let secret = identity.derived_secret(b"adit retry token");
        Self(hmac::Key::new(hmac::HMAC_SHA256, secret.as_slice()))
    }

    fn token(&self, address: SocketAddr, to_id: &ConnectionId, now: SystemTime) -> Vec<u8> {
        let since_epoch = now.duration_since(UNIX_EPOCH).unwrap_or_default();
        let mut token = Vec::with_capacity(80);
        put_address(&mut token, address);
        put_id(&mut token, to_id);
        token.extend(since_epoch.as_secs().to_be_bytes());
        let mac = hmac::sign(&self.0, &token);
        token.extend(mac.as_ref().iter().take(MAC_LEN));
        token
    }

    /// Whether a token was made for this address. It may be too old; quinn says so to its owner.
    pub(super) fn is_of(&self, token: &[u8], address: SocketAddr) -> bool {
        let Some((content, mac)) = token.split_last_chunk::<MAC_LEN>() else { return false };
        let mut expected = Vec::with_capacity(20);
        put_address(&mut expected, address);
        content.starts_with(&expected) && self.is_authentic(content, mac)
    }

    fn is_authentic(&self, content: &[u8], mac: &[u8]) -> bool {
        let expected = hmac::sign(&self.0, content);
        let expected = expected.as_ref().get(..MAC_LEN);
        expected.is_some_and(|expected| {
            aws_lc_rs::constant_time::verify_slices_are_equal(expected, mac).is_ok()
        })
    }
}

fn put_address(bytes: &mut Vec<u8>, address: SocketAddr) {
    bytes.push(OF_RETRY);
    match address.ip() {
        IpAddr::V4(ip) => {
            bytes.push(0);
            bytes.extend(ip.octets());
        }
        IpAddr::V6(ip) => {
            bytes.push(1);
            bytes.extend(ip.octets());
        }
    }
    bytes.extend(address.port().to_be_bytes());
}

fn put_id(bytes: &mut Vec<u8>, id: &ConnectionId) {
    // An id has at most 20 bytes.
    bytes.push(id.len() as u8);
    bytes.extend_from_slice(id);
}

impl HandshakeTokenKey for TokenKey {
    fn aead_from_hkdf(&self, mac: &[u8]) -> Box<dyn AeadKey> {
        Box::new(Claim { key: self.clone(), mac: mac.to_vec() })
    }
}

/// What a token says of itself.
struct Claim {
    key: TokenKey,
    mac: Vec<u8>,
}

impl AeadKey for Claim {
    /// Tokens that quinn makes are worth nothing; it is never asked for one.
    fn seal(&self, _data: &mut Vec<u8>, _additional_data: &[u8]) -> Result<(), CryptoError> {
        Ok(())
    }

    fn open<'a>(
        &self,
        data: &'a mut [u8],
        _additional_data: &[u8],
    ) -> Result<&'a mut [u8], CryptoError> {
        if self.key.is_authentic(data, &self.mac) { Ok(data) } else { Err(CryptoError) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_is_of_the_address_it_was_made_for() {
        let key = TokenKey::new(&KeyPair::try_generate().unwrap());
        let id = ConnectionId::new(b"12345678");
        for address in ["192.0.2.1:4433", "[2001:db8::1]:4433"] {
            let address: SocketAddr = address.parse().unwrap();
            let token = key.token(address, &id, SystemTime::UNIX_EPOCH);
            assert!(key.is_of(&token, address));
            assert!(!key.is_of(&token, SocketAddr::new(address.ip(), 4434)), "another port");
            assert!(!key.is_of(&token, "192.0.2.2:4433".parse().unwrap()), "another address");
            for at in 0..token.len() {
                let mut forged = token.clone();
                forged[at] ^= 1;
                assert!(!key.is_of(&forged, address), "forged at {at}");
                assert!(!key.is_of(&token[..at], address), "cut at {at}");
            }
            let other = TokenKey::new(&KeyPair::try_generate().unwrap());
            assert!(!other.is_of(&token, address), "another connector's");
        }
    }

    /// RFC 9001 §A.4, but for the token.
    #[test]
    fn a_retry_is_shorter_than_what_it_answers() {
        let source = RetrySource::new(&KeyPair::try_generate().unwrap());
        let client = Unproven {
            from: "[2001:db8::1]:4433".parse::<SocketAddr>().unwrap().into(),
            to_id: ConnectionId::new(&[1; 20]),
            from_id: ConnectionId::new(&[2; 20]),
        };
        let retry = source.retry(&client, SystemTime::UNIX_EPOCH);
        assert!(retry.len() <= 160, "{} bytes", retry.len());
    }
}
