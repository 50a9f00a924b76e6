//! The session channel between client and connector: TLS with pins both ways, one HTTP/2 stream,
//! a line of JSON for each message.

mod connection;
mod line;
mod listener;
#[cfg(test)]
mod tests;

use std::{future::poll_fn, marker::PhantomData, net::SocketAddr, sync::Arc, time::Duration};

use adit_proto::{ClientMessage, ConnectorMessage, MAX_SESSION_LINE_LEN, Pin};
use bytes::Bytes;
use h2::{Reason, RecvStream, SendStream};
use http::StatusCode;
use rustls::pki_types::ServerName;
use serde::{Serialize, de::DeserializeOwned};
use tokio::{net::TcpStream, time::timeout};
use tokio_rustls::TlsConnector;

use self::{connection::Handle, line::LineBuffer};
use crate::{identity::KeyPair, tls};

pub use self::listener::{IncomingSession, SessionListener};

/// Both directions of a session channel.
///
/// Dropping it sends what was handed over, for a short while, and closes the connection.
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
    /// No TCP connection came about.
    #[error("cannot reach {endpoint}")]
    Unreachable {
        /// The connector's.
        endpoint: SocketAddr,
        /// What the operating system says.
        source: std::io::Error,
    },
    /// The connector did not open a session in time.
    #[error("{endpoint} did not answer within {} s", CONNECT_TIMEOUT.as_secs())]
    TimedOut {
        /// The connector's.
        endpoint: SocketAddr,
    },
    /// Whoever answers is not the connector that was sought.
    #[error("certificate of {endpoint} does not match the pin")]
    PinMismatch {
        /// The connector's.
        endpoint: SocketAddr,
    },
    /// The TLS handshake failed otherwise.
    #[error("no TLS connection to {endpoint}")]
    Tls {
        /// The connector's.
        endpoint: SocketAddr,
        /// What TLS says.
        source: std::io::Error,
    },
    /// The peer speaks HTTP/2, but opens no session.
    #[error("the peer opens no session: it answered {status}")]
    Refused {
        /// The answer's.
        status: StatusCode,
    },
    /// The connection broke.
    #[error("the session's connection was lost")]
    Lost {
        /// What HTTP/2 says.
        source: h2::Error,
    },
    /// The peer answered no more pings.
    #[error("the peer answers no longer")]
    Unresponsive,
    /// The peer answers pings, but takes no messages.
    #[error("the peer took no message for {} s", SEND_TIMEOUT.as_secs())]
    Stalled,
    /// A message is longer than both sides have agreed.
    #[error("a message is longer than {MAX_SESSION_LINE_LEN} bytes")]
    LineTooLong,
    /// A line is no message.
    #[error("a line is not a message that this version understands")]
    Malformed,
    /// One of both sides has closed the channel.
    #[error("the session channel is closed")]
    Closed,
}

/// How long a client tries to open a session.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);

/// How long a message may wait for a peer that does not read.
const SEND_TIMEOUT: Duration = Duration::from_secs(15);

/// The only protocol of the session port.
const ALPN: &[u8] = b"h2";

/// Opens a session channel to a connector.
///
/// # Errors
///
/// See [`SessionError`]. It takes 10 s at most.
pub async fn connect(
    endpoint: SocketAddr,
    pin: Pin,
    identity: &KeyPair,
) -> Result<SessionChannel<ClientMessage, ConnectorMessage>, SessionError> {
    timeout(CONNECT_TIMEOUT, connect_unbounded(endpoint, pin, identity))
        .await
        .unwrap_or(Err(SessionError::TimedOut { endpoint }))
}

async fn connect_unbounded(
    endpoint: SocketAddr,
    pin: Pin,
    identity: &KeyPair,
) -> Result<SessionChannel<ClientMessage, ConnectorMessage>, SessionError> {
    let unreachable = |source| SessionError::Unreachable { endpoint, source };
    let tcp = TcpStream::connect(endpoint).await.map_err(unreachable)?;
    tcp.set_nodelay(true).map_err(unreachable)?;

    let connector = TlsConnector::from(tls::client_config(pin, Some(identity), &[ALPN]));
    let name = ServerName::from(endpoint.ip());
    let stream = connector.connect(name, tcp).await.map_err(|source| {
        if tls::is_pin_mismatch(&source) {
            SessionError::PinMismatch { endpoint }
        } else {
            SessionError::Tls { endpoint, source }
        }
    })?;

    connection::open(stream, endpoint).await
}

impl<Out, In> SessionChannel<Out, In> {
    fn new(sending: SendStream<Bytes>, receiving: RecvStream, handle: Handle) -> Self {
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
                    Some(Err(error)) => return Err(self.handle.error(error)),
                    None => return Err(self.handle.closed()),
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
                    return if matches!(error, SessionError::Closed) {
                        Ok(None)
                    } else {
                        Err(error)
                    };
                }
                None if self.lines.is_empty() => return Ok(None),
                None => return Err(SessionError::Malformed),
            }
        }
    }
}
