//! Secrets that are needed again in plain text, sealed with a key that the database does not have.

use std::{fs, io, path::Path};

use aws_lc_rs::aead::{AES_256_GCM, Aad, LessSafeKey, NONCE_LEN, Nonce, UnboundKey};
use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use zeroize::Zeroizing;

use crate::data_dir::DataDir;

/// Seals and opens. What a secret belongs to is bound to it, so that a row is of no use elsewhere.
pub(crate) struct Sealer {
    key: LessSafeKey,
}

/// Why a secret cannot be sealed or opened.
#[derive(Debug, thiserror::Error)]
pub(crate) enum SealError {
    /// The system gives no randomness.
    #[error("failed to draw randomness")]
    Randomness(#[source] getrandom::Error),
    /// It was sealed with another key, or was changed.
    #[error("a sealed secret cannot be opened; restore `sealing-key`, or write the secret anew")]
    Damaged,
}

impl Sealer {
    /// Reads the key; draws it when there is none.
    pub(crate) fn load_or_create(data_dir: &DataDir) -> io::Result<Self> {
        let file = data_dir.sealing_key();
        if !file.exists() {
            let mut key = Zeroizing::new([0; 32]);
            getrandom::fill(&mut *key).map_err(io::Error::other)?;
            data_dir.write_secret(&file, &Zeroizing::new(URL_SAFE_NO_PAD.encode(*key)))?;
        }
        Self::load(&file)
    }

    fn load(file: &Path) -> io::Result<Self> {
        let damaged = || io::Error::new(io::ErrorKind::InvalidData, "it holds no key");
        let text = Zeroizing::new(fs::read_to_string(file)?);
        let key = URL_SAFE_NO_PAD.decode(text.trim()).map_err(|_error| damaged())?;
        let key = Zeroizing::new(key);
        let key: &[u8; 32] = key.as_slice().try_into().map_err(|_error| damaged())?;
        Ok(Self::new(key))
    }

    pub(crate) fn new(key: &[u8; 32]) -> Self {
        let key = UnboundKey::new(&AES_256_GCM, key).expect("AES-256 takes a key of 32 bytes");
        Self { key: LessSafeKey::new(key) }
    }

    /// Seals a secret for `owner`, such as an id.
    pub(crate) fn seal(&self, owner: impl AsRef<[u8]>, secret: &str) -> Result<Vec<u8>, SealError> {
        let mut nonce = [0; NONCE_LEN];
        getrandom::fill(&mut nonce).map_err(SealError::Randomness)?;
        let mut sealed = secret.as_bytes().to_vec();
        let nonce_again = Nonce::assume_unique_for_key(nonce);
        self.key
            .seal_in_place_append_tag(nonce_again, Aad::from(owner), &mut sealed)
            .map_err(|_error| SealError::Damaged)?;
        sealed.splice(..0, nonce);
        Ok(sealed)
    }

    /// Opens what was sealed for `owner`.
    pub(crate) fn open(
        &self,
        owner: impl AsRef<[u8]>,
        sealed: &[u8],
    ) -> Result<Zeroizing<String>, SealError> {
        let (nonce, text) = sealed.split_at_checked(NONCE_LEN).ok_or(SealError::Damaged)?;
        let nonce = Nonce::try_assume_unique_for_key(nonce).map_err(|_error| SealError::Damaged)?;
        let mut text = Zeroizing::new(text.to_vec());
        let opened = self
            .key
            .open_in_place(nonce, Aad::from(owner), &mut text)
            .map_err(|_error| SealError::Damaged)?;
        let opened = str::from_utf8(opened).map_err(|_error| SealError::Damaged)?;
        Ok(Zeroizing::new(opened.to_owned()))
    }
}

impl std::fmt::Debug for Sealer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Sealer(..)")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_secret_is_opened_for_its_owner_alone_and_after_a_restart() {
        let folder = tempfile::tempdir().unwrap();
        let data_dir = DataDir::open(folder.path()).unwrap();
        let sealed = Sealer::load_or_create(&data_dir).unwrap().seal("idp_1", "s3cret").unwrap();
        assert!(!sealed.windows(6).any(|part| part == b"s3cret"));
        let sealer = Sealer::load_or_create(&data_dir).unwrap();
        assert_eq!(sealer.open("idp_1", &sealed).unwrap().as_str(), "s3cret");
        assert!(sealer.open("idp_2", &sealed).is_err());
        assert!(sealer.open("idp_1", &sealed[..5]).is_err());
    }
}
