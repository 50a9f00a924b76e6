//! The daemon's one loop: an event in, the pure machines turn, their commands go out to the leaves.

mod calls;
mod diagnosis;
mod fetches;
mod logins;
mod memory;
mod questions;
mod tunnel;
mod views;

use std::{
    collections::{BTreeMap, HashMap},
    time::Instant,
};

use adit_proto::{ConnectorMessage, WireguardPublicKey};
use adit_tunnel::Offloads;
use tokio::{
    sync::{mpsc, oneshot, watch},
    time::sleep_until,
};

use self::{
    diagnosis::Diagnosis, fetches::Fetches, logins::Logins, memory::Memory, questions::Questions,
    tunnel::OpenTunnel,
};
use super::{
    backoff::Jitter,
    clock::Now,
    data_plane::DataPlaneEvent,
    denials::{Denial, Denials},
    event::Event,
    identity::Enrolled,
    material::Material,
    packet_carrier::{CarrierEvent, PacketCarrier},
    reachability::Reachability,
    resolver::Resolver,
    router::Router,
    session::{Session, SessionEvent},
    sites::{AttemptId, SessionEnd, Sites},
    state::{StateCommand, StateMachine},
    store::Store,
    task::Task,
    view::Summary,
};
use crate::{
    carrier::{Carrier, CarrierChoice},
    ipc::{Failure, FailureCode, Response},
};

/// Leaves wait while this many events are unread.
pub(crate) const EVENT_QUEUE_LEN: usize = 256;

/// What the loop is made of.
pub(crate) struct Parts {
    pub(crate) store: Store,
    pub(crate) interface: String,
    pub(crate) offloads: Offloads,
    pub(crate) enrolled: Option<Enrolled>,
    pub(crate) router: Router,
    pub(crate) jitter: Jitter,
    pub(crate) events: (mpsc::Sender<Event>, mpsc::Receiver<Event>),
    pub(crate) summary: watch::Sender<Summary>,
}

/// Everything the daemon knows. Owned by one task.
pub(crate) struct EventLoop {
    store: Store,
    interface: String,
    offloads: Offloads,
    enrolled: Option<Enrolled>,
    enrolling: Option<Enrolling>,
    /// Grows with each enrolment, so that late answers to an earlier one are told apart.
    generation: u64,
    machine: StateMachine,
    material: Material,
    fetches: Fetches,
    logins: Logins,
    reachability: Reachability,
    sites: Sites,
    sessions: BTreeMap<AttemptId, Session>,
    carriers: HashMap<(WireguardPublicKey, Carrier), PacketCarrier>,
    tunnel: Option<OpenTunnel>,
    router: Router,
    resolver: Resolver,
    questions: Questions,
    diagnosis: Diagnosis,
    denials: Denials,
    memory: Memory,
    jitter: Jitter,
    events: mpsc::Sender<Event>,
    incoming: mpsc::Receiver<Event>,
    summary: watch::Sender<Summary>,
}

/// An enrolment under way, and who waits for it.
struct Enrolling {
    reply: oneshot::Sender<Response>,
    _task: Task,
}

impl EventLoop {
    pub(crate) fn new(parts: Parts) -> Self {
        let Parts { store, interface, offloads, enrolled, router, mut jitter, events, summary } =
            parts;
        let sites_jitter = jitter.fork();
        let choice = store.carrier_choice().unwrap_or_else(|error| {
            tracing::warn!(%error, "Choice of carrier is not known, so it is automatic");
            CarrierChoice::Auto
        });
        let memory = Memory::load(&store);
        Self {
            store,
            interface,
            offloads,
            enrolled,
            enrolling: None,
            generation: 0,
            machine: StateMachine::new(Now::read()),
            material: Material::default(),
            fetches: Fetches::default(),
            logins: Logins::default(),
            reachability: Reachability::default(),
            sites: Sites::new(sites_jitter, choice),
            sessions: BTreeMap::new(),
            carriers: HashMap::new(),
            tunnel: None,
            router,
            resolver: Resolver::default(),
            questions: Questions::default(),
            diagnosis: Diagnosis::default(),
            denials: Denials::default(),
            memory,
            jitter,
            events: events.0,
            incoming: events.1,
            summary,
        }
    }

