//! A request before its answer.

use std::net::SocketAddr;

use adit_proto::{
    Pin,
    http3::{RequestHead, ResponseHead},
};

use super::Body;
use crate::{
    http2::Http2Responder,
    quic::{QuicResponder, QuicStreamId},
};

/// A request of a client that has proved possession of a key, and nothing else yet.
///
/// One that is dropped without an answer is turned away.
#[derive(Debug)]
pub struct IncomingRequest {
    /// What is asked for.
    pub head: RequestHead,
    /// The pin of the client's key.
    pub peer_pin: Pin,
    /// From where it comes.
    pub remote: SocketAddr,
    responder: Responder,
}

#[derive(Debug)]
enum Responder {
    Quic(QuicResponder),
    Http2(Http2Responder),
}

impl IncomingRequest {
    pub(crate) fn over_quic(
        head: RequestHead,
        peer_pin: Pin,
        remote: SocketAddr,
        responder: QuicResponder,
    ) -> Self {
        Self { head, peer_pin, remote, responder: Responder::Quic(responder) }
    }

    pub(crate) fn over_http2(
        head: RequestHead,
        peer_pin: Pin,
        remote: SocketAddr,
        responder: Http2Responder,
    ) -> Self {
        Self { head, peer_pin, remote, responder: Responder::Http2(responder) }
    }

    /// Over QUIC, the stream for [`QuicEndpoint::attach`](crate::QuicEndpoint::attach).
    pub fn quic_stream(&self) -> Option<QuicStreamId> {
        match &self.responder {
            Responder::Quic(responder) => Some(responder.stream()),
            Responder::Http2(_responder) => None,
        }
    }

    /// Over HTTP/2, lets the connection have more of our memory than a stranger's; over QUIC,
    /// [`QuicEndpoint::admit`](crate::QuicEndpoint::admit) does so.
    pub fn admit(&self) {
        match &self.responder {
            Responder::Quic(_responder) => {}
            Responder::Http2(responder) => responder.admit(),
        }
    }

    /// Answers; what follows goes through the body that is returned.
    pub fn respond(self, head: ResponseHead) -> Body {
        match self.responder {
            Responder::Quic(responder) => responder.respond(head),
            Responder::Http2(responder) => responder.respond(&head),
        }
    }
}
