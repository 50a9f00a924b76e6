//! The stream of a session, as both of its directions hold it.

use std::{
    io,
    pin::Pin,
    sync::{Mutex, MutexGuard, PoisonError},
    task::{Context, Poll, Waker},
};

use adit_proto::http3::Http3Code;
use bytes::{Bytes, BytesMut};
use tokio::io::AsyncWrite as _;

use crate::{Body, ByteStream, HttpConnection, exchange::ConnectionHandle};

/// A stream, and the connection that it is of.
pub(super) struct SharedStream {
    /// Before the connection, so that it is dropped first.
    bytes: Mutex<ByteStream>,
    connection: ConnectionHandle,
    /// A client's own, which closes with the stream.
    _own: Option<HttpConnection>,
}

impl SharedStream {
    pub(super) fn new(body: Body, own: Option<HttpConnection>) -> Self {
        let connection = body.connection();
        Self { bytes: Mutex::new(body.into_bytes()), connection, _own: own }
    }

    pub(super) const fn connection(&self) -> &ConnectionHandle {
        &self.connection
    }

    pub(super) fn poll_receive(&self, context: &mut Context<'_>) -> Poll<io::Result<Bytes>> {
        self.bytes().poll_receive(context)
    }

    pub(super) fn poll_send(
        &self,
        context: &mut Context<'_>,
        bytes: &mut BytesMut,
    ) -> Poll<io::Result<()>> {
        self.bytes().poll_send(context, bytes)
    }

    /// Ends the own direction in order.
    pub(super) fn end(&self) {
        // Both kinds of streams end at once, and fail only if they have ended already.
        let mut context = Context::from_waker(Waker::noop());
        let _ended = Pin::new(&mut *self.bytes()).poll_shutdown(&mut context);
    }

    /// Ends both directions so that the peer does not take them for complete.
    pub(super) fn break_off(&self) {
        self.bytes().break_off(Http3Code::RequestCancelled);
    }

    fn bytes(&self) -> MutexGuard<'_, ByteStream> {
        // Both directions are mostly of one task, so nobody waits.
        self.bytes.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
