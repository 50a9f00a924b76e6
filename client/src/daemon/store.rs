//! What the daemon keeps on disk.

use std::{
    fs::{self, DirBuilder, File, OpenOptions},
    io::{self, Write as _},
    os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _},
    path::{Path, PathBuf},
};

use nix::fcntl::{Flock, FlockArg};
use serde::{Deserialize, Serialize, de::DeserializeOwned};

use super::{identity::Identity, known_networks::KnownNetworks};
use crate::carrier::CarrierChoice;

/// Why something cannot be kept or found.
#[derive(Debug, thiserror::Error)]
pub(crate) enum StoreError {
    /// The file system says no.
    #[error("failed to use {}", path.display())]
    Io {
        /// Which file or directory.
        path: PathBuf,
        /// What it says.
        source: io::Error,
    },
    /// Another daemon works here.
    #[error(
        "another daemon uses {}; stop it, or give this one another --state-dir",
        path.display()
    )]
    Locked {
        /// The directory.
        path: PathBuf,
    },
    /// A file holds something else than expected.
    #[error("{} is damaged; remove it, then run `adit enroll --key-file FILE`", path.display())]
    Damaged {
        /// Which file.
        path: PathBuf,
        /// What is wrong with it.
        source: serde_json::Error,
    },
}

/// The state directory, held by this daemon alone.
///
/// Files are replaced whole and are readable by their owner only.
#[derive(Debug)]
pub(crate) struct Store {
    directory: PathBuf,
    _lock: Flock<File>,
}

/// What the user has set.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
struct Settings {
    carrier: CarrierChoice,
}

/// Whether the tunnel is wanted, so that a restarted daemon connects on its own.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
struct Wish {
    up: bool,
}

const IDENTITY: &str = "identity.json";
const WISH: &str = "wish.json";
const SETTINGS: &str = "settings.json";
const NETWORKS: &str = "networks.json";
const CONFIG: &str = "client-config.jws";
const CREDENTIAL: &str = "credential.jws";
const DEVICE_KEY: &str = "device-key.pem";
const WIREGUARD_KEY: &str = "wireguard-key";

/// Keys of an enrolment under way, so that those of an earlier one stay until it is done.
const JOINING: &str = "joining";

impl Store {
    pub(crate) fn try_open(directory: &Path) -> Result<Self, StoreError> {
        let failed = |path: &Path| {
            let path = path.to_owned();
            move |source| StoreError::Io { path, source }
        };
        DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(directory)
            .map_err(failed(directory))?;
        let path = directory.join("lock");
        let file = OpenOptions::new()
            .create(true)
            .truncate(false)
            .write(true)
            .mode(0o600)
            .open(&path)
            .map_err(failed(&path))?;
        let lock = Flock::lock(file, FlockArg::LockExclusiveNonblock)
            .map_err(|(_file, _errno)| StoreError::Locked { path: directory.to_owned() })?;
        Ok(Self { directory: directory.to_owned(), _lock: lock })
    }

    pub(crate) fn identity(&self) -> Result<Option<Identity>, StoreError> {
        self.read_json(IDENTITY)
    }

    pub(crate) fn save_identity(&self, identity: &Identity) -> Result<(), StoreError> {
        self.write_json(IDENTITY, identity)
    }

    pub(crate) fn device_key_path(&self) -> PathBuf {
        self.directory.join(DEVICE_KEY)
    }

    pub(crate) fn wireguard_key_path(&self) -> PathBuf {
        self.directory.join(WIREGUARD_KEY)
    }

    /// Paths of device key and WireGuard key of an enrolment that is to be made.
    pub(crate) fn joining_key_paths(&self) -> Result<(PathBuf, PathBuf), StoreError> {
        let directory = self.directory.join(JOINING);
        DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(&directory)
            .map_err(|source| StoreError::Io { path: directory.clone(), source })?;
        Ok((directory.join(DEVICE_KEY), directory.join(WIREGUARD_KEY)))
    }

    /// Makes the keys of a finished enrolment the device's own and forgets what belonged to an
    /// earlier one.
    ///
    /// A crash on the way leaves a device that is not enrolled, never one with mixed keys.
    pub(crate) fn adopt_joining(&self, identity: &Identity) -> Result<(), StoreError> {
        for name in [IDENTITY, CREDENTIAL, CONFIG] {
            self.remove(name)?;
        }
        for name in [DEVICE_KEY, WIREGUARD_KEY] {
            let from = self.directory.join(JOINING).join(name);
            fs::rename(&from, self.directory.join(name))
                .map_err(|source| StoreError::Io { path: from.clone(), source })?;
        }
        self.save_identity(identity)
    }

    pub(crate) fn wants_up(&self) -> Result<bool, StoreError> {
        Ok(self.read_json::<Wish>(WISH)?.is_some_and(|wish| wish.up))
    }

    pub(crate) fn save_wants_up(&self, up: bool) -> Result<(), StoreError> {
        self.write_json(WISH, &Wish { up })
    }

