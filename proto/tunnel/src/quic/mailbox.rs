//! How tasks and the thread that owns the connections speak to each other.

use std::{
    collections::VecDeque,
    sync::{Arc, Mutex, PoisonError},
    task::{Context, Poll, Wake},
};

use adit_proto::http3::{RequestHead, ResponseHead};
use bytes::Bytes;
use tokio::sync::{mpsc, oneshot};

use super::{
    QuicConnectionId, QuicStreamId,
    pipe::{Pipe, PipeEnd},
};
use crate::{Answer, Body, Waker};

/// Why a request over QUIC came to nothing.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum QuicError {
    /// The connector's certificate is of another key.
    #[error("the certificate does not match the pin")]
    PinMismatch,
    /// The connection did not come about, or broke.
    #[error("the QUIC connection was lost: {reason}")]
    Lost {
        /// What QUIC says.
        reason: String,
    },
    /// The peer broke HTTP/3, or does not offer what is needed.
    #[error("the peer does not speak HTTP/3 as is needed: {reason}")]
    Protocol {
        /// What is wrong.
        reason: String,
    },
    /// The peer broke the request off before it answered.
    #[error("the peer broke the request off")]
    Reset,
    /// The peer allows no more requests at one time.
    #[error("the peer takes no more requests for now")]
    TooManyRequests,
    /// This end has closed the connection.
    #[error("the QUIC connection is closed")]
    Closed,
}

/// Datagrams of one request (RFC 9297) that wait for their task; more are dropped.
const DATAGRAMS: usize = 256;

/// What tasks ask of the thread.
pub(super) enum Command {
    Respond { stream: QuicStreamId, head: ResponseHead, pipe: TaskPipe },
    Reject { stream: QuicStreamId },
    Request { connection: QuicConnectionId, head: RequestHead, reply: Reply },
    Datagram { stream: QuicStreamId, payload: Bytes },
    Admit { connection: QuicConnectionId },
    Close { connection: QuicConnectionId },
}

/// The other end of what a task holds of a stream.
pub(super) struct TaskPipe {
    pub(super) bytes: PipeEnd,
    pub(super) datagrams: mpsc::Sender<Bytes>,
}

pub(super) type Reply = oneshot::Sender<Result<Answered, QuicError>>;

/// A request that was answered.
pub(super) type Answered = (QuicStreamId, ResponseHead, Pipe, mpsc::Receiver<Bytes>);

/// What the thread finds when it is woken.
#[derive(Debug)]
pub(super) struct Mailbox {
    contents: Mutex<Contents>,
    waker: Waker,
}

#[derive(Default)]
struct Contents {
    /// As many as there are streams and connections, which are bounded, but for datagrams.
    commands: VecDeque<Command>,
    datagrams: usize,
    /// Streams whose pipes have moved.
    ready: Vec<QuicStreamId>,
}

impl std::fmt::Debug for Contents {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} commands, {} ready", self.commands.len(), self.ready.len())
    }
}

impl Mailbox {
    pub(super) fn new(waker: Waker) -> Arc<Self> {
        Arc::new(Self { contents: Mutex::default(), waker })
    }

    fn put(&self, change: impl FnOnce(&mut Contents)) {
        change(&mut self.contents.lock().unwrap_or_else(PoisonError::into_inner));
        self.waker.wake();
    }

    fn command(&self, command: Command) {
        self.put(|contents| contents.commands.push_back(command));
    }

    fn datagram(&self, stream: QuicStreamId, payload: Bytes) {
        /// Of all requests together; each is a kilobyte or so.
        const MAX_DATAGRAMS: usize = 4096;

        self.put(|contents| {
            if contents.datagrams < MAX_DATAGRAMS {
                contents.datagrams += 1;
                contents.commands.push_back(Command::Datagram { stream, payload });
            }
        });
    }

    /// Everything that has come.
    pub(super) fn take(&self) -> (VecDeque<Command>, Vec<QuicStreamId>) {
        let mut contents = self.contents.lock().unwrap_or_else(PoisonError::into_inner);
        let Contents { commands, ready, .. } = std::mem::take(&mut *contents);
        (commands, ready)
    }
}

/// Wakes the thread for one stream.
pub(super) struct PipeWaker {
    pub(super) stream: QuicStreamId,
    pub(super) mailbox: Arc<Mailbox>,
}

impl Wake for PipeWaker {
    fn wake(self: Arc<Self>) {
        self.mailbox.put(|contents| contents.ready.push(self.stream));
    }
}

