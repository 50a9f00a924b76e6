//! The keys that say who a program is, each in a file of its own.

mod private_file;

use std::{
    fmt,
    path::{Path, PathBuf},
    sync::Arc,
};

use adit_proto::{Assertion, AssertionSubject, Pin, Timestamp, sha256_base64url};
use aws_lc_rs::hmac;
use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use p256::{ecdsa::SigningKey, pkcs8::DecodePrivateKey as _};
use rcgen::{
    CertificateParams, DistinguishedName, DnType, PKCS_ECDSA_P256_SHA256, PublicKeyData as _,
};
use rustls::{
    pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer},
    sign::CertifiedKey,
};
use zeroize::Zeroizing;

use crate::{tls, wireguard::WireguardSecret};

/// A P-256 key with a self-signed certificate: a program's identity towards all others.
///
/// Clones share one key.
#[derive(Clone)]
pub struct KeyPair(Arc<Inner>);

struct Inner {
    signing_key: SigningKey,
    certified_key: Arc<CertifiedKey>,
    certificate: CertificateDer<'static>,
    spki_der: Vec<u8>,
    pin: Pin,
}

/// Why a key cannot be had.
#[derive(Debug, thiserror::Error)]
pub enum IdentityError {
    /// The file cannot be read or written.
    #[error("cannot keep a key in {}", path.display())]
    Io {
        /// The key's file.
        path: PathBuf,
        /// What the operating system says.
        source: std::io::Error,
    },
    /// Others than its owner may read the file.
    #[error("others may read the key in {0}; run `chmod 600 {0}`", path.display())]
    Exposed {
        /// The key's file.
        path: PathBuf,
    },
    /// The file holds something else than a key.
    #[error(
        "{} holds no key of the expected kind; restore it, or remove it and join anew",
        path.display()
    )]
    Damaged {
        /// The key's file.
        path: PathBuf,
    },
    /// A new key could not be made.
    #[error("cannot make a key: {reason}")]
    Generate {
        /// Why.
        reason: String,
    },
}

impl KeyPair {
    /// The key in a file of PKCS#8 PEM, made on the first call.
    ///
    /// # Errors
    ///
    /// See [`IdentityError`]. A file that exists is never overwritten.
    pub fn load_or_create(path: &Path) -> Result<Self, IdentityError> {
        let pem =
            private_file::read_or_create(path, || Ok(Zeroizing::new(generate()?.serialize_pem())))?;
        let der = parse_pem(&pem).ok_or_else(|| IdentityError::Damaged { path: path.into() })?;
        Self::try_from_der(&der).map_err(|_reason| IdentityError::Damaged { path: path.into() })
    }

    /// A new key that is kept in memory only.
    ///
    /// # Errors
    ///
    /// [`IdentityError::Generate`].
    pub fn try_generate() -> Result<Self, IdentityError> {
        let der = PrivatePkcs8KeyDer::from(generate()?.serialize_der());
        Self::try_from_der(&der).map_err(|reason| IdentityError::Generate { reason })
    }

    fn try_from_der(der: &PrivatePkcs8KeyDer<'_>) -> Result<Self, String> {
        let signing_key = SigningKey::from_pkcs8_der(der.secret_pkcs8_der())
            .map_err(|error| error.to_string())?;
        let key = rcgen::KeyPair::from_pkcs8_der_and_sign_algo(der, &PKCS_ECDSA_P256_SHA256)
            .map_err(|error| error.to_string())?;
        let certificate = certificate_parameters()
            .self_signed(&key)
            .map_err(|error| error.to_string())?
            .der()
            .clone();
        let private_key = tls::provider()
            .key_provider
            .load_private_key(PrivateKeyDer::Pkcs8(der.clone_key()))
            .map_err(|error| error.to_string())?;
        let spki_der = key.subject_public_key_info();
        Ok(Self(Arc::new(Inner {
            signing_key,
            certified_key: Arc::new(CertifiedKey::new(vec![certificate.clone()], private_key)),
            certificate,
            pin: Pin::from_spki(&spki_der),
            spki_der,
        })))
    }

    /// By which others recognise this key.
    pub fn pin(&self) -> Pin {
        self.0.pin
    }

    /// The public half, DER-encoded.
    pub fn spki_der(&self) -> &[u8] {
        &self.0.spki_der
    }

    /// The public half as base64url without padding, as requests to enrol carry it.
    pub fn spki_base64url(&self) -> String {
        URL_SAFE_NO_PAD.encode(&self.0.spki_der)
    }

    /// A secret for one purpose, which is the same in each process that has the key, and says
    /// nothing of it.
    pub(crate) fn derived_secret(&self, purpose: &[u8]) -> Zeroizing<[u8; 32]> {
        let private = Zeroizing::new(self.0.signing_key.to_bytes());
        let key = hmac::Key::new(hmac::HMAC_SHA256, &private[..]);
        let mut secret = Zeroizing::new([0; 32]);
        secret.copy_from_slice(hmac::sign(&key, purpose).as_ref());
        secret
    }

