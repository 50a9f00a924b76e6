//! The client's end of a connection.

use std::{net::SocketAddr, pin::pin};

use adit_proto::{ClientMessage, ConnectorMessage, Pin, http3::RequestHead};
use bytes::Bytes;
use h2::client::{self, SendRequest};
use rustls::pki_types::ServerName;
use tokio::{
    io::{AsyncRead, AsyncWrite},
    time::timeout,
};
use tokio_rustls::TlsConnector;
use tracing::debug;

use super::{
    ALPN, CONNECT_TIMEOUT, CONNECTION_WINDOW, Handle, Http2Error, Http2Stream, LINGER,
    MAX_FRAME_LEN, MAX_HEADER_LIST_LEN, SEND_BUFFER_LEN, STREAM_WINDOW,
    dial::dial,
    handle::{Shared, Status},
    head::{request_of, response_head},
    keepalive::peer_death,
};
use crate::{
    Answer, Body, HttpConnection, RequestError, SessionChannel, SessionError, identity::KeyPair,
    tls,
};

/// Opens a session channel to a connector, on a connection of its own.
///
/// # Errors
///
/// See [`SessionError`]. It takes 10 s at most.
pub async fn connect(
    endpoint: SocketAddr,
    pin: Pin,
    identity: &KeyPair,
) -> Result<SessionChannel<ClientMessage, ConnectorMessage>, SessionError> {
    let opened = timeout(CONNECT_TIMEOUT, async {
        let connected = Http2Connection::try_connect(endpoint, pin, identity).await;
        let connection = connected.map_err(RequestError::from)?;
        SessionChannel::open(HttpConnection::Http2(connection), endpoint).await
    });
    let timed_out = RequestError::from(Http2Error::TimedOut { endpoint });
    opened.await.unwrap_or(Err(timed_out.into()))
}

/// A connection to a connector over TCP.
///
/// It closes when this and all that came from it are dropped; what was handed over is sent before,
/// for a short while.
#[derive(Debug)]
pub struct Http2Connection {
    requests: SendRequest<Bytes>,
    handle: Handle,
}

impl Http2Connection {
    /// Connects to a connector.
    ///
    /// # Errors
    ///
    /// See [`Http2Error`]. It takes 10 s at most.
    pub async fn try_connect(
        endpoint: SocketAddr,
        pin: Pin,
        identity: &KeyPair,
    ) -> Result<Self, Http2Error> {
        timeout(CONNECT_TIMEOUT, Self::connect_unbounded(endpoint, pin, identity))
            .await
            .unwrap_or(Err(Http2Error::TimedOut { endpoint }))
    }

    async fn connect_unbounded(
        endpoint: SocketAddr,
        pin: Pin,
        identity: &KeyPair,
    ) -> Result<Self, Http2Error> {
        let unreachable = |source| Http2Error::Unreachable { endpoint, source };
        let tcp = dial(endpoint).await.map_err(unreachable)?;
        tcp.set_nodelay(true).map_err(unreachable)?;

        let connector = TlsConnector::from(tls::client_config(pin, Some(identity), &[ALPN]));
        let name = ServerName::from(endpoint.ip());
        let stream = connector.connect(name, tcp).await.map_err(|source| {
            if tls::is_pin_mismatch(&source) {
                Http2Error::PinMismatch { endpoint }
            } else {
                Http2Error::Tls { endpoint, source }
            }
        })?;

        Self::try_new(stream).await
    }

    /// Speaks HTTP/2 on what is connected.
    pub(crate) async fn try_new<T>(io: T) -> Result<Self, Http2Error>
    where
        T: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    {
        let (requests, connection) = client::Builder::new()
            .enable_push(false)
            .initial_window_size(STREAM_WINDOW)
            .initial_connection_window_size(CONNECTION_WINDOW)
            .max_frame_size(MAX_FRAME_LEN)
            .max_header_list_size(MAX_HEADER_LIST_LEN)
            .max_send_buffer_size(SEND_BUFFER_LEN)
            .handshake(io)
            .await
            .map_err(|source| Http2Error::Lost { source })?;
        let shared = Shared::default();
        let handle = shared.hold();
        tokio::spawn(run(connection, shared));
        Ok(Self { requests, handle })
    }

    /// Sends a request and waits for its answer.
    ///
    /// # Errors
    ///
    /// See [`Http2Error`]; an answer of any status is none.
    pub async fn request(&self, head: RequestHead) -> Result<Answer, Http2Error> {
        let request = request_of(&head)?;
        let handle = self.handle.shared().hold();
        let mut requests =
            self.requests.clone().ready().await.map_err(|error| handle.error(error))?;
        if head.protocol.is_some() {
            self.greeted().await?;
            if !requests.is_extended_connect_protocol_enabled() {
                return Err(Http2Error::NotOffered);
            }
        }
        let (response, sending) =
            requests.send_request(request, false).map_err(|error| handle.error(error))?;
        let response = response.await.map_err(|error| {
            if error.is_reset() && error.is_remote() {
                Http2Error::Reset { source: error }
            } else {
                handle.error(error)
            }
        })?;
        let head = response_head(&response)?;
        let stream = Http2Stream::new(Some(sending), response.into_body(), handle);
        Ok(Answer { head, body: Body::over_http2(stream) })
    }

    #[cfg(test)]
    pub(super) const fn handle(&self) -> &Handle {
        &self.handle
    }

    /// Waits until the peer has said what it can do.
    async fn greeted(&self) -> Result<(), Http2Error> {
        let mut seen = self.handle.shared().subscribe();
        let settled = |status: &Status| status.is_greeted || status.is_aborted;
        match seen.wait_for(settled).await {
            Ok(status) if status.is_greeted => Ok(()),
            Ok(_) | Err(_) => Err(self.handle.closed()),
        }
    }
}

async fn run<T>(mut connection: client::Connection<T, Bytes>, shared: Shared)
where
    T: AsyncRead + AsyncWrite + Unpin,
{
    let mut seen = shared.subscribe();
    let mut peer_death = pin!(peer_death(connection.ping_pong(), shared.clone()));
    let is_aborted = async {
        let ending = seen.wait_for(|status| status.is_aborted || status.handles == 0).await;
        ending.is_ok_and(|status| status.is_aborted)
    };
    tokio::select! {
        result = &mut connection => log_end(result),
        () = &mut peer_death => {}
        is_aborted = is_aborted => if !is_aborted {
            // It completes by itself, as no stream is left.
            log_end(timeout(LINGER, connection).await.unwrap_or(Ok(())));
        },
    }
    // Whoever waits for the peer's settings waits in vain.
    shared.update(|status| status.is_aborted = true);
}

fn log_end(result: Result<(), h2::Error>) {
    if let Err(error) = result {
        debug!(%error, "Connection ended");
    }
}
