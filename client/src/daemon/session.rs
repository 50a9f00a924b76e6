//! One session channel with one connector.

mod dial;
mod heartbeat;
mod race;

use std::{
    net::SocketAddr,
    time::{Duration, Instant},
};

use adit_proto::{ClientMessage, ConnectorId, ConnectorMessage, ConnectorOnClient, PresharedKey};
use adit_tunnel::{KeyPair, SessionError};
use tokio::{
    sync::mpsc,
    time::{sleep_until, timeout},
};

use self::{
    dial::connect,
    heartbeat::{Beat, Heartbeat},
};
use super::{
    data_plane::Dialler,
    event::Event,
    obstacle::chain,
    resolver::Resolver,
    router::Router,
    sites::{AttemptId, SessionEnd},
    task::Task,
};
use crate::carrier::SessionCarrier;

/// How long a connector may think about a credential.
const ADMISSION_TIMEOUT: Duration = Duration::from_secs(10);

/// Messages to a connector wait in here; when it is full they are dropped, and a credential comes
/// again.
const QUEUE_LEN: usize = 64;

/// Pings of the channel itself; others count up from zero.
const HEARTBEAT_ID: u64 = u64::MAX;

/// What happens to a session.
#[derive(Debug)]
pub(crate) enum SessionEvent {
    /// The connector admits us; its WireGuard is at the same address.
    Admitted {
        /// Where.
        endpoint: SocketAddr,
        /// By which the channel goes.
        carrier: SessionCarrier,
        /// For WireGuard with it.
        preshared_key: Option<PresharedKey>,
    },
    /// It says something.
    Message(ConnectorMessage),
    /// It is over.
    Ended(SessionEnd),
}

/// A session that is being opened or is open. Dropping it closes the channel.
#[derive(Debug)]
pub(crate) struct Session {
    messages: mpsc::Sender<ClientMessage>,
    connector_id: ConnectorId,
    carrier: Option<SessionCarrier>,
    _task: Task,
}

/// What a session needs.
pub(crate) struct SessionParts {
    pub(crate) connector: ConnectorOnClient,
    pub(crate) credential: String,
    pub(crate) device_key: KeyPair,
    pub(crate) router: Router,
    pub(crate) resolver: Resolver,
    /// What may carry the channel, in the order in which it is tried.
    pub(crate) carriers: &'static [SessionCarrier],
    pub(crate) dialler: Dialler,
}

impl Session {
    pub(crate) fn open(
        attempt: AttemptId,
        parts: SessionParts,
        events: mpsc::Sender<Event>,
    ) -> Self {
        let (messages, receiver) = mpsc::channel(QUEUE_LEN);
        let connector_id = parts.connector.id;
        let task = Task::spawn(async move {
            let end = match run(attempt, parts, receiver, &events).await {
                Ok(never) => match never {},
                Err(end) => end,
            };
            let event = SessionEvent::Ended(end);
            let _ = events.send(Event::Session { attempt, event }).await;
        });
        Self { messages, connector_id, carrier: None, _task: task }
    }

    /// With whom it is.
    pub(crate) const fn connector_id(&self) -> ConnectorId {
        self.connector_id
    }

    /// What carries the channel, once it is there.
    pub(crate) const fn carrier(&self) -> Option<SessionCarrier> {
        self.carrier
    }

    pub(crate) const fn note_carrier(&mut self, carrier: SessionCarrier) {
        self.carrier = Some(carrier);
    }

    /// Sends a message; returns whether there was room.
    pub(crate) fn send(&self, message: ClientMessage) -> bool {
        self.messages.try_send(message).is_ok()
    }
}

enum Never {}

async fn run(
    attempt: AttemptId,
    parts: SessionParts,
    mut messages: mpsc::Receiver<ClientMessage>,
    events: &mpsc::Sender<Event>,
) -> Result<Never, SessionEnd> {
    let (way, channel) = connect(&parts).await?;
    let (mut sender, mut receiver) = channel.split();
    let lost = |error: SessionError| SessionEnd::Lost(chain(&error));

    sender.send(&ClientMessage::Present { credential: parts.credential }).await.map_err(lost)?;
    let tell = async |event| {
        let told = events.send(Event::Session { attempt, event }).await;
        told.map_err(|_closed| SessionEnd::Lost("the daemon stops".to_owned()))
    };
    let answer = loop {
        let message = timeout(ADMISSION_TIMEOUT, receiver.next())
            .await
            .map_err(|_elapsed| SessionEnd::Lost("the connector did not answer".to_owned()))?
            .ok_or_else(|| SessionEnd::Lost("the connector closed the channel".to_owned()))?
            .map_err(lost)?;
        // Comes before a refusal that a new credential may end.
        if message != ConnectorMessage::RefreshNow {
            break message;
        }
        tell(SessionEvent::Message(message)).await?;
    };
    let preshared_key = match answer {
        ConnectorMessage::Admitted { wireguard_public_key, preshared_key, .. } => {
            if wireguard_public_key != parts.connector.wireguard_public_key {
                return Err(SessionEnd::Lost(
                    "the connector has another WireGuard key than configured".to_owned(),
                ));
            }
            preshared_key
        }
        ConnectorMessage::Refused { reason } => return Err(SessionEnd::Refused(reason)),
        ConnectorMessage::RefreshNow
        | ConnectorMessage::Speak
        | ConnectorMessage::Draining
        | ConnectorMessage::Denied { .. }
        | ConnectorMessage::Explained { .. }
        | ConnectorMessage::Pong { .. } => {
            return Err(SessionEnd::Lost("the connector did not answer the credential".to_owned()));
        }
    };
    let carrier = way.carrier;
    tell(SessionEvent::Admitted { endpoint: way.endpoint, carrier, preshared_key }).await?;

    let mut heartbeat = Heartbeat::new(carrier, Instant::now());
    loop {
        let timer = async {
            match heartbeat.poll_timeout() {
                Some(at) => sleep_until(at.into()).await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            message = messages.recv() => match message {
                Some(message) => sender.send(&message).await.map_err(lost)?,
                None => return Err(SessionEnd::Lost("the daemon closed it".to_owned())),
            },
            message = receiver.next() => {
                heartbeat.handle_heard(Instant::now());
                match message {
                    Some(Ok(ConnectorMessage::Refused { reason })) => {
                        return Err(SessionEnd::Refused(reason));
                    }
                    Some(Ok(ConnectorMessage::Pong { request_id: HEARTBEAT_ID, .. })) => {}
                    Some(Ok(message)) => tell(SessionEvent::Message(message)).await?,
                    Some(Err(error)) => return Err(lost(error)),
                    None => {
                        return Err(SessionEnd::Lost("the connector closed the channel".to_owned()));
                    }
                }
            }
            () = timer => match heartbeat.handle_timeout(Instant::now()) {
                Beat::Ask => {
                    let ping = ClientMessage::Ping { request_id: HEARTBEAT_ID };
                    sender.send(&ping).await.map_err(lost)?;
                }
                Beat::GiveUp => {
                    return Err(SessionEnd::Lost("the connector answers no longer".to_owned()));
                }
            },
        }
    }
}
