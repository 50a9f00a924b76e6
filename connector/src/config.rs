//! What can be said on the command line or in the environment.

use std::{net::SocketAddr, path::PathBuf, time::Duration};

use adit_tunnel::Offloads;
use clap::{Args, Parser, Subcommand};

use crate::forward::SourceNat;

/// Admits clients to private services and enforces policy on every flow.
#[derive(Debug, Parser)]
#[command(name = "adit-connector", version)]
pub struct Cli {
    /// What to do.
    #[command(subcommand)]
    pub command: Command,
}

/// What the connector can be told to do.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Joins if need be, then serves until it is told to stop.
    Run(Config),
}

/// How to run.
#[derive(Debug, Args)]
pub struct Config {
    /// File with a connector token; needed for the first start only.
    #[arg(long, value_name = "FILE", env = "ADIT_CONNECTOR_TOKEN_FILE")]
    pub(crate) token_file: Option<PathBuf>,

    /// Address and port for sessions (TCP) and WireGuard (UDP).
    #[arg(
        long,
        value_name = "ADDR:PORT",
        env = "ADIT_CONNECTOR_LISTEN",
        default_value = "[::]:443"
    )]
    pub(crate) listen: SocketAddr,

    /// Where clients find this connector, if that is not one of its own addresses.
    #[arg(
        long,
        value_name = "HOST:PORT",
        env = "ADIT_CONNECTOR_ADVERTISE",
        value_delimiter = ',',
        value_parser = endpoint
    )]
    pub(crate) advertise: Vec<String>,

    /// Directory for keys and the last good bundle.
    #[arg(
        long,
        value_name = "DIR",
        env = "ADIT_CONNECTOR_STATE_DIR",
        default_value = "/var/lib/adit-connector"
    )]
    pub(crate) state_dir: PathBuf,

    /// Whether services see the connector's address (on) or the device's (off).
    #[arg(long, value_enum, env = "ADIT_CONNECTOR_SOURCE_NAT", default_value = "on")]
    pub(crate) source_nat: SourceNat,

    /// Address and port for /healthz, /readyz and /metrics.
    #[arg(
        long,
        value_name = "ADDR:PORT",
        env = "ADIT_CONNECTOR_METRICS_LISTEN",
        default_value = "127.0.0.1:0"
    )]
    pub(crate) metrics_listen: SocketAddr,

    /// Name of the network interface to create.
    #[arg(
        long,
        value_name = "NAME",
        env = "ADIT_CONNECTOR_INTERFACE",
        default_value = "adit-conn0"
    )]
    pub(crate) interface: String,

    /// Offloads of the kernel that may be used: all, none, or some of tso,uso,gso,gro.
    #[arg(long, value_name = "LIST", env = "ADIT_CONNECTOR_OFFLOADS", default_value = "all")]
    pub(crate) offloads: Offloads,

    /// After SIGTERM, how many seconds connections have to end when their clients have moved to
    /// another connector.
    #[arg(long, value_name = "SECONDS", env = "ADIT_CONNECTOR_DRAIN", default_value = "30")]
    drain: u64,

    /// Threads that carry packets, each those of its own devices; by default half of the processors.
    #[arg(
        long,
        value_name = "COUNT",
        env = "ADIT_CONNECTOR_LANES",
        value_parser = clap::value_parser!(u8).range(1..=MAX_LANES)
    )]
    pub(crate) lanes: Option<u8>,
}

/// More share no processor with what they send to.
const MAX_LANES: i64 = 32;

impl Config {
    /// How long connections may take to end when the connector is told to stop.
    pub(crate) const fn drain_grace(&self) -> Duration {
        Duration::from_secs(self.drain)
    }

    /// The other half of the processors is for the kernel's part and for the services' packets.
    pub(crate) fn lanes(&self) -> u8 {
        const MOST: u8 = 8;

        let processors = std::thread::available_parallelism().map_or(1, usize::from);
        let half = u8::try_from(processors / 2).unwrap_or(MOST);
        self.lanes.unwrap_or(half.clamp(1, MOST))
    }
}

/// `host:port`, where an IPv6 address stands in brackets.
fn endpoint(text: &str) -> Result<String, String> {
    let wrong = || format!("expected host:port such as connector.example:443, not `{text}`");
    let (host, port) = text.rsplit_once(':').ok_or_else(wrong)?;
    let is_ipv6 = host.strip_prefix('[').and_then(|rest| rest.strip_suffix(']'));
    let host_is_good = match is_ipv6 {
        Some(address) => address.parse::<std::net::Ipv6Addr>().is_ok(),
        None => {
            !host.is_empty()
                && host.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-._".contains(&byte))
        }
    };
    let port: u16 = port.parse().map_err(|_error| wrong())?;
    if !host_is_good || port == 0 {
        return Err(wrong());
    }
    Ok(text.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_command_line_is_consistent() {
        use clap::CommandFactory as _;
        Cli::command().debug_assert();
    }

    #[test]
    fn an_endpoint_is_a_host_and_a_port() {
        for good in ["connector.example:443", "192.0.2.1:1", "[2001:db8::1]:443"] {
            assert_eq!(endpoint(good).as_deref(), Ok(good));
        }
        for bad in ["", ":443", "host", "host:0", "host:70000", "2001:db8::1:443", "a b:1"] {
            assert!(endpoint(bad).is_err(), "{bad}");
        }
    }
}
