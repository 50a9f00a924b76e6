//! The HTTP/2 connection under a session: one task owns it, keeps it going and finds out when the
//! peer is dead.

use std::{
    future::{pending, poll_fn},
    net::SocketAddr,
    pin::pin,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use adit_proto::{ClientMessage, ConnectorMessage, SESSION_PATH};
use bytes::Bytes;
use h2::{Ping, PingPong, Reason, client, server};
use http::{Method, Request, Response, StatusCode, header::CONTENT_TYPE};
use tokio::{
    io::{AsyncRead, AsyncWrite},
    sync::watch,
    time::{sleep, timeout},
};
use tracing::debug;

use super::{SessionChannel, SessionError};

/// The pause between a pong and the next ping.
const PING_INTERVAL: Duration = Duration::from_secs(5);

/// How long a pong may take. With [`PING_INTERVAL`] a dead peer is noticed within 13 s.
const PONG_TIMEOUT: Duration = Duration::from_secs(8);

/// How long a connection that was let go may take to send what it still holds.
const LINGER: Duration = Duration::from_secs(2);

/// Receive window of a stream, in bytes: two messages of the greatest length.
const STREAM_WINDOW: u32 = 128 << 10;

/// Receive window of a connection, in bytes.
const CONNECTION_WINDOW: u32 = 256 << 10;

/// Bytes that wait to be sent, per stream.
const SEND_BUFFER_LEN: usize = 128 << 10;

/// Longest header block, in bytes; the session's request has five short lines.
const MAX_HEADER_LIST_LEN: u32 = 8 << 10;

/// Opens a session on a connection to a connector.
pub(super) async fn open<T>(
    io: T,
    endpoint: SocketAddr,
) -> Result<SessionChannel<ClientMessage, ConnectorMessage>, SessionError>
where
    T: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let lost = |source| SessionError::Lost { source };
    let (requests, connection) = client::Builder::new()
        .enable_push(false)
        .initial_window_size(STREAM_WINDOW)
        .initial_connection_window_size(CONNECTION_WINDOW)
        .max_header_list_size(MAX_HEADER_LIST_LEN)
        .max_send_buffer_size(SEND_BUFFER_LEN)
        .handshake(io)
        .await
        .map_err(lost)?;
    let (handle, control) = Handle::new();
    tokio::spawn(run_client(connection, control));

    let mut requests = requests.ready().await.map_err(|error| handle.error(error))?;
    let (response, sending) =
        requests.send_request(request(endpoint), false).map_err(|error| handle.error(error))?;
    let response = response.await.map_err(|error| handle.error(error))?;
    if response.status() != StatusCode::OK {
        return Err(SessionError::Refused { status: response.status() });
    }
    Ok(SessionChannel::new(sending, response.into_body(), handle))
}

fn request(endpoint: SocketAddr) -> Request<()> {
    // Without the scope of a link-local address, which has no place in a URI.
    let authority = SocketAddr::new(endpoint.ip(), endpoint.port());
    Request::post(format!("https://{authority}{SESSION_PATH}"))
        .header(CONTENT_TYPE, "application/x-ndjson")
        .body(())
        .expect("an address and a constant path are a URI")
}

/// Accepts a session on a connection from a client.
pub(super) async fn accept<T>(
    io: T,
) -> Result<SessionChannel<ConnectorMessage, ClientMessage>, SessionError>
where
    T: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let lost = |source| SessionError::Lost { source };
    let mut connection = server::Builder::new()
        .max_concurrent_streams(1)
        .max_concurrent_reset_streams(4)
        .initial_window_size(STREAM_WINDOW)
        .initial_connection_window_size(CONNECTION_WINDOW)
        .max_header_list_size(MAX_HEADER_LIST_LEN)
        .max_send_buffer_size(SEND_BUFFER_LEN)
        .handshake(io)
        .await
        .map_err(lost)?;
    let (request, mut respond) =
        connection.accept().await.ok_or(SessionError::Closed)?.map_err(lost)?;

    if request.method() != Method::POST || request.uri().path() != SESSION_PATH {
        let status = StatusCode::NOT_FOUND;
        respond.send_response(answer(status), true).map_err(lost)?;
        drop((request, respond));
        close(connection).await;
        return Err(SessionError::Refused { status });
    }
    let sending = respond.send_response(answer(StatusCode::OK), false).map_err(lost)?;
    let (handle, control) = Handle::new();
    tokio::spawn(run_server(connection, control));
    Ok(SessionChannel::new(sending, request.into_body(), handle))
}

