//! The organisation's private key, and what is signed with it.

use std::{
    fs::{self, File, OpenOptions},
    io::{self, Write as _},
    os::unix::fs::OpenOptionsExt as _,
    path::Path,
};

use adit_proto::{
    AuditHead, Bundle, ClientConfig, Credential, OrganisationKey, Signed, SigningKey, TokenType,
};
use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use zeroize::Zeroizing;

/// Signs bundles, configurations, credentials and heads of the audit log in the organisation's name.
#[derive(Debug)]
pub(crate) struct Signer {
    key: SigningKey,
}

/// Why the organisation's private key cannot be had.
#[derive(Debug, thiserror::Error)]
pub(crate) enum SignerError {
    /// The file cannot be read or written.
    #[error("failed to read or write the organisation key")]
    Io(#[from] io::Error),
    /// The file is not what was once written.
    #[error("the organisation key is damaged; restore it from a backup")]
    Damaged,
    /// The system gives no randomness.
    #[error("failed to draw the organisation key")]
    Randomness(#[source] getrandom::Error),
}

impl Signer {
    /// Draws a key and writes it to a file that must not exist.
    pub(crate) fn create(path: &Path) -> Result<Self, SignerError> {
        let mut seed = Zeroizing::new([0; 32]);
        getrandom::fill(seed.as_mut_slice()).map_err(SignerError::Randomness)?;
        let text = Zeroizing::new(URL_SAFE_NO_PAD.encode(seed.as_slice()));

        // Written aside and linked, so that a crash leaves the whole key or none, and so that a key
        // which is there is never overwritten.
        let aside = path.with_extension("new");
        match fs::remove_file(&aside) {
            Ok(()) => {}
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => return Err(error.into()),
        }
        let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&aside)?;
        file.write_all(text.as_bytes())?;
        file.sync_all()?;
        fs::hard_link(&aside, path)?;
        fs::remove_file(&aside)?;
        if let Some(folder) = path.parent() {
            File::open(folder)?.sync_all()?;
        }
        Ok(Self { key: SigningKey::from_seed(&seed) })
    }

    /// Reads the key that [`Self::create`] wrote.
    pub(crate) fn load(path: &Path) -> Result<Self, SignerError> {
        let text = Zeroizing::new(fs::read_to_string(path)?);
        let bytes = URL_SAFE_NO_PAD.decode(text.trim()).map_err(|_error| SignerError::Damaged)?;
        let bytes = Zeroizing::new(bytes);
        let seed: &[u8; 32] = bytes.as_slice().try_into().map_err(|_error| SignerError::Damaged)?;
        Ok(Self { key: SigningKey::from_seed(seed) })
    }

    /// The public half.
    pub(crate) fn organisation_key(&self) -> OrganisationKey {
        self.key.organisation_key()
    }

    pub(crate) fn sign_bundle(&self, bundle: Bundle) -> Signed<Bundle> {
        Signed::sign(bundle, TokenType::Bundle, &self.key)
    }

    pub(crate) fn sign_client_config(&self, config: ClientConfig) -> Signed<ClientConfig> {
        Signed::sign(config, TokenType::ClientConfig, &self.key)
    }

    pub(crate) fn sign_audit_head(&self, head: AuditHead) -> Signed<AuditHead> {
        head.sign(&self.key)
    }

    pub(crate) fn sign_credential(&self, credential: Credential) -> Signed<Credential> {
        Signed::sign(credential, TokenType::Credential, &self.key)
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;

    #[test]
    fn the_key_survives_a_restart_and_only_its_owner_may_read_it() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("organisation-key");
        let created = Signer::create(&path).unwrap();
        let loaded = Signer::load(&path).unwrap();
        assert_eq!(created.organisation_key(), loaded.organisation_key());
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
    }

    #[test]
    fn a_key_is_never_overwritten() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("organisation-key");
        let first = Signer::create(&path).unwrap();
        assert!(Signer::create(&path).is_err());
        assert_eq!(Signer::load(&path).unwrap().organisation_key(), first.organisation_key());
    }

    #[test]
    fn a_cut_key_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("organisation-key");
        fs::write(&path, "AAAA").unwrap();
        assert!(matches!(Signer::load(&path), Err(SignerError::Damaged)));
    }
}
