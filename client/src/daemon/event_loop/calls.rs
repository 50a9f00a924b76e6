//! What is asked at the socket.

use std::{net::IpAddr, time::Duration};

use adit_policy::{Destination, ResourceMap};
use adit_proto::{ClientMessage, FlowTuple, Reason, ResourceId, api::DeviceState};
use adit_tunnel::PeerStatus;
use tokio::{sync::oneshot, time::timeout};

use super::{Enrolling, EventLoop};
use crate::{
    carrier::{Carrier, CarrierChoice, SessionCarrier},
    daemon::{
        clock::Now,
        enrollment::{Enrollment, enroll, host_name, parse_key},
        event::Event,
        identity::Enrolled,
        ipc_server::Call,
        material::Material,
        obstacle,
        session::{Session, SessionEvent},
        sites::{SessionEnd, SiteView},
        store::StoreError,
        task::Task,
    },
    ipc::{Explanation, Failure, FailureCode, Request, Response, SessionState, StateName},
};

/// How long the data plane may take to count.
const COUNT_PATIENCE: Duration = Duration::from_secs(1);

impl EventLoop {
    pub(super) fn handle_call(&mut self, call: Call, now: Now) {
        let Call { request, reply } = call;
        match request {
            Request::Enroll { key, name, replace } => {
                self.enroll(key.expose(), name, replace, reply)
            }
            Request::Login { url, name, replace } => {
                self.log_in(url.as_deref(), name, replace, reply);
            }
            Request::AwaitLogin => self.await_login(reply),
            Request::Logout => self.log_out(reply),
            Request::Up { .. } => answer(reply, self.up(now)),
            Request::Down => answer(reply, self.down(now)),
            Request::SetCarrier { carrier } => answer(reply, self.set_carrier(carrier, now)),
            Request::Status => self.status(reply, now),
            Request::Resources => {
                let resources = self.resource_views();
                answer(reply, resources.map(|resources| Response::Resources { resources }));
            }
            Request::Explain { destination, port, protocol } => {
                self.explain(Destination { address: destination, port, protocol }, reply, now);
            }
            Request::Ping { destination, sequence, timeout_ms } => {
                let patience = Duration::from_millis(timeout_ms);
                self.ping(destination, sequence, patience, reply);
            }
            Request::Netcheck => self.netcheck(reply),
        }
    }

    fn up(&mut self, now: Now) -> Result<Response, Failure> {
        if self.enrolled.is_none() {
            return Err(obstacle::not_enrolled());
        }
        self.store.save_wants_up(true).map_err(|error| storage(&error))?;
        self.machine.handle_up(now);
        // What stood in the way may be gone: ask again rather than repeat it.
        self.machine.handle_obstacle_gone();
        self.fetches.ask_again(now.instant);
        // Who waits for the state must not see the one before.
        self.publish();
        Ok(done("Connecting; `adit status` shows how far it is"))
    }

    fn down(&mut self, now: Now) -> Result<Response, Failure> {
        let saved = self.store.save_wants_up(false);
        self.machine.handle_down(now);
        self.publish();
        saved.map_err(|error| storage(&error))?;
        Ok(done("Disconnected"))
    }

    fn set_carrier(&mut self, choice: CarrierChoice, now: Now) -> Result<Response, Failure> {
        self.store.save_carrier_choice(choice).map_err(|error| storage(&error))?;
        self.sites.set_choice(choice, now);
        self.end_sessions_by_others(choice.of_sessions(None), now);
        Ok(done(&format!(
            "Carrier is set to {}; `adit status` shows what carries",
            choice.as_str()
        )))
    }

    /// Ends sessions whose channels others carry than these; they are made anew, and packets pass
    /// meanwhile.
    fn end_sessions_by_others(&mut self, allowed: &[SessionCarrier], now: Now) {
        let is_other = |session: &Session| {
            session.carrier().is_some_and(|carrier| !allowed.contains(&carrier))
        };
        let others = self.sessions.iter().filter(|(_attempt, session)| is_other(session));
        let others: Vec<_> = others.map(|(attempt, _session)| *attempt).collect();
        for attempt in others {
            let end = SessionEnd::Lost("another carrier was chosen".to_owned());
            self.handle_session(attempt, SessionEvent::Ended(end), now);
        }
    }

