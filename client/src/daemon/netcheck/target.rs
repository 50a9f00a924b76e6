//! One address of a connector, tried in every way at once.

use std::{
    io,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket},
    time::{Duration, Instant},
};

use adit_proto::{
    MAX_OBSERVED_ADDRESS_LEN, OBSERVED_ADDRESS_PATH, ObservedAddress, Pin, http3::RequestHead,
};
use adit_tunnel::{Endpoint, Http2Connection, HttpConnection, KeyPair};
use anyhow::{Context as _, anyhow, ensure};
use tokio::{io::AsyncReadExt as _, time::timeout};

use super::prober::{Found, Prober};

/// How long a handshake with one question may take.
const PATIENCE: Duration = Duration::from_millis(2200);

/// What was found at one address.
#[derive(Debug)]
pub(super) struct Tried {
    pub(super) address: SocketAddr,
    /// Our own address toward it.
    pub(super) source: Option<IpAddr>,
    pub(super) udp: Result<Duration, String>,
    pub(super) path_mtu: Option<u16>,
    pub(super) quic: Result<Asked, String>,
    pub(super) tcp: Result<Asked, String>,
}

/// A connector that has answered.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Asked {
    pub(super) round_trip: Duration,
    /// What it sees of us; one of an earlier version does not say.
    pub(super) observed: Option<SocketAddr>,
}

/// Tries an address by UDP, QUIC and TCP.
pub(super) async fn try_address(
    address: SocketAddr,
    pin: Pin,
    device_key: &KeyPair,
    prober: &Prober,
) -> Tried {
    let source = match source_toward(address) {
        Ok(source) => source,
        Err(error) => {
            let why = format!("no way from this host: {error}");
            let [udp, quic, tcp] = [why.clone(), why.clone(), why];
            return Tried {
                address,
                source: None,
                udp: Err(udp),
                path_mtu: None,
                quic: Err(quic),
                tcp: Err(tcp),
            };
        }
    };
    let over_quic = async {
        let connection = HttpConnection::Quic(prober.connect(address, pin).await?);
        ask(&connection, address).await
    };
    let over_tcp = async {
        let connection = Http2Connection::try_connect(address, pin, device_key).await?;
        ask(&HttpConnection::Http2(connection), address).await
    };
    let (found, quic, tcp) =
        tokio::join!(prober.search(address), in_time(over_quic), in_time(over_tcp));
    let Found { round_trip, path_mtu } = found;
    let udp = round_trip.ok_or_else(|| "no answer".to_owned());
    Tried { address, source: Some(source), udp, path_mtu, quic, tcp }
}

/// Our own address toward another, if there is a route; nothing is sent.
fn source_toward(address: SocketAddr) -> io::Result<IpAddr> {
    let any: IpAddr = match address {
        SocketAddr::V4(_) => Ipv4Addr::UNSPECIFIED.into(),
        SocketAddr::V6(_) => Ipv6Addr::UNSPECIFIED.into(),
    };
    let socket = UdpSocket::bind((any, 0))?;
    socket.connect(address)?;
    Ok(socket.local_addr()?.ip())
}

async fn in_time(asking: impl Future<Output = anyhow::Result<Asked>>) -> Result<Asked, String> {
    match timeout(PATIENCE, asking).await {
        Ok(Ok(asked)) => Ok(asked),
        Ok(Err(error)) => Err(format!("{error:#}")),
        Err(_elapsed) => Err(format!("no answer within {:.1} s", PATIENCE.as_secs_f32())),
    }
}

/// Asks a connector what it sees of us; the time is that of the question, without handshakes.
async fn ask(connection: &HttpConnection, address: SocketAddr) -> anyhow::Result<Asked> {
    let began = Instant::now();
    let authority = SocketAddr::new(address.ip(), address.port()).to_string();
    let answer = connection
        .request(RequestHead {
            method: "GET".to_owned(),
            protocol: None,
            scheme: Some("https".to_owned()),
            authority: Some(authority),
            path: Some(OBSERVED_ADDRESS_PATH.to_owned()),
            headers: Vec::new(),
        })
        .await?;
    let round_trip = began.elapsed();
    let status = answer.head.status;
    if matches!(status, 404 | 405) {
        return Ok(Asked { round_trip, observed: None });
    }
    ensure!(status == 200, "the connector answered {status}");
    let mut content = Vec::new();
    let limit = u64::try_from(MAX_OBSERVED_ADDRESS_LEN).unwrap_or(u64::MAX);
    answer
        .body
        .into_bytes()
        .take(limit)
        .read_to_end(&mut content)
        .await
        .context("the answer broke off")?;
    let ObservedAddress { address } = serde_json::from_slice(&content)
        .map_err(|_error| anyhow!("the connector's answer is malformed"))?;
    Ok(Asked { round_trip, observed: Some(Endpoint::from(address).remote()) })
}
