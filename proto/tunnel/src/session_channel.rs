//! The session channel between client and connector: one request, over HTTP/2 or HTTP/3, whose bodies
//! hold a line of JSON for each message.

mod line;
mod shared_stream;
#[cfg(test)]
mod tests;

use std::{future::poll_fn, io, marker::PhantomData, net::SocketAddr, sync::Arc, time::Duration};

use adit_proto::{
    ClientMessage, ConnectorMessage, MAX_SESSION_LINE_LEN, SESSION_PATH,
    http3::{Field, RequestHead},
};
use bytes::BytesMut;
use serde::{Serialize, de::DeserializeOwned};
use tokio::time::timeout;

use self::{line::LineBuffer, shared_stream::SharedStream};
use crate::{Body, Http2Error, HttpConnection, RequestError};

/// Both directions of a session channel.
///
/// Dropping it sends what was handed over, for a short while, and closes the connection unless other
/// streams need it.
pub struct SessionChannel<Out, In> {
    sender: SessionSender<Out>,
    receiver: SessionReceiver<In>,
}

/// The direction away from this process. Dropping it ends the direction.
pub struct SessionSender<Out> {
    stream: Arc<SharedStream>,
    unsent: BytesMut,
    message: PhantomData<fn(Out)>,
}

/// The direction towards this process.
pub struct SessionReceiver<In> {
    stream: Arc<SharedStream>,
    lines: LineBuffer,
    has_ended: bool,
    message: PhantomData<fn() -> In>,
}

/// Why there is no session channel, or no longer.
#[derive(Debug, thiserror::Error)]
pub enum SessionError {
    /// There is no connection, or no longer.
    #[error(transparent)]
    Connection(#[from] RequestError),
    /// The peer speaks HTTP, but opens no session.
    #[error("the peer opens no session: it answered {status}")]
    Refused {
        /// The answer's.
        status: u16,
    },
    /// The stream was broken off.
    #[error("the session was broken off")]
    Broken {
        /// What is known of it.
        source: io::Error,
    },
    /// The peer is there, but takes no messages.
    #[error("the peer took no message for {} s", SEND_TIMEOUT.as_secs())]
    Stalled,
    /// A message is longer than both sides have agreed.
    #[error("a message is longer than {MAX_SESSION_LINE_LEN} bytes")]
    LineTooLong,
    /// A line is no message.
    #[error("a line is not a message that this version understands")]
    Malformed,
}

/// How long a message may wait for a peer that does not read.
const SEND_TIMEOUT: Duration = Duration::from_secs(15);

impl SessionChannel<ClientMessage, ConnectorMessage> {
    /// Opens a session with the connector at this endpoint. The connection has one at most, and
    /// closes with it.
    ///
    /// # Errors
    ///
    /// See [`SessionError`].
    pub async fn open(
        connection: HttpConnection,
        endpoint: SocketAddr,
    ) -> Result<Self, SessionError> {
        let answer = connection.request(session_head(endpoint)).await?;
        if answer.head.status != 200 {
            return Err(SessionError::Refused { status: answer.head.status });
        }
        Ok(Self::new(answer.body, Some(connection)))
    }
}

impl<Out, In> SessionChannel<Out, In> {
    /// `own`: what is to be closed with the session.
    pub(crate) fn new(body: Body, own: Option<HttpConnection>) -> Self {
        let stream = Arc::new(SharedStream::new(body, own));
        Self {
            sender: SessionSender {
                stream: Arc::clone(&stream),
                unsent: BytesMut::new(),
                message: PhantomData,
            },
            receiver: SessionReceiver {
                stream,
                lines: LineBuffer::default(),
                has_ended: false,
                message: PhantomData,
            },
        }
    }

