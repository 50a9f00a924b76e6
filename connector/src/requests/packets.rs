//! CONNECT-IP: packets of a device (RFC 9484).

use std::{
    collections::BTreeSet,
    io,
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
};

use adit_proto::{
    http3::{Http3Code, decode_varint, encode_varint},
    masque::{
        AddressRange, AssignedAddress, CONTEXT_ID_PACKET, Capsule, CapsuleDecoder, CapsuleError,
        RequestedAddress,
    },
};
use adit_tunnel::{ByteStream, IncomingRequest, RequestDatagrams};
use bytes::{Bytes, BytesMut};
use ipnet::IpNet;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tracing::{debug, info};

use super::{RequestServer, answer};
use crate::{
    data_plane::{DeviceOnConnector, PacketPipe},
    sessions::Member,
};

pub(super) async fn serve(
    server: RequestServer,
    lane: usize,
    request: IncomingRequest,
    mut member: Member,
) {
    let Ok(device) = member.device() else { return };
    // Before the answer, so that no packet comes too early.
    let pipe = match server.data_plane.attach(&device, lane, request.stream).await {
        Ok(pipe) => pipe,
        Err(error) => {
            debug!(%error, "Failed to carry packets of a device");
            return;
        }
    };
    let (stream, datagrams) = request.respond(answer::capsules());
    info!(device_id = %device.subject.device_id, "Carrying packets by QUIC");
    let mut tunnel = PacketStream { server, device, capsules: Capsules::new(stream), datagrams };
    let outcome = tokio::select! {
        outcome = tunnel.run(pipe) => outcome,
        reason = member.gone() => {
            debug!(%reason, "Device is no longer admitted");
            return;
        }
    };
    match outcome {
        Ok(()) => debug!("Stream of capsules ended"),
        Err(error) => {
            debug!(%error, "Broke a stream of capsules off");
            tunnel.capsules.abort();
        }
    }
}

struct PacketStream {
    server: RequestServer,
    device: DeviceOnConnector,
    capsules: Capsules,
    datagrams: RequestDatagrams,
}

impl PacketStream {
    /// `pipe` is there if the lane does not take and give the datagrams itself.
    async fn run(&mut self, mut pipe: Option<PacketPipe>) -> Result<(), CapsulesError> {
        self.capsules.send(&Capsule::AddressAssign(self.assigned())).await?;
        self.capsules.send(&Capsule::RouteAdvertisement(self.routes())).await?;
        loop {
            let from_lane = async {
                match &mut pipe {
                    Some(pipe) => pipe.next().await,
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                capsule = self.capsules.next() => match capsule? {
                    Some(Capsule::Datagram(datagram)) => {
                        self.take_packet(&mut pipe, &datagram).await;
                    }
                    Some(Capsule::AddressRequest(requested)) => {
                        let answers = requested.iter().map(|one| self.answer_of(one)).collect();
                        self.capsules.send(&Capsule::AddressAssign(answers)).await?;
                    }
                    // A client has no addresses for us, and its routes are its own affair.
                    Some(Capsule::AddressAssign(_) | Capsule::RouteAdvertisement(_)) => {}
                    None => return Ok(()),
                },
                datagram = self.datagrams.next() => match datagram {
                    Some(datagram) => self.take_packet(&mut pipe, &datagram).await,
                    None => return Ok(()),
                },
                packet = from_lane => match packet {
                    Some(packet) => self.datagrams.send(datagram_of(&packet)),
                    None => return Ok(()),
                },
            }
        }
    }

    /// Gives a packet that did not come by the lane's own datagrams to the lane.
    async fn take_packet(&self, pipe: &mut Option<PacketPipe>, datagram: &Bytes) {
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

fn datagram_of(packet: &[u8]) -> Bytes {
    let mut datagram = Vec::with_capacity(packet.len() + 1);
    encode_varint(CONTEXT_ID_PACKET, &mut datagram);
    datagram.extend_from_slice(packet);
    datagram.into()
}

/// Capsules on a stream, both ways (RFC 9297 §3).
pub(super) struct Capsules {
    stream: ByteStream,
    decoder: CapsuleDecoder,
}

/// Why there are no more capsules.
#[derive(Debug, thiserror::Error)]
pub(super) enum CapsulesError {
    #[error("a capsule is malformed: {0}")]
    Malformed(#[from] CapsuleError),
    #[error("the stream broke: {0}")]
    Stream(#[from] io::Error),
}

impl Capsules {
    pub(super) fn new(stream: ByteStream) -> Self {
        Self { stream, decoder: CapsuleDecoder::new() }
    }

    /// The next one; none: the peer has ended its direction.
    ///
    /// # Cancel safety
    ///
    /// None is lost when the future is dropped.
    pub(super) async fn next(&mut self) -> Result<Option<Capsule>, CapsulesError> {
        /// Capsules are short, but for packets.
        const PIECE_LEN: usize = 16 << 10;

        loop {
            if let Some(capsule) = self.decoder.poll()? {
                return Ok(Some(capsule));
            }
            let mut piece = BytesMut::with_capacity(PIECE_LEN);
            if self.stream.read_buf(&mut piece).await? == 0 {
                self.decoder.finish()?;
                return Ok(None);
            }
            self.decoder.push(piece.freeze());
        }
    }

    pub(super) async fn send(&mut self, capsule: &Capsule) -> Result<(), CapsulesError> {
        let mut bytes = Vec::new();
        capsule.encode(&mut bytes);
        self.stream.write_all(&bytes).await?;
        Ok(())
    }

    /// Breaks the stream off as malformed (RFC 9297 §3.3).
    pub(super) fn abort(self) {
        self.stream.abort(Http3Code::MessageError);
    }
}
