//! The connector: stands beside private services, admits clients and lets a flow through only if
//! policy permits it.
//!
//! ```text
//! control ─ bundle ─▶ freshness ─ standing ─▶ sessions ─ commands ─▶ data plane (a thread)
//!    ▲                                          ▲  │                  │  UDP ◀▶ WireGuard, QUIC
//!    └ stream, fetch        clients by HTTP/2 ──┤  └ denied ◀─────────┤  forwarder: flows
//!                                               ▼      events ◀───────┤  TUN ◀▶ kernel ◀▶ services
//!                                           requests ◀── by HTTP/3 ───┘
//!                                               └ dialled flows ◀▶ services
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
mod credentials;
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
mod requests;
mod run;
mod sessions;
mod state_dir;

pub use clock::Now;
pub use config::{Cli, Command, Config};
pub use enforced::{Enforced, Standing};
pub use flow_table::{Limits, Volume};
pub use forwarder::{FlowRecord, Forwarder, Inner, Service};
pub use run::run;
