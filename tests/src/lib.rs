//! Hosts, links, routers and NATs in network namespaces, and what the end-to-end tests need in them.
//!
//! # One world, one sandbox
//!
//! A [`World`] is a machine of its own: a mount, process and (without root) user namespace whose
//! first process lives exactly as long as the test process that made it. Inside it every [`Host`]
//! is a network namespace with its own `/etc/resolv.conf` and its own directory. When the test
//! ends, fails, or is killed with `SIGKILL`, the kernel removes the first process and with it
//! every process, mount, interface and namespace of the world. Nothing is written outside, so
//! there is nothing to clean up and worlds run in parallel without knowing of each other.
//!
//! ```text
//! World ── Host "laptop" ──Link── Host "inet" (router) ──Link── Host "connector" ──Link── "svc"
//!            ├ Process (spawned, killed on drop)   └ Sniffer (does plaintext cross this link?)
//!            └ Output  (ran to its end)
//! ```
//!
//! # Failures
//!
//! The harness panics, at the line of the test that called it: a failure in it *is* a failure of
//! the test. When a test panics, the world prints the end of what each of its processes said.
//!
//! # Waiting
//!
//! Nothing here sleeps for a fixed time and hopes. [`wait_until`] waits for a condition,
//! [`Process::wait_for_line`] for words, [`Process::wait_for_event`] for an event of the probe.
//! Ports are chosen by the kernel and printed by whoever listens.
//!
//! # The probe
//!
//! `adit-probe` is the tests' own program inside hosts (servers, downloads, sniffers, raw
//! packets). It prints JSON lines, each with `t`, the monotonic clock in nanoseconds, which is the
//! same in every namespace and in the test itself ([`monotonic_ns`]). [`probe`] wraps it.

mod api_connection;
mod binary;
mod clock;
mod command;
mod distribution;
mod host;
mod impairment;
pub mod lab;
mod link;
mod nat;
pub mod probe;
mod process;
mod random;
mod sniffer;
pub mod untrusted_input;
mod wait;
mod wireguard;
mod world;

pub use api_connection::{ApiAnswer, ApiConnection, server_pin};
pub use binary::{binary, node_package, python_tool};
pub use clock::monotonic_ns;
pub use command::{Command, Output};
pub use distribution::{Distribution, report};
pub use host::Host;
pub use impairment::{BadPath, Impaired, Impairment, Rate, Share};
pub use lab::{Client, Connector, ControlPlane, Conversation, Lab, MasquePeer, Scene};
pub use link::{End, Link};
pub use process::Process;
pub use random::Random;
pub use sniffer::{Capture, Sniffer};
pub use wait::wait_until;
pub use world::World;
