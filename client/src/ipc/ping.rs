//! Answers about one echo through the tunnel.

use std::net::{IpAddr, SocketAddr};

use adit_proto::{ConnectorId, SiteId};
use serde::{Deserialize, Serialize};

use crate::carrier::Carrier;

/// What became of one echo.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct Ping {
    pub(crate) destination: IpAddr,
    pub(crate) sequence: u16,
    #[serde(flatten)]
    pub(crate) outcome: PingOutcome,
    /// How it went; absent when it did not enter the tunnel.
    pub(crate) path: Option<PathOnPing>,
}

/// What became of it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "outcome", rename_all = "kebab-case")]
pub(crate) enum PingOutcome {
    /// The destination has answered.
    Answered {
        /// After this time.
        round_trip_ms: f64,
    },
    /// Someone on the way says that it does not get there.
    Refused {
        /// Who says so.
        by: IpAddr,
        /// The name of what ICMP says.
        icmp: String,
    },
    /// Nothing came within this time.
    NoAnswer {
        /// So long was waited.
        waited_ms: u64,
    },
    /// No site has a prefix with the destination.
    NotBehindTunnel,
    /// The site has it, and there is no way to the site.
    NoCarrier {
        /// Why.
        problem: String,
    },
    /// The echo could not be sent.
    Unsendable {
        /// Why.
        problem: String,
    },
}

/// The way of an echo.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct PathOnPing {
    pub(crate) site_id: SiteId,
    pub(crate) site_name: String,
    pub(crate) connector_id: Option<ConnectorId>,
    pub(crate) connector_name: Option<String>,
    pub(crate) endpoint: Option<SocketAddr>,
    pub(crate) carrier: Option<Carrier>,
    /// The round trip to the connector alone, in milliseconds.
    pub(crate) connector_round_trip_ms: Option<f64>,
}
