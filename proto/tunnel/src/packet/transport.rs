//! The headers of TCP (RFC 9293), UDP (RFC 768), ICMP (RFC 792) and ICMPv6 (RFC 4443).

use std::net::IpAddr;

use adit_proto::{FlowTuple, Protocol};

use super::{
    PacketError,
    ip::{ICMP, ICMPV6, IpHeader, TCP, UDP},
};

pub(crate) const TCP_HEADER_LEN: usize = 20;
pub(crate) const UDP_HEADER_LEN: usize = 8;
pub(super) const ICMP_HEADER_LEN: usize = 8;

/// What a packet carries.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Transport {
    /// A segment of TCP.
    Tcp(TcpFlags),
    /// A datagram of UDP.
    Udp,
    /// An echo request of ICMP or ICMPv6.
    IcmpEchoRequest,
    /// An echo reply of ICMP or ICMPv6.
    IcmpEchoReply,
    /// An ICMP or ICMPv6 error that quotes a packet.
    IcmpError,
    /// Anything else, among it every other ICMP message.
    Unsupported {
        /// The number of the protocol.
        protocol: u8,
    },
}

impl Transport {
    /// The protocol that policy calls it, if it can be a flow.
    pub const fn protocol(self) -> Option<Protocol> {
        match self {
            Self::Tcp(_) => Some(Protocol::Tcp),
            Self::Udp => Some(Protocol::Udp),
            Self::IcmpEchoRequest | Self::IcmpEchoReply => Some(Protocol::Icmp),
            Self::IcmpError | Self::Unsupported { .. } => None,
        }
    }
}

/// The control bits of a TCP segment.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct TcpFlags(u8);

impl TcpFlags {
    pub(crate) const FIN: u8 = 0x01;
    pub(super) const SYN: u8 = 0x02;
    pub(super) const RST: u8 = 0x04;
    pub(crate) const PSH: u8 = 0x08;
    pub(crate) const ACK: u8 = 0x10;
    pub(crate) const CWR: u8 = 0x80;

    /// No more data from the sender.
    pub const fn fin(self) -> bool {
        self.0 & Self::FIN != 0
    }

    /// Synchronise sequence numbers.
    pub const fn syn(self) -> bool {
        self.0 & Self::SYN != 0
    }

    /// Reset the connection.
    pub const fn rst(self) -> bool {
        self.0 & Self::RST != 0
    }

    /// The acknowledgment number is significant.
    pub const fn ack(self) -> bool {
        self.0 & Self::ACK != 0
    }

    /// Whether this segment opens a connection.
    pub const fn is_initial(self) -> bool {
        self.syn() && !self.ack() && !self.rst() && !self.fin()
    }
}

/// What follows the IP header.
#[derive(Debug, Clone, Copy)]
pub(super) struct Segment {
    pub(super) transport: Transport,
    pub(super) source_port: u16,
    pub(super) destination_port: u16,
    pub(super) payload_len: usize,
}

impl Segment {
    pub(super) fn try_parse(header: &IpHeader, body: &[u8]) -> Result<Self, PacketError> {
        match header.protocol {
            TCP => Self::try_parse_tcp(body),
            UDP => Self::try_parse_udp(body, header.more_fragments),
            ICMP if header.source.is_ipv4() => Self::try_parse_icmp(ICMP, body),
            ICMPV6 if header.source.is_ipv6() => Self::try_parse_icmp(ICMPV6, body),
            protocol => Ok(Self {
                transport: Transport::Unsupported { protocol },
                source_port: 0,
                destination_port: 0,
                payload_len: body.len(),
            }),
        }
    }

    fn try_parse_tcp(body: &[u8]) -> Result<Self, PacketError> {
        let fixed: &[u8; TCP_HEADER_LEN] =
            body.first_chunk().ok_or(PacketError::TransportHeader)?;
        let header_len = usize::from(fixed[12] >> 4) * 4;
        if header_len < TCP_HEADER_LEN || header_len > body.len() {
            return Err(PacketError::TransportHeader);
        }
        Ok(Self {
            transport: Transport::Tcp(TcpFlags(fixed[13])),
            source_port: u16::from_be_bytes([fixed[0], fixed[1]]),
            destination_port: u16::from_be_bytes([fixed[2], fixed[3]]),
            payload_len: body.len() - header_len,
        })
    }

    fn try_parse_udp(body: &[u8], more_fragments: bool) -> Result<Self, PacketError> {
        let fixed: &[u8; UDP_HEADER_LEN] =
            body.first_chunk().ok_or(PacketError::TransportHeader)?;
        let len = usize::from(u16::from_be_bytes([fixed[4], fixed[5]]));
        if len < UDP_HEADER_LEN || (len > body.len() && !more_fragments) {
            return Err(PacketError::TransportHeader);
        }
        Ok(Self {
            transport: Transport::Udp,
            source_port: u16::from_be_bytes([fixed[0], fixed[1]]),
            destination_port: u16::from_be_bytes([fixed[2], fixed[3]]),
            payload_len: len.min(body.len()) - UDP_HEADER_LEN,
        })
    }

    fn try_parse_icmp(protocol: u8, body: &[u8]) -> Result<Self, PacketError> {
        let fixed: &[u8; ICMP_HEADER_LEN] =
            body.first_chunk().ok_or(PacketError::TransportHeader)?;
        let transport = icmp_transport(protocol, fixed);
        let identifier = match transport {
            Transport::IcmpEchoRequest | Transport::IcmpEchoReply => {
                u16::from_be_bytes([fixed[4], fixed[5]])
            }
            Transport::Tcp(_)
            | Transport::Udp
            | Transport::IcmpError
            | Transport::Unsupported { .. } => 0,
        };
        Ok(Self {
            transport,
            source_port: identifier,
            destination_port: identifier,
            payload_len: body.len() - ICMP_HEADER_LEN,
        })
    }
}

/// Sorts by type and code. A redirect is no error to be carried: it would change a host's routes.
fn icmp_transport(protocol: u8, fixed: &[u8; ICMP_HEADER_LEN]) -> Transport {
    match (protocol, fixed[0], fixed[1]) {
        (ICMP, 8, 0) | (ICMPV6, 128, 0) => Transport::IcmpEchoRequest,
        (ICMP, 0, 0) | (ICMPV6, 129, 0) => Transport::IcmpEchoReply,
        (ICMP, 3 | 11 | 12, _) | (ICMPV6, 1..=4, _) => Transport::IcmpError,
        _ => Transport::Unsupported { protocol },
    }
}

/// The flow of a packet of which only the first eight bytes behind the IP header are known.
pub(super) fn quoted_ports(header: &IpHeader, body: &[u8]) -> Option<FlowTuple> {
    let fixed: &[u8; ICMP_HEADER_LEN] = body.first_chunk()?;
    let ports =
        (u16::from_be_bytes([fixed[0], fixed[1]]), u16::from_be_bytes([fixed[2], fixed[3]]));
    let identifier = u16::from_be_bytes([fixed[4], fixed[5]]);
    let is_ipv4 = matches!(header.source, IpAddr::V4(_));
    let (protocol, (source_port, destination_port)) = match header.protocol {
        TCP => (Protocol::Tcp, ports),
        UDP => (Protocol::Udp, ports),
        protocol @ (ICMP | ICMPV6) if (protocol == ICMP) == is_ipv4 => {
            let protocol = icmp_transport(protocol, fixed).protocol()?;
            (protocol, (identifier, identifier))
        }
        _ => return None,
    };
    Some(FlowTuple {
        protocol,
        source: header.source,
        source_port,
        destination: header.destination,
        destination_port,
    })
}
