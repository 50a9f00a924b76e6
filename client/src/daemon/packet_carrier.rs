//! CONNECT-IP to one connector: opened, watched, and closed when it is dropped.

use std::{net::SocketAddr, time::Duration};

use adit_proto::{
    ConnectorOnClient, WireguardPublicKey,
    http3::{Field, decode_varint},
    masque::{CONTEXT_ID_PACKET, Capsule, IpTarget, ProxyRequest},
};
use adit_tunnel::Answer;
use anyhow::Context as _;
use tokio::{sync::mpsc, time::timeout};

use super::{data_plane::Dialler, event::Event, task::Task};
use crate::carrier::Carrier;

/// How long a connector may take from the first datagram to its answer.
const OPEN_TIMEOUT: Duration = Duration::from_secs(10);

/// What happens to a carrier.
#[derive(Debug)]
pub(crate) enum CarrierEvent {
    /// Packets can pass.
    Up,
    /// They can no longer, or never could.
    Down(String),
}

/// A carrier that is being opened or is open. Dropping it closes it.
#[derive(Debug)]
pub(crate) struct PacketCarrier {
    _task: Task,
}

/// What a carrier needs.
pub(crate) struct PacketCarrierParts {
    pub(crate) connector: ConnectorOnClient,
    pub(crate) endpoint: SocketAddr,
    pub(crate) credential: String,
    pub(crate) dialler: Dialler,
}

impl PacketCarrier {
    pub(crate) fn open(parts: PacketCarrierParts, events: mpsc::Sender<Event>) -> Self {
        let public_key = parts.connector.wireguard_public_key;
        let task = Task::spawn(async move {
            let why = match run(parts, &events).await {
                Ok(()) => "the connector has ended it".to_owned(),
                Err(error) => format!("{error:#}"),
            };
            tell(&events, public_key, CarrierEvent::Down(why)).await;
        });
        Self { _task: task }
    }
}

async fn tell(events: &mpsc::Sender<Event>, public_key: WireguardPublicKey, event: CarrierEvent) {
    // Fails only when the daemon ends.
    let _ = events.send(Event::Carrier { public_key, carrier: Carrier::Quic, event }).await;
}

async fn run(parts: PacketCarrierParts, events: &mpsc::Sender<Event>) -> anyhow::Result<()> {
    let PacketCarrierParts { connector, endpoint, credential, dialler } = parts;
    let public_key = connector.wireguard_public_key;
    let open = async {
        let connection = dialler.connect(endpoint, connector.pin).await?;
        let asked = ProxyRequest::ConnectIp { target: IpTarget::Any, protocol: None };
        let mut head = asked.head(&endpoint.to_string());
        head.headers.push(Field::new("authorization", format!("Bearer {credential}")));
        let answer = connection.request(head).await?;
        anyhow::Ok((connection, answer))
    };
    let (_connection, Answer { head, body }) =
        timeout(OPEN_TIMEOUT, open).await.map_err(|_elapsed| anyhow::anyhow!("no answer"))??;
    anyhow::ensure!(head.status == 200, "the connector answered {}", head.status);
    let stream = body.quic_stream().context("the answer came by another way")?;
    anyhow::ensure!(dialler.attach(public_key, stream).await, "the connection is gone");
    tell(events, public_key, CarrierEvent::Up).await;

    let mut capsules = body.into_capsules();
    while let Some(capsule) = capsules.next().await? {
        match capsule {
            // A packet that is too long for a datagram.
            Capsule::Datagram(datagram) => {
                if let Some((CONTEXT_ID_PACKET, len)) = decode_varint(&datagram) {
                    let packet = datagram.get(len..).unwrap_or_default().to_vec();
                    dialler.take_packet(public_key, packet);
                }
            }
            // Both are known from the configuration, which is signed.
            Capsule::AddressAssign(_) | Capsule::RouteAdvertisement(_) => {}
            // There is none that we could give.
            Capsule::AddressRequest(_) => {}
        }
    }
    Ok(())
}