    fn enroll(
        &mut self,
        key: &str,
        name: Option<String>,
        replace: bool,
        reply: oneshot::Sender<Response>,
    ) {
        match self.prepare_enrollment(key, name, replace) {
            Ok(task) => self.enrolling = Some(Enrolling { reply, _task: task }),
            Err(failure) => answer(reply, Err(failure)),
        }
    }

    fn prepare_enrollment(
        &self,
        key: &str,
        name: Option<String>,
        replace: bool,
    ) -> Result<Task, Failure> {
        if let Some(enrolled) = &self.enrolled
            && !replace
        {
            return Err(Failure::new(
                FailureCode::AlreadyEnrolled,
                format!("this device is already enrolled as {}", enrolled.identity.device_id),
                "adit up (or, to forget that: adit enroll --replace --key-file FILE)",
            ));
        }
        if self.enrolling.is_some() {
            return Err(Failure::new(
                FailureCode::Busy,
                "another enrolment is under way",
                "try again in a moment",
            ));
        }
        let token = parse_key(key)?;
        let paths = self.store.joining_key_paths().map_err(|error| storage(&error))?;
        let name = name.unwrap_or_else(host_name);
        let events = self.events.clone();
        Ok(Task::spawn(async move {
            let result = enroll(token, name, paths).await;
            let _ = events.send(Event::EnrollmentEnded(result)).await;
        }))
    }

    pub(super) async fn handle_enrollment_ended(
        &mut self,
        result: Result<Box<Enrollment>, Failure>,
        now: Now,
    ) {
        let Some(enrolling) = self.enrolling.take() else {
            return;
        };
        let response = match result {
            Ok(enrollment) => self.adopt(*enrollment, now).await,
            Err(failure) => Err(failure),
        };
        answer(enrolling.reply, response);
    }

    pub(super) async fn adopt(
        &mut self,
        enrollment: Enrollment,
        now: Now,
    ) -> Result<Response, Failure> {
        let Enrollment { identity, state, device_key, wireguard_secret } = enrollment;
        let was_up = match self.machine.name() {
            StateName::Disconnected => false,
            StateName::Connecting
            | StateName::Connected
            | StateName::Disconnecting
            | StateName::Error => true,
        };
        self.machine.handle_down(now);
        self.drive().await;

        self.generation += 1;
        self.enrolled = None;
        self.material = Material::default();
        self.fetches.forget_etag();
        self.denials.clear();
        self.logins.note_session_end(None);
        self.store.adopt_joining(&identity).map_err(|error| storage(&error))?;
        let device_id = identity.device_id;
        let enrolled =
            Enrolled::try_new(identity, device_key, wireguard_secret).map_err(|error| {
                Failure::new(FailureCode::Internal, format!("{error:#}"), "tell an administrator")
            })?;
        self.enrolled = Some(enrolled);
        tracing::info!(%device_id, "Enrolled");
        if was_up {
            self.machine.handle_up(now);
        }
        let next = match state {
            DeviceState::Approved => "next: adit up",
            DeviceState::Pending => {
                "it waits for approval by an administrator; next: adit up, which connects as soon \
                 as it is approved"
            }
            DeviceState::Revoked => "but its access is revoked; ask an administrator",
        };
        Ok(done(&format!("Enrolled as {device_id}; {next}")))
    }

    /// Answers when the data plane has counted, which the loop does not wait for.
    fn status(&self, reply: oneshot::Sender<Response>, now: Now) {
        let mut status = self.status_view();
        let keys = self.peer_keys();
        let counted = self.tunnel.as_ref().map(|tunnel| tunnel.data_plane.statuses());
        tokio::spawn(async move {
            if let Some(counted) = counted
                && let Ok(Ok(peers)) = timeout(COUNT_PATIENCE, counted).await
            {
                for (session, key) in status.sessions.iter_mut().zip(keys) {
                    if let Some(peer) = peers.iter().find(|peer| Some(peer.public_key) == key) {
                        session.bytes_received = peer.received_bytes;
                        session.bytes_sent = peer.sent_bytes;
                        if session.carrier == Some(Carrier::Wireguard) {
                            session.key_exchange = Some(wireguard_keys(peer).to_owned());
                        }
                        session.last_handshake = peer.last_handshake.map(|at| now.time_of(at));
                    }
                }
            }
            answer(reply, Ok(Response::Status(Box::new(status))));
        });
    }

