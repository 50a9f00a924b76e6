//! The task that owns admission: sessions speak to it, and it alone changes the data plane.

mod member;
mod session;

use std::{
    collections::HashMap,
    time::{Duration, SystemTime},
};

use adit_proto::{
    ConnectorMessage, Credential, DeviceId, PresharedKey, Reason, SessionId, Timestamp,
    WireguardPublicKey,
};
use adit_tunnel::{Http2Listener, IncomingRequest};
use tokio::sync::{mpsc, oneshot, watch};
use tracing::{debug, info, warn};

pub(crate) use self::member::{Member, Members};
use self::session::{Context, Directive};
use crate::{
    admission::{Admission, Output},
    credentials::Verifier,
    data_plane::{DataPlane, DeviceOnConnector, Stopped},
    enforced::Standing,
    forwarder::FlowRecord,
    own_addresses::OwnAddresses,
    requests::ArrivedRequest,
};

/// What is asked of the registry.
pub(crate) enum Request {
    /// A session shows a credential.
    Present {
        session_id: SessionId,
        credential: Box<Credential>,
        /// Of this session.
        preshared_key: PresharedKey,
        /// The way back, at the first time.
        outbox: Option<mpsc::Sender<Directive>>,
        answer: oneshot::Sender<Result<Timestamp, Reason>>,
    },
    /// A session has ended.
    Closed { session_id: SessionId },
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
    pub(crate) from_lanes: mpsc::Receiver<IncomingRequest>,
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
    /// How many sessions there are.
    pub(crate) count: watch::Sender<usize>,
    /// Told to drain; answers when the sessions have been told.
    pub(crate) drain: oneshot::Receiver<()>,
}

/// Serves sessions until it is told to drain.
pub(crate) async fn run(parts: SessionsParts) -> Result<(), Stopped> {
    let SessionsParts { listener, from_lanes, standing, own_addresses, .. } = parts;
    let (requests, incoming) = parts.requests;
    let context = Context {
        requests,
        verifier: parts.verifier,
        own_addresses: own_addresses.clone(),
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
        count: parts.count,
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
    count: watch::Sender<usize>,
}

enum Event {
    Request(Request),
    Standing,
    OwnAddresses,
    Denial(FlowRecord),
    Timeout,
    Drain,
}

impl Registry {
    async fn run(mut self, mut drain: oneshot::Receiver<()>) -> Result<(), Stopped> {
        self.handle_own_addresses().await?;
        self.handle_standing().await?;
        loop {
            match self.next_event(&mut drain).await {
                Event::Request(Request::Present {
                    session_id,
                    credential,
                    preshared_key,
                    outbox,
                    answer,
                }) => {
                    let granted =
                        self.handle_present(session_id, *credential, preshared_key, outbox).await?;
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
                }
                Event::Standing => self.handle_standing().await?,
                Event::OwnAddresses => self.handle_own_addresses().await?,
                Event::Denial(record) => self.handle_denial(&record),
                Event::Timeout => {
                    self.admission.handle_timeout(SystemTime::now().into());
                    self.carry_out().await?;
                }
                Event::Drain => {
                    self.drain();
                    return Ok(());
                }
            }
            self.count.send_if_modified(|count| {
                let before = std::mem::replace(count, self.admission.session_count());
                before != *count
            });
        }
    }

    async fn next_event(&mut self, drain: &mut oneshot::Receiver<()>) -> Event {
        let until_timeout = self.admission.poll_timeout().map(|expires_at| {
            let now: Timestamp = SystemTime::now().into();
            expires_at.saturating_duration_since(now)
        });
        // An hour when nothing is due; the wall clock may jump, so never for very long.
        let wait = until_timeout.unwrap_or(Duration::from_secs(3600)).min(Duration::from_secs(10));
        tokio::select! {
            biased;
            _told_or_gone = drain => Event::Drain,
            Ok(()) = self.standing.changed() => Event::Standing,
            Some(request) = self.incoming.recv() => Event::Request(request),
            Ok(()) = self.own_addresses.changed() => Event::OwnAddresses,
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
        session_id: SessionId,
        credential: Credential,
        preshared_key: PresharedKey,
        outbox: Option<mpsc::Sender<Directive>>,
    ) -> Result<Result<Timestamp, Reason>, Stopped> {
        let device_id = credential.device_id;
        let expires_at = match self.admission.handle_present(session_id, credential, preshared_key)
        {
            Ok(expires_at) => expires_at,
            Err(reason) => return Ok(Err(reason)),
        };
        if let Some(outbox) = outbox {
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
                Output::Upsert(device) => self.upsert(*device).await?,
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

    async fn upsert(&mut self, device: DeviceOnConnector) -> Result<(), Stopped> {
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

    fn drain(&mut self) {
        for (_session_id, outbox) in self.outboxes.drain() {
            let _full: Result<(), _> = outbox.try_send(Directive::Drain);
        }
    }
}
