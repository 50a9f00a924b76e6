//! What an endpoint says of its connections.

use std::net::SocketAddr;

use crate::{IncomingRequest, PeerId};

/// What happened.
#[derive(Debug)]
pub enum QuicEvent {
    /// A client asks for something.
    Request(Box<IncomingRequest>),
    /// A peer whose packets are carried is at another address than before.
    Roamed {
        /// Which.
        peer: PeerId,
        /// Where it is.
        remote: SocketAddr,
    },
    /// The packets of a peer are no longer carried by its request, which has ended.
    Detached {
        /// Whose.
        peer: PeerId,
    },
}