    /// The self-signed certificate, made anew for each process.
    pub fn certificate(&self) -> CertificateDer<'static> {
        self.0.certificate.clone()
    }

    /// The token that authenticates one request to the control plane.
    ///
    /// `path` includes the query.
    pub fn assertion(
        &self,
        subject: AssertionSubject,
        method: &str,
        path: &str,
        body: &[u8],
        now: Timestamp,
    ) -> String {
        Assertion {
            subject,
            method: method.to_owned(),
            path: path.to_owned(),
            body_sha256: sha256_base64url(body),
            issued_at: now,
        }
        .sign(&self.0.signing_key)
    }

    pub(crate) fn certified_key(&self) -> Arc<CertifiedKey> {
        Arc::clone(&self.0.certified_key)
    }
}

impl fmt::Debug for KeyPair {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "KeyPair({})", self.0.pin)
    }
}

/// The WireGuard key in a file of base64, as `wg genkey` prints it, made on the first call.
///
/// # Errors
///
/// See [`IdentityError`]. A file that exists is never overwritten.
pub fn load_or_create_wireguard_secret(path: &Path) -> Result<WireguardSecret, IdentityError> {
    let text = private_file::read_or_create(path, || {
        let secret = WireguardSecret::try_generate()
            .map_err(|error| IdentityError::Generate { reason: error.to_string() })?;
        let mut text = secret.to_base64();
        text.push('\n');
        Ok(text)
    })?;
    text.parse().map_err(|_error| IdentityError::Damaged { path: path.into() })
}

fn generate() -> Result<rcgen::KeyPair, IdentityError> {
    rcgen::KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256)
        .map_err(|error| IdentityError::Generate { reason: error.to_string() })
}

fn parse_pem(pem: &str) -> Option<PrivatePkcs8KeyDer<'static>> {
    use rustls::pki_types::pem::PemObject as _;
    PrivatePkcs8KeyDer::from_pem_slice(pem.as_bytes()).ok()
}

/// Peers look at the key alone, so the rest only has to be well-formed.
fn certificate_parameters() -> CertificateParams {
    let mut subject = DistinguishedName::new();
    subject.push(DnType::CommonName, "adit");
    let mut parameters = CertificateParams::default();
    parameters.distinguished_name = subject;
    parameters
}

#[cfg(test)]
mod tests {
    use std::{fs, os::unix::fs::PermissionsExt as _};

    use adit_proto::DeviceId;

    use super::*;

    #[test]
    fn a_key_is_the_same_when_loaded_again() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("device-key");
        let made = KeyPair::load_or_create(&path).unwrap();
        let loaded = KeyPair::load_or_create(&path).unwrap();
        assert_eq!(made.pin(), loaded.pin());
        assert_eq!(made.pin(), Pin::from_spki(loaded.spki_der()));
    }

    #[test]
    fn a_key_file_is_for_its_owner_alone_and_nothing_lies_beside_it() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("device-key");
        KeyPair::load_or_create(&path).unwrap();
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        assert!(fs::read_to_string(&path).unwrap().starts_with("-----BEGIN PRIVATE KEY-----"));
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 1);
    }

    #[test]
    fn a_key_that_others_may_read_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("device-key");
        KeyPair::load_or_create(&path).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o640)).unwrap();
        let error = KeyPair::load_or_create(&path).unwrap_err();
        assert!(matches!(error, IdentityError::Exposed { .. }));
        assert!(error.to_string().contains("chmod 600"), "{error}");
    }

    #[test]
    fn a_damaged_key_is_neither_used_nor_replaced() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("key");
        fs::write(&path, "nonsense").unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).unwrap();
        let error = KeyPair::load_or_create(&path).unwrap_err();
        assert!(matches!(error, IdentityError::Damaged { .. }));
        let error = load_or_create_wireguard_secret(&path).unwrap_err();
        assert!(matches!(error, IdentityError::Damaged { .. }));
        assert_eq!(fs::read(&path).unwrap(), b"nonsense");
    }

    #[test]
    fn a_missing_folder_is_an_error_that_names_the_file() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("missing").join("key");
        let error = KeyPair::load_or_create(&path).unwrap_err();
        assert!(error.to_string().contains("missing/key"), "{error}");
    }

    #[test]
    fn a_wireguard_key_is_the_same_when_loaded_again() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("wireguard-key");
        let made = load_or_create_wireguard_secret(&path).unwrap();
        let loaded = load_or_create_wireguard_secret(&path).unwrap();
        assert_eq!(made.public_key(), loaded.public_key());
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
    }

    #[test]
    fn an_assertion_verifies_under_the_key_that_is_announced() {
        let key = KeyPair::try_generate().unwrap();
        let id = format!("{}_{:032x}", DeviceId::PREFIX, 1);
        let subject = AssertionSubject::Device(id.parse().unwrap());
        let now = Timestamp::from_millis(1_000_000);
        let token = key.assertion(subject, "GET", "/v1/client/config?a=b", b"", now);
        let spki = URL_SAFE_NO_PAD.decode(key.spki_base64url()).unwrap();
        let verified =
            Assertion::verify(&token, &spki, "GET", "/v1/client/config?a=b", b"", now).unwrap();
        assert_eq!(verified.subject, subject);
    }

    #[test]
    fn the_private_half_is_not_in_debug_output() {
        let key = KeyPair::try_generate().unwrap();
        assert_eq!(format!("{key:?}"), format!("KeyPair({})", key.pin()));
    }
}
