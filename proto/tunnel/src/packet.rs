//! A validated view of one inner IP packet.
//!
//! Everything that decides about a packet reads it through [`Packet`]: lengths are checked once,
//! at the edge, and nothing behind it can run off the end of a packet that an attacker wrote.

mod checksum;
mod ecn;
mod ip;
mod refusal;
#[cfg(test)]
pub(crate) mod sample;
mod segment_size;
#[cfg(test)]
mod tests;
mod transport;

use std::net::IpAddr;

use adit_proto::FlowTuple;

pub(crate) use self::{
    checksum::Sum,
    ecn::decapsulate_ecn,
    ip::{IPV4_HEADER_LEN, IPV6_HEADER_LEN, IPV6_MINIMUM_MTU, IpHeader, TCP, UDP},
    segment_size::clamp_segment_size,
    transport::{TCP_HEADER_LEN, UDP_HEADER_LEN},
};
pub use self::{
    ecn::Ecn,
    refusal::{Refusal, refuse},
    transport::{TcpFlags, Transport},
};

use self::transport::{Segment, quoted_ports};

/// The longest IP packet there is without jumbograms.
pub const MAX_PACKET_LEN: usize = 65_535;

/// Why bytes are not an IP packet that the tunnel carries.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, thiserror::Error)]
pub enum PacketError {
    /// No bytes at all.
    #[error("empty packet")]
    Empty,
    /// Neither version 4 nor 6.
    #[error("ip version is neither 4 nor 6")]
    Version,
    /// Shorter than its own headers say.
    #[error("packet is shorter than its header says")]
    Truncated,
    /// A length field of the IP header contradicts itself.
    #[error("length field of the ip header is impossible")]
    HeaderLength,
    /// Extension headers that are too many or out of place.
    #[error("extension headers are too many or out of place")]
    ExtensionHeaders,
    /// A source route leads elsewhere than the destination says, past any policy.
    #[error("packet carries a source route")]
    SourceRoute,
    /// A fragment that is not the first, so it names no ports.
    #[error("fragment that is not the first")]
    Fragment,
    /// The TCP, UDP or ICMP header is cut short or contradicts itself.
    #[error("transport header is cut short or impossible")]
    TransportHeader,
}

/// One IPv4 or IPv6 packet whose headers are all there.
#[derive(Debug, Clone, Copy)]
pub struct Packet<'a> {
    bytes: &'a [u8],
    header: IpHeader,
    segment: Segment,
}

impl Packet<'_> {
    /// Where a packet goes, if it is long enough to say so; nothing else is looked at.
    pub fn destination_of(packet: &[u8]) -> Option<IpAddr> {
        match packet.first()? >> 4 {
            4 => packet.get(16..20)?.first_chunk::<4>().map(|bytes| IpAddr::from(*bytes)),
            6 => packet.get(24..40)?.first_chunk::<16>().map(|bytes| IpAddr::from(*bytes)),
            _ => None,
        }
    }

    /// Where a packet claims to come from, if it is long enough to say so; nothing else is looked
    /// at.
    pub fn source_of(packet: &[u8]) -> Option<IpAddr> {
        match packet.first()? >> 4 {
            4 => packet.get(12..16)?.first_chunk::<4>().map(|bytes| IpAddr::from(*bytes)),
            6 => packet.get(8..24)?.first_chunk::<16>().map(|bytes| IpAddr::from(*bytes)),
            _ => None,
        }
    }
}

impl<'a> Packet<'a> {
    /// Reads the headers of the packet at the start of `bytes`; what follows it is padding.
    ///
    /// # Errors
    ///
    /// [`PacketError`] names what is wrong. A protocol that the tunnel does not know is no error:
    /// see [`Transport::Unsupported`].
    pub fn try_parse(bytes: &'a [u8]) -> Result<Self, PacketError> {
        let header = IpHeader::try_parse(bytes)?;
        let bytes = bytes.get(..header.total_len).ok_or(PacketError::Truncated)?;
        let body = bytes.get(header.header_len..).ok_or(PacketError::Truncated)?;
        let segment = Segment::try_parse(&header, body)?;
        Ok(Self { bytes, header, segment })
    }

    /// The packet itself, without padding.
    pub const fn bytes(&self) -> &'a [u8] {
        self.bytes
    }

    /// The address it claims to come from.
    pub const fn source(&self) -> IpAddr {
        self.header.source
    }

    /// The address it goes to.
    pub const fn destination(&self) -> IpAddr {
        self.header.destination
    }

    /// What it carries.
    pub const fn transport(&self) -> Transport {
        self.segment.transport
    }

    /// The flow it is part of; none for errors of ICMP and protocols that have no flows.
    pub const fn flow(&self) -> Option<FlowTuple> {
        let Some(protocol) = self.segment.transport.protocol() else {
            return None;
        };
        Some(FlowTuple {
            protocol,
            source: self.header.source,
            source_port: self.segment.source_port,
            destination: self.header.destination,
            destination_port: self.segment.destination_port,
        })
    }

    /// The flow that an ICMP error is about, in the direction of the packet that it quotes.
    ///
    /// None unless the error goes to the very address that sent the quoted packet.
    pub fn related_flow(&self) -> Option<FlowTuple> {
        if self.segment.transport != Transport::IcmpError {
            return None;
        }
        let quote = self.body()?.get(transport::ICMP_HEADER_LEN..)?;
        let quoted = IpHeader::try_parse_quoted(quote).ok()?;
        if quoted.source != self.header.destination {
            return None;
        }
        quoted_ports(&quoted, quote.get(quoted.header_len..)?)
    }

    /// The flags, if it is TCP.
    pub const fn tcp_flags(&self) -> Option<TcpFlags> {
        match self.segment.transport {
            Transport::Tcp(flags) => Some(flags),
            Transport::Udp
            | Transport::IcmpEchoRequest
            | Transport::IcmpEchoReply
            | Transport::IcmpError
            | Transport::Unsupported { .. } => None,
        }
    }

    /// How many bytes follow the transport header.
    pub const fn payload_len(&self) -> usize {
        self.segment.payload_len
    }

    /// Whether more fragments follow this first one; they are not carried.
    pub const fn is_first_fragment(&self) -> bool {
        self.header.more_fragments
    }

    /// What follows the IP header and its extensions.
    fn body(&self) -> Option<&'a [u8]> {
        self.bytes.get(self.header.header_len..)
    }
}
