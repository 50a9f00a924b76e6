//! Bytes to and from the peer, for a task.

use std::{
    future::Future as _,
    io,
    pin::{Pin, pin},
    task::{Context, Poll, ready},
};

use adit_proto::http3::Http3Code;
use bytes::{Buf as _, Bytes, BytesMut};
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, ReadBuf};

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
        /// Capsules are short, but for packets.
        const PIECE_LEN: usize = 16 << 10;

        match &mut self.0 {
            Inner::Quic(pipe) => {
                let mut piece = BytesMut::with_capacity(PIECE_LEN);
                ready!(pin!(pipe.read_buf(&mut piece)).poll(context))?;
                Poll::Ready(Ok(piece.freeze()))
            }
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
            Inner::Quic(pipe) => {
                let len = ready!(Pin::new(pipe).poll_write(context, bytes))?;
                bytes.advance(len);
                Poll::Ready(Ok(()))
            }
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