    pub(crate) fn carrier_choice(&self) -> Result<CarrierChoice, StoreError> {
        Ok(self.read_json::<Settings>(SETTINGS)?.unwrap_or_default().carrier)
    }

    pub(crate) fn save_carrier_choice(&self, carrier: CarrierChoice) -> Result<(), StoreError> {
        self.write_json(SETTINGS, &Settings { carrier })
    }

    pub(crate) fn known_networks(&self) -> Result<KnownNetworks, StoreError> {
        Ok(self.read_json(NETWORKS)?.unwrap_or_default())
    }

    pub(crate) fn save_known_networks(&self, known: &KnownNetworks) -> Result<(), StoreError> {
        self.write_json(NETWORKS, known)
    }

    pub(crate) fn config(&self) -> Result<Option<String>, StoreError> {
        self.read_text(CONFIG)
    }

    pub(crate) fn save_config(&self, token: &str) -> Result<(), StoreError> {
        self.write(CONFIG, token.as_bytes())
    }

    pub(crate) fn credential(&self) -> Result<Option<String>, StoreError> {
        self.read_text(CREDENTIAL)
    }

    pub(crate) fn save_credential(&self, token: &str) -> Result<(), StoreError> {
        self.write(CREDENTIAL, token.as_bytes())
    }

    pub(crate) fn remove_credential(&self) -> Result<(), StoreError> {
        self.remove(CREDENTIAL)
    }

    pub(crate) fn journal_path(&self) -> PathBuf {
        self.directory.join("journal.json")
    }

    fn read_text(&self, name: &str) -> Result<Option<String>, StoreError> {
        let path = self.directory.join(name);
        match fs::read_to_string(&path) {
            Ok(text) => Ok(Some(text)),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(source) => Err(StoreError::Io { path, source }),
        }
    }

    fn read_json<T: DeserializeOwned>(&self, name: &str) -> Result<Option<T>, StoreError> {
        let Some(text) = self.read_text(name)? else {
            return Ok(None);
        };
        serde_json::from_str(&text)
            .map(Some)
            .map_err(|source| StoreError::Damaged { path: self.directory.join(name), source })
    }

    fn write_json<T: Serialize>(&self, name: &str, value: &T) -> Result<(), StoreError> {
        let json = serde_json::to_vec_pretty(value).map_err(|error| StoreError::Io {
            path: self.directory.join(name),
            source: error.into(),
        })?;
        self.write(name, &json)
    }

    fn write(&self, name: &str, content: &[u8]) -> Result<(), StoreError> {
        let path = self.directory.join(name);
        write_whole(&path, content).map_err(|source| StoreError::Io { path, source })
    }

    fn remove(&self, name: &str) -> Result<(), StoreError> {
        let path = self.directory.join(name);
        match fs::remove_file(&path) {
            Ok(()) => Ok(()),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
            Err(source) => Err(StoreError::Io { path, source }),
        }
    }
}

/// Replaces a file so that a crash leaves either the old or the new content, on disk when this
/// returns.
pub(crate) fn write_whole(path: &Path, content: &[u8]) -> io::Result<()> {
    let beside = path.with_extension("new");
    let result = OpenOptions::new()
        .create(true)
        .truncate(true)
        .write(true)
        .mode(0o600)
        .open(&beside)
        .and_then(|mut file| {
            file.write_all(content)?;
            file.sync_all()
        })
        .and_then(|()| fs::rename(&beside, path));
    if result.is_err() {
        // A full disk must not stay full of halves.
        let _ = fs::remove_file(&beside);
    }
    result?;
    match path.parent() {
        Some(directory) => File::open(directory)?.sync_all(),
        None => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;

    #[test]
    fn a_wish_outlives_the_daemon() {
        let directory = tempfile::tempdir().unwrap();
        let store = Store::try_open(directory.path()).unwrap();
        assert!(!store.wants_up().unwrap());
        store.save_wants_up(true).unwrap();
        drop(store);

        assert!(Store::try_open(directory.path()).unwrap().wants_up().unwrap());
    }

    #[test]
    fn a_second_daemon_is_refused() {
        let directory = tempfile::tempdir().unwrap();
        let _store = Store::try_open(directory.path()).unwrap();
        assert!(matches!(Store::try_open(directory.path()), Err(StoreError::Locked { .. })));
    }

    #[test]
    fn files_are_readable_by_their_owner_only() {
        let directory = tempfile::tempdir().unwrap();
        let store = Store::try_open(directory.path()).unwrap();
        store.save_credential("secret").unwrap();
        let mode = fs::metadata(directory.path().join(CREDENTIAL)).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
    }

    #[test]
    fn a_damaged_file_is_named() {
        let directory = tempfile::tempdir().unwrap();
        let store = Store::try_open(directory.path()).unwrap();
        fs::write(directory.path().join(IDENTITY), "{").unwrap();
        let error = store.identity().unwrap_err();
        assert!(error.to_string().contains("identity.json is damaged"), "{error}");
    }
}
