//! The task that owns admission: sessions speak to it, and it alone changes the data plane.

mod drain;
mod member;
mod session;

use std::{
    collections::HashMap,
    time::{Duration, Instant, SystemTime},
};

use adit_proto::{
    ConnectorMessage, Credential, DeviceId, Reason, SessionId, Timestamp, WireguardPublicKey,
};
use adit_tunnel::Http2Listener;
use tokio::sync::{mpsc, oneshot, watch};
use tracing::{debug, info, warn};

pub(crate) use self::member::{Member, Members};
use self::{
    drain::{COUNT_INTERVAL, Drain},
    session::{Context, Directive},
};
use crate::{
    admission::{Admission, Output, Presenting},
    credentials::Verifier,
    data_plane::{DataPlane, DataPlaneMetrics, DeviceOnConnector, Stopped},
    enforced::Standing,
    forwarder::FlowRecord,
    own_addresses::OwnAddresses,
    requests::{ArrivedRequest, Streams},
};

/// What is asked of the registry.
pub(crate) enum Request {
    /// A session shows a credential.
    Present {
        presenting: Presenting,
        credential: Box<Credential>,
        /// The way back, at the first time.
        outbox: Option<mpsc::Sender<Directive>>,
        answer: oneshot::Sender<Result<Timestamp, Reason>>,
    },
    /// A session has ended.
    Closed { session_id: SessionId },
    /// As the connector drains, a client's new flows go to another.
    Moved { session_id: SessionId },
    /// As the connector drains, a client stays, for want of another.
    Stays { session_id: SessionId },
    /// A request that is no session shows a credential.
    Vouch { credential: Box<Credential>, answer: oneshot::Sender<Result<Member, Reason>> },
}

/// Requests wait for room, so that none is lost.
pub(crate) const REQUESTS: usize = 256;

/// Sessions from lanes that wait to be taken in; more are turned away.
pub(crate) const INCOMING: usize = 256;

/// What sessions are made from.
pub(crate) struct SessionsParts {
    pub(crate) listener: Http2Listener,
    /// Requests for sessions that came to lanes.
    pub(crate) from_lanes: mpsc::Receiver<ArrivedRequest>,
    /// Where requests go that are no sessions.
    pub(crate) other_requests: mpsc::Sender<ArrivedRequest>,
    pub(crate) data_plane: DataPlane,
    pub(crate) wireguard_public_key: WireguardPublicKey,
    pub(crate) verifier: Verifier,
    /// What is asked, by sessions too.
    pub(crate) requests: (mpsc::Sender<Request>, mpsc::Receiver<Request>),
    pub(crate) standing: watch::Receiver<Standing>,
    pub(crate) own_addresses: watch::Receiver<OwnAddresses>,
    /// Refused and cut flows, from the data plane.
    pub(crate) denials: mpsc::Receiver<FlowRecord>,
    /// Devices that are to be asked to speak, from the data plane.
    pub(crate) silent: mpsc::Receiver<DeviceId>,
    /// How many sessions there are.
    pub(crate) count: watch::Sender<usize>,
    /// What the data plane counts.
    pub(crate) metrics: watch::Receiver<DataPlaneMetrics>,
    /// Those of requests, which are waited for.
    pub(crate) streams: Streams,
    /// Told to drain, and how long that may take.
    pub(crate) drain: oneshot::Receiver<Duration>,
}

/// Serves sessions until it is told to drain, and has.
pub(crate) async fn run(parts: SessionsParts) -> Result<(), Stopped> {
    let SessionsParts { listener, from_lanes, standing, own_addresses, .. } = parts;
    let (requests, incoming) = parts.requests;
    let context = Context {
        requests,
        verifier: parts.verifier,
        own_addresses: own_addresses.clone(),
        data_plane: parts.data_plane.clone(),
        metrics: parts.metrics,
        wireguard_public_key: parts.wireguard_public_key,
    };
    let accepting =
        tokio::spawn(session::accept(listener, from_lanes, parts.other_requests, context));
    let registry = Registry {
        admission: Admission::default(),
        members: Members::default(),
        outboxes: HashMap::new(),
        data_plane: parts.data_plane,
        standing,
        own_addresses,
        incoming,
        denials: parts.denials,
        silent: parts.silent,
        count: parts.count,
        streams: parts.streams,
        drain: None,
    };
    let result = registry.run(parts.drain).await;
    accepting.abort();
    result
}

struct Registry {
    admission: Admission,
    members: Members,
    /// A session that does not keep up loses its place here, and so ends.
    outboxes: HashMap<SessionId, mpsc::Sender<Directive>>,
    data_plane: DataPlane,
    standing: watch::Receiver<Standing>,
    own_addresses: watch::Receiver<OwnAddresses>,
    incoming: mpsc::Receiver<Request>,
    denials: mpsc::Receiver<FlowRecord>,
    silent: mpsc::Receiver<DeviceId>,
    count: watch::Sender<usize>,
    streams: Streams,
    /// Set when the connector is to stop.
    drain: Option<Drain>,
}

