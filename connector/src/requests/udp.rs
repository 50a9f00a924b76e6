//! CONNECT-UDP: datagrams to a service (RFC 9298).

use std::{
    io,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
    time::Duration,
};

use adit_proto::{
    http3::{Http3Code, decode_varint},
    masque::{CONTEXT_ID_PACKET, Capsule},
};
use adit_tunnel::IncomingRequest;
use bytes::Bytes;
use tokio::net::UdpSocket;
use tracing::debug;

use super::{answer, authorized::AuthorizedFlow, dial};

/// Silence after which a flow of UDP is over: RFC 9298 §6.1 asks for two minutes at least.
const IDLE_TIMEOUT: Duration = Duration::from_secs(300);

/// The longest payload of UDP there is.
const MAX_PAYLOAD_LEN: usize = 65_527;

pub(super) async fn serve(request: IncomingRequest, service: SocketAddr, mut flow: AuthorizedFlow) {
    let upstream = match dial(service).await {
        Ok(upstream) => upstream,
        Err(error) => {
            dial::refuse(request, service, &error);
            return;
        }
    };
    let mut capsules = request.respond(answer::capsules()).into_capsules();
    let traffic = flow.traffic();
    let mut buffer = vec![0; MAX_PAYLOAD_LEN];
    loop {
        let payload = tokio::select! {
            () = flow.cut() => {
                capsules.abort(Http3Code::ConnectError);
                return;
            }
            capsule = capsules.next() => match capsule {
                Ok(Some(Capsule::Datagram(datagram))) => payload_of(&datagram),
                // Those of CONNECT-IP mean nothing here (RFC 9297 §3.2).
                Ok(Some(
                    Capsule::AddressAssign(_)
                    | Capsule::AddressRequest(_)
                    | Capsule::RouteAdvertisement(_),
                )) => None,
                Ok(None) => return,
                Err(error) => {
                    let error: &dyn std::error::Error = &error;
                    debug!(error, "Broke a stream of capsules off");
                    // RFC 9297 §3.3.
                    capsules.abort(Http3Code::MessageError);
                    return;
                }
            },
            received = upstream.recv(&mut buffer) => {
                match received {
                    Ok(len) => {
                        let payload = buffer.get(..len).unwrap_or_default();
                        traffic.to_device.count_datagram(len);
                        capsules.send_datagram(CONTEXT_ID_PACKET, payload);
                    }
                    // A port that is closed now may be open later.
                    Err(error) => debug!(%service, %error, "Service answered with an error"),
                }
                None
            }
            () = tokio::time::sleep(IDLE_TIMEOUT) => return,
        };
        if let Some(payload) = payload {
            traffic.from_device.count_datagram(payload.len());
            // As good as lost on the way.
            let _ = upstream.send(&payload).await;
        }
    }
}

async fn dial(service: SocketAddr) -> io::Result<UdpSocket> {
    let any: IpAddr = match service {
        SocketAddr::V4(_) => Ipv4Addr::UNSPECIFIED.into(),
        SocketAddr::V6(_) => Ipv6Addr::UNSPECIFIED.into(),
    };
    let socket = UdpSocket::bind((any, 0)).await?;
    socket.connect(service).await?;
    Ok(socket)
}

/// The payload in a datagram; none: it is of another context (RFC 9298 §4).
fn payload_of(datagram: &Bytes) -> Option<Bytes> {
    let (context, len) = decode_varint(datagram)?;
    let payload = datagram.slice(len..);
    (context == CONTEXT_ID_PACKET && payload.len() <= MAX_PAYLOAD_LEN).then_some(payload)
}
