//! Capsules and datagrams to and from the peer, for a task.

use std::{
    future::poll_fn,
    io,
    task::{Context, Poll, ready},
};

use adit_proto::{
    http3::{Http3Code, encode_varint, varint_len},
    masque::{Capsule, CapsuleDecoder, CapsuleError, encode_datagram_capsule_header},
};
use bytes::BytesMut;

use super::ByteStream;
use crate::quic::RequestDatagrams;

/// Capsules of one request, both ways, and its datagrams (RFC 9297): over QUIC those that may be
/// lost, else capsules among the others.
///
/// What is to be sent goes out while [`Self::next`] or [`Self::send`] is awaited, all that has
/// come together at once. Dropping the stream ends the own direction, in order if all of it has gone
/// out.
#[derive(Debug)]
pub struct CapsuleStream {
    stream: ByteStream,
    datagrams: Option<RequestDatagrams>,
    decoder: CapsuleDecoder,
    unsent: BytesMut,
}

/// Why there are no more capsules.
#[derive(Debug, thiserror::Error)]
pub enum CapsuleStreamError {
    /// The peer broke the protocol.
    #[error("a capsule is malformed")]
    Malformed(#[from] CapsuleError),
    /// The stream or its connection was broken off.
    #[error("the stream broke")]
    Stream(#[from] io::Error),
}

/// Datagrams that wait for a stream that does not move, in bytes; more are dropped. With what the
/// connection holds beyond this, it is what 100 Mbit/s carry in 30 ms.
const MAX_UNSENT_LEN: usize = 128 << 10;

impl CapsuleStream {
    pub(super) fn new(stream: ByteStream, datagrams: Option<RequestDatagrams>) -> Self {
        Self { stream, datagrams, decoder: CapsuleDecoder::new(), unsent: BytesMut::new() }
    }

    /// The next capsule, or a datagram as one; none: the peer has ended its direction.
    ///
    /// # Errors
    ///
    /// See [`CapsuleStreamError`]; the stream then is to be [aborted](Self::abort).
    ///
    /// # Cancel safety
    ///
    /// None is lost when the future is dropped.
    pub async fn next(&mut self) -> Result<Option<Capsule>, CapsuleStreamError> {
        poll_fn(|context| self.poll_next(context)).await
    }

    /// Sends a capsule, waiting for a peer that does not read.
    ///
    /// # Errors
    ///
    /// When the stream was broken off.
    ///
    /// # Cancel safety
    ///
    /// One whose sending is cancelled is sent wholly before the next.
    pub async fn send(&mut self, capsule: &Capsule) -> Result<(), CapsuleStreamError> {
        let mut bytes = Vec::new();
        capsule.encode(&mut bytes);
        self.unsent.extend_from_slice(&bytes);
        poll_fn(|context| self.poll_flush(context)).await?;
        Ok(())
    }

    /// Sends a datagram of a context if there is room; else it is lost.
    pub fn send_datagram(&mut self, context_id: u64, payload: &[u8]) {
        /// A type and a length.
        const MAX_HEADER_LEN: usize = 16;
        const SHORT: usize = 128;

        let len = varint_len(context_id) + payload.len();
        // Short ones tell of a flow's end, or acknowledge; they are not to be lost behind long ones.
        let max_unsent_len = if len <= SHORT { 2 * MAX_UNSENT_LEN } else { MAX_UNSENT_LEN };
        let mut bytes = Vec::with_capacity(MAX_HEADER_LEN + varint_len(context_id));
        if let Some(datagrams) = &self.datagrams {
            bytes.reserve(len);
            encode_varint(context_id, &mut bytes);
            bytes.extend_from_slice(payload);
            datagrams.send(bytes.into());
        } else if self.unsent.len() + len <= max_unsent_len {
            encode_datagram_capsule_header(len, &mut bytes);
            encode_varint(context_id, &mut bytes);
            self.unsent.extend_from_slice(&bytes);
            self.unsent.extend_from_slice(payload);
        }
    }

    /// Breaks the stream off, so that the peer does not take it for complete.
    pub fn abort(mut self, code: Http3Code) {
        self.stream.break_off(code);
    }

    fn poll_next(
        &mut self,
        context: &mut Context<'_>,
    ) -> Poll<Result<Option<Capsule>, CapsuleStreamError>> {
        if let Poll::Ready(Err(error)) = self.poll_flush(context) {
            return Poll::Ready(Err(error.into()));
        }
        loop {
            if let Some(capsule) = self.decoder.poll()? {
                return Poll::Ready(Ok(Some(capsule)));
            }
            match self.stream.poll_receive(context)? {
                Poll::Ready(bytes) if bytes.is_empty() => {
                    self.decoder.finish()?;
                    return Poll::Ready(Ok(None));
                }
                Poll::Ready(bytes) => self.decoder.push(bytes),
                Poll::Pending => break,
            }
        }
        // When there can be no more datagrams, the stream has ended, too.
        if let Some(datagrams) = &mut self.datagrams
            && let Poll::Ready(Some(datagram)) = datagrams.poll_next(context)
        {
            return Poll::Ready(Ok(Some(Capsule::Datagram(datagram))));
        }
        Poll::Pending
    }

    fn poll_flush(&mut self, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        while !self.unsent.is_empty() {
            ready!(self.stream.poll_send(context, &mut self.unsent))?;
        }
        Poll::Ready(Ok(()))
    }
}

impl Drop for CapsuleStream {
    fn drop(&mut self) {
        // The end might come inside a capsule.
        if !self.unsent.is_empty() {
            self.stream.break_off(Http3Code::RequestCancelled);
        }
    }
}