enum Event {
    Request(Request),
    Standing,
    OwnAddresses,
    Denial(FlowRecord),
    Silent(DeviceId),
    Timeout,
    Drain(Duration),
}

impl Registry {
    async fn run(mut self, mut drain: oneshot::Receiver<Duration>) -> Result<(), Stopped> {
        self.handle_own_addresses().await?;
        self.handle_standing().await?;
        loop {
            match self.next_event(&mut drain).await {
                Event::Request(Request::Present { presenting, credential, outbox, answer }) => {
                    let granted = self.handle_present(presenting, *credential, outbox).await?;
                    // A session that has ended meanwhile says so by itself.
                    let _ = answer.send(granted);
                }
                Event::Request(Request::Vouch { credential, answer }) => {
                    let granted = self.handle_vouch(*credential).await?;
                    // Whoever asked may have gone.
                    let _ = answer.send(granted);
                }
                Event::Request(Request::Closed { session_id }) => {
                    self.outboxes.remove(&session_id);
                    self.admission.handle_closed(session_id);
                    self.note_drained(session_id);
                }
                Event::Request(Request::Moved { session_id }) => {
                    if let Some(drain) = &mut self.drain {
                        drain.handle_moved(session_id);
                    }
                }
                Event::Request(Request::Stays { session_id }) => self.note_drained(session_id),
                Event::Standing => self.handle_standing().await?,
                Event::OwnAddresses => self.handle_own_addresses().await?,
                Event::Denial(record) => self.handle_denial(&record),
                Event::Silent(device_id) => self.ask_to_speak(device_id),
                Event::Timeout => {
                    self.admission.handle_timeout(SystemTime::now().into());
                    self.carry_out().await?;
                }
                Event::Drain(grace) => self.begin_drain(grace),
            }
            if self.has_drained().await? {
                return Ok(());
            }
            self.count.send_if_modified(|count| {
                let before = std::mem::replace(count, self.admission.session_count());
                before != *count
            });
        }
    }

    async fn next_event(&mut self, drain: &mut oneshot::Receiver<Duration>) -> Event {
        let until_timeout = self.admission.poll_timeout().map(|expires_at| {
            let now: Timestamp = SystemTime::now().into();
            expires_at.saturating_duration_since(now)
        });
        // The wall clock may jump, so never for very long.
        let longest = if self.drain.is_some() { COUNT_INTERVAL } else { Duration::from_secs(10) };
        let wait = until_timeout.unwrap_or(longest).min(longest);
        tokio::select! {
            biased;
            told = drain, if self.drain.is_none() => Event::Drain(told.unwrap_or_default()),
            Ok(()) = self.standing.changed() => Event::Standing,
            Some(request) = self.incoming.recv() => Event::Request(request),
            Ok(()) = self.own_addresses.changed() => Event::OwnAddresses,
            Some(device_id) = self.silent.recv() => Event::Silent(device_id),
            Some(record) = self.denials.recv() => Event::Denial(record),
            () = tokio::time::sleep(wait) => Event::Timeout,
        }
    }

    /// Policy first, so that no flow outlives it, then the devices.
    async fn handle_standing(&mut self) -> Result<(), Stopped> {
        let standing = self.standing.borrow_and_update().clone();
        self.data_plane.enforce(standing.clone()).await?;
        let rights_changed = self.admission.handle_standing(standing);
        self.carry_out().await?;
        if rights_changed {
            self.invite_to_refresh();
        }
        Ok(())
    }

    /// What a laptop may see has perhaps changed; it learns of that without a stream of its own.
    fn invite_to_refresh(&self) {
        for outbox in self.outboxes.values() {
            // Where there is no room, the client asks by itself sooner or later.
            let _full: Result<(), _> =
                outbox.try_send(Directive::Send(ConnectorMessage::RefreshNow));
        }
    }

    async fn handle_own_addresses(&mut self) -> Result<(), Stopped> {
        let own_addresses = self.own_addresses.borrow_and_update().clone();
        self.data_plane.set_own_addresses(own_addresses).await
    }

