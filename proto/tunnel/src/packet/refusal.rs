//! Answers that tell a sender at once that its packet will not be carried.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use super::{
    Packet, TcpFlags, Transport,
    checksum::Sum,
    ip::{ICMP, ICMPV6, IPV4_HEADER_LEN, IPV6_HEADER_LEN, IPV6_MINIMUM_MTU, TCP},
    transport::{ICMP_HEADER_LEN, TCP_HEADER_LEN},
};

/// Why a packet is not carried, as its sender is told.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Refusal {
    /// Policy says no: a TCP reset, or *administratively prohibited* for anything else.
    Prohibited,
    /// The packet does not fit.
    TooBig {
        /// What would fit.
        mtu: u16,
    },
}

/// The packet that tells the sender of `packet` of the refusal; it comes from `from`, or else from
/// the address that the packet went to.
///
/// None where an answer is forbidden: to a reset, to an ICMP error, to or from several hosts
/// (RFC 9293 §3.5.2, RFC 1122 §3.2.2, RFC 4443 §2.4).
pub fn refuse(packet: &Packet<'_>, refusal: Refusal, from: Option<IpAddr>) -> Option<Vec<u8>> {
    if !names_one_host(packet.source()) || !names_one_host(packet.destination()) {
        return None;
    }
    match (packet.transport(), refusal) {
        (Transport::IcmpError, _) => None,
        // Among the ICMP messages that are not carried may be errors.
        (Transport::Unsupported { protocol: ICMP | ICMPV6 }, _) => None,
        (Transport::Tcp(flags), Refusal::Prohibited) => tcp_reset(packet, flags),
        (
            Transport::Tcp(_)
            | Transport::Udp
            | Transport::IcmpEchoRequest
            | Transport::IcmpEchoReply
            | Transport::Unsupported { .. },
            _,
        ) => icmp_error(packet, refusal, from),
    }
}

fn names_one_host(address: IpAddr) -> bool {
    let broadcast = match address {
        IpAddr::V4(address) => address.is_broadcast(),
        IpAddr::V6(_) => false,
    };
    !(address.is_multicast() || address.is_unspecified() || broadcast)
}

/// The reset of RFC 9293 §3.5.2, group 1: the connection does not exist.
fn tcp_reset(packet: &Packet<'_>, flags: TcpFlags) -> Option<Vec<u8>> {
    if flags.rst() {
        return None;
    }
    let fixed: &[u8; TCP_HEADER_LEN] = packet.body()?.first_chunk()?;
    let [source_port, destination_port] = [[fixed[0], fixed[1]], [fixed[2], fixed[3]]];
    let sequence = u32::from_be_bytes([fixed[4], fixed[5], fixed[6], fixed[7]]);
    let acknowledgment = u32::from_be_bytes([fixed[8], fixed[9], fixed[10], fixed[11]]);

    let (sequence, acknowledgment, flags) = if flags.ack() {
        (acknowledgment, 0, TcpFlags::RST)
    } else {
        let payload_len = u32::try_from(packet.payload_len()).ok()?;
        let occupied = payload_len + u32::from(flags.syn()) + u32::from(flags.fin());
        (0, sequence.wrapping_add(occupied), TcpFlags::RST | TcpFlags::ACK)
    };
    let mut body = Vec::with_capacity(TCP_HEADER_LEN);
    body.extend_from_slice(&destination_port);
    body.extend_from_slice(&source_port);
    body.extend_from_slice(&sequence.to_be_bytes());
    body.extend_from_slice(&acknowledgment.to_be_bytes());
    // Five words of header, no window, no checksum yet, no urgent pointer.
    body.extend_from_slice(&[0x50, flags, 0, 0, 0, 0, 0, 0]);
    assemble(packet.destination(), packet.source(), TCP, body)
}