    fn explain(&mut self, destination: Destination, reply: oneshot::Sender<Response>, now: Now) {
        let (explanation, view) = match self.explain_locally(&destination) {
            Ok(explained) => explained,
            Err(failure) => return answer(reply, Err(failure)),
        };
        let Some(view) = view else {
            return answer(reply, Ok(Response::Explanation(Box::new(explanation))));
        };
        let (attempt, state) = (view.attempt, view.state);
        let name = view.name.to_owned();
        let problem = view.problem.clone();
        let source = self.source_toward(destination.address);
        let is_open = match state {
            SessionState::Handshaking | SessionState::Established => true,
            SessionState::Seeking | SessionState::Reconnecting => false,
        };
        let session = attempt.filter(|_| is_open).and_then(|attempt| self.sessions.get(&attempt));
        let (Some(attempt), Some(session), Some(source)) = (attempt, session, source) else {
            let why = problem.unwrap_or_else(|| "no session yet".to_owned());
            return answer(
                reply,
                Err(Failure::new(
                    FailureCode::ConnectorUnavailable,
                    format!("no connector of site {name} can be asked: {why}"),
                    "adit status",
                )),
            );
        };
        let Some(request_id) = self.questions.insert(attempt, explanation, reply, now.instant)
        else {
            return;
        };
        let flow = FlowTuple {
            protocol: destination.protocol,
            source,
            source_port: 0,
            destination: destination.address,
            destination_port: destination.port,
        };
        if !session.send(ClientMessage::Explain { request_id, flow }) {
            self.questions.handle_session_ended(attempt);
        }
    }

    /// What can be said without a connector, and the site whose connector is to be asked.
    fn explain_locally(
        &self,
        destination: &Destination,
    ) -> Result<(Explanation, Option<SiteView<'_>>), Failure> {
        let config = self.check_is_up()?;
        let mut map: ResourceMap<ResourceId> = ResourceMap::new();
        let mut resources: Vec<_> = config.resources.iter().collect();
        resources.sort_by_key(|resource| resource.id);
        for resource in &resources {
            map.upsert(&resource.addresses, &resource.filters, resource.id);
        }
        let found = map.find(destination);
        let resource = resources.iter().find(|resource| Some(&resource.id) == found);
        // Other ports of an address may be another resource's, which only the connector knows.
        let view = self.sites.site_at(destination.address);
        let explanation = Explanation {
            destination: destination.address,
            port: destination.port,
            protocol: destination.protocol,
            allowed: false,
            reason: Reason::ResourceUnknown,
            remedy: Reason::ResourceUnknown.remedy().to_owned(),
            resource_id: resource.map(|resource| resource.id),
            resource_name: resource.map(|resource| resource.name.clone()),
            policy_id: None,
            policy_name: None,
            site_id: view.as_ref().map(|view| view.id),
            site_name: view.as_ref().map(|view| view.name.to_owned()),
            connector_id: view.as_ref().and_then(|view| Some(view.connector?.id)),
            connector_name: view.as_ref().and_then(|view| Some(view.connector?.name.clone())),
        };
        Ok((explanation, view))
    }

    /// Our address inside the tunnel that speaks to this one.
    pub(super) fn source_toward(&self, address: IpAddr) -> Option<IpAddr> {
        let config = self.material.config()?;
        let same_family = |own: &&IpAddr| own.is_ipv4() == address.is_ipv4();
        config.addresses.iter().find(same_family).or(config.addresses.first()).copied()
    }
}

pub(super) fn answer(reply: oneshot::Sender<Response>, response: Result<Response, Failure>) {
    // Who asked may be gone.
    let _ = reply.send(response.unwrap_or_else(Response::Failure));
}

/// How the keys of a peer's sessions are agreed on.
const fn wireguard_keys(peer: &PeerStatus) -> &'static str {
    if peer.has_preshared_key {
        // The key comes by the session channel, whose own are exchanged by the hybrid alone.
        "X25519 and a preshared key by X25519MLKEM768"
    } else {
        "X25519"
    }
}

fn done(message: &str) -> Response {
    Response::Done { message: message.to_owned() }
}

fn storage(error: &StoreError) -> Failure {
    Failure::new(
        FailureCode::Storage,
        obstacle::chain(error),
        "make room in the state directory and see that root may write there",
    )
}
