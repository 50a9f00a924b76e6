//! The body of a request between the thread and a task.

use std::{
    io,
    pin::Pin,
    sync::{
        Arc, OnceLock,
        atomic::{AtomicBool, Ordering},
    },
    task::{Context, Poll, ready},
};

use adit_proto::http3::Http3Code;
use bytes::{Bytes, BytesMut};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use super::byte_queue::{ByteQueueReader, ByteQueueWriter, byte_queue};

/// The task's end of a stream of bytes to and from the peer.
#[derive(Debug)]
pub(crate) struct Pipe {
    from_peer: ByteQueueReader,
    to_peer: ByteQueueWriter,
    /// Of the piece that is being read.
    rest: Bytes,
    breakage: Breakage,
}

/// The other end, for the thread that owns the connection.
pub(super) struct PipeEnd {
    pub(super) to_task: ByteQueueWriter,
    pub(super) from_task: ByteQueueReader,
    pub(super) breakage: Breakage,
}

/// Whether one end has broken the stream off rather than ended it.
#[derive(Debug, Clone, Default)]
pub(super) struct Breakage {
    by_peer: Arc<AtomicBool>,
    by_task: Arc<OnceLock<Http3Code>>,
}

impl Breakage {
    pub(super) fn note_peer(&self) {
        self.by_peer.store(true, Ordering::Release);
    }

    pub(super) fn by_task(&self) -> Option<Http3Code> {
        self.by_task.get().copied()
    }
}

impl Pipe {
    /// Both ends of a stream.
    pub(super) fn new() -> (Self, PipeEnd) {
        let (to_task, from_peer) = byte_queue();
        let (to_peer, from_task) = byte_queue();
        let breakage = Breakage::default();
        let pipe = Self { from_peer, to_peer, rest: Bytes::new(), breakage: breakage.clone() };
        (pipe, PipeEnd { to_task, from_task, breakage })
    }

    /// Makes the end of the stream, when this is dropped, one that the peer does not take for
    /// complete.
    pub(crate) fn break_off(&mut self, code: Http3Code) {
        // The first reason counts.
        let _ = self.breakage.by_task.set(code);
    }

    /// The next bytes; none at all: the peer has ended.
    pub(crate) fn poll_receive(&mut self, context: &mut Context<'_>) -> Poll<io::Result<Bytes>> {
        if !self.rest.is_empty() {
            return Poll::Ready(Ok(std::mem::take(&mut self.rest)));
        }
        Poll::Ready(match ready!(self.from_peer.poll_next(context)) {
            Some(piece) => Ok(piece),
            None if self.breakage.by_peer.load(Ordering::Acquire) => {
                Err(io::ErrorKind::ConnectionReset.into())
            }
            None => Ok(Bytes::new()),
        })
    }

    /// Takes as much off the front of `bytes` as there is room for.
    pub(crate) fn poll_send(
        &mut self,
        context: &mut Context<'_>,
        bytes: &mut BytesMut,
    ) -> Poll<io::Result<()>> {
        let room = ready!(self.to_peer.poll_room(context))?;
        self.to_peer.push(bytes.split_to(room.min(bytes.len())).freeze());
        self.to_peer.flush();
        Poll::Ready(Ok(()))
    }
}

impl AsyncRead for Pipe {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let mut piece = ready!(self.poll_receive(context))?;
        loop {
            let len = piece.len().min(buffer.remaining());
            buffer.put_slice(&piece.split_to(len));
            // What lies here already goes into the same buffer.
            if !piece.is_empty() || !self.from_peer.has_next() {
                break;
            }
            piece = ready!(self.poll_receive(context))?;
        }
        self.rest = piece;
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for Pipe {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        let room = ready!(self.to_peer.poll_room(context))?;
        let taken = bytes.get(..room).unwrap_or(bytes);
        self.to_peer.push(Bytes::copy_from_slice(taken));
        self.to_peer.flush();
        Poll::Ready(Ok(taken.len()))
    }

    fn poll_flush(self: Pin<&mut Self>, _context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, _context: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.to_peer.end();
        Poll::Ready(Ok(()))
    }
}
