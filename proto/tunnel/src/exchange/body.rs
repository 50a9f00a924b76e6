//! What follows the heads of a request and of its answer.

use adit_proto::http3::ResponseHead;

use super::{ByteStream, CapsuleStream, ConnectionHandle};
use crate::{
    http2::Http2Stream,
    quic::{Pipe, QuicStreamId, RequestDatagrams},
};

/// The answer to a request.
#[derive(Debug)]
pub struct Answer {
    /// Its head, of any status.
    pub head: ResponseHead,
    /// What follows.
    pub body: Body,
}

/// What both sides send after the heads: bytes or capsules, as was asked for.
#[derive(Debug)]
pub struct Body(Inner);

#[derive(Debug)]
enum Inner {
    Quic(Pipe, RequestDatagrams),
    Http2(Http2Stream),
}

impl Body {
    pub(crate) fn over_quic(pipe: Pipe, datagrams: RequestDatagrams) -> Self {
        Self(Inner::Quic(pipe, datagrams))
    }

    pub(crate) fn over_http2(stream: Http2Stream) -> Self {
        Self(Inner::Http2(stream))
    }

    /// Over QUIC, the stream for [`QuicEndpoint::attach`](crate::QuicEndpoint::attach).
    pub fn quic_stream(&self) -> Option<QuicStreamId> {
        match &self.0 {
            Inner::Quic(_pipe, datagrams) => Some(datagrams.stream()),
            Inner::Http2(_stream) => None,
        }
    }

    /// The connection that carries it.
    pub(crate) fn connection(&self) -> ConnectionHandle {
        match &self.0 {
            Inner::Quic(_pipe, datagrams) => ConnectionHandle::Quic(datagrams.handle()),
            Inner::Http2(stream) => ConnectionHandle::Http2(stream.shared().clone()),
        }
    }

    /// Both directions are bytes.
    pub fn into_bytes(self) -> ByteStream {
        match self.0 {
            Inner::Quic(pipe, _datagrams) => pipe.into(),
            Inner::Http2(stream) => stream.into(),
        }
    }

    /// Both directions are capsules, and datagrams where there are some (RFC 9297 §3).
    pub fn into_capsules(self) -> CapsuleStream {
        match self.0 {
            Inner::Quic(pipe, datagrams) => CapsuleStream::new(pipe.into(), Some(datagrams)),
            Inner::Http2(stream) => CapsuleStream::new(stream.into(), None),
        }
    }
}