fn pipe() -> (Pipe, mpsc::Receiver<Bytes>, TaskPipe) {
    let (stream, bytes) = Pipe::new();
    let (datagrams, receiver) = mpsc::channel(DATAGRAMS);
    (stream, receiver, TaskPipe { bytes, datagrams })
}

/// Both ends of a pipe for a request of our own.
pub(super) fn answered(stream: QuicStreamId, head: ResponseHead) -> (Answered, TaskPipe) {
    let (bytes, datagrams, pipe) = pipe();
    ((stream, head, bytes, datagrams), pipe)
}

/// A connection, for those who hold one of its streams.
#[derive(Debug, Clone)]
pub(crate) struct QuicHandle {
    connection: QuicConnectionId,
    mailbox: Arc<Mailbox>,
}

impl QuicHandle {
    fn new(stream: QuicStreamId, mailbox: &Arc<Mailbox>) -> Self {
        Self { connection: stream.connection(), mailbox: Arc::clone(mailbox) }
    }

    /// Lets the peer have more of our memory than a stranger.
    pub(crate) fn admit(&self) {
        self.mailbox.command(Command::Admit { connection: self.connection });
    }

    /// Closes the connection without sending what it still holds.
    pub(crate) fn abort(&self) {
        self.mailbox.command(Command::Close { connection: self.connection });
    }
}

/// Datagrams of one request, both ways (RFC 9297 §2), which are lost where there is no room.
#[derive(Debug)]
pub(crate) struct RequestDatagrams {
    stream: QuicStreamId,
    receiver: mpsc::Receiver<Bytes>,
    mailbox: Arc<Mailbox>,
}

impl RequestDatagrams {
    pub(crate) const fn stream(&self) -> QuicStreamId {
        self.stream
    }

    pub(crate) fn handle(&self) -> QuicHandle {
        QuicHandle::new(self.stream, &self.mailbox)
    }

    /// The next one; none when the request has ended.
    pub(crate) fn poll_next(&mut self, context: &mut Context<'_>) -> Poll<Option<Bytes>> {
        self.receiver.poll_recv(context)
    }

    /// Sends one, if there is room and it is not too long.
    pub(crate) fn send(&self, payload: Bytes) {
        self.mailbox.datagram(self.stream, payload);
    }
}

/// Where the answer to a request goes.
#[derive(Debug)]
pub(crate) struct QuicResponder {
    stream: QuicStreamId,
    mailbox: Arc<Mailbox>,
    is_answered: bool,
}

impl QuicResponder {
    pub(super) const fn new(stream: QuicStreamId, mailbox: Arc<Mailbox>) -> Self {
        Self { stream, mailbox, is_answered: false }
    }

    pub(crate) const fn stream(&self) -> QuicStreamId {
        self.stream
    }

    pub(crate) fn handle(&self) -> QuicHandle {
        QuicHandle::new(self.stream, &self.mailbox)
    }

    pub(crate) fn respond(mut self, head: ResponseHead) -> Body {
        self.is_answered = true;
        let (bytes, receiver, pipe) = pipe();
        let (stream, mailbox) = (self.stream, Arc::clone(&self.mailbox));
        mailbox.command(Command::Respond { stream, head, pipe });
        Body::over_quic(bytes, RequestDatagrams { stream, receiver, mailbox })
    }
}

impl Drop for QuicResponder {
    fn drop(&mut self) {
        if !self.is_answered {
            self.mailbox.command(Command::Reject { stream: self.stream });
        }
    }
}

/// A connection to a connector. It closes when this is dropped.
#[derive(Debug)]
pub struct QuicConnection {
    id: QuicConnectionId,
    mailbox: Arc<Mailbox>,
}

impl QuicConnection {
    pub(super) const fn new(id: QuicConnectionId, mailbox: Arc<Mailbox>) -> Self {
        Self { id, mailbox }
    }

    /// Which one.
    pub const fn id(&self) -> QuicConnectionId {
        self.id
    }

    /// Sends a request and waits for its answer.
    ///
    /// # Errors
    ///
    /// [`QuicError`]; an answer of any status is none.
    pub async fn request(&self, head: RequestHead) -> Result<Answer, QuicError> {
        let (reply, answer) = oneshot::channel();
        self.mailbox.command(Command::Request { connection: self.id, head, reply });
        let (stream, head, bytes, receiver) = answer.await.unwrap_or(Err(QuicError::Closed))?;
        let mailbox = Arc::clone(&self.mailbox);
        let body = Body::over_quic(bytes, RequestDatagrams { stream, receiver, mailbox });
        Ok(Answer { head, body })
    }
}

impl Drop for QuicConnection {
    fn drop(&mut self) {
        self.mailbox.command(Command::Close { connection: self.id });
    }
}
