//! The data plane that Adit's client and connector share.

mod endpoint;
mod packet;
mod tun;
mod udp;
mod wait;
mod wireguard;

pub use endpoint::Endpoint;
pub use packet::{MAX_PACKET_LEN, Packet, PacketError, Refusal, TcpFlags, Transport, refuse};
pub use tun::{TunDevice, TunError};
pub use udp::{Datagram, ReceiveBatch, SendOutcome, UdpError, UdpSocket};
pub use wait::{Ready, Waiter, Waker};
pub use wireguard::{
    DATA_OVERHEAD, DropCounters, DropReason, PeerConfig, PeerId, PeerStatus, Received, Sealed,
    Transmit, Tunnel, TunnelEvent, UpsertError, WireguardSecret,
};
