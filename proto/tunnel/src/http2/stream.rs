//! The bytes of one stream, both ways.

use std::{
    io,
    pin::Pin,
    task::{Context, Poll, ready},
};

use adit_proto::http3::Http3Code;
use bytes::{Buf as _, Bytes, BytesMut};
use h2::{Reason, RecvStream, SendStream};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use super::{Handle, Shared};

/// A stream after the heads.
///
/// Dropping it ends the own direction in order; [`Self::break_off`] does not.
#[derive(Debug)]
pub(crate) struct Http2Stream {
    /// None: the peer broke the stream off before it was answered.
    sending: Option<SendStream<Bytes>>,
    receiving: RecvStream,
    /// Not yet read.
    received: Bytes,
    has_ended: bool,
    handle: Handle,
}

/// What one writer may claim of the connection's window at a time.
const PIECE_LEN: usize = 64 << 10;

impl Http2Stream {
    pub(super) const fn new(
        sending: Option<SendStream<Bytes>>,
        receiving: RecvStream,
        handle: Handle,
    ) -> Self {
        Self { sending, receiving, received: Bytes::new(), has_ended: false, handle }
    }

    pub(crate) const fn shared(&self) -> &Shared {
        self.handle.shared()
    }

    /// Breaks both directions off.
    pub(crate) fn break_off(&mut self, code: Http3Code) {
        self.has_ended = true;
        if let Some(sending) = &mut self.sending {
            sending.send_reset(reason_of(code));
        }
    }

    /// Some bytes; none: the peer has ended its direction.
    pub(crate) fn poll_receive(&mut self, context: &mut Context<'_>) -> Poll<io::Result<Bytes>> {
        if !self.received.is_empty() {
            return Poll::Ready(Ok(std::mem::take(&mut self.received)));
        }
        loop {
            match ready!(self.receiving.poll_data(context)) {
                Some(Ok(bytes)) => {
                    self.receiving
                        .flow_control()
                        .release_capacity(bytes.len())
                        .map_err(|error| self.broken(error))?;
                    if !bytes.is_empty() {
                        return Poll::Ready(Ok(bytes));
                    }
                }
                Some(Err(error)) => return Poll::Ready(Err(self.broken(error))),
                None => return Poll::Ready(Ok(Bytes::new())),
            }
        }
    }

    /// Takes as much off the front of `bytes` as there is room for.
    pub(crate) fn poll_send(
        &mut self,
        context: &mut Context<'_>,
        bytes: &mut BytesMut,
    ) -> Poll<io::Result<()>> {
        let len = ready!(self.poll_room(context, bytes.len()))?;
        self.send(bytes.split_to(len).freeze(), false)?;
        Poll::Ready(Ok(()))
    }

    /// How many of `wanted` bytes can be sent; none are waited for.
    fn poll_room(&mut self, context: &mut Context<'_>, wanted: usize) -> Poll<io::Result<usize>> {
        let wanted = wanted.min(PIECE_LEN);
        let Some(sending) = &mut self.sending else {
            return Poll::Ready(Err(io::ErrorKind::ConnectionReset.into()));
        };
        sending.reserve_capacity(wanted);
        loop {
            // Capacity that is there already is not announced again.
            let capacity = sending.capacity();
            if capacity > 0 || wanted == 0 {
                return Poll::Ready(Ok(capacity.min(wanted)));
            }
            match ready!(sending.poll_capacity(context)) {
                Some(Ok(_capacity)) => {}
                Some(Err(error)) => return Poll::Ready(Err(self.broken(error))),
                None => {
                    let error = io::Error::new(io::ErrorKind::BrokenPipe, self.handle.closed());
                    return Poll::Ready(Err(error));
                }
            }
        }
    }

    fn send(&mut self, bytes: Bytes, is_last: bool) -> io::Result<()> {
        let Some(sending) = &mut self.sending else {
            return Err(io::ErrorKind::ConnectionReset.into());
        };
        sending.send_data(bytes, is_last).map_err(|error| self.broken(error))
    }

    /// Why the stream broke, as an [`Http2Error`](super::Http2Error).
    fn broken(&self, error: h2::Error) -> io::Error {
        let kind = match self.handle.is_unresponsive() {
            true => io::ErrorKind::TimedOut,
            false => io::ErrorKind::ConnectionReset,
        };
        io::Error::new(kind, self.handle.error(error))
    }

    fn end(&mut self) -> io::Result<()> {
        if std::mem::replace(&mut self.has_ended, true) {
            return Ok(());
        }
        self.send(Bytes::new(), true)
    }
}

impl Drop for Http2Stream {
    fn drop(&mut self) {
        // Fails only when the peer has broken the stream off.
        let _ignored = self.end();
    }
}

impl AsyncRead for Http2Stream {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let mut bytes = ready!(self.poll_receive(context))?;
        let len = bytes.len().min(buffer.remaining());
        buffer.put_slice(bytes.get(..len).unwrap_or_default());
        bytes.advance(len);
        self.received = bytes;
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for Http2Stream {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        let len = ready!(self.poll_room(context, bytes.len()))?;
        self.send(Bytes::copy_from_slice(bytes.get(..len).unwrap_or_default()), false)?;
        Poll::Ready(Ok(len))
    }

    fn poll_flush(self: Pin<&mut Self>, _context: &mut Context<'_>) -> Poll<io::Result<()>> {
        // The task of the connection sends what it was given.
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, _context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(self.end())
    }
}

/// The code of RFC 9113 §7 that says the same, and never that all is well.
fn reason_of(code: Http3Code) -> Reason {
    match code {
        Http3Code::NoError | Http3Code::RequestCancelled => Reason::CANCEL,
        Http3Code::RequestRejected => Reason::REFUSED_STREAM,
        Http3Code::ConnectError => Reason::CONNECT_ERROR,
        Http3Code::InternalError => Reason::INTERNAL_ERROR,
        Http3Code::ExcessiveLoad => Reason::ENHANCE_YOUR_CALM,
        Http3Code::VersionFallback => Reason::HTTP_1_1_REQUIRED,
        Http3Code::GeneralProtocolError
        | Http3Code::StreamCreationError
        | Http3Code::ClosedCriticalStream
        | Http3Code::FrameUnexpected
        | Http3Code::FrameError
        | Http3Code::IdError
        | Http3Code::SettingsError
        | Http3Code::MissingSettings
        | Http3Code::RequestIncomplete
        | Http3Code::MessageError
        | Http3Code::DatagramError
        | Http3Code::QpackDecompressionFailed
        | Http3Code::QpackEncoderStreamError
        | Http3Code::QpackDecoderStreamError => Reason::PROTOCOL_ERROR,
    }
}
