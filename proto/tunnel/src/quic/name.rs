//! Names of connections and requests.

use quinn_proto::{StreamId, VarInt};

/// Names a connection of one [`QuicEndpoint`](super::QuicEndpoint); never reused.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct QuicConnectionId {
    pub(super) place: usize,
    pub(super) serial: u64,
}

/// Names a request of one [`QuicEndpoint`](super::QuicEndpoint); never reused.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct QuicStreamId {
    pub(super) connection: QuicConnectionId,
    pub(super) stream: u64,
}

impl QuicStreamId {
    /// The connection that it is of.
    pub const fn connection(&self) -> QuicConnectionId {
        self.connection
    }

    pub(super) fn id(&self) -> StreamId {
        VarInt::from_u64(self.stream).unwrap_or_default().into()
    }
}
