//! What this network lets through.

use std::net::{IpAddr, SocketAddr};

use adit_proto::{ConnectorId, SiteId};
use serde::{Deserialize, Serialize};

use crate::carrier::Carrier;

/// Answers a check of the network.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct Netcheck {
    pub(crate) ipv4: FamilyOnNetcheck,
    pub(crate) ipv6: FamilyOnNetcheck,
    /// Whether datagrams come back from any connector.
    pub(crate) udp: Passage,
    /// Whether any QUIC handshake succeeds.
    pub(crate) quic: Passage,
    /// Whether TLS and HTTP/2 with any connector succeed, on its TCP port.
    pub(crate) tcp: Passage,
    pub(crate) nat: NatOnNetcheck,
    pub(crate) control_plane: ControlPlaneOnNetcheck,
    pub(crate) sites: Vec<SiteOnNetcheck>,
    /// What to do where something is blocked.
    pub(crate) next: Vec<String>,
}

/// Whether something passes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum Passage {
    Passes,
    Blocked,
    /// There is nothing to test it with.
    Untested,
}

/// An IP version.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct FamilyOnNetcheck {
    /// Whether a connector was reached by it.
    pub(crate) usable: Passage,
    /// Our own address.
    pub(crate) source: Option<IpAddr>,
    /// The longest packet that went to a connector, in bytes; longer ones may go, too.
    pub(crate) path_mtu: Option<u16>,
    /// Why it is not usable, or was not tested.
    pub(crate) problem: Option<String>,
}

/// Translation of addresses on the way, for UDP.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct NatOnNetcheck {
    pub(crate) kind: NatKind,
    /// Our own address and port.
    pub(crate) local: Option<SocketAddr>,
    /// What connectors see of it, each once.
    pub(crate) observed: Vec<SocketAddr>,
}

/// How a network address translator maps one of our sockets (RFC 4787 §4.1, RFC 5780 §4.3).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum NatKind {
    /// Connectors see our own address.
    None,
    /// All see the same other address.
    EndpointIndependentMapping,
    /// Each address sees another; whether the port matters, too, is not told apart.
    AddressDependentMapping,
    /// The mapping differs from port to port of one address.
    AddressAndPortDependentMapping,
    /// There is one, and no second connector with which to find out more.
    UnknownMapping,
    /// Nobody has said what it sees.
    Unknown,
}

/// The control plane.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct ControlPlaneOnNetcheck {
    pub(crate) url: String,
    pub(crate) reachable: bool,
    /// The round trip by TCP, in milliseconds.
    pub(crate) round_trip_ms: Option<f64>,
    pub(crate) error: Option<String>,
}

/// A site.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct SiteOnNetcheck {
    pub(crate) id: SiteId,
    pub(crate) name: String,
    pub(crate) connectors: Vec<ConnectorOnNetcheck>,
}

/// A connector.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct ConnectorOnNetcheck {
    pub(crate) id: ConnectorId,
    pub(crate) name: String,
    /// What packets would go by; absent: there is no way. WireGuard itself was not tried: it needs
    /// UDP alone.
    pub(crate) carrier: Option<Carrier>,
    pub(crate) addresses: Vec<AddressOnNetcheck>,
    /// Why it has no address, or not all.
    pub(crate) problem: Option<String>,
}

/// An address of a connector.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct AddressOnNetcheck {
    pub(crate) address: SocketAddr,
    pub(crate) udp: ProbeOnNetcheck,
    pub(crate) quic: ProbeOnNetcheck,
    pub(crate) tcp: ProbeOnNetcheck,
    /// The longest packet that was answered, in bytes; longer ones may go, too.
    pub(crate) path_mtu: Option<u16>,
}

/// One way to an address.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct ProbeOnNetcheck {
    pub(crate) works: bool,
    /// In milliseconds.
    pub(crate) round_trip_ms: Option<f64>,
    /// Why not, in words.
    pub(crate) error: Option<String>,
}
