//! The rules of the control plane: no HTTP, no SQL.

use std::{ops::Deref, sync::Arc, time::Instant};

use adit_proto::{OrganisationId, Pin, SigningKey};
use tokio::sync::watch;

use crate::store::Store;

pub(crate) mod random;
pub(crate) mod users;
pub(crate) mod validate;

/// What every request may use; cheap to clone.
#[derive(Debug, Clone)]
pub(crate) struct App(Arc<Parts>);

/// The parts of an [`App`].
#[derive(Debug)]
pub(crate) struct Parts {
    pub(crate) store: Store,
    pub(crate) organisation_id: OrganisationId,
    pub(crate) signing_key: SigningKey,
    /// `https://host:port`, as it stands in join tokens.
    pub(crate) public_url: String,
    /// The pin of the HTTPS certificate, as it stands in join tokens.
    pub(crate) pin: Pin,
    pub(crate) started_at: Instant,
    /// Becomes true when the program is about to stop: streams end.
    pub(crate) draining: watch::Receiver<bool>,
}

impl App {
    pub(crate) fn new(parts: Parts) -> Self {
        Self(Arc::new(parts))
    }
}

impl Deref for App {
    type Target = Parts;

    fn deref(&self) -> &Parts {
        &self.0
    }
}
