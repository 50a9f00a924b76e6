//! The data plane that Adit's client and connector share.

mod control_plane;
mod endpoint;
mod exchange;
mod http2;
mod identity;
mod offload;
mod packet;
mod packet_pipe;
mod quic;
mod session_channel;
mod source;
mod tls;
mod tun;
mod tun_queue;
mod udp;
mod wait;
mod wireguard;

pub use control_plane::{ControlPlane, ControlPlaneError, Fetched};
pub use endpoint::Endpoint;
pub use exchange::{
    Answer, Body, ByteStream, CapsuleStream, CapsuleStreamError, HttpConnection, IncomingRequest,
    RequestError, SpliceCounters, splice,
};
pub use http2::{Http2Connection, Http2Error, Http2Listener, connect};
pub use identity::{IdentityError, KeyPair, load_or_create_wireguard_secret};
pub use offload::{
    Frame, FrameError, Merger, Offloads, Run, Segments, UnknownOffload, VirtioHeader,
};
pub use packet::{Ecn, MAX_PACKET_LEN, Packet, PacketError, Refusal, TcpFlags, Transport, refuse};
pub use packet_pipe::{PacketInlet, PacketOutlet, PacketPipe};
pub use quic::{
    QuicConnection, QuicConnectionId, QuicCounters, QuicEndpoint, QuicError, QuicEvent,
    QuicStreamId, QuicUse, RetrySource, Unproven, is_quic,
};
pub use session_channel::{SessionChannel, SessionError, SessionReceiver, SessionSender};
pub use tls::{client_config, is_pin_mismatch, peer_pin, server_config};
pub use tun::{TunDevice, TunError, tun_mtu};
pub use tun_queue::TUN_QUEUE_LEN;
pub use udp::{Datagram, Heading, ReceiveBatch, SendOutcome, Train, UdpError, UdpSocket};
pub use wait::{Ready, Waiter, Waker};
pub use wireguard::{
    DATA_OVERHEAD, DropCounters, DropReason, Filtered, HandshakeFilter, Inbound, Initiation, Lane,
    Opened, Outbound, PeerConfig, PeerId, PeerStatus, Received, Sealed, SendLosses, Transmit,
    Tunnel, TunnelEvent, UpsertError, WireguardSecret,
};
