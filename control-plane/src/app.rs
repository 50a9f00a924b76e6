//! The rules of the control plane: no HTTP, no SQL.

use std::{ops::Deref, sync::Arc, time::Instant};

use adit_proto::Pin;
use tokio::sync::watch;

use crate::{
    app::live::Live, metrics::Metrics, open_id_connect::ProviderHttp, rate_limits::RateLimits,
    sealing::Sealer, signing::Signer, store::Store,
};

pub(crate) mod access_events;
pub(crate) mod api_tokens;
pub(crate) mod audit;
pub(crate) mod bundle;
pub(crate) mod client_config;
pub(crate) mod connector_tokens;
pub(crate) mod connectors;
mod consequence;
pub(crate) mod credential;
mod device_address;
pub(crate) mod devices;
mod endpoint;
pub(crate) mod enroll;
pub(crate) mod enrollment_keys;
pub(crate) mod evaluation;
pub(crate) mod follower;
pub(crate) mod groups;
pub(crate) mod identity_providers;
pub(crate) mod live;
pub(crate) mod network;
pub(crate) mod organisation;
pub(crate) mod policies;
mod policy_names;
pub(crate) mod policy_set;
pub(crate) mod policy_tests;
mod policy_version;
pub(crate) mod provider_sign_ins;
pub(crate) mod random;
pub(crate) mod resources;
pub(crate) mod revocation;
pub(crate) mod roles;
pub(crate) mod sign_ins;
pub(crate) mod sites;
pub(crate) mod user_code;
pub(crate) mod user_sessions;
pub(crate) mod users;
pub(crate) mod validate;
mod wireguard_config;

/// What every request may use; cheap to clone.
#[derive(Debug, Clone)]
pub(crate) struct App(Arc<Parts>);

/// The parts of an [`App`].
#[derive(Debug)]
pub(crate) struct Parts {
    pub(crate) store: Store,
    pub(crate) signer: Signer,
    pub(crate) sealer: Sealer,
    pub(crate) provider_http: ProviderHttp,
    pub(crate) live: Live,
    pub(crate) metrics: Metrics,
    pub(crate) rate_limits: RateLimits,
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
