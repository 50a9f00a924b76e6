//! The session channel between client and connector: one stream of an HTTP/2 connection, a line of
//! JSON for each message.

mod line;
#[cfg(test)]
mod tests;

use std::{future::poll_fn, marker::PhantomData, sync::Arc, time::Duration};

use adit_proto::MAX_SESSION_LINE_LEN;
use bytes::Bytes;
use h2::{Reason, RecvStream, SendStream};
use http::StatusCode;
use serde::{Serialize, de::DeserializeOwned};
use tokio::time::timeout;

use self::line::LineBuffer;
use crate::{Http2Error, http2::Handle};

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
    stream: SendStream<Bytes>,
    unsent: Bytes,
    handle: Arc<Handle>,
    message: PhantomData<fn(Out)>,
}

/// The direction towards this process.
pub struct SessionReceiver<In> {
    stream: RecvStream,
    lines: LineBuffer,
    has_ended: bool,
    handle: Arc<Handle>,
    message: PhantomData<fn() -> In>,
}

/// Why there is no session channel, or no longer.
#[derive(Debug, thiserror::Error)]
pub enum SessionError {
    /// There is no connection, or no longer.
    #[error(transparent)]
    Connection(#[from] Http2Error),
    /// The peer speaks HTTP/2, but opens no session.
    #[error("the peer opens no session: it answered {status}")]
    Refused {
        /// The answer's.
        status: StatusCode,
    },
    /// The peer answers pings, but takes no messages.
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

impl<Out, In> SessionChannel<Out, In> {
    pub(crate) fn new(sending: SendStream<Bytes>, receiving: RecvStream, handle: Handle) -> Self {
        let handle = Arc::new(handle);
        Self {
            sender: SessionSender {
                stream: sending,
                unsent: Bytes::new(),
                handle: Arc::clone(&handle),
                message: PhantomData,
            },
            receiver: SessionReceiver {
                stream: receiving,
                lines: LineBuffer::default(),
                has_ended: false,
                handle,
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
        self.handle.admit();
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
            self.unsent = Bytes::from(line);
            self.flush().await
        });
        let Ok(result) = sent.await else {
            self.handle.abort();
            return Err(SessionError::Stalled);
        };
        result
    }

    async fn flush(&mut self) -> Result<(), SessionError> {
        while !self.unsent.is_empty() {
            self.stream.reserve_capacity(self.unsent.len());
            // Capacity that is there already is not announced again.
            if self.stream.capacity() == 0 {
                match poll_fn(|context| self.stream.poll_capacity(context)).await {
                    Some(Ok(_capacity)) => continue,
                    Some(Err(error)) => return Err(self.handle.error(error).into()),
                    None => return Err(self.handle.closed().into()),
                }
            }
            let len = self.stream.capacity().min(self.unsent.len());
            let chunk = self.unsent.split_to(len);
            self.stream.send_data(chunk, false).map_err(|error| self.handle.error(error))?;
        }
        Ok(())
    }
}

impl<Out> Drop for SessionSender<Out> {
    fn drop(&mut self) {
        if self.unsent.is_empty() {
            // Fails only when the direction has ended already.
            let _ignored = self.stream.send_data(Bytes::new(), true);
        } else {
            self.stream.send_reset(Reason::CANCEL);
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
            self.handle.abort();
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
            match poll_fn(|context| self.stream.poll_data(context)).await {
                Some(Ok(data)) => {
                    self.lines.extend(&data);
                    self.stream
                        .flow_control()
                        .release_capacity(data.len())
                        .map_err(|error| self.handle.error(error))?;
                }
                Some(Err(error)) => {
                    let error = self.handle.error(error);
                    let is_closed = matches!(error, Http2Error::Closed);
                    return if is_closed { Ok(None) } else { Err(error.into()) };
                }
                None if self.lines.is_empty() => return Ok(None),
                None => return Err(SessionError::Malformed),
            }
        }
    }
}
