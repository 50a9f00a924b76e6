//! The laptop's side of Adit.
//!
//! `adit daemon` owns what needs privileges: the interface, the routes, the keys. The rest of the
//! command line asks it over a Unix socket.
//!
//! ```text
//! adit up ──▶ socket ──▶ event loop ──▶ pure machines (state, refresh, sites)
//!                            │               │ commands
//!             events ◀───────┴───── leaves ◀─┘  control plane, sessions, router, data plane
//! ```

mod carrier;
mod cli;
mod daemon;
mod ipc;
mod platform;

use std::process::ExitCode;

use clap::Parser as _;

fn main() -> ExitCode {
    let cli = cli::Cli::parse();
    let socket = cli.socket;
    match cli.command {
        cli::Command::Daemon(arguments) => daemon::run(arguments, socket),
        cli::Command::Ask(ask) => cli::run(ask, &socket),
    }
}
