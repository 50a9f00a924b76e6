//! The connector's end of a connection.

use std::{
    future::{Future, pending},
    net::SocketAddr,
    pin::Pin,
    time::Duration,
};

use adit_proto::{OBSERVED_ADDRESS_PATH, Pin as KeyPin};
use bytes::Bytes;
use h2::{
    Reason, RecvStream,
    server::{self, SendResponse},
};
use http::{Request, Response, StatusCode};
use tokio::{
    io::{AsyncRead, AsyncWrite},
    sync::{mpsc, watch},
    time::sleep,
};
use tracing::debug;

use super::{
    CONNECTION_WINDOW, Http2Error, Http2Responder, LINGER, MAX_FRAME_LEN, MAX_HEADER_LIST_LEN,
    SEND_BUFFER_LEN, STREAM_WINDOW,
    handle::{Shared, Status},
    head::request_head,
    keepalive::peer_death,
};
use crate::{IncomingRequest, session_channel::is_session};

/// Receive window of a stranger's stream, in bytes: two messages of the greatest length.
const STRANGERS_STREAM_WINDOW: u32 = 128 << 10;

/// Receive window of a stranger's connection, in bytes.
const STRANGERS_CONNECTION_WINDOW: u32 = 256 << 10;

/// Streams at one time of a stranger.
const STRANGERS_STREAMS: usize = 4;

/// Streams at one time of one who is admitted. It is said at the start, as HTTP/2 has no way to
/// let a peer know of more that could be relied on.
const MAX_STREAMS: u32 = 1024;

/// Streams that were reset and of which frames may still be under way.
const MAX_RESET_STREAMS: usize = 32;

/// How long a connection of one who is admitted may have no streams.
pub(super) const IDLE_TIMEOUT: Duration = Duration::from_secs(60);

/// Who is at the other end.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Peer {
    pub(crate) pin: KeyPin,
    pub(crate) remote: SocketAddr,
}

/// A connection of a client. Dropping it breaks its streams off.
pub(crate) struct Server<T> {
    connection: server::Connection<T, Bytes>,
    peer: Peer,
    incoming: mpsc::Sender<IncomingRequest>,
    shared: Shared,
    changes: watch::Receiver<Status>,
    peer_death: Pin<Box<dyn Future<Output = ()> + Send>>,
    is_wide: bool,
    is_closing: bool,
}

/// Whether a connection goes on.
#[derive(PartialEq, Eq)]
enum Next {
    GoOn,
    End,
}

impl<T: AsyncRead + AsyncWrite + Unpin> Server<T> {
    /// Speaks HTTP/2 on what is connected. Requests go into the queue.
    pub(crate) async fn try_new(
        io: T,
        peer: Peer,
        incoming: mpsc::Sender<IncomingRequest>,
    ) -> Result<Self, Http2Error> {
        let mut connection = server::Builder::new()
            .enable_connect_protocol()
            .max_concurrent_streams(MAX_STREAMS)
            .max_concurrent_reset_streams(MAX_RESET_STREAMS)
            .initial_window_size(STRANGERS_STREAM_WINDOW)
            .initial_connection_window_size(STRANGERS_CONNECTION_WINDOW)
            .max_frame_size(MAX_FRAME_LEN)
            .max_header_list_size(MAX_HEADER_LIST_LEN)
            .max_send_buffer_size(SEND_BUFFER_LEN)
            .handshake(io)
            .await
            .map_err(|source| Http2Error::Lost { source })?;
        let shared = Shared::default();
        let peer_death = Box::pin(peer_death(connection.ping_pong(), shared.clone()));
        Ok(Self {
            connection,
            peer,
            incoming,
            changes: shared.subscribe(),
            shared,
            peer_death,
            is_wide: false,
            is_closing: false,
        })
    }

    /// Serves until the client has a session or is admitted by a request. From then on others bound
    /// how long it may stay.
    ///
    /// # Errors
    ///
    /// When the connection ends before.
    pub(crate) async fn settle(&mut self) -> Result<(), Http2Error> {
        loop {
            let status = self.shared.status();
            if status.has_session || status.is_admitted {
                return Ok(());
            }
            if self.turn().await == Next::End {
                return Err(Http2Error::Closed);
            }
        }
    }

    /// Serves until the end of the connection.
    pub(crate) async fn run(mut self) {
        while self.turn().await == Next::GoOn {}
    }

    async fn turn(&mut self) -> Next {
        let status = *self.changes.borrow_and_update();
        if status.is_aborted {
            return Next::End;
        }
        // Once greeted, the client has acknowledged the settings of the start.
        if status.is_admitted && status.is_greeted {
            self.widen();
        }
        if status.is_ending {
            self.close();
        }
        let limit = if self.is_closing { LINGER } else { IDLE_TIMEOUT };
        let idle = async {
            match status.handles {
                0 => sleep(limit).await,
                _ => pending().await,
            }
        };
        tokio::select! {
            accepted = self.connection.accept() => match accepted {
                Some(Ok((request, respond))) => self.handle(request, respond).await,
                Some(Err(error)) => {
                    debug!(%error, "Connection ended");
                    return Next::End;
                }
                None => return Next::End,
            },
            () = &mut self.peer_death => return Next::End,
            Ok(()) = self.changes.changed() => {}
            () = idle => {
                if self.is_closing {
                    return Next::End;
                }
                self.close();
            }
        }
        Next::GoOn
    }

    async fn handle(&mut self, request: Request<RecvStream>, mut respond: SendResponse<Bytes>) {
        let status = self.shared.status();
        let Ok(head) = request_head(&request) else {
            respond.send_reset(Reason::PROTOCOL_ERROR);
            return;
        };
        let is_session = is_session(&head);
        let has_room = status.is_admitted || status.handles < STRANGERS_STREAMS;
        if !has_room || is_session && status.has_session {
            respond.send_reset(Reason::REFUSED_STREAM);
            return;
        }
        let handle = if is_session {
            self.shared.hold_session()
        } else if head.method == "CONNECT" || head.path.as_deref() == Some(OBSERVED_ADDRESS_PATH) {
            self.shared.hold()
        } else {
            // A stream that was reset needs no answer.
            let _ignored = respond.send_response(answer(StatusCode::NOT_FOUND), true);
            return;
        };
        let Peer { pin, remote } = self.peer;
        let responder = Http2Responder::new(respond, request.into_body(), handle);
        let incoming = IncomingRequest::over_http2(head, pin, remote, responder);
        // When the listener is gone, so is this, and the client is turned away.
        let _ignored = self.incoming.send(incoming).await;
    }

    /// Gives the windows of one who is admitted.
    fn widen(&mut self) {
        if std::mem::replace(&mut self.is_wide, true) {
            return;
        }
        self.connection.set_target_window_size(CONNECTION_WINDOW);
        if let Err(error) = self.connection.set_initial_window_size(STREAM_WINDOW) {
            debug!(%error, "Failed to widen the windows of streams");
        }
    }

    /// Takes no more streams; those that there are go on.
    fn close(&mut self) {
        if !std::mem::replace(&mut self.is_closing, true) {
            self.connection.graceful_shutdown();
        }
    }
}

fn answer(status: StatusCode) -> Response<()> {
    let mut response = Response::new(());
    *response.status_mut() = status;
    response
}
