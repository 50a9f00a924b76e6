//! What a connector keeps on disk.

use std::{
    fs::{self, DirBuilder, File, OpenOptions},
    io::{self, Write as _},
    os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _},
    path::{Path, PathBuf},
    sync::Arc,
};

use adit_proto::{ConnectorId, OrganisationId, OrganisationKey, Pin, SiteId, Timestamp};
use nix::fcntl::{Flock, FlockArg};
use serde::{Deserialize, Serialize};

/// What was learnt when the connector joined.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Membership {
    /// `https://host:port` of the control plane.
    pub(crate) url: String,
    /// The pin of its certificate.
    pub(crate) pin: Pin,
    pub(crate) connector_id: ConnectorId,
    pub(crate) site_id: SiteId,
    pub(crate) organisation_id: OrganisationId,
    /// The keys that are trusted until a bundle names others.
    pub(crate) organisation_keys: Vec<OrganisationKey>,
}

/// The state directory, which one process at a time has to itself.
#[derive(Debug, Clone)]
pub(crate) struct StateDir {
    path: PathBuf,
    _lock: Arc<Flock<File>>,
}

/// Why a file cannot be read or kept.
#[derive(Debug, thiserror::Error)]
pub(crate) enum StateError {
    #[error("failed to create {}", .path.display())]
    Create { path: PathBuf, source: io::Error },
    #[error("{} is in use by another connector; stop that one first", .path.display())]
    InUse { path: PathBuf },
    #[error("failed to read {}", .path.display())]
    Read { path: PathBuf, source: io::Error },
    #[error("failed to write {}", .path.display())]
    Write { path: PathBuf, source: io::Error },
    #[error(
        "{} is damaged; remove it and join again with a new connector token",
        .path.display()
    )]
    Damaged { path: PathBuf, source: serde_json::Error },
}

impl StateDir {
    /// Makes the directory, for its owner alone, unless it exists.
    pub(crate) fn try_open(path: &Path) -> Result<Self, StateError> {
        DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(path)
            .map_err(|source| StateError::Create { path: path.to_owned(), source })?;
        let file = path.join("lock");
        let lock = OpenOptions::new()
            .write(true)
            .create(true)
            .truncate(false)
            .mode(0o600)
            .open(&file)
            .map_err(|source| StateError::Create { path: file, source })?;
        let lock = Flock::lock(lock, FlockArg::LockExclusiveNonblock)
            .map_err(|_locked| StateError::InUse { path: path.to_owned() })?;
        Ok(Self { path: path.to_owned(), _lock: Arc::new(lock) })
    }

    pub(crate) fn connector_key(&self) -> PathBuf {
        self.path.join("connector-key.pem")
    }

    pub(crate) fn wireguard_key(&self) -> PathBuf {
        self.path.join("wireguard-key")
    }

    pub(crate) fn read_membership(&self) -> Result<Option<Membership>, StateError> {
        let path = self.membership();
        let Some(text) = read(&path)? else { return Ok(None) };
        let membership =
            serde_json::from_str(&text).map_err(|source| StateError::Damaged { path, source })?;
        Ok(Some(membership))
    }

    pub(crate) fn write_membership(&self, membership: &Membership) -> Result<(), StateError> {
        let text = serde_json::to_string_pretty(membership).map_err(|source| {
            StateError::Write { path: self.membership(), source: source.into() }
        })?;
        write(&self.membership(), text.as_bytes())
    }

    /// The last good bundle, as it was signed.
    pub(crate) fn read_bundle(&self) -> Result<Option<String>, StateError> {
        read(&self.bundle())
    }

    pub(crate) fn write_bundle(&self, token: &str) -> Result<(), StateError> {
        write(&self.bundle(), token.as_bytes())
    }

    /// When the control plane was last heard, if that is known.
    pub(crate) fn read_last_contact(&self) -> Option<Timestamp> {
        read(&self.last_contact()).ok()??.trim().parse().ok()
    }

    pub(crate) fn write_last_contact(&self, at: Timestamp) -> Result<(), StateError> {
        write(&self.last_contact(), format!("{at}\n").as_bytes())
    }

    fn membership(&self) -> PathBuf {
        self.path.join("connector.json")
    }

    fn bundle(&self) -> PathBuf {
        self.path.join("bundle.jws")
    }

    fn last_contact(&self) -> PathBuf {
        self.path.join("last-contact")
    }
}

fn read(path: &Path) -> Result<Option<String>, StateError> {
    match fs::read_to_string(path) {
        Ok(text) => Ok(Some(text)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(source) => Err(StateError::Read { path: path.to_owned(), source }),
    }
}

/// Replaces a file, so that after a crash or on a full disk the old or the new one is there.
fn write(path: &Path, content: &[u8]) -> Result<(), StateError> {
    let replace = || {
        let new = path.with_extension("new");
        let mut file =
            OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(&new)?;
        file.write_all(content)?;
        file.sync_all()?;
        fs::rename(&new, path)?;
        let directory = path.parent().ok_or(io::ErrorKind::InvalidInput)?;
        File::open(directory)?.sync_all()
    };
    replace().map_err(|source| StateError::Write { path: path.to_owned(), source })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_written_is_read_again() {
        let directory = tempfile::tempdir().unwrap();
        let state = StateDir::try_open(&directory.path().join("a/b")).unwrap();
        assert_eq!(state.read_bundle().unwrap(), None);
        state.write_bundle("first").unwrap();
        state.write_bundle("second").unwrap();
        assert_eq!(state.read_bundle().unwrap().as_deref(), Some("second"));
        let at = Timestamp::from_millis(1_767_225_600_123);
        state.write_last_contact(at).unwrap();
        assert_eq!(state.read_last_contact(), Some(at));
    }

    #[test]
    fn two_connectors_never_share_a_directory() {
        let directory = tempfile::tempdir().unwrap();
        let _held = StateDir::try_open(directory.path()).unwrap();
        assert!(matches!(StateDir::try_open(directory.path()), Err(StateError::InUse { .. })));
    }

    #[test]
    fn a_damaged_membership_says_what_to_do() {
        let directory = tempfile::tempdir().unwrap();
        let state = StateDir::try_open(directory.path()).unwrap();
        fs::write(directory.path().join("connector.json"), "{}").unwrap();
        let error = state.read_membership().unwrap_err();
        assert!(error.to_string().contains("join again"), "{error}");
    }
}
