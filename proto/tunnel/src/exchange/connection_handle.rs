//! A connection as those may treat it who hold one of its streams.

use crate::{http2, quic::QuicHandle};

/// A handle of a connection that does not keep it open.
#[derive(Debug, Clone)]
pub(crate) enum ConnectionHandle {
    /// HTTP/3.
    Quic(QuicHandle),
    /// HTTP/2 on TCP.
    Http2(http2::Shared),
}

impl ConnectionHandle {
    /// Lets the peer have more of our memory than a stranger.
    pub(crate) fn admit(&self) {
        match self {
            Self::Quic(handle) => handle.admit(),
            Self::Http2(shared) => shared.admit(),
        }
    }

    /// Closes the connection without sending what it still holds.
    pub(crate) fn abort(&self) {
        match self {
            Self::Quic(handle) => handle.abort(),
            Self::Http2(shared) => shared.abort(),
        }
    }
}
