//! The connector's side of the control plane: join, report, follow the bundle.

use std::{
    path::Path,
    sync::Arc,
    time::{Duration, SystemTime},
};

use adit_proto::{
    JoinToken, JoinTokenKind, Timestamp, WireguardPublicKey,
    api::{ConnectorEnroll, ConnectorEnrolled, ConnectorReport, ProblemCode},
};
use adit_tunnel::{ControlPlane, ControlPlaneError, Fetched, KeyPair};
use anyhow::{Context as _, bail};
use futures_util::StreamExt as _;
use tokio::sync::watch;
use tracing::{debug, info, warn};

use crate::{
    backoff::Backoff,
    bundle_store::BundleStore,
    enforced::Enforced,
    state_dir::{Membership, StateDir},
};

/// Joins by the token in `token_file`, and keeps what is learnt.
///
/// Waits for a control plane that cannot be reached. A token that is refused is an error.
pub(crate) async fn join(
    token_file: Option<&Path>,
    key: &KeyPair,
    wireguard_public_key: WireguardPublicKey,
    state: &StateDir,
) -> anyhow::Result<Membership> {
    let token = read_token(token_file)?;
    let control_plane = ControlPlane::try_new(token.url(), *token.pin())?;
    let body = ConnectorEnroll {
        secret: token.secret().to_owned().into(),
        connector_key: key.spki_base64url(),
        wireguard_public_key,
    };
    let mut backoff = Backoff::default();
    let enrolled: ConnectorEnrolled = loop {
        match control_plane.post("/v1/connector/enroll", &body).await {
            Ok(enrolled) => break enrolled,
            Err(error) if is_refusal(&error) => {
                return Err(error).context("failed to join");
            }
            Err(error) => {
                let wait = backoff.next_delay();
                let error: &dyn std::error::Error = &error;
                warn!(error, url = token.url(), ?wait, "Failed to join; trying again");
                tokio::time::sleep(wait).await;
            }
        }
    };
    let membership = Membership {
        url: token.url().to_owned(),
        pin: *token.pin(),
        connector_id: enrolled.connector_id,
        site_id: enrolled.site_id,
        organisation_id: enrolled.organisation_id,
        organisation_keys: enrolled.organisation_keys,
    };
    state.write_membership(&membership)?;
    info!(connector_id = %membership.connector_id, site_id = %membership.site_id, "Joined");
    Ok(membership)
}

fn read_token(token_file: Option<&Path>) -> anyhow::Result<JoinToken> {
    let Some(path) = token_file else {
        bail!("this connector has not joined yet; pass --token-file with a connector token");
    };
    let text = std::fs::read_to_string(path)
        .with_context(|| format!("failed to read the connector token {}", path.display()))?;
    let token: JoinToken =
        text.parse().with_context(|| format!("no connector token in {}", path.display()))?;
    if token.kind() != JoinTokenKind::Connector {
        bail!(
            "{} holds an enrolment key, which is for devices; create a connector token",
            path.display()
        );
    }
    Ok(token)
}

/// Whether asking again is of no use.
fn is_refusal(error: &ControlPlaneError) -> bool {
    match error {
        ControlPlaneError::Refused(problem) => problem.status < 500,
        ControlPlaneError::PinMismatch { .. } => true,
        ControlPlaneError::Url { .. } => true,
        ControlPlaneError::Unreachable { .. } => false,
        ControlPlaneError::Unexpected { .. } => false,
        ControlPlaneError::Silent { .. } => false,
    }
}

/// Follows the bundle for ever.
pub(crate) struct Control {
    pub(crate) control_plane: ControlPlane,
    pub(crate) store: BundleStore,
    pub(crate) report: ConnectorReport,
    pub(crate) held: watch::Sender<Option<Arc<Enforced>>>,
    pub(crate) last_contact: watch::Sender<Timestamp>,
    pub(crate) etag: Option<String>,
}

impl Control {
    pub(crate) async fn run(mut self) {
        let mut backoff = Backoff::default();
        let mut was_connected = true;
        loop {
            let result = self.follow(&mut backoff, &mut was_connected).await;
            let wait = backoff.next_delay();
            match result {
                Ok(()) => debug!(?wait, "Control plane closed the stream"),
                Err(error) => {
                    let detail = format!("{:#}", anyhow::Error::new(error));
                    if was_connected {
                        warn!(error = detail, ?wait, "Lost the control plane; trying again");
                    } else {
                        debug!(error = detail, ?wait, "Control plane is still away");
                    }
                    was_connected = false;
                }
            }
            tokio::time::sleep(wait).await;
        }
    }

    /// One connection: report, fetch, then fetch at each event until the stream ends.
    async fn follow(
        &mut self,
        backoff: &mut Backoff,
        was_connected: &mut bool,
    ) -> Result<(), ControlPlaneError> {
        /// Comments keep the stream alive and errors end it, so an open stream is contact.
        const CONTACT_INTERVAL: Duration = Duration::from_millis(500);

        // Before the report, which only matters to people: what is enforced comes first.
        self.fetch().await?;
        let sequence = self.store.held().map(|held| held.bundle().sequence);
        let mut events = self.control_plane.stream("/v1/connector/stream", sequence).await?;
        let () = self.control_plane.put("/v1/connector/report", &self.report).await?;
        if !*was_connected {
            info!("Control plane is back");
        }
        *was_connected = true;
        backoff.reset();
        loop {
            tokio::select! {
                event = events.next() => match event {
                    Some(Ok(event)) => {
                        debug!(sequence = event.sequence, "Bundle has changed");
                        self.fetch().await?;
                    }
                    Some(Err(error)) => return Err(error),
                    None => return Ok(()),
                },
                () = tokio::time::sleep(CONTACT_INTERVAL) => self.note_contact(),
            }
        }
    }

    /// Fetches the bundle unless it is the one at hand, and enforces it if it is good.
    async fn fetch(&mut self) -> Result<(), ControlPlaneError> {
        let fetched =
            self.control_plane.fetch_signed("/v1/connector/bundle", self.etag.as_deref()).await;
        let fetched = fetched.inspect_err(|error| {
            if error.code() == Some(ProblemCode::NotAuthenticated) {
                warn!(
                    connector_id = %self.store.membership().connector_id,
                    "Control plane does not know this connector; if it was deleted, empty the \
                     state directory and join again"
                );
            }
        })?;
        match fetched {
            Fetched::Unchanged => {}
            Fetched::New { token, etag } => {
                // Compiling takes a while and must not hold up the sessions.
                match tokio::task::block_in_place(|| self.store.accept(&token)) {
                    Ok(enforced) => {
                        let bundle = enforced.bundle();
                        info!(
                            sequence = bundle.sequence,
                            resources = bundle.resources.len(),
                            policies = bundle.policies.len(),
                            "Enforcing a bundle"
                        );
                        self.etag = Some(etag);
                        self.held.send_replace(Some(enforced));
                        tokio::task::block_in_place(|| self.store.persist(&token));
                    }
                    Err(error) => {
                        let error: &dyn std::error::Error = &error;
                        let held = self.store.held().map(|held| held.bundle().sequence);
                        warn!(error, ?held, "Refused a bundle and kept the last good one");
                    }
                }
            }
        }
        self.note_contact();
        Ok(())
    }

    fn note_contact(&self) {
        self.last_contact.send_replace(SystemTime::now().into());
    }
}
