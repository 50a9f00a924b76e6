//! One session channel with one connector.

use std::{net::SocketAddr, time::Duration};

use adit_proto::{ClientMessage, ConnectorMessage, ConnectorOnClient, PresharedKey};
use adit_tunnel::{KeyPair, SessionChannel, SessionError};
use futures_util::{StreamExt as _, stream::FuturesUnordered};
use tokio::{
    sync::mpsc,
    time::{sleep, timeout},
};

use super::{
    event::Event,
    obstacle::chain,
    resolver::Resolver,
    router::Router,
    sites::{AttemptId, SessionEnd},
    task::Task,
};

/// How long one address is tried alone before the next is tried beside it (RFC 8305 §5).
const HEAD_START: Duration = Duration::from_millis(250);

/// How long a connector may think about a credential.
const ADMISSION_TIMEOUT: Duration = Duration::from_secs(10);

/// As many addresses of one connector are tried.
const MAX_ADDRESSES: usize = 8;

/// Messages to a connector wait in here; when it is full they are dropped, and a credential comes
/// again.
const QUEUE_LEN: usize = 64;

/// What happens to a session.
#[derive(Debug)]
pub(crate) enum SessionEvent {
    /// The connector admits us; its WireGuard is at the same address.
    Admitted {
        /// Where.
        endpoint: SocketAddr,
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
    _task: Task,
}

/// What a session needs.
pub(crate) struct SessionParts {
    pub(crate) connector: ConnectorOnClient,
    pub(crate) credential: String,
    pub(crate) device_key: KeyPair,
    pub(crate) router: Router,
    pub(crate) resolver: Resolver,
}

impl Session {
    pub(crate) fn open(
        attempt: AttemptId,
        parts: SessionParts,
        events: mpsc::Sender<Event>,
    ) -> Self {
        let (messages, receiver) = mpsc::channel(QUEUE_LEN);
        let task = Task::spawn(async move {
            let end = match run(attempt, parts, receiver, &events).await {
                Ok(never) => match never {},
                Err(end) => end,
            };
            let event = SessionEvent::Ended(end);
            let _ = events.send(Event::Session { attempt, event }).await;
        });
        Self { messages, _task: task }
    }

    /// Sends a message; returns whether there was room.
    pub(crate) fn send(&self, message: ClientMessage) -> bool {
        self.messages.try_send(message).is_ok()
    }
}

type Channel = SessionChannel<ClientMessage, ConnectorMessage>;

enum Never {}

async fn run(
    attempt: AttemptId,
    parts: SessionParts,
    mut messages: mpsc::Receiver<ClientMessage>,
    events: &mpsc::Sender<Event>,
) -> Result<Never, SessionEnd> {
    let (endpoint, channel) = connect(&parts).await?;
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
        | ConnectorMessage::Draining
        | ConnectorMessage::Denied { .. }
        | ConnectorMessage::Explained { .. }
        | ConnectorMessage::Pong { .. } => {
            return Err(SessionEnd::Lost("the connector did not answer the credential".to_owned()));
        }
    };
    tell(SessionEvent::Admitted { endpoint, preshared_key }).await?;

    loop {
        tokio::select! {
            message = messages.recv() => match message {
                Some(message) => sender.send(&message).await.map_err(lost)?,
                None => return Err(SessionEnd::Lost("the daemon closed it".to_owned())),
            },
            message = receiver.next() => match message {
                Some(Ok(ConnectorMessage::Refused { reason })) => {
                    return Err(SessionEnd::Refused(reason));
                }
                Some(Ok(message)) => tell(SessionEvent::Message(message)).await?,
                Some(Err(error)) => return Err(lost(error)),
                None => {
                    return Err(SessionEnd::Lost("the connector closed the channel".to_owned()));
                }
            },
        }
    }
}

/// Tries the connector's addresses, each with a small head start; the first that answers wins.
async fn connect(parts: &SessionParts) -> Result<(SocketAddr, Channel), SessionEnd> {
    let SessionParts { connector, device_key, router, resolver, .. } = parts;
    let mut addresses: Vec<SocketAddr> = Vec::new();
    let mut problem = "the connector has no endpoint; ask an administrator".to_owned();
    for endpoint in &connector.endpoints {
        match resolver.resolve(endpoint).await {
            Ok(found) => {
                for address in found {
                    if !addresses.contains(&address) {
                        addresses.push(address);
                    }
                }
            }
            Err(error) => problem = format!("cannot find the address of {endpoint}: {error}"),
        }
    }
    addresses.truncate(MAX_ADDRESSES);

    let mut attempts: FuturesUnordered<_> = addresses
        .iter()
        .zip(0_u32..)
        .map(|(address, place)| async move {
            sleep(HEAD_START * place).await;
            router.keep_outside(address.ip()).await;
            let channel = adit_tunnel::connect(*address, connector.pin, device_key).await?;
            Ok::<_, SessionError>((*address, channel))
        })
        .collect();
    while let Some(attempt) = attempts.next().await {
        match attempt {
            Ok(connected) => return Ok(connected),
            Err(error) => problem = chain(&error),
        }
    }
    Err(SessionEnd::Unreachable(problem))
}