fn icmp_error(packet: &Packet<'_>, refusal: Refusal, from: Option<IpAddr>) -> Option<Vec<u8>> {
    /// RFC 1812 §4.3.2.3: as much as fits into 576 bytes.
    const MAX_IPV4_LEN: usize = 576;
    let to = packet.source();
    let from = from.filter(|from| from.is_ipv4() == to.is_ipv4()).unwrap_or(packet.destination());
    let (protocol, max_quote_len) = match to {
        IpAddr::V4(_) => (ICMP, MAX_IPV4_LEN - IPV4_HEADER_LEN - ICMP_HEADER_LEN),
        // RFC 4443 §2.4: as much as fits into the smallest MTU.
        IpAddr::V6(_) => (ICMPV6, IPV6_MINIMUM_MTU - IPV6_HEADER_LEN - ICMP_HEADER_LEN),
    };
    let (kind, code, mtu) = match (protocol, refusal) {
        (ICMP, Refusal::Prohibited) => (3, 13, 0),
        (ICMP, Refusal::TooBig { mtu }) => (3, 4, mtu),
        (_, Refusal::Prohibited) => (1, 1, 0),
        // Nobody sends less, so what is longer than the path is cut on the way.
        (_, Refusal::TooBig { mtu }) => (2, 0, mtu.max(1_280)),
    };
    let [mtu_high, mtu_low] = mtu.to_be_bytes();
    let quote = packet.bytes().get(..max_quote_len).unwrap_or(packet.bytes());
    let mut body = Vec::with_capacity(ICMP_HEADER_LEN + quote.len());
    body.extend_from_slice(&[kind, code, 0, 0, 0, 0, mtu_high, mtu_low]);
    body.extend_from_slice(quote);
    assemble(from, to, protocol, body)
}

/// Puts an IP header before `body` and the checksum into it.
pub(super) fn assemble(
    source: IpAddr,
    destination: IpAddr,
    protocol: u8,
    mut body: Vec<u8>,
) -> Option<Vec<u8>> {
    let len = u16::try_from(body.len()).ok()?;
    let sum = match protocol {
        ICMP => Sum::of(&body),
        _ => {
            let addresses = Sum::of_address(source) + Sum::of_address(destination);
            Sum::pseudo_header(addresses, protocol, len) + Sum::of(&body)
        }
    };
    let place = match protocol {
        ICMP | ICMPV6 => 2..4,
        TCP => 16..18,
        _ => 6..8,
    };
    body.get_mut(place)?.copy_from_slice(&sum.checksum());

    let mut packet = match (source, destination) {
        (IpAddr::V4(source), IpAddr::V4(destination)) => {
            ipv4_header(source, destination, protocol, body.len())?
        }
        (IpAddr::V6(source), IpAddr::V6(destination)) => {
            ipv6_header(source, destination, protocol, body.len())?
        }
        (IpAddr::V4(_), IpAddr::V6(_)) | (IpAddr::V6(_), IpAddr::V4(_)) => return None,
    };
    packet.extend_from_slice(&body);
    Some(packet)
}

const HOP_LIMIT: u8 = 64;

fn ipv4_header(
    source: Ipv4Addr,
    destination: Ipv4Addr,
    protocol: u8,
    body_len: usize,
) -> Option<Vec<u8>> {
    let total_len = u16::try_from(IPV4_HEADER_LEN + body_len).ok()?;
    let [len_high, len_low] = total_len.to_be_bytes();
    const DO_NOT_FRAGMENT: u8 = 0x40;
    let mut header: [u8; IPV4_HEADER_LEN] = [
        0x45,
        0,
        len_high,
        len_low,
        0,
        0,
        DO_NOT_FRAGMENT,
        0,
        HOP_LIMIT,
        protocol,
        0,
        0,
        0,
        0,
        0,
        0,
        0,
        0,
        0,
        0,
    ];
    header[12..16].copy_from_slice(&source.octets());
    header[16..20].copy_from_slice(&destination.octets());
    let sum = Sum::of(&header).checksum();
    header[10..12].copy_from_slice(&sum);
    let mut packet = Vec::with_capacity(IPV4_HEADER_LEN + body_len);
    packet.extend_from_slice(&header);
    Some(packet)
}

fn ipv6_header(
    source: Ipv6Addr,
    destination: Ipv6Addr,
    protocol: u8,
    body_len: usize,
) -> Option<Vec<u8>> {
    let [len_high, len_low] = u16::try_from(body_len).ok()?.to_be_bytes();
    let mut packet = Vec::with_capacity(IPV6_HEADER_LEN + body_len);
    packet.extend_from_slice(&[0x60, 0, 0, 0, len_high, len_low, protocol, HOP_LIMIT]);
    packet.extend_from_slice(&source.octets());
    packet.extend_from_slice(&destination.octets());
    Some(packet)
}
