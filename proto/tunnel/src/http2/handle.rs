//! What the streams of a connection and the task that turns it know of each other.

use std::sync::Arc;

use h2::Reason;
use tokio::sync::watch;

use super::Http2Error;

/// How a connection stands.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Status {
    /// Handles that somebody holds.
    pub(super) handles: usize,
    /// The peer's settings have been heard.
    pub(super) is_greeted: bool,
    /// There is a session, or was.
    pub(super) has_session: bool,
    /// The peer is no stranger.
    pub(super) is_admitted: bool,
    /// No stream is to be opened any more.
    pub(super) is_ending: bool,
    /// It closes without sending what it still holds.
    pub(super) is_aborted: bool,
    pub(super) is_unresponsive: bool,
}

/// The status as all sides share it. Whoever has it holds nothing.
#[derive(Debug, Clone, Default)]
pub(crate) struct Shared(Arc<watch::Sender<Status>>);

impl Shared {
    /// Lets the peer have more of our memory than a stranger.
    pub(crate) fn admit(&self) {
        self.update(|status| status.is_admitted = true);
    }

    /// Closes the connection without sending what it still holds.
    pub(crate) fn abort(&self) {
        self.update(|status| status.is_aborted = true);
    }

    pub(super) fn status(&self) -> Status {
        *self.0.borrow()
    }

    pub(super) fn update(&self, change: impl FnOnce(&mut Status)) {
        self.0.send_if_modified(|status| {
            let before = *status;
            change(status);
            *status != before
        });
    }

    pub(super) fn subscribe(&self) -> watch::Receiver<Status> {
        self.0.subscribe()
    }

    pub(super) fn hold(&self) -> Handle {
        self.update(|status| status.handles += 1);
        Handle { shared: self.clone(), is_of_session: false }
    }

    /// Its end is that of the connection, but for streams that are open.
    pub(super) fn hold_session(&self) -> Handle {
        self.update(|status| {
            status.handles += 1;
            status.has_session = true;
        });
        Handle { shared: self.clone(), is_of_session: true }
    }
}

/// What a stream holds of its connection.
#[derive(Debug)]
pub(crate) struct Handle {
    shared: Shared,
    is_of_session: bool,
}

impl Handle {
    pub(super) const fn shared(&self) -> &Shared {
        &self.shared
    }

    /// Why a stream failed.
    pub(crate) fn error(&self, error: h2::Error) -> Http2Error {
        if is_orderly(&error) || self.is_unresponsive() {
            return self.closed();
        }
        Http2Error::Lost { source: error }
    }

    /// Why a stream has ended.
    pub(crate) fn closed(&self) -> Http2Error {
        if self.is_unresponsive() { Http2Error::Unresponsive } else { Http2Error::Closed }
    }

    pub(super) fn is_unresponsive(&self) -> bool {
        self.shared.status().is_unresponsive
    }
}

impl Drop for Handle {
    fn drop(&mut self) {
        self.shared.update(|status| {
            status.handles -= 1;
            status.is_ending |= self.is_of_session;
        });
    }
}

/// Whether this is how a peer says that it needs the stream no longer.
fn is_orderly(error: &h2::Error) -> bool {
    matches!(error.reason(), Some(Reason::NO_ERROR | Reason::CANCEL)) && error.is_remote()
}
