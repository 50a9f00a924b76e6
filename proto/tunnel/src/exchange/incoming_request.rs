//! A request before its answer.

use std::net::SocketAddr;

use adit_proto::{
    ClientMessage, ConnectorMessage, Pin,
    http3::{RequestHead, ResponseHead},
};

use super::{Body, ConnectionHandle};
use crate::{
    SessionChannel,
    http2::Http2Responder,
    quic::{QuicResponder, QuicStreamId},
    session_channel::is_session,
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

    /// Whether a session is asked for, which [`Self::into_session`] answers.
    pub fn is_session(&self) -> bool {
        is_session(&self.head)
    }

    /// Lets the connection have more of our memory than a stranger's.
    pub fn admit(&self) {
        let connection = match &self.responder {
            Responder::Quic(responder) => ConnectionHandle::Quic(responder.handle()),
            Responder::Http2(responder) => ConnectionHandle::Http2(responder.shared().clone()),
        };
        connection.admit();
    }

    /// Opens the session that is asked for.
    pub fn into_session(self) -> SessionChannel<ConnectorMessage, ClientMessage> {
        let head = ResponseHead { status: 200, headers: Vec::new() };
        SessionChannel::new(self.respond(head), None)
    }

    /// Answers; what follows goes through the body that is returned.
    pub fn respond(self, head: ResponseHead) -> Body {
        match self.responder {
            Responder::Quic(responder) => responder.respond(head),
            Responder::Http2(responder) => responder.respond(&head),
        }
    }
}
