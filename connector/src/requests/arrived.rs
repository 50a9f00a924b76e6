//! A request, and how it came.

use std::fmt;

use adit_tunnel::{IncomingRequest, QuicConnectionId, QuicStreamId};

/// A request that is to be served.
pub(crate) struct ArrivedRequest {
    pub(super) carrier: Carrier,
    pub(crate) request: IncomingRequest,
}

/// What carries a request, and its packets.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Carrier {
    /// A connection of a lane.
    Quic { lane: usize, stream: QuicStreamId },
    /// A connection of the listener.
    Http2,
}

impl ArrivedRequest {
    /// One that came to a lane.
    pub(crate) fn on_lane(lane: usize, request: IncomingRequest) -> Self {
        let quic = request.quic_stream().map(|stream| Carrier::Quic { lane, stream });
        Self { carrier: quic.unwrap_or(Carrier::Http2), request }
    }

    /// One that came to the listener.
    pub(crate) const fn on_listener(request: IncomingRequest) -> Self {
        Self { carrier: Carrier::Http2, request }
    }

    /// The request, and by which connection of which lane it came if it was one's.
    pub(crate) fn into_parts(self) -> (IncomingRequest, Option<(usize, QuicConnectionId)>) {
        let connection = match self.carrier {
            Carrier::Quic { lane, stream } => Some((lane, stream.connection())),
            Carrier::Http2 => None,
        };
        (self.request, connection)
    }
}

impl fmt::Display for Carrier {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Quic { .. } => "quic",
            Self::Http2 => "http2",
        })
    }
}
