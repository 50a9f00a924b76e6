//! `adit enroll`.

use std::{
    io::Read as _,
    path::{Path, PathBuf},
    time::Duration,
};

use anyhow::{Context as _, anyhow};
use clap::Args;

use super::{CliError, Verdict, connection, print};
use crate::ipc::{Request, Response};

/// Longest key file that is read, in bytes.
const MAX_KEY_LEN: u64 = 16 << 10;

#[derive(Debug, Args)]
pub(crate) struct Arguments {
    /// A file with the enrolment key; `-` is the standard input. Without it the environment
    /// variable ADIT_ENROLL_KEY holds the key.
    #[arg(long, value_name = "FILE")]
    key_file: Option<PathBuf>,
    /// What the device is to be called; the host's name unless given.
    #[arg(long)]
    name: Option<String>,
    /// Forgets an earlier enrolment, once the new one is made.
    #[arg(long)]
    replace: bool,
}

pub(super) async fn run(arguments: Arguments, socket: &Path) -> Result<Verdict, CliError> {
    let key = read_key(arguments.key_file.as_deref()).map_err(CliError::Local)?;
    let request =
        Request::Enroll { key: key.into(), name: arguments.name, replace: arguments.replace };
    let answer = connection::ask(&request, socket, Duration::from_secs(60)).await?;
    let Response::Done { message } = answer.response else {
        return Err(connection::unexpected());
    };
    print(&format!("{message}\n"));
    Ok(Verdict::Yes)
}

fn read_key(file: Option<&Path>) -> anyhow::Result<String> {
    let mut key = String::new();
    match file {
        Some(path) if path == Path::new("-") => {
            std::io::stdin()
                .take(MAX_KEY_LEN)
                .read_to_string(&mut key)
                .context("failed to read the enrolment key from the standard input")?;
        }
        Some(path) => {
            std::fs::File::open(path)
                .and_then(|file| file.take(MAX_KEY_LEN).read_to_string(&mut key))
                .with_context(|| format!("failed to read {}", path.display()))?;
        }
        None => {
            key = std::env::var("ADIT_ENROLL_KEY").map_err(|_error| {
                anyhow!(
                    "no enrolment key\n  next: adit enroll --key-file FILE (an administrator makes \
                     the key)"
                )
            })?;
        }
    }
    let key = key.trim();
    if key.is_empty() {
        return Err(anyhow!("the enrolment key is empty; copy all of it again"));
    }
    Ok(key.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_file_is_read_without_its_line_feed() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("key");
        std::fs::write(&path, "adit_enroll_abc\n").unwrap();
        assert_eq!(read_key(Some(&path)).unwrap(), "adit_enroll_abc");
    }

    #[test]
    fn an_empty_key_file_is_refused() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("key");
        std::fs::write(&path, "\n").unwrap();
        assert!(read_key(Some(&path)).is_err());
    }
}
