//! One question to the daemon.

use std::{io, path::Path, time::Duration};

use anyhow::{Context as _, anyhow};
use tokio::{
    io::{AsyncWriteExt as _, BufReader},
    net::UnixStream,
    time::timeout,
};

use super::CliError;
use crate::ipc::{Answer, MAX_ANSWER_LEN, Request, Response, SCHEMA_VERSION, read_line, to_line};

/// Asks, and waits for the answer at most this long beyond what the question itself may take.
const PATIENCE: Duration = Duration::from_secs(30);

/// Asks the daemon; a failure of it is an error.
pub(super) async fn ask(
    request: &Request,
    socket: &Path,
    takes: Duration,
) -> Result<Answer, CliError> {
    let stream = connect(socket).await.map_err(CliError::Daemon)?;
    let answer = timeout(takes.saturating_add(PATIENCE), exchange(stream, request))
        .await
        .map_err(|_elapsed| {
            CliError::Daemon(anyhow!(
                "the daemon does not answer\n  next: look at its log, then restart it"
            ))
        })?
        .map_err(CliError::Daemon)?;
    if let Response::Failure(failure) = answer.response {
        return Err(CliError::Refused(failure));
    }
    Ok(answer)
}

/// The daemon answered something else than what was asked.
pub(super) fn unexpected() -> CliError {
    CliError::Daemon(anyhow!(
        "the daemon is of another version than this command\n  next: restart the daemon"
    ))
}

async fn connect(socket: &Path) -> anyhow::Result<UnixStream> {
    let shown = socket.display();
    UnixStream::connect(socket).await.map_err(|error| {
        let kind = error.kind();
        if matches!(kind, io::ErrorKind::NotFound | io::ErrorKind::ConnectionRefused) {
            return anyhow!(
                "the daemon is not running (nobody listens at {shown})\n  next: start it: sudo \
                 adit daemon"
            );
        }
        if kind == io::ErrorKind::PermissionDenied {
            return anyhow!("may not open {shown}\n  next: run the command as root");
        }
        anyhow::Error::from(error).context(format!("failed to connect to {shown}"))
    })
}

async fn exchange(stream: UnixStream, request: &Request) -> anyhow::Result<Answer> {
    let mut stream = BufReader::new(stream);
    let sent = stream.write_all(&to_line(request)).await;
    // A daemon that refuses the connection answers without reading.
    let line = read_line(&mut stream, MAX_ANSWER_LEN)
        .await
        .context("failed to read the daemon's answer")?;
    let Some(line) = line else {
        sent.context("failed to ask the daemon")?;
        return Err(anyhow!(
            "the daemon closed the connection\n  next: look at its log, then restart it"
        ));
    };
    let answer: Answer = serde_json::from_slice(&line)
        .context("the daemon is of another version than this command; restart it")?;
    if answer.schema_version != SCHEMA_VERSION {
        return Err(anyhow!(
            "the daemon is of another version than this command\n  next: restart the daemon"
        ));
    }
    Ok(answer)
}
