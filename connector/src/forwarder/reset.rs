//! Resets of our own, for flows that are cut.

use std::net::IpAddr;

use adit_proto::{FlowTuple, Protocol};
use adit_tunnel::{Packet, Refusal, refuse};

use crate::flow_table::Flow;

/// A TCP reset that a connector sends on its own account, in the name of the other end.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Reset(Vec<u8>);

impl Reset {
    /// Ends the device's side of a flow.
    pub(super) fn to_initiator(flow: &Flow) -> Option<Self> {
        Self::try_new(flow.tuple(), flow.to_device.next_sequence?)
    }

    /// Ends the service's side of a flow.
    pub(super) fn to_service(flow: &Flow) -> Option<Self> {
        Self::try_new(flow.tuple().reversed(), flow.from_device.next_sequence?)
    }

    pub(crate) fn bytes(&self) -> &[u8] {
        &self.0
    }

    /// The answer to a segment of `tuple` that acknowledges everything up to `expected`, which is
    /// the one sequence number at which RFC 5961 §3.2 lets a reset take effect.
    fn try_new(tuple: FlowTuple, expected: u32) -> Option<Self> {
        if tuple.protocol != Protocol::Tcp {
            return None;
        }
        let segment = acknowledgment(tuple, expected);
        let packet = Packet::try_parse(&segment).ok()?;
        refuse(&packet, Refusal::Prohibited, None).map(Self)
    }
}

/// Moves `newest` to the sequence number behind this segment, unless that lies back.
///
/// A run of segments counts as the one that it was merged into: it has the sequence number of the
/// first, the payload of all and the flags of the last.
pub(super) fn note_sequence(newest: &mut Option<u32>, packet: &Packet<'_>) {
    let Some(end) = sequence_end(packet) else { return };
    let is_ahead = newest.is_none_or(|newest| end.wrapping_sub(newest) < 1 << 31);
    if is_ahead {
        *newest = Some(end);
    }
}

/// Whether a segment carries only what was sent before.
pub(super) fn is_repeated(newest: Option<u32>, packet: &Packet<'_>) -> bool {
    let (Some(newest), Some(end)) = (newest, sequence_end(packet)) else { return false };
    packet.payload_len() > 0 && newest.wrapping_sub(end) < 1 << 31
}

fn sequence_end(packet: &Packet<'_>) -> Option<u32> {
    const TCP: u8 = 6;
    const IPV6_HEADER_LEN: usize = 40;

    let flags = packet.tcp_flags()?;
    let bytes = packet.bytes();
    let header_len = match packet.source() {
        IpAddr::V4(_) => usize::from(bytes.first()? & 0x0f) * 4,
        // Behind extension headers a segment goes uncounted, which costs precision and no more.
        IpAddr::V6(_) if bytes.get(6) == Some(&TCP) => IPV6_HEADER_LEN,
        IpAddr::V6(_) => return None,
    };
    let sequence = u32::from_be_bytes(*bytes.get(header_len + 4..)?.first_chunk()?);
    let payload_len = u32::try_from(packet.payload_len()).ok()?;
    Some(
        sequence
            .wrapping_add(payload_len)
            .wrapping_add(u32::from(flags.syn()))
            .wrapping_add(u32::from(flags.fin())),
    )
}

/// A bare TCP segment with the ACK flag. It is answered, never sent, so it has no checksums.
fn acknowledgment(tuple: FlowTuple, acknowledged: u32) -> Vec<u8> {
    const TCP_HEADER_LEN: u8 = 20;
    let mut segment = Vec::with_capacity(60);
    match (tuple.source, tuple.destination) {
        (IpAddr::V4(source), IpAddr::V4(destination)) => {
            segment.extend_from_slice(&[0x45, 0, 0, 20 + TCP_HEADER_LEN, 0, 0, 0, 0, 64, 6, 0, 0]);
            segment.extend_from_slice(&source.octets());
            segment.extend_from_slice(&destination.octets());
        }
        (source, destination) => {
            let octets = |address: IpAddr| match address {
                IpAddr::V4(address) => address.to_ipv6_mapped().octets(),
                IpAddr::V6(address) => address.octets(),
            };
            segment.extend_from_slice(&[0x60, 0, 0, 0, 0, TCP_HEADER_LEN, 6, 64]);
            segment.extend_from_slice(&octets(source));
            segment.extend_from_slice(&octets(destination));
        }
    }
    segment.extend_from_slice(&tuple.source_port.to_be_bytes());
    segment.extend_from_slice(&tuple.destination_port.to_be_bytes());
    segment.extend_from_slice(&[0; 4]);
    segment.extend_from_slice(&acknowledged.to_be_bytes());
    segment.extend_from_slice(&[0x50, 0x10, 0, 0, 0, 0, 0, 0]);
    segment
}