    /// Runs until [`Event::Shutdown`], then takes away what was made.
    pub(crate) async fn run(mut self) {
        self.load_cached_material(Now::read());
        match self.store.wants_up() {
            Ok(true) if self.enrolled.is_some() => self.machine.handle_up(Now::read()),
            Ok(_) => {}
            Err(error) => tracing::warn!(%error, "Wish of the user is not known"),
        }
        self.drive().await;
        loop {
            let event = self.next_event().await;
            let now = Now::read();
            match event {
                Event::Call(call) => self.handle_call(call, now),
                Event::ConfigFetched { generation, result } => {
                    if generation == self.generation {
                        self.handle_config_fetched(result, now).await;
                    }
                }
                Event::CredentialFetched { generation, result } => {
                    if generation == self.generation {
                        self.handle_credential_fetched(result, now);
                    }
                }
                Event::EnrollmentEnded(result) => self.handle_enrollment_ended(result, now).await,
                Event::Login { number, event } => self.handle_login(number, event, now).await,
                Event::LoggedOut { generation, result, reply } => {
                    if generation == self.generation {
                        self.handle_logged_out(result, reply, now);
                    }
                }
                Event::Session { attempt, event } => self.handle_session(attempt, event, now),
                Event::Carrier { public_key, carrier, event } => {
                    self.handle_carrier(&public_key, carrier, event, now);
                }
                Event::DataPlane(event) => self.handle_data_plane(event, now),
                Event::NetworkChanged => self.handle_network_changed().await,
                Event::Timeout => self.handle_timeout(now),
                Event::Shutdown => break,
            }
            self.drive().await;
        }
        self.machine.handle_down(Now::read());
        self.drive().await;
    }

