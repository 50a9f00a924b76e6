//! The command line.

mod connection;
mod enroll;
mod explain;
mod login;
mod netcheck;
mod ping;
mod resources;
mod set;
mod status;
mod table;
mod up;

use std::{
    io::{self, Write as _},
    path::{Path, PathBuf},
    process::ExitCode,
};

use clap::{Args, Parser, Subcommand};

use crate::{
    daemon::DaemonArguments,
    ipc::{Answer, Failure},
};

const EXIT_CODES: &str = "\
Exit codes:
  0  done; connected (`up`, `status --check`); allowed (`explain`); answered (`ping`)
  1  refused; not connected; denied; no answer
  2  wrong usage
  3  the daemon cannot be reached";

/// Reaches the private services of your organisation, as far as its policies let you.
#[derive(Debug, Parser)]
#[command(name = "adit", version, after_help = EXIT_CODES)]
pub(crate) struct Cli {
    /// The daemon's socket.
    #[arg(
        long,
        global = true,
        value_name = "PATH",
        env = "ADIT_SOCKET",
        default_value = "/run/adit/adit.sock"
    )]
    pub(crate) socket: PathBuf,
    #[command(subcommand)]
    pub(crate) command: Command,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Runs the daemon that owns interface, routes and keys; needs root.
    Daemon(DaemonArguments),
    #[command(flatten)]
    Ask(Ask),
}

/// What is asked of the daemon.
#[derive(Debug, Subcommand)]
pub(crate) enum Ask {
    /// Joins an organisation with an enrolment key.
    Enroll(enroll::Arguments),
    /// Signs in, in the browser; a new device enrols thereby.
    Login(login::LoginArguments),
    /// Signs out and cuts all access; the device stays enrolled.
    Logout(login::LogoutArguments),
    /// Connects, and stays so across restarts.
    Up(up::Arguments),
    /// Disconnects, and stays so across restarts.
    Down,
    /// Changes a setting, which stays across restarts.
    Set(set::Arguments),
    /// Shows how things stand.
    Status(status::Arguments),
    /// Says whether a connection would be let through, and why.
    #[command(after_help = EXIT_CODES)]
    Explain(explain::Arguments),
    /// Sends echoes through the tunnel, and prints the path and how it changes.
    #[command(after_help = EXIT_CODES)]
    Ping(ping::Arguments),
    /// Finds out what this network lets through, also while the tunnel is down.
    Netcheck(netcheck::Arguments),
    /// Lists what you may reach.
    Resources(resources::Arguments),
}

/// How a read command prints.
#[derive(Debug, Clone, Copy, Args)]
pub(crate) struct Format {
    /// Prints one JSON object, with `schema_version`.
    #[arg(long)]
    json: bool,
}

/// Asks the daemon and prints its answer.
pub(crate) fn run(ask: Ask, socket: &Path) -> ExitCode {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let outcome = match runtime {
        Ok(runtime) => runtime.block_on(dispatch(ask, socket)),
        Err(error) => {
            Err(CliError::Local(anyhow::Error::from(error).context("failed to start the runtime")))
        }
    };
    match outcome {
        Ok(Verdict::Yes) => ExitCode::SUCCESS,
        Ok(Verdict::No) => ExitCode::from(1),
        Err(CliError::Refused(failure)) => {
            complain(&format!("{}\n  next: {}", failure.message, failure.next));
            ExitCode::from(1)
        }
        Err(CliError::Local(error)) => {
            complain(&format!("{error:#}"));
            ExitCode::from(1)
        }
        Err(CliError::Daemon(error)) => {
            complain(&format!("{error:#}"));
            ExitCode::from(3)
        }
    }
}

async fn dispatch(ask: Ask, socket: &Path) -> Result<Verdict, CliError> {
    match ask {
        Ask::Enroll(arguments) => enroll::run(arguments, socket).await,
        Ask::Login(arguments) => login::run(arguments, socket).await,
        Ask::Logout(arguments) => login::run_logout(arguments, socket).await,
        Ask::Up(arguments) => up::run(arguments, socket).await,
        Ask::Down => up::run_down(socket).await,
        Ask::Set(arguments) => set::run(arguments, socket).await,
        Ask::Status(arguments) => status::run(arguments, socket).await,
        Ask::Explain(arguments) => explain::run(arguments, socket).await,
        Ask::Ping(arguments) => ping::run(arguments, socket).await,
        Ask::Netcheck(arguments) => netcheck::run(arguments, socket).await,
        Ask::Resources(arguments) => resources::run(arguments, socket).await,
    }
}

/// What a command has to say to a script.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Verdict {
    Yes,
    No,
}

/// Why a command has no answer.
#[derive(Debug)]
enum CliError {
    /// The daemon does not do it.
    Refused(Failure),
    /// Something is wrong on this side.
    Local(anyhow::Error),
    /// The daemon does not answer.
    Daemon(anyhow::Error),
}

fn print(text: &str) {
    // A reader that has gone away, such as `head`, is no reason to fail.
    let _ = io::stdout().lock().write_all(text.as_bytes());
}

fn print_json(answer: &Answer) {
    let mut text = serde_json::to_string_pretty(answer).expect("answers are representable in JSON");
    text.push('\n');
    print(&text);
}

fn complain(text: &str) {
    let _ = writeln!(io::stderr().lock(), "adit: {text}");
}
