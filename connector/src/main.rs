//! The connector: stands beside private services, admits clients and lets a flow through only if
//! policy permits it.
//!
//! ```text
//! control ─ bundle ─▶ freshness ─ standing ─▶ sessions ─ commands ─▶ data plane (a thread)
//!    ▲                                          ▲  │                  │  UDP ◀▶ WireGuard
//!    └ stream, fetch                 clients ───┘  └ denied ◀─────────┤  forwarder: flows
//!                                                      events ◀───────┘  TUN ◀▶ kernel ◀▶ services
//! ```
//!
//! Invariants:
//! - only the sessions' task changes which devices and which policy the data plane has;
//! - the data plane never waits for anyone: what its full queues do not take is counted;
//! - a packet is forwarded on showing an `Authorization`, which only the evaluator makes.

mod admission;
mod backoff;
mod bundle_store;
mod clock;
mod config;
mod control;
mod data_plane;
mod enforced;
mod events;
mod flow_table;
mod forward;
mod forwarder;
mod freshness;
mod health;
mod listen;
mod own_addresses;
mod run;
mod sessions;
mod state_dir;

use std::{io::IsTerminal as _, process::ExitCode};

use clap::Parser as _;
use tracing::{error, info};
use tracing_subscriber::EnvFilter;

use crate::config::{Cli, Command};

fn main() -> ExitCode {
    let Cli { command: Command::Run(config) } = Cli::parse();
    // boringtun logs routine time-outs of peers as errors.
    let filter = EnvFilter::try_from_default_env()
        .unwrap_or_else(|_unset| EnvFilter::new("info,boringtun=off"));
    tracing_subscriber::fmt()
        .with_writer(std::io::stderr)
        .with_ansi(std::io::stderr().is_terminal())
        .with_env_filter(filter)
        .init();
    info!(
        version = env!("CARGO_PKG_VERSION"),
        os = std::env::consts::OS,
        arch = std::env::consts::ARCH,
        "Starting"
    );
    let result = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
        .map_err(anyhow::Error::from)
        .and_then(|runtime| runtime.block_on(run::run(config)));
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            error!(error = format!("{error:#}"), "Stopped");
            ExitCode::FAILURE
        }
    }
}
