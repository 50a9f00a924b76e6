//! HTTP/2 over TCP and TLS with pins both ways: on one connection a session, and requests to carry
//! packets, datagrams and streams (RFC 9113, 8441).
//!
//! A task of its own turns each connection, keeps it going and finds out when the peer is dead.
//! Whoever holds a stream holds the connection.

mod client;
mod dial;
mod handle;
mod head;
mod keepalive;
mod listener;
mod responder;
mod server;
mod stream;
#[cfg(test)]
mod tests;

use std::{net::SocketAddr, time::Duration};

pub use self::{
    client::{Http2Connection, connect},
    listener::Http2Listener,
};

pub(crate) use self::{
    handle::{Handle, Shared},
    responder::Http2Responder,
    stream::Http2Stream,
};

#[cfg(test)]
pub(crate) use self::server::{Peer, Server};

/// Why there is no connection over TCP, or no longer, or not this stream.
#[derive(Debug, thiserror::Error)]
pub enum Http2Error {
    /// No TCP connection came about.
    #[error("cannot reach {endpoint}")]
    Unreachable {
        /// The connector's.
        endpoint: SocketAddr,
        /// What the operating system says.
        source: std::io::Error,
    },
    /// The connector did not answer in time.
    #[error("{endpoint} did not answer within {} s", CONNECT_TIMEOUT.as_secs())]
    TimedOut {
        /// The connector's.
        endpoint: SocketAddr,
    },
    /// Whoever answers is not the connector that was sought.
    #[error("certificate of {endpoint} does not match the pin")]
    PinMismatch {
        /// The connector's.
        endpoint: SocketAddr,
    },
    /// The TLS handshake failed otherwise.
    #[error("no TLS connection to {endpoint}")]
    Tls {
        /// The connector's.
        endpoint: SocketAddr,
        /// What TLS says.
        source: std::io::Error,
    },
    /// The peer does not speak extended CONNECT (RFC 8441 §3).
    #[error("the peer does not offer extended connect")]
    NotOffered,
    /// The request cannot be written down in HTTP/2, or its answer not be read.
    #[error("a head is malformed")]
    Malformed,
    /// The peer broke the request off before it answered.
    #[error("the peer broke the request off")]
    Reset {
        /// What HTTP/2 says.
        source: h2::Error,
    },
    /// The connection broke.
    #[error("the connection was lost")]
    Lost {
        /// What HTTP/2 says.
        source: h2::Error,
    },
    /// The peer answered no more pings.
    #[error("the peer answers no longer")]
    Unresponsive,
    /// One of both sides has closed the connection, or this stream.
    #[error("the connection is closed")]
    Closed,
}

/// How long a client tries to connect and to open a session.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);

/// The only protocol of the TCP port.
const ALPN: &[u8] = b"h2";

/// How long a connection that nobody needs any more may take to send what it still holds.
const LINGER: Duration = Duration::from_secs(2);

/// What one who is trusted may have lying here, in bytes: 200 ms of 1 Gbit/s, as over QUIC.
const CONNECTION_WINDOW: u32 = 24 << 20;

/// Of this, for one stream.
const STREAM_WINDOW: u32 = 8 << 20;

/// Longest frame, in bytes: a few dozen packets, and as many records of TLS as are sent at once.
const MAX_FRAME_LEN: u32 = 64 << 10;

/// Bytes that wait to be sent, per stream.
const SEND_BUFFER_LEN: usize = 256 << 10;

/// Longest head, in bytes: it holds a credential.
const MAX_HEADER_LIST_LEN: u32 = 16 << 10;
