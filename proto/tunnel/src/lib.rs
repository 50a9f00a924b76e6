//! The data plane that Adit's client and connector share.

mod control_plane;
mod endpoint;
mod identity;
mod offload;
mod packet;
mod session_channel;
mod tls;
mod tun;
mod udp;
mod wait;
mod wireguard;

pub use control_plane::{ControlPlane, ControlPlaneError, Fetched};
pub use endpoint::Endpoint;
pub use identity::{IdentityError, KeyPair, load_or_create_wireguard_secret};
pub use offload::{Frame, FrameError, Merger, Run, Segments, VirtioHeader};
pub use packet::{MAX_PACKET_LEN, Packet, PacketError, Refusal, TcpFlags, Transport, refuse};
pub use session_channel::{
    IncomingSession, SessionChannel, SessionError, SessionListener, SessionReceiver, SessionSender,
    connect,
};
pub use tls::{client_config, is_pin_mismatch, peer_pin, server_config};
pub use tun::{TunDevice, TunError};
pub use udp::{Datagram, ReceiveBatch, SendOutcome, UdpError, UdpSocket};
pub use wait::{Ready, Waiter, Waker};
pub use wireguard::{
    DATA_OVERHEAD, DropCounters, DropReason, PeerConfig, PeerId, PeerStatus, Received, Sealed,
    Transmit, Tunnel, TunnelEvent, UpsertError, WireguardSecret,
};
