//! Configuration and credential from the control plane.

use std::time::{Duration, Instant};

use adit_proto::api::CredentialIssued;
use adit_tunnel::{ControlPlane, ControlPlaneError, Fetched};

use super::EventLoop;
use crate::{
    daemon::{
        backoff::Jitter,
        clock::Now,
        event::Event,
        identity::Enrolled,
        material::ConfigOutcome,
        obstacle,
        refresh::{Fetch, Refresh, config_interval},
        resolver::Resolver,
        router::Router,
        store::StoreError,
        task::Task,
    },
    ipc::{Failure, FailureCode},
};

/// Questions under way, and what came of the last ones.
#[derive(Default)]
pub(super) struct Fetches {
    refresh: Option<Refresh>,
    config_task: Option<Task>,
    credential_task: Option<Task>,
    config_etag: Option<String>,
    config_problem: Option<Failure>,
    credential_problem: Option<Failure>,
}

impl Fetches {
    pub(super) fn start(&mut self, now: Instant) {
        self.stop();
        self.refresh = Some(Refresh::new(now));
    }

    pub(super) fn stop(&mut self) {
        // The tag stays: it belongs to the configuration at hand.
        *self = Self { config_etag: self.config_etag.take(), ..Self::default() };
    }

    pub(super) fn forget_etag(&mut self) {
        self.config_etag = None;
    }

    pub(super) fn refresh_now(&mut self, jitter: &mut Jitter, now: Instant) {
        if let Some(refresh) = &mut self.refresh {
            refresh.handle_refresh_now(jitter, now);
        }
    }

    /// Asks at once, because a person waits.
    pub(super) fn ask_again(&mut self, now: Instant) {
        if let Some(refresh) = &mut self.refresh {
            refresh.handle_impatience(now);
        }
    }

    pub(super) fn poll_fetch(&mut self, now: Instant) -> Option<Fetch> {
        self.refresh.as_mut()?.poll_fetch(now)
    }

    pub(super) fn poll_timeout(&self) -> Option<Instant> {
        self.refresh.as_ref()?.poll_timeout()
    }

    fn note_done(&mut self, fetch: Fetch, good_for: Duration, jitter: &mut Jitter, now: Instant) {
        *self.problem_of(fetch) = None;
        if let Some(refresh) = &mut self.refresh {
            refresh.handle_fetched(fetch, good_for, jitter, now);
        }
    }

    fn note_failed(&mut self, fetch: Fetch, problem: Failure, jitter: &mut Jitter, now: Instant) {
        *self.problem_of(fetch) = Some(problem);
        if let Some(refresh) = &mut self.refresh {
            refresh.handle_failed(fetch, jitter, now);
        }
    }

    fn problem_of(&mut self, fetch: Fetch) -> &mut Option<Failure> {
        match fetch {
            Fetch::Config => &mut self.config_problem,
            Fetch::Credential => &mut self.credential_problem,
        }
    }

    /// What stands in the way, by the last answers.
    fn problem(&self) -> Option<&Failure> {
        self.credential_problem.as_ref().or(self.config_problem.as_ref())
    }
}

impl EventLoop {
    /// Takes up what an earlier daemon has left, so that a control plane that is away does not
    /// matter.
    pub(super) fn load_cached_material(&mut self, now: Now) {
        let Some(enrolled) = &self.enrolled else {
            return;
        };
        let keys = &enrolled.identity.organisation_keys;
        match self.store.config() {
            Ok(Some(token)) => {
                let device_id = enrolled.identity.device_id;
                if let Err(error) = self.material.handle_config(&token, device_id, keys) {
                    let error = obstacle::chain(&error);
                    tracing::warn!(error, "Configuration on disk is of no use");
                }
            }
            Ok(None) => {}
            Err(error) => warn_of_disk(&error),
        }
        match self.store.credential() {
            Ok(Some(token)) => {
                let pin = enrolled.device_key.pin();
                if let Err(error) = self.material.handle_credential(&token, keys, &pin, now.time) {
                    let error = obstacle::chain(&error);
                    tracing::debug!(error, "Credential on disk is of no use");
                }
            }
            Ok(None) => {}
            Err(error) => warn_of_disk(&error),
        }
    }

    pub(super) fn start_fetch(&mut self, fetch: Fetch) {
        let Some(enrolled) = &self.enrolled else {
            return;
        };
        let Enrolled { control_plane, identity, .. } = enrolled;
        let control_plane = control_plane.clone();
        let way = WayOutside {
            url: identity.control_plane_url.clone(),
            router: self.router.clone(),
            resolver: self.resolver.clone(),
        };
        let events = self.events.clone();
        let generation = self.generation;
        match fetch {
            Fetch::Config => {
                let etag = self
                    .material
                    .config()
                    .is_some()
                    .then(|| self.fetches.config_etag.clone())
                    .flatten();
                self.fetches.config_task = Some(Task::spawn(async move {
                    way.keep_open().await;
                    let result =
                        control_plane.fetch_signed("/v1/client/config", etag.as_deref()).await;
                    let _ = events.send(Event::ConfigFetched { generation, result }).await;
                }));
            }
            Fetch::Credential => {
                self.fetches.credential_task = Some(Task::spawn(async move {
                    way.keep_open().await;
                    let result = fetch_credential(&control_plane).await;
                    let _ = events.send(Event::CredentialFetched { generation, result }).await;
                }));
            }
        }
    }

