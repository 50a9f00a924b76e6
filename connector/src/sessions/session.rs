//! One session channel, from the credential to its end.

use std::{
    net::SocketAddr,
    sync::Arc,
    time::{Duration, SystemTime},
};

use adit_policy::Subject;
use adit_proto::{
    ClientMessage, ConnectorMessage, DeviceId, FlowTuple, Pin, PresharedKey, Reason, SessionId,
    Verdict, WireguardPublicKey,
};
use adit_tunnel::{
    Http2Listener, IncomingRequest, QuicConnectionId, SessionError, SessionReceiver, SessionSender,
};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc, oneshot, watch};
use tracing::{Instrument as _, debug, info, info_span, warn};

use super::Request;
use crate::{
    admission::{Presenting, subject_of},
    credentials::Verifier,
    data_plane::{ConnectionKind, DataPlane, DataPlaneMetrics},
    enforced::destination_of,
    own_addresses::OwnAddresses,
    requests::ArrivedRequest,
};

/// What the registry tells a session.
pub(crate) enum Directive {
    Send(ConnectorMessage),
    Refuse { reason: Reason },
    Drain,
    Close,
}

/// What all sessions share.
#[derive(Clone)]
pub(super) struct Context {
    pub(super) requests: mpsc::Sender<Request>,
    pub(super) verifier: Verifier,
    pub(super) own_addresses: watch::Receiver<OwnAddresses>,
    pub(super) data_plane: DataPlane,
    pub(super) metrics: watch::Receiver<DataPlaneMetrics>,
    pub(super) wireguard_public_key: WireguardPublicKey,
}

/// Takes sessions in from listener and lanes, each in a task of its own, and hands other requests
/// on.
pub(super) async fn accept(
    mut listener: Http2Listener,
    mut from_lanes: mpsc::Receiver<ArrivedRequest>,
    requests: mpsc::Sender<ArrivedRequest>,
    context: Context,
) {
    /// Strangers that may hold a channel open until they must have shown a credential.
    const MAX_STRANGERS: usize = 1024;

    let strangers = Arc::new(Semaphore::new(MAX_STRANGERS));
    let mut serial = 0;
    loop {
        let arrived = tokio::select! {
            incoming = listener.accept() => ArrivedRequest::on_listener(incoming),
            Some(arrived) = from_lanes.recv() => arrived,
        };
        if !arrived.request.is_session() {
            // One that there is no room for is turned away.
            if requests.try_send(arrived).is_err() {
                debug!("More requests than can be looked at");
            }
            continue;
        }
        let (incoming, connection) = arrived.into_parts();
        let Ok(place) = Arc::clone(&strangers).try_acquire_owned() else {
            debug!(peer = %incoming.remote, "Turned a session away, too many wait to be admitted");
            continue;
        };
        let (mut random, mut preshared_key) = ([0; 16], [0; 32]);
        let drawn = getrandom::fill(&mut random);
        if let Err(error) = drawn.and_then(|()| getrandom::fill(&mut preshared_key)) {
            warn!(%error, "Turned a session away, no randomness");
            continue;
        }
        // Before the client is answered, so that what it begins later has a later one.
        serial += 1;
        let session_id = SessionId::from_uuid(uuid::Builder::from_random_bytes(random).into_uuid());
        let preshared_key = PresharedKey::from_bytes(preshared_key);
        let presenting = Presenting { session_id, serial, preshared_key };
        let carrier = if incoming.quic_stream().is_some() { "quic" } else { "http2" };
        let span = info_span!("session", %session_id, peer = %incoming.remote, carrier);
        let session = Session::run(presenting, incoming, connection, context.clone(), place);
        tokio::spawn(session.instrument(span));
    }
}

struct Session {
    presenting: Presenting,
    /// Of QUIC: of which lane, and which.
    connection: Option<(usize, QuicConnectionId)>,
    remote: SocketAddr,
    peer_pin: Pin,
    context: Context,
    sender: SessionSender<ConnectorMessage>,
    directives: mpsc::Receiver<Directive>,
    /// Given away with the first credential, so that the registry alone holds it.
    outbox: Option<mpsc::Sender<Directive>>,
    /// Who it is, as far as is known here.
    subject: Option<Subject>,
}