    async fn handle_present(
        &mut self,
        presenting: Presenting,
        credential: Credential,
        outbox: Option<mpsc::Sender<Directive>>,
    ) -> Result<Result<Timestamp, Reason>, Stopped> {
        let (session_id, device_id) = (presenting.session_id, credential.device_id);
        let expires_at = match self.admission.handle_present(presenting, credential) {
            Ok(expires_at) => expires_at,
            Err(reason) => return Ok(Err(reason)),
        };
        if let Some(outbox) = outbox {
            if let Some(drain) = &mut self.drain {
                drain.handle_told(session_id);
                let _full: Result<(), _> = outbox.try_send(Directive::Drain);
            }
            self.outboxes.insert(session_id, outbox);
        }
        self.carry_out().await?;
        if self.admission.session_of(device_id) != Some(session_id) {
            return Ok(Err(Reason::CredentialInvalid));
        }
        Ok(Ok(expires_at))
    }

    /// Admits a device by a credential that comes without a session.
    async fn handle_vouch(
        &mut self,
        credential: Credential,
    ) -> Result<Result<Member, Reason>, Stopped> {
        let device_id = credential.device_id;
        if let Err(reason) = self.admission.handle_credential(credential) {
            return Ok(Err(reason));
        }
        self.carry_out().await?;
        let device = self.admission.device(device_id);
        Ok(device.map(|device| self.members.follow(device)).ok_or(Reason::CredentialInvalid))
    }

    /// The session may go by a way that is still open where that of packets is not.
    fn ask_to_speak(&self, device_id: DeviceId) {
        let session_id = self.admission.session_of(device_id);
        if let Some(outbox) = session_id.and_then(|session_id| self.outboxes.get(&session_id)) {
            // Where there is no room, the next packet asks.
            let _full: Result<(), _> = outbox.try_send(Directive::Send(ConnectorMessage::Speak));
        }
    }

    fn handle_denial(&mut self, record: &FlowRecord) {
        let Some(session_id) = self.admission.session_of(record.device_id) else { return };
        let Some(outbox) = self.outboxes.get(&session_id) else { return };
        let message = ConnectorMessage::Denied {
            flow: record.flow,
            verdict: record.verdict,
            reason: record.reason,
            resource_id: record.resource_id,
            policy_id: record.policy_id,
        };
        if outbox.try_send(Directive::Send(message)).is_err() {
            debug!(%session_id, "Session does not keep up with what it is denied");
        }
    }

    /// Does what admission has decided.
    async fn carry_out(&mut self) -> Result<(), Stopped> {
        while let Some(output) = self.admission.poll_output() {
            match output {
                Output::Upsert(device) => self.upsert(device).await?,
                Output::Remove { device_id, reason } => {
                    info!(%device_id, %reason, "Revoked access of a device");
                    self.members.remove(device_id, reason);
                    self.data_plane.remove(device_id, reason).await?;
                }
                Output::Refuse { session_id, reason } => {
                    self.end(session_id, Directive::Refuse { reason });
                }
                Output::Close { session_id } => self.end(session_id, Directive::Close),
            }
        }
        Ok(())
    }

    async fn upsert(&mut self, device: Box<DeviceOnConnector>) -> Result<(), Stopped> {
        use crate::data_plane::AdmitError;

        self.members.update(&device);
        let device_id: DeviceId = device.subject.device_id;
        match self.data_plane.upsert(device).await {
            Ok(()) => Ok(()),
            Err(AdmitError::Stopped(stopped)) => Err(stopped),
            Err(
                error @ (AdmitError::KeyTaken | AdmitError::AddressTaken | AdmitError::Upsert(_)),
            ) => {
                let error: &dyn std::error::Error = &error;
                warn!(error, %device_id, "Failed to admit a device");
                self.admission.handle_upsert_failed(device_id);
                Ok(())
            }
        }
    }

    fn end(&mut self, session_id: SessionId, last: Directive) {
        if let Some(outbox) = self.outboxes.remove(&session_id) {
            // When there is no room the session ends without a word, as its outbox is gone.
            let _full: Result<(), _> = outbox.try_send(last);
        }
    }

    fn begin_drain(&mut self, grace: Duration) {
        for outbox in self.outboxes.values() {
            // Where there is no room, the client sees the end when it comes.
            let _full: Result<(), _> = outbox.try_send(Directive::Drain);
        }
        let told = self.outboxes.keys().copied();
        self.drain = Some(Drain::new(told, grace, Instant::now()));
    }

    fn note_drained(&mut self, session_id: SessionId) {
        if let Some(drain) = &mut self.drain {
            drain.handle_done(session_id);
        }
    }

    /// Whether the connector drains and nothing is waited for any more.
    async fn has_drained(&mut self) -> Result<bool, Stopped> {
        let Some(drain) = &mut self.drain else { return Ok(false) };
        for session_id in drain.poll_moved(Instant::now()) {
            let device_id = self.admission.device_of(session_id);
            let open = match device_id {
                Some(device_id) => self.data_plane.count_connections(device_id).await?,
                None => 0,
            };
            if open == 0 {
                drain.handle_done(session_id);
            }
        }
        Ok(drain.is_over(self.streams.count(), Instant::now()))
    }
}
