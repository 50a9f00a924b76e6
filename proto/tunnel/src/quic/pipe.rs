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
use tokio::io::{AsyncRead, AsyncWrite, DuplexStream, ReadBuf, duplex};

/// Bytes that wait in each direction: what 1 Gbit/s carries in 2 ms.
const PIPE_LEN: usize = 256 << 10;

/// The task's end of a stream of bytes to and from the peer.
#[derive(Debug)]
pub(crate) struct Pipe {
    pipe: DuplexStream,
    breakage: Breakage,
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
    /// A stream, and the other end of its pipe for the thread that owns the connection.
    pub(super) fn new() -> (Self, DuplexStream, Breakage) {
        let (pipe, other) = duplex(PIPE_LEN);
        let breakage = Breakage::default();
        (Self { pipe, breakage: breakage.clone() }, other, breakage)
    }

    /// Makes the end of the stream, when this is dropped, one that the peer does not take for
    /// complete.
    pub(crate) fn break_off(&mut self, code: Http3Code) {
        // The first reason counts.
        let _ = self.breakage.by_task.set(code);
    }
}

impl AsyncRead for Pipe {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = buffer.filled().len();
        ready!(Pin::new(&mut self.pipe).poll_read(context, buffer))?;
        let is_end = buffer.filled().len() == before && buffer.remaining() > 0;
        if is_end && self.breakage.by_peer.load(Ordering::Acquire) {
            return Poll::Ready(Err(io::ErrorKind::ConnectionReset.into()));
        }
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for Pipe {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.pipe).poll_write(context, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.pipe).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.pipe).poll_shutdown(context)
    }
}