fn answer(status: StatusCode) -> Response<()> {
    let mut response = Response::new(());
    *response.status_mut() = status;
    response
}

/// What both halves of a channel hold of the task that runs their connection.
pub(super) struct Handle {
    abort: watch::Sender<bool>,
    is_unresponsive: Arc<AtomicBool>,
}

/// The task's end of a [`Handle`].
struct Control {
    abort: watch::Receiver<bool>,
    is_unresponsive: Arc<AtomicBool>,
}

impl Handle {
    fn new() -> (Self, Control) {
        let (sender, receiver) = watch::channel(false);
        let is_unresponsive = Arc::new(AtomicBool::new(false));
        let control = Control { abort: receiver, is_unresponsive: Arc::clone(&is_unresponsive) };
        (Self { abort: sender, is_unresponsive }, control)
    }

    /// Closes the connection without sending what it still holds.
    pub(super) fn abort(&self) {
        self.abort.send_replace(true);
    }

    /// Why a stream failed.
    pub(super) fn error(&self, error: h2::Error) -> SessionError {
        if is_orderly(&error) || self.is_unresponsive() {
            return self.closed();
        }
        SessionError::Lost { source: error }
    }

    /// Why a stream has ended.
    pub(super) fn closed(&self) -> SessionError {
        if self.is_unresponsive() { SessionError::Unresponsive } else { SessionError::Closed }
    }

    fn is_unresponsive(&self) -> bool {
        self.is_unresponsive.load(Ordering::Relaxed)
    }
}

/// Whether this is how a peer says that it needs the stream no longer.
fn is_orderly(error: &h2::Error) -> bool {
    matches!(error.reason(), Some(Reason::NO_ERROR | Reason::CANCEL)) && error.is_remote()
}

enum Ending {
    /// Both halves were dropped.
    Drain,
    Abort,
}

impl Control {
    async fn ending(&mut self) -> Ending {
        match self.abort.wait_for(|&abort| abort).await {
            Ok(_abort) => Ending::Abort,
            Err(_dropped) => Ending::Drain,
        }
    }

    fn give_up(&self) {
        self.is_unresponsive.store(true, Ordering::Relaxed);
    }
}

async fn run_client<T>(mut connection: client::Connection<T, Bytes>, mut control: Control)
where
    T: AsyncRead + AsyncWrite + Unpin,
{
    let pings = connection.ping_pong();
    tokio::select! {
        result = &mut connection => log_end(result),
        () = peer_death(pings) => control.give_up(),
        ending = control.ending() => match ending {
            // It completes by itself, as no stream is left.
            Ending::Drain => log_end(timeout(LINGER, connection).await.unwrap_or(Ok(()))),
            Ending::Abort => {}
        },
    }
}

async fn run_server<T>(mut connection: server::Connection<T, Bytes>, mut control: Control)
where
    T: AsyncRead + AsyncWrite + Unpin,
{
    let mut peer_death = pin!(peer_death(connection.ping_pong()));
    loop {
        tokio::select! {
            request = connection.accept() => match request {
                Some(Ok((_request, mut respond))) => respond.send_reset(Reason::REFUSED_STREAM),
                Some(Err(error)) => return log_end(Err(error)),
                None => return,
            },
            () = &mut peer_death => return control.give_up(),
            ending = control.ending() => return match ending {
                Ending::Drain => close(connection).await,
                Ending::Abort => {}
            },
        }
    }
}

async fn close<T>(mut connection: server::Connection<T, Bytes>)
where
    T: AsyncRead + AsyncWrite + Unpin,
{
    connection.graceful_shutdown();
    let closed = timeout(LINGER, poll_fn(|context| connection.poll_closed(context)));
    log_end(closed.await.unwrap_or(Ok(())));
}

/// Completes when a ping was not answered in time.
async fn peer_death(pings: Option<PingPong>) {
    let Some(mut pings) = pings else { return pending().await };
    loop {
        sleep(PING_INTERVAL).await;
        match timeout(PONG_TIMEOUT, pings.ping(Ping::opaque())).await {
            Ok(Ok(_pong)) => {}
            // The connection has failed, as whoever polls it finds out.
            Ok(Err(_error)) => return pending().await,
            Err(_elapsed) => return,
        }
    }
}

fn log_end(result: Result<(), h2::Error>) {
    if let Err(error) = result {
        debug!(%error, "Session connection ended");
    }
}
