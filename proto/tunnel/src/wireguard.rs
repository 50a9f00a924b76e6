//! WireGuard over one UDP socket, for both roles: no socket, no TUN device, no clock of its own.
//!
//! A connector answers handshakes of the devices it admitted; a client starts handshakes with
//! connectors. Both are a [`Tunnel`] with peers. The Noise handshake and the ciphers are
//! `boringtun`'s [`Tunn`](boringtun::noise::Tunn); what stands around it here is what it leaves to
//! its caller:
//!
//! - the endpoint of a peer moves only after an authentic, fresh data packet or keepalive from it,
//!   never after a handshake message, which can be a replay from before a restart;
//! - the source address of every inner packet must belong to the peer that sent it;
//! - every buffer is bounded in bytes, and every drop has a [`DropReason`] and is counted;
//! - a [`HandshakeFilter`] stands before everything that a stranger could make costly;
//! - datagrams that boringtun would panic on never reach it.

mod allowed_ips;
mod drop_reason;
mod handshake_filter;
mod inbound;
mod lane;
mod message;
mod outbound;
mod outbox;
mod path_mtu;
mod peer;
mod peers;
mod secret;
#[cfg(test)]
mod tests;
mod tunnel;
mod waiting;

pub use drop_reason::{DropCounters, DropReason};
pub use handshake_filter::{Filtered, HandshakeFilter, Initiation};
pub use inbound::{Inbound, Opened};
pub use lane::Lane;
pub use message::DATA_OVERHEAD;
pub use outbound::{Outbound, SendLosses};
pub use outbox::{Transmit, TunnelEvent};
pub use peer::PeerStatus;
pub use peers::PeerId;
pub use secret::WireguardSecret;
pub use tunnel::{PeerConfig, Received, Sealed, Tunnel, UpsertError};