    pub(super) async fn handle_config_fetched(
        &mut self,
        result: Result<Fetched, ControlPlaneError>,
        now: Now,
    ) {
        self.reachability.note(&result, now.time);
        let outcome = match result {
            Ok(Fetched::Unchanged) => Ok(ConfigOutcome::Unchanged),
            Ok(Fetched::New { token, etag }) => self.take_config(&token, etag),
            Err(error) => Err(obstacle::from_control_plane(&error)),
        };
        match outcome {
            Ok(outcome) => {
                let has_sites =
                    self.material.config().is_some_and(|config| !config.sites.is_empty());
                let good_for = config_interval(has_sites);
                self.fetches.note_done(Fetch::Config, good_for, &mut self.jitter, now.instant);
                if outcome == ConfigOutcome::Changed {
                    self.update_tunnel(now).await;
                }
            }
            Err(problem) => {
                self.forget_credential_if_revoked(&problem);
                self.fetches.note_failed(Fetch::Config, problem, &mut self.jitter, now.instant);
            }
        }
        self.show_problem(now);
    }

    pub(super) fn handle_credential_fetched(
        &mut self,
        result: Result<CredentialIssued, ControlPlaneError>,
        now: Now,
    ) {
        self.reachability.note(&result, now.time);
        let taken = match result {
            Ok(issued) => self.take_credential(&issued, now),
            Err(error) => Err(obstacle::from_control_plane(&error)),
        };
        match taken {
            Ok(remaining) => {
                self.fetches.note_done(Fetch::Credential, remaining, &mut self.jitter, now.instant);
            }
            Err(problem) => {
                self.forget_credential_if_revoked(&problem);
                self.fetches.note_failed(Fetch::Credential, problem, &mut self.jitter, now.instant);
            }
        }
        self.show_problem(now);
    }

    /// Whichever answer says so first: the credential opens no session any more.
    fn forget_credential_if_revoked(&mut self, problem: &Failure) {
        if matches!(problem.code, FailureCode::DeviceRevoked | FailureCode::SessionExpired) {
            self.forget_credential();
        }
    }

    /// No session is opened from here on.
    pub(super) fn forget_credential(&mut self) {
        self.material.forget_credential();
        if let Err(error) = self.store.remove_credential() {
            warn_of_disk(&error);
        }
    }

    fn show_problem(&mut self, now: Now) {
        match self.fetches.problem() {
            Some(problem) => self.machine.handle_obstacle(problem.clone(), now),
            None => self.machine.handle_obstacle_gone(),
        }
    }

    fn take_config(&mut self, token: &str, etag: String) -> Result<ConfigOutcome, Failure> {
        let Some(enrolled) = &mut self.enrolled else {
            return Ok(ConfigOutcome::Unchanged);
        };
        let identity = &mut enrolled.identity;
        let outcome = self
            .material
            .handle_config(token, identity.device_id, &identity.organisation_keys)
            .map_err(|error| {
                Failure::new(
                    FailureCode::ControlPlaneRefused,
                    obstacle::chain(&error),
                    "tell an administrator; if the organisation has new keys: adit enroll \
                     --replace --key-file FILE",
                )
            })?;
        self.fetches.config_etag = Some(etag);

        let announced = self.material.announced_keys().filter(|keys| !keys.is_empty());
        if let Some(keys) = announced
            && keys != identity.organisation_keys.as_slice()
        {
            tracing::info!(count = keys.len(), "Organisation announced other keys");
            identity.organisation_keys = keys.to_vec();
            if let Err(error) = self.store.save_identity(identity) {
                warn_of_disk(&error);
            }
        }
        if let Some(token) = self.material.config_token()
            && let Err(error) = self.store.save_config(token)
        {
            warn_of_disk(&error);
        }
        Ok(outcome)
    }

    fn take_credential(
        &mut self,
        issued: &CredentialIssued,
        now: Now,
    ) -> Result<Duration, Failure> {
        let Some(enrolled) = &self.enrolled else {
            return Ok(Duration::ZERO);
        };
        let keys = &enrolled.identity.organisation_keys;
        let pin = enrolled.device_key.pin();
        let token = &issued.credential;
        let remaining =
            self.material.handle_credential(token, keys, &pin, now.time).map_err(|error| {
                Failure::new(
                    FailureCode::ControlPlaneRefused,
                    format!(
                        "the control plane's credential is of no use: {}",
                        obstacle::chain(&error)
                    ),
                    "check this machine's clock; if it is right, tell an administrator",
                )
            })?;
        if let Err(error) = self.store.save_credential(token) {
            warn_of_disk(&error);
        }
        self.logins.note_session_end(issued.session_ends_at);
        self.present_credential(token);
        Ok(remaining)
    }
}

/// Keeps the control plane reachable when a resource's prefix covers its address.
struct WayOutside {
    url: String,
    router: Router,
    resolver: Resolver,
}

impl WayOutside {
    async fn keep_open(&self) {
        let endpoint = self.url.strip_prefix("https://").unwrap_or(&self.url);
        // Without an address the request itself will say so.
        if let Ok(addresses) = self.resolver.resolve(endpoint).await {
            for address in addresses {
                self.router.keep_outside(address.ip()).await;
            }
        }
    }
}

async fn fetch_credential(
    control_plane: &ControlPlane,
) -> Result<CredentialIssued, ControlPlaneError> {
    control_plane.post("/v1/client/credential", &()).await
}

/// What is kept on disk helps after a restart; without it the daemon goes on.
fn warn_of_disk(error: &StoreError) {
    tracing::warn!(error = obstacle::chain(error), "Disk does not keep what it should");
}