    /// The two directions, for two tasks. The connection closes when both are dropped.
    pub fn split(self) -> (SessionSender<Out>, SessionReceiver<In>) {
        (self.sender, self.receiver)
    }
}

impl<Out> SessionSender<Out> {
    /// Lets the client have more of the connector's memory than a stranger.
    pub fn admit(&self) {
        self.stream.connection().admit();
    }
}

impl<Out: Serialize> SessionSender<Out> {
    /// Hands a message to the connection, waiting for a peer that does not read.
    ///
    /// # Errors
    ///
    /// See [`SessionError`]; after any but [`SessionError::LineTooLong`] the channel is of no more
    /// use.
    ///
    /// # Cancel safety
    ///
    /// A message whose sending is cancelled is sent wholly before the next one, or not at all.
    pub async fn send(&mut self, message: &Out) -> Result<(), SessionError> {
        let mut line = serde_json::to_vec(message).map_err(|_error| SessionError::Malformed)?;
        line.push(b'\n');
        if line.len() > MAX_SESSION_LINE_LEN {
            return Err(SessionError::LineTooLong);
        }
        let sent = timeout(SEND_TIMEOUT, async {
            self.flush().await?;
            self.unsent.extend_from_slice(&line);
            self.flush().await
        });
        let Ok(result) = sent.await else {
            self.stream.connection().abort();
            return Err(SessionError::Stalled);
        };
        result
    }

    async fn flush(&mut self) -> Result<(), SessionError> {
        while !self.unsent.is_empty() {
            poll_fn(|context| self.stream.poll_send(context, &mut self.unsent)).await?;
        }
        Ok(())
    }
}

impl<Out> Drop for SessionSender<Out> {
    fn drop(&mut self) {
        if self.unsent.is_empty() {
            self.stream.end();
        } else {
            self.stream.break_off();
        }
    }
}

impl<In: DeserializeOwned> SessionReceiver<In> {
    /// The next message; `None` when the peer has ended its direction.
    ///
    /// # Errors
    ///
    /// See [`SessionError`]. An error closes the connection; `None` follows it.
    ///
    /// # Cancel safety
    ///
    /// No message is lost when the future is dropped.
    pub async fn next(&mut self) -> Option<Result<In, SessionError>> {
        if self.has_ended {
            return None;
        }
        let result = self.next_message().await;
        if !matches!(result, Ok(Some(_))) {
            self.has_ended = true;
        }
        if result.is_err() {
            self.stream.connection().abort();
        }
        result.transpose()
    }

    async fn next_message(&mut self) -> Result<Option<In>, SessionError> {
        loop {
            if let Some(line) = self.lines.next_line()? {
                let message =
                    serde_json::from_slice(&line).map_err(|_error| SessionError::Malformed)?;
                return Ok(Some(message));
            }
            match poll_fn(|context| self.stream.poll_receive(context)).await {
                Ok(bytes) if !bytes.is_empty() => self.lines.extend(&bytes),
                Ok(_end) if self.lines.is_empty() => return Ok(None),
                Ok(_end) => return Err(SessionError::Malformed),
                Err(error) => {
                    let error = SessionError::from(error);
                    return if error.is_orderly() { Ok(None) } else { Err(error) };
                }
            }
        }
    }
}

impl SessionError {
    /// Whether the peer merely needs the session no longer.
    const fn is_orderly(&self) -> bool {
        matches!(self, Self::Connection(RequestError::Http2(Http2Error::Closed)))
    }
}

impl From<io::Error> for SessionError {
    fn from(error: io::Error) -> Self {
        match error.downcast::<Http2Error>() {
            Ok(error) => Self::Connection(error.into()),
            Err(source) => Self::Broken { source },
        }
    }
}

/// Whether a request is for a session.
pub(crate) fn is_session(head: &RequestHead) -> bool {
    head.method == "POST" && head.path.as_deref() == Some(SESSION_PATH)
}

/// What a client asks for a session with.
pub(crate) fn session_head(endpoint: SocketAddr) -> RequestHead {
    // Without the scope of a link-local address, which has no place in a URI.
    let authority = SocketAddr::new(endpoint.ip(), endpoint.port());
    RequestHead {
        method: "POST".to_owned(),
        protocol: None,
        scheme: Some("https".to_owned()),
        authority: Some(authority.to_string()),
        path: Some(SESSION_PATH.to_owned()),
        headers: vec![Field::new("content-type", "application/x-ndjson")],
    }
}
