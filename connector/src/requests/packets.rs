//! CONNECT-IP: packets of a device (RFC 9484).

use std::{
    collections::BTreeSet,
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
    time::Duration,
};

use adit_proto::{
    DeviceId, Reason,
    http3::{Http3Code, decode_varint},
    masque::{AddressRange, AssignedAddress, CONTEXT_ID_PACKET, Capsule, RequestedAddress},
};
use adit_tunnel::{CapsuleStream, CapsuleStreamError, IncomingRequest, PacketPipe};
use bytes::Bytes;
use ipnet::IpNet;
use tracing::{debug, info};

use super::{RequestServer, answer, arrived::Carrier};
use crate::{data_plane::DeviceOnConnector, sessions::Member};

pub(super) async fn serve(
    server: RequestServer,
    carrier: Carrier,
    request: IncomingRequest,
    mut member: Member,
) {
    let Ok(device) = member.device() else { return };
    // Before the answer, so that no packet comes too early.
    let remote = request.remote.ip();
    let attached = match carrier {
        Carrier::Quic { lane, stream } => {
            server.data_plane.attach(&device, remote, lane, stream).await
        }
        Carrier::Http2 => server.data_plane.attach_pipe(&device, remote).await.map(Some),
    };
    let pipe = match attached {
        Ok(pipe) => pipe,
        Err(error) => {
            debug!(%error, "Failed to carry packets of a device");
            return;
        }
    };
    let capsules = request.respond(answer::capsules()).into_capsules();
    info!(device_id = %device.subject.device_id, "Carrying packets");
    let mut tunnel = PacketStream { server, device, capsules };
    let outcome = tokio::select! {
        outcome = tunnel.run(pipe) => outcome,
        reason = gone_for_a_while(&mut member) => {
            debug!(%reason, "Device is no longer admitted");
            return;
        }
    };
    match outcome {
        Ok(()) => debug!("Stream of capsules ended"),
        Err(error) => {
            let error: &dyn std::error::Error = &error;
            debug!(error, "Broke a stream of capsules off");
            // RFC 9297 §3.3.
            tunnel.capsules.abort(Http3Code::MessageError);
        }
    }
}

/// Returns a while after the device has gone: what tells it that its flows are cut may lie behind
/// everything that was sent before.
async fn gone_for_a_while(member: &mut Member) -> Reason {
    const HEARD_OUT: Duration = Duration::from_secs(1);

    let reason = member.gone().await;
    tokio::time::sleep(HEARD_OUT).await;
    reason
}

struct PacketStream {
    server: RequestServer,
    device: DeviceOnConnector,
    capsules: CapsuleStream,
}

impl PacketStream {
    /// `pipe` is there if the lane does not take and give the packets itself.
    async fn run(
        &mut self,
        mut pipe: Option<PacketPipe<DeviceId>>,
    ) -> Result<(), CapsuleStreamError> {
        self.capsules.send(&Capsule::AddressAssign(self.assigned())).await?;
        self.capsules.send(&Capsule::RouteAdvertisement(self.routes())).await?;
        let mut packets = Vec::new();
        loop {
            let from_lane = async {
                match &mut pipe {
                    Some(pipe) => pipe.next_batch(&mut packets).await,
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                capsule = self.capsules.next() => match capsule? {
                    Some(Capsule::Datagram(datagram)) => self.take_packet(&pipe, &datagram),
                    Some(Capsule::AddressRequest(requested)) => {
                        let answers = requested.iter().map(|one| self.answer_of(one)).collect();
                        self.capsules.send(&Capsule::AddressAssign(answers)).await?;
                    }
                    // A client has no addresses for us, and its routes are its own affair.
                    Some(Capsule::AddressAssign(_) | Capsule::RouteAdvertisement(_)) => {}
                    None => return Ok(()),
                },
                is_open = from_lane => {
                    for packet in packets.drain(..) {
                        self.capsules.send_datagram(CONTEXT_ID_PACKET, &packet);
                    }
                    if !is_open {
                        return Ok(());
                    }
                }
            }
        }
    }

    /// Gives a packet that did not come by the lane's own datagrams to the lane.
    fn take_packet(&self, pipe: &Option<PacketPipe<DeviceId>>, datagram: &Bytes) {
        let Some((CONTEXT_ID_PACKET, len)) = decode_varint(datagram) else { return };
        let packet = datagram.get(len..).unwrap_or_default();
        if packet.is_empty() {
            return;
        }
        match pipe {
            Some(pipe) => pipe.send(packet.to_vec()),
            None => self.server.data_plane.inject(&self.device, packet.to_vec()),
        }
    }

    fn assigned(&self) -> Vec<AssignedAddress> {
        let addresses = self.device.addresses.iter().copied();
        addresses.map(|address| AssignedAddress { request_id: 0, prefix: address.into() }).collect()
    }

    /// The device's own address, whatever was asked for, if it is of the family; else a refusal
    /// (RFC 9484 §4.7.2).
    fn answer_of(&self, requested: &RequestedAddress) -> AssignedAddress {
        let wanted = requested.prefix.addr();
        let own = |address: &&IpAddr| {
            address.is_ipv4() == wanted.is_ipv4()
                && (wanted.is_unspecified() || **address == wanted)
        };
        let refused: IpAddr = match wanted {
            IpAddr::V4(_) => Ipv4Addr::UNSPECIFIED.into(),
            IpAddr::V6(_) => Ipv6Addr::UNSPECIFIED.into(),
        };
        let address = self.device.addresses.iter().find(own).copied().unwrap_or(refused);
        AssignedAddress { request_id: requested.request_id, prefix: address.into() }
    }

    /// Where the device may perhaps go, so that its routes need no configuration.
    fn routes(&self) -> Vec<AddressRange> {
        let standing = self.server.verifier.standing.borrow();
        let Some(enforced) = standing.live() else { return Vec::new() };
        let subject = &self.device.subject;
        let visible = enforced.evaluator().visible_resources(
            subject.user_id,
            &subject.groups,
            subject.device_id,
        );
        let prefixes: BTreeSet<IpNet> =
            visible.iter().flat_map(|resource| resource.addresses.iter().copied()).collect();
        let prefixes = IpNet::aggregate(&prefixes.into_iter().collect());
        let mut routes: Vec<AddressRange> = prefixes
            .into_iter()
            .map(|prefix| AddressRange {
                first: prefix.network(),
                last: prefix.broadcast(),
                protocol: 0,
            })
            .collect();
        routes.sort();
        routes
    }
}
