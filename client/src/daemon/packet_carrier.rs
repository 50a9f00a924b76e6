//! CONNECT-IP to one connector, over QUIC or HTTP/2: opened, watched, and closed when it is dropped.

use std::{net::SocketAddr, time::Duration};

use adit_proto::{
    ConnectorOnClient, WireguardPublicKey,
    http3::{Field, decode_varint},
    masque::{CONTEXT_ID_PACKET, Capsule, IpTarget, ProxyRequest},
};
use adit_tunnel::{CapsuleStream, Http2Connection, HttpConnection, KeyPair, PacketPipe};
use anyhow::Context as _;
use bytes::Bytes;
use tokio::{sync::mpsc, time::timeout};

use super::{data_plane::Dialler, event::Event, task::Task};
use crate::carrier::Carrier;

/// How long a connector may take from the first packet to its answer.
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
    /// What the connection is made over.
    pub(crate) transport: Transport,
    pub(crate) credential: String,
    pub(crate) dialler: Dialler,
}

/// What a connection is made over.
pub(crate) enum Transport {
    /// UDP, on the socket of the data plane.
    Quic,
    /// TCP, with this key.
    Http2 { device_key: KeyPair },
}

impl PacketCarrier {
    pub(crate) fn open(parts: PacketCarrierParts, events: mpsc::Sender<Event>) -> Self {
        let public_key = parts.connector.wireguard_public_key;
        let carrier = match &parts.transport {
            Transport::Quic => Carrier::Quic,
            Transport::Http2 { .. } => Carrier::Http2,
        };
        let task = Task::spawn(async move {
            let tell = async |event| {
                // Fails only when the daemon ends.
                let _ = events.send(Event::Carrier { public_key, carrier, event }).await;
            };
            let why = match run(parts, || tell(CarrierEvent::Up)).await {
                Ok(()) => "the connector has ended it".to_owned(),
                Err(error) => format!("{error:#}"),
            };
            tell(CarrierEvent::Down(why)).await;
        });
        Self { _task: task }
    }
}

async fn run(parts: PacketCarrierParts, is_up: impl AsyncFnOnce()) -> anyhow::Result<()> {
    let PacketCarrierParts { connector, endpoint, transport, credential, dialler } = parts;
    let public_key = connector.wireguard_public_key;
    let open = async {
        let connection = match transport {
            Transport::Quic => {
                HttpConnection::Quic(dialler.connect(endpoint, connector.pin).await?)
            }
            Transport::Http2 { device_key } => HttpConnection::Http2(
                Http2Connection::try_connect(endpoint, connector.pin, &device_key).await?,
            ),
        };
        let asked = ProxyRequest::ConnectIp { target: IpTarget::Any, protocol: None };
        let mut head = asked.head(&endpoint.to_string());
        head.headers.push(Field::new("authorization", format!("Bearer {credential}")));
        let answer = connection.request(head).await?;
        anyhow::Ok((connection, answer))
    };
    let (_connection, answer) = timeout(OPEN_TIMEOUT, open).await.context("no answer")??;
    let status = answer.head.status;
    anyhow::ensure!(status == 200, "the connector answered {status}");
    let pipe = match answer.body.quic_stream() {
        Some(stream) => {
            anyhow::ensure!(dialler.attach(public_key, stream).await, "the connection is gone");
            None
        }
        None => Some(dialler.attach_pipe(public_key).await.context("the connector is gone")?),
    };
    is_up().await;
    carry(answer.body.into_capsules(), pipe, public_key, &dialler).await
}

/// Carries what the data plane does not carry itself.
async fn carry(
    mut capsules: CapsuleStream,
    mut pipe: Option<PacketPipe<WireguardPublicKey>>,
    public_key: WireguardPublicKey,
    dialler: &Dialler,
) -> anyhow::Result<()> {
    let mut packets = Vec::new();
    loop {
        let from_data_plane = async {
            match &mut pipe {
                Some(pipe) => pipe.next_batch(&mut packets).await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            capsule = capsules.next() => match capsule? {
                Some(Capsule::Datagram(datagram)) => {
                    if let Some(packet) = packet_in(&datagram) {
                        dialler.take_packet(public_key, packet);
                    }
                }
                // Both are known from the configuration, which is signed.
                Some(Capsule::AddressAssign(_) | Capsule::RouteAdvertisement(_)) => {}
                // There is none that we could give.
                Some(Capsule::AddressRequest(_)) => {}
                None => return Ok(()),
            },
            is_open = from_data_plane => {
                for packet in packets.drain(..) {
                    capsules.send_datagram(CONTEXT_ID_PACKET, &packet);
                }
                anyhow::ensure!(is_open, "another carrier has taken its place");
            }
        }
    }
}

fn packet_in(datagram: &Bytes) -> Option<Vec<u8>> {
    let (context, len) = decode_varint(datagram)?;
    let packet = datagram.get(len..).filter(|packet| !packet.is_empty())?;
    (context == CONTEXT_ID_PACKET).then(|| packet.to_vec())
}