/// Whether the session goes on.
enum Next {
    GoOn,
    End,
}

impl Session {
    async fn run(
        presenting: Presenting,
        incoming: IncomingRequest,
        connection: Option<(usize, QuicConnectionId)>,
        context: Context,
        place: OwnedSemaphorePermit,
    ) {
        /// Messages to a client that reads slowly; then it loses them or its session.
        const OUTBOX: usize = 64;

        let (remote, peer_pin) = (incoming.remote, incoming.peer_pin);
        let (sender, receiver) = incoming.into_session().split();
        let (outbox, directives) = mpsc::channel(OUTBOX);
        let requests = context.requests.clone();
        let session_id = presenting.session_id;
        let session = Self {
            presenting,
            connection,
            remote,
            peer_pin,
            context,
            sender,
            directives,
            outbox: Some(outbox),
            subject: None,
        };
        match session.serve(receiver, place).await {
            Ok(()) => debug!("Session closed"),
            Err(error) => {
                let error: &dyn std::error::Error = &error;
                debug!(error, "Session lost");
            }
        }
        // The registry outlives its sessions, unless the connector stops.
        let _ = requests.send(Request::Closed { session_id }).await;
    }

    async fn serve(
        mut self,
        mut receiver: SessionReceiver<ClientMessage>,
        place: OwnedSemaphorePermit,
    ) -> Result<(), SessionError> {
        /// Within which a client has to show its credential.
        const FIRST_MESSAGE: Duration = Duration::from_secs(10);

        let Ok(first) = tokio::time::timeout(FIRST_MESSAGE, receiver.next()).await else {
            debug!("No credential in time");
            return Ok(());
        };
        let Some(first) = first.transpose()? else { return Ok(()) };
        let ClientMessage::Present { credential } = first else {
            return self.refuse(Reason::CredentialInvalid).await;
        };
        if let Next::End = self.present(&credential).await? {
            return Ok(());
        }
        // A stranger no longer.
        self.sender.admit();
        drop(place);
        loop {
            tokio::select! {
                message = receiver.next() => {
                    let Some(message) = message.transpose()? else { return Ok(()) };
                    if let Next::End = self.handle_message(message).await? {
                        return Ok(());
                    }
                }
                directive = self.directives.recv() => {
                    let Some(directive) = directive else { return Ok(()) };
                    if let Next::End = self.handle_directive(directive).await? {
                        return Ok(());
                    }
                }
            }
        }
    }

    async fn handle_message(&mut self, message: ClientMessage) -> Result<Next, SessionError> {
        let session_id = self.presenting.session_id;
        match message {
            ClientMessage::Present { credential } => self.present(&credential).await,
            ClientMessage::Explain { request_id, flow } => {
                let answer = self.explain(request_id, &flow);
                self.sender.send(&answer).await?;
                Ok(Next::GoOn)
            }
            ClientMessage::Ping { request_id } => {
                let load = self.context.metrics.borrow().load;
                self.sender.send(&ConnectorMessage::Pong { request_id, load }).await?;
                Ok(Next::GoOn)
            }
            ClientMessage::Moved => self.ask(Request::Moved { session_id }).await,
            ClientMessage::Stays => self.ask(Request::Stays { session_id }).await,
        }
    }

    async fn handle_directive(&mut self, directive: Directive) -> Result<Next, SessionError> {
        match directive {
            Directive::Send(message) => {
                self.sender.send(&message).await?;
                Ok(Next::GoOn)
            }
            Directive::Refuse { reason } => {
                self.refuse(reason).await?;
                Ok(Next::End)
            }
            Directive::Drain => {
                self.sender.send(&ConnectorMessage::Draining).await?;
                Ok(Next::GoOn)
            }
            Directive::Close => Ok(Next::End),
        }
    }

