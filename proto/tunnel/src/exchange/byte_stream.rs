//! Bytes to and from the peer, for a task.

use std::{
    io,
    pin::Pin,
    task::{Context, Poll},
};

use adit_proto::http3::Http3Code;
use bytes::{Bytes, BytesMut};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use crate::{http2::Http2Stream, quic::Pipe};

/// A stream of bytes to and from the peer, such as that of a CONNECT (RFC 9113 §8.5, 9114 §4.4).
///
/// [Shutting down](tokio::io::AsyncWriteExt::shutdown) ends the own direction in order; dropping
/// the stream does so, too. [`Self::abort`] breaks both.
#[derive(Debug)]
pub struct ByteStream(Inner);

#[derive(Debug)]
enum Inner {
    Quic(Pipe),
    Http2(Http2Stream),
}

impl From<Pipe> for ByteStream {
    fn from(pipe: Pipe) -> Self {
        Self(Inner::Quic(pipe))
    }
}

impl From<Http2Stream> for ByteStream {
    fn from(stream: Http2Stream) -> Self {
        Self(Inner::Http2(stream))
    }
}

impl ByteStream {
    /// Breaks the stream off, so that the peer does not take it for complete.
    pub fn abort(mut self, code: Http3Code) {
        self.break_off(code);
    }

    /// As [`Self::abort`], once this is dropped.
    pub(crate) fn break_off(&mut self, code: Http3Code) {
        match &mut self.0 {
            Inner::Quic(pipe) => pipe.break_off(code),
            Inner::Http2(stream) => stream.break_off(code),
        }
    }

    /// Some bytes, without copying them where that is possible; none: the peer has ended.
    pub(crate) fn poll_receive(&mut self, context: &mut Context<'_>) -> Poll<io::Result<Bytes>> {
        match &mut self.0 {
            Inner::Quic(pipe) => pipe.poll_receive(context),
            Inner::Http2(stream) => stream.poll_receive(context),
        }
    }

    /// Takes as much off the front of `bytes` as there is room for.
    pub(crate) fn poll_send(
        &mut self,
        context: &mut Context<'_>,
        bytes: &mut BytesMut,
    ) -> Poll<io::Result<()>> {
        match &mut self.0 {
            Inner::Quic(pipe) => pipe.poll_send(context, bytes),
            Inner::Http2(stream) => stream.poll_send(context, bytes),
        }
    }
}

impl AsyncRead for ByteStream {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        match &mut self.0 {
            Inner::Quic(pipe) => Pin::new(pipe).poll_read(context, buffer),
            Inner::Http2(stream) => Pin::new(stream).poll_read(context, buffer),
        }
    }
}

impl AsyncWrite for ByteStream {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        match &mut self.0 {
            Inner::Quic(pipe) => Pin::new(pipe).poll_write(context, bytes),
            Inner::Http2(stream) => Pin::new(stream).poll_write(context, bytes),
        }
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        match &mut self.0 {
            Inner::Quic(pipe) => Pin::new(pipe).poll_flush(context),
            Inner::Http2(stream) => Pin::new(stream).poll_flush(context),
        }
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        match &mut self.0 {
            Inner::Quic(pipe) => Pin::new(pipe).poll_shutdown(context),
            Inner::Http2(stream) => Pin::new(stream).poll_shutdown(context),
        }
    }
}
