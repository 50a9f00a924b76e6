//! A stream of the peer and a TCP connection, joined.

use std::{
    collections::VecDeque,
    future::poll_fn,
    io::{self, IoSlice},
    pin::Pin,
    sync::atomic::{AtomicU64, Ordering},
    task::{Context, Poll, ready},
};

use bytes::{Buf as _, Bytes, BytesMut};
use tokio::{io::AsyncWrite as _, net::TcpStream};

use super::ByteStream;

/// Pieces that go to TCP by one system call; each is about as long as a packet.
const MAX_PIECES: usize = 64;

/// Bytes that wait for TCP.
const MAX_WAITING: usize = 256 << 10;

/// Bytes that are taken from TCP by one system call.
const READ_LEN: usize = 64 << 10;

/// With less room than this, the next bytes from TCP get memory of their own.
const MIN_READ_LEN: usize = READ_LEN / 4;

/// What has gone through a splice, in bytes.
#[derive(Debug, Clone, Copy)]
pub struct SpliceCounters<'a> {
    /// To TCP.
    pub from_peer: &'a AtomicU64,
    /// From TCP.
    pub to_peer: &'a AtomicU64,
}

/// Carries bytes between a stream of the peer and a TCP connection, until both directions have
/// ended; one may go on after the other.
///
/// # Errors
///
/// That of whichever end broke first; what was on its way is lost then.
pub async fn splice(
    stream: &mut ByteStream,
    tcp: &mut TcpStream,
    counters: SpliceCounters<'_>,
) -> io::Result<()> {
    let (mut to_tcp, mut to_peer) = (ToTcp::default(), ToPeer::default());
    poll_fn(|context| {
        let to_tcp = to_tcp.poll(stream, tcp, counters.from_peer, context)?;
        let to_peer = to_peer.poll(stream, tcp, counters.to_peer, context)?;
        if to_tcp.is_ready() && to_peer.is_ready() {
            return Poll::Ready(Ok(()));
        }
        Poll::Pending
    })
    .await
}

/// From the peer to TCP.
#[derive(Default)]
struct ToTcp {
    pieces: VecDeque<Bytes>,
    /// How long they are together.
    waiting: usize,
    has_ended: bool,
    is_done: bool,
}

impl ToTcp {
    fn poll(
        &mut self,
        stream: &mut ByteStream,
        tcp: &mut TcpStream,
        count: &AtomicU64,
        context: &mut Context<'_>,
    ) -> Poll<io::Result<()>> {
        while !self.is_done {
            self.gather(stream, count, context)?;
            if !self.pieces.is_empty() {
                let written = ready!(self.poll_write(tcp, context))?;
                self.advance(written);
            } else if self.has_ended {
                ready!(Pin::new(&mut *tcp).poll_shutdown(context))?;
                self.is_done = true;
            } else {
                return Poll::Pending;
            }
        }
        Poll::Ready(Ok(()))
    }

    /// Takes what is there.
    fn gather(
        &mut self,
        stream: &mut ByteStream,
        count: &AtomicU64,
        context: &mut Context<'_>,
    ) -> io::Result<()> {
        while !self.has_ended && self.pieces.len() < MAX_PIECES && self.waiting < MAX_WAITING {
            let Poll::Ready(piece) = stream.poll_receive(context)? else { break };
            self.has_ended = piece.is_empty();
            if !piece.is_empty() {
                add(count, piece.len());
                self.waiting += piece.len();
                self.pieces.push_back(piece);
            }
        }
        Ok(())
    }

    fn poll_write(
        &self,
        tcp: &mut TcpStream,
        context: &mut Context<'_>,
    ) -> Poll<io::Result<usize>> {
        let mut slices = [IoSlice::new(&[]); MAX_PIECES];
        for (slice, piece) in slices.iter_mut().zip(&self.pieces) {
            *slice = IoSlice::new(piece);
        }
        let slices = slices.get(..self.pieces.len()).unwrap_or(&slices);
        Pin::new(tcp).poll_write_vectored(context, slices)
    }

    fn advance(&mut self, mut written: usize) {
        self.waiting = self.waiting.saturating_sub(written);
        while let Some(piece) = self.pieces.front_mut() {
            if written < piece.len() {
                piece.advance(written);
                return;
            }
            written -= piece.len();
            self.pieces.pop_front();
        }
    }
}

/// From TCP to the peer.
#[derive(Default)]
struct ToPeer {
    bytes: BytesMut,
    has_ended: bool,
    is_done: bool,
}

impl ToPeer {
    fn poll(
        &mut self,
        stream: &mut ByteStream,
        tcp: &TcpStream,
        count: &AtomicU64,
        context: &mut Context<'_>,
    ) -> Poll<io::Result<()>> {
        while !self.is_done {
            if !self.bytes.is_empty() {
                ready!(stream.poll_send(context, &mut self.bytes))?;
            } else if self.has_ended {
                ready!(Pin::new(&mut *stream).poll_shutdown(context))?;
                self.is_done = true;
            } else {
                let len = ready!(self.poll_read(tcp, context))?;
                add(count, len);
                self.has_ended = len == 0;
            }
        }
        Poll::Ready(Ok(()))
    }

    fn poll_read(&mut self, tcp: &TcpStream, context: &mut Context<'_>) -> Poll<io::Result<usize>> {
        loop {
            ready!(tcp.poll_read_ready(context))?;
            // Only now, so that a connection that is idle from the start holds none.
            if self.bytes.capacity() < MIN_READ_LEN {
                self.bytes.reserve(READ_LEN);
            }
            match tcp.try_read_buf(&mut self.bytes) {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                read => return Poll::Ready(read),
            }
        }
    }
}

fn add(count: &AtomicU64, len: usize) {
    count.fetch_add(u64::try_from(len).unwrap_or(u64::MAX), Ordering::Relaxed);
}
