//! `adit up` and `adit down`.

use std::{path::Path, time::Duration};

use clap::Args;

use super::{CliError, Verdict, connection, print};
use crate::ipc::{Request, Response};

#[derive(Debug, Args)]
pub(crate) struct Arguments {
    /// Returns at once; the daemon connects on its own.
    #[arg(long)]
    no_wait: bool,
    /// How long to wait for the connection, in seconds.
    #[arg(long, value_name = "SECONDS", default_value_t = 30)]
    timeout: u32,
}

pub(super) async fn run(arguments: Arguments, socket: &Path) -> Result<Verdict, CliError> {
    let wait = match arguments.no_wait {
        true => Duration::ZERO,
        false => Duration::from_secs(u64::from(arguments.timeout)),
    };
    let wait_ms = u64::try_from(wait.as_millis()).unwrap_or(u64::MAX);
    say_done(&Request::Up { wait_ms }, socket, wait).await
}

pub(super) async fn run_down(socket: &Path) -> Result<Verdict, CliError> {
    say_done(&Request::Down, socket, Duration::ZERO).await
}

async fn say_done(request: &Request, socket: &Path, takes: Duration) -> Result<Verdict, CliError> {
    let answer = connection::ask(request, socket, takes).await?;
    let Response::Done { message } = answer.response else {
        return Err(connection::unexpected());
    };
    print(&format!("{message}\n"));
    Ok(Verdict::Yes)
}