    async fn ask(&self, request: Request) -> Result<Next, SessionError> {
        let asked = self.context.requests.send(request).await;
        Ok(if asked.is_ok() { Next::GoOn } else { Next::End })
    }

    async fn present(&mut self, token: &str) -> Result<Next, SessionError> {
        let credential = match self.context.verifier.verify(token, &self.peer_pin) {
            Ok(credential) => credential,
            Err(reason) => {
                self.refuse(reason).await?;
                return Ok(Next::End);
            }
        };
        let is_first = self.subject.is_none();
        let subject = Subject { source: Some(self.remote.ip()), ..subject_of(&credential) };
        let (answer, granted) = oneshot::channel();
        let request = Request::Present {
            presenting: self.presenting.clone(),
            credential: Box::new(credential),
            outbox: self.outbox.take(),
            answer,
        };
        if self.context.requests.send(request).await.is_err() {
            return Ok(Next::End);
        }
        match granted.await {
            Ok(Ok(expires_at)) => {
                if is_first {
                    if !self.note_connection(subject.device_id).await {
                        return Ok(Next::End);
                    }
                    info!(device_id = %subject.device_id, user_id = %subject.user_id, %expires_at,
                        "Admitted a device");
                } else {
                    debug!(device_id = %subject.device_id, %expires_at, "Credential refreshed");
                }
                self.subject = Some(subject);
                let admitted = ConnectorMessage::Admitted {
                    session_id: self.presenting.session_id,
                    wireguard_public_key: self.context.wireguard_public_key,
                    expires_at,
                    preshared_key: Some(self.presenting.preshared_key.clone()),
                };
                self.sender.send(&admitted).await?;
                Ok(Next::GoOn)
            }
            Ok(Err(reason)) => {
                info!(device_id = %subject.device_id, %reason, "Refused a device");
                self.refuse(reason).await?;
                Ok(Next::End)
            }
            Err(_stopping) => Ok(Next::End),
        }
    }

    /// The connection is one of the device's from here on; false: the connector stops.
    async fn note_connection(&self, device_id: DeviceId) -> bool {
        let Some((lane, connection)) = self.connection else { return true };
        let kind = ConnectionKind::Session;
        let data_plane = &self.context.data_plane;
        data_plane.note_connection(lane, connection, device_id, kind).await.is_ok()
    }

    /// Says why, and lets a client whose rights have merely changed fetch a new credential.
    async fn refuse(&mut self, reason: Reason) -> Result<(), SessionError> {
        let renewable = matches!(
            reason,
            Reason::CredentialExpired | Reason::DeviceRevoked | Reason::UserRevoked
        );
        if renewable {
            self.sender.send(&ConnectorMessage::RefreshNow).await?;
        }
        self.sender.send(&ConnectorMessage::Refused { reason }).await
    }

    fn explain(&self, request_id: u64, flow: &FlowTuple) -> ConnectorMessage {
        let explained = |verdict, reason| ConnectorMessage::Explained {
            request_id,
            verdict,
            reason,
            resource_id: None,
            policy_id: None,
            policy_name: None,
        };
        let standing = self.context.verifier.standing.borrow();
        let (Some(enforced), Some(subject)) = (standing.live(), &self.subject) else {
            return explained(Verdict::Deny, Reason::BundleStale);
        };
        let own_addresses = self.context.own_addresses.borrow();
        let now = SystemTime::now().into();
        let decision = enforced.decide(subject, &destination_of(flow), &own_addresses, now);
        let (verdict, reason, resource_id, policy_id) = match decision {
            Ok(authorization) => (
                Verdict::Allow,
                Reason::PolicyPermits,
                Some(authorization.resource_id()),
                Some(authorization.policy_id()),
            ),
            Err(denial) => (Verdict::Deny, denial.reason, denial.resource_id, denial.policy_id),
        };
        let policy_name =
            policy_id.and_then(|id| enforced.evaluator().policy_name(id)).map(str::to_owned);
        ConnectorMessage::Explained {
            request_id,
            verdict,
            reason,
            resource_id,
            policy_id,
            policy_name,
        }
    }
}
