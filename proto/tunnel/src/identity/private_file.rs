//! Files that hold a secret: for their owner alone, and never half written.

use std::{
    fs::{self, File, OpenOptions},
    io::{self, Read as _, Write as _},
    os::unix::fs::{OpenOptionsExt as _, PermissionsExt as _},
    path::{Path, PathBuf},
};

use zeroize::Zeroizing;

use super::IdentityError;

/// Longest key file that is read, in bytes.
const MAX_LEN: u64 = 16 << 10;

/// What the file holds, after writing `create()` to it when there is none.
pub(super) fn read_or_create(
    path: &Path,
    create: impl FnOnce() -> Result<Zeroizing<String>, IdentityError>,
) -> Result<Zeroizing<String>, IdentityError> {
    let failed = |source| IdentityError::Io { path: path.into(), source };
    if let Some(content) = read(path)? {
        return Ok(content);
    }
    write(path, create()?.as_bytes()).map_err(failed)?;
    // Two processes may have come here at once: both must go on with the file that stayed.
    read(path)?.ok_or_else(|| failed(io::ErrorKind::NotFound.into()))
}

fn read(path: &Path) -> Result<Option<Zeroizing<String>>, IdentityError> {
    let failed = |source| IdentityError::Io { path: path.into(), source };
    let file = match File::open(path) {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(failed(error)),
    };
    if file.metadata().map_err(failed)?.permissions().mode() & 0o077 != 0 {
        return Err(IdentityError::Exposed { path: path.into() });
    }
    let mut content = Zeroizing::new(String::new());
    match file.take(MAX_LEN).read_to_string(&mut content) {
        Ok(_len) => Ok(Some(content)),
        Err(error) if error.kind() == io::ErrorKind::InvalidData => {
            Err(IdentityError::Damaged { path: path.into() })
        }
        Err(error) => Err(failed(error)),
    }
}

/// Publishes the whole file at once, and only if there is none of that name.
fn write(path: &Path, content: &[u8]) -> io::Result<()> {
    let parent = match path.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent,
        Some(_) | None => Path::new("."),
    };
    let temporary = Temporary::try_new(parent)?;
    let mut file =
        OpenOptions::new().write(true).create_new(true).mode(0o600).open(&temporary.0)?;
    file.write_all(content)?;
    file.sync_all()?;
    match fs::hard_link(&temporary.0, path) {
        Ok(()) => {}
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => return Ok(()),
        // Some file systems have no links.
        Err(_error) => fs::rename(&temporary.0, path)?,
    }
    File::open(parent)?.sync_all()
}

/// A name for a file that is gone when this is dropped.
struct Temporary(PathBuf);

impl Temporary {
    fn try_new(folder: &Path) -> io::Result<Self> {
        let mut random = [0; 8];
        getrandom::fill(&mut random).map_err(io::Error::other)?;
        Ok(Self(folder.join(format!(".{:016x}.tmp", u64::from_ne_bytes(random)))))
    }
}

impl Drop for Temporary {
    fn drop(&mut self) {
        // Missing after a rename, and there is no more to be done about other failures.
        let _ignored = fs::remove_file(&self.0);
    }
}