    async fn next_event(&mut self) -> Event {
        let timeout = self.poll_timeout();
        let timer = async {
            match timeout {
                Some(at) => sleep_until(at.into()).await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            event = self.incoming.recv() => event.expect("the loop holds a sender itself"),
            () = timer => Event::Timeout,
        }
    }

    fn poll_timeout(&self) -> Option<Instant> {
        [
            self.machine.poll_timeout(),
            self.fetches.poll_timeout(),
            self.sites.poll_timeout(),
            self.questions.poll_timeout(),
        ]
        .into_iter()
        .flatten()
        .min()
    }

    fn handle_timeout(&mut self, now: Now) {
        self.machine.handle_timeout(now);
        self.sites.handle_timeout(now);
        self.questions.handle_timeout(now.instant);
    }

    /// Turns the machines until none has anything left to say.
    async fn drive(&mut self) {
        loop {
            let now = Now::read();
            if self.material.is_complete(now.time) {
                self.machine.handle_material(now);
            }
            if self.tunnel.as_ref().is_some_and(|tunnel| tunnel.has_sessions) {
                self.machine.handle_progress(self.sites.progress(), now);
            }
            if let Some(command) = self.machine.poll_command() {
                self.execute(command, now).await;
            } else if let Some(command) = self.sites.poll_command() {
                self.execute_for_site(command, now);
            } else if let Some(fetch) = self.fetches.poll_fetch(now.instant) {
                self.start_fetch(fetch);
            } else {
                break;
            }
        }
        self.publish();
    }

    async fn execute(&mut self, command: StateCommand, now: Now) {
        match command {
            StateCommand::StartRefresh => self.fetches.start(now.instant),
            StateCommand::StopRefresh => {
                self.fetches.stop();
                self.reachability = Reachability::default();
            }
            StateCommand::OpenTunnel => match self.open_tunnel().await {
                Ok(()) => self.machine.handle_tunnel_opened(now),
                Err(failure) => {
                    tracing::error!(error = failure.message, "Tunnel cannot be opened");
                    self.machine.handle_obstacle(failure, now);
                }
            },
            StateCommand::StartSessions => self.start_sessions(now),
            StateCommand::CloseTunnel => {
                self.close_tunnel().await;
                self.machine.handle_tunnel_closed(now);
            }
        }
    }

    fn handle_session(&mut self, attempt: AttemptId, event: SessionEvent, now: Now) {
        match event {
            SessionEvent::Admitted { endpoint, carrier, preshared_key } => {
                let mut remembered = None;
                if let Some(session) = self.sessions.get_mut(&attempt) {
                    session.note_carrier(carrier);
                    let connector_id = session.connector_id();
                    remembered = self.memory.remembered(connector_id).carrier;
                    if self.sites.choice() == CarrierChoice::Auto {
                        self.memory.note_session(connector_id, carrier, &self.store);
                    }
                }
                self.sites.handle_admitted(attempt, endpoint, preshared_key, remembered, now);
                if let Some(view) = self.sites.views().find(|view| view.attempt == Some(attempt)) {
                    let connector_id = view.connector.map(|connector| connector.id);
                    tracing::info!(
                        %attempt, ?connector_id, %endpoint, %carrier, "Connector admits us"
                    );
                }
            }
            SessionEvent::Message(message) => self.handle_message(attempt, message, now),
            SessionEvent::Ended(end) => {
                match &end {
                    SessionEnd::Unreachable(_) => {
                        tracing::debug!(%attempt, reason = %end, "Session did not come about");
                    }
                    SessionEnd::Lost(_) => {
                        tracing::info!(%attempt, reason = %end, "Session ended");
                    }
                    SessionEnd::Refused(_) => {
                        tracing::info!(%attempt, reason = %end, "Session ended");
                        self.fetches.refresh_now(&mut self.jitter, now.instant);
                    }
                }
                self.sessions.remove(&attempt);
                self.questions.handle_session_ended(attempt);
                self.sites.handle_ended(attempt, end, now);
            }
        }
    }

    fn handle_message(&mut self, attempt: AttemptId, message: ConnectorMessage, now: Now) {
        match message {
            ConnectorMessage::Admitted { expires_at, .. } => {
                tracing::debug!(%attempt, %expires_at, "Connector took the fresh credential");
            }
            // The session's task makes it the session's end.
            ConnectorMessage::Refused { .. } => {}
            ConnectorMessage::RefreshNow => {
                self.fetches.refresh_now(&mut self.jitter, now.instant);
            }
            ConnectorMessage::Speak => self.speak(attempt),
            ConnectorMessage::Draining => self.sites.handle_draining(attempt, now),
            ConnectorMessage::Denied { flow, verdict, reason, resource_id, policy_id } => {
                let denial = Denial { flow, verdict, reason, resource_id, policy_id };
                if self.denials.insert(denial, now.time) {
                    tracing::info!(
                        proto = %flow.protocol,
                        dst = %flow.destination,
                        port = flow.destination_port,
                        ?verdict,
                        %reason,
                        "Flow was denied"
                    );
                }
            }
            ConnectorMessage::Explained {
                request_id,
                verdict,
                reason,
                resource_id,
                policy_id,
                policy_name,
            } => {
                let answer =
                    questions::Answer { verdict, reason, resource_id, policy_id, policy_name };
                self.questions.handle_answer(attempt, request_id, answer, self.material.config());
            }
            ConnectorMessage::Pong { request_id, load } => {
                self.sites.handle_pong(attempt, request_id, load, now);
            }
        }
    }

    fn handle_carrier(
        &mut self,
        public_key: &WireguardPublicKey,
        carrier: Carrier,
        event: CarrierEvent,
        now: Now,
    ) {
        match event {
            CarrierEvent::Up => self.sites.handle_carrier_up(public_key, carrier, now),
            CarrierEvent::Down(why) => {
                tracing::info!(peer = %public_key, %carrier, reason = why, "Carrier is down");
                self.carriers.remove(&(*public_key, carrier));
                self.sites.handle_carrier_down(public_key, carrier, &why, now);
            }
        }
    }

    /// Tells the connectors where we are; whoever hears it answers there.
    async fn handle_network_changed(&mut self) {
        if let Some(tunnel) = &self.tunnel {
            tracing::debug!("Network of this machine has changed");
            tunnel.data_plane.announce();
            self.memory.handle_network(self.router.find_network().await);
        }
    }

    fn handle_data_plane(&mut self, event: DataPlaneEvent, now: Now) {
        match event {
            DataPlaneEvent::Established { public_key } => {
                tracing::debug!(peer = %public_key, "Handshake is complete");
                self.sites.handle_carrier_up(&public_key, Carrier::Wireguard, now);
            }
            DataPlaneEvent::Suspected { public_key } => {
                self.sites.handle_suspected(&public_key, now);
            }
            DataPlaneEvent::Alive { public_key, carrier } => {
                self.sites.handle_carrier_up(&public_key, carrier, now);
            }
            DataPlaneEvent::Silent { public_key, carrier } => {
                tracing::info!(peer = %public_key, %carrier, "Connector is silent");
                // A connection is kept: it may be the network, and then it goes on at once.
                let why = "the connector is silent";
                self.sites.handle_carrier_down(&public_key, carrier, why, now);
            }
            DataPlaneEvent::Failed(error) => {
                let failure = Failure::new(
                    FailureCode::Interface,
                    format!("the data plane stopped: {error}"),
                    "the daemon tries again by itself; look at its log",
                );
                self.machine.handle_obstacle(failure, now);
            }
        }
    }

    fn publish(&self) {
        let summary = Summary { state: self.machine.name(), problem: self.problem() };
        self.summary.send_if_modified(|held| {
            let is_other = *held != summary;
            *held = summary;
            is_other
        });
    }
}
