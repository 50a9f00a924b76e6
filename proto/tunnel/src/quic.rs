//! QUIC on the socket that WireGuard uses, for both roles: HTTP/3 with its requests, and IP packets
//! in datagrams (RFC 9000, 9114, 9221, 9297, 9484).
//!
//! ```text
//! thread of a data plane                                   │ tasks
//! datagrams ─▶ QuicEndpoint ─ packets of a CONNECT-IP ─▶   │
//!                  │ streams: heads ─────────────────────▶ │ IncomingRequest, QuicConnection
//!                  └ bodies ◀──────────── pipes ─────────▶ │ Body
//! ```
//!
//! A [`QuicEndpoint`] is a state machine of the thread that owns the socket; no runtime turns it.
//! Packets never leave that thread. Bodies of requests do, through pipes of bounded length.
//!
//! A handshake costs as much as hundreds of packets, and anybody may ask for one. So whoever comes
//! waits among the newcomers until the thread has time ([`QuicEndpoint::begin_handshake`]), is a
//! stranger until it has shown a credential, and, if there are many of both, has to prove its
//! address first ([`RetrySource`]), at the cost of two hashes.

mod answers;
mod byte_queue;
mod config;
mod congestion;
mod connection;
mod connections;
mod counters;
mod endpoint;
mod event;
mod http;
mod initial;
mod mailbox;
mod name;
mod newcomers;
mod packets;
mod pipe;
mod request_stream;
mod retry;
mod strangers;
#[cfg(test)]
mod tests;
mod violation;

pub use counters::QuicCounters;
pub use endpoint::{QuicEndpoint, QuicUse};
pub use event::QuicEvent;
pub use mailbox::{QuicConnection, QuicError};
pub use name::{QuicConnectionId, QuicStreamId};
pub use retry::{RetrySource, Unproven};

pub(crate) use mailbox::{QuicHandle, QuicResponder, RequestDatagrams};
pub(crate) use pipe::Pipe;

/// Whether a datagram is QUIC's: its fixed bit is set (RFC 9000 §17), which it is in no message of
/// WireGuard. RFC 9287, which would clear it, is not offered.
pub fn is_quic(datagram: &[u8]) -> bool {
    matches!(datagram, [first, ..] if first & 0x40 != 0)
}
