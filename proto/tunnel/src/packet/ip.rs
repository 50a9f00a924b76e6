//! The headers of IPv4 (RFC 791) and IPv6 (RFC 8200).

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use super::PacketError;

pub(crate) const IPV4_HEADER_LEN: usize = 20;
pub(crate) const IPV6_HEADER_LEN: usize = 40;
/// RFC 8200 §5: nobody need send shorter packets, whatever he is told.
pub(crate) const IPV6_MINIMUM_MTU: usize = 1_280;

pub(crate) const TCP: u8 = 6;
pub(crate) const UDP: u8 = 17;
pub(super) const ICMP: u8 = 1;
pub(super) const ICMPV6: u8 = 58;

/// RFC 8200 §4.1 lists six places for extension headers that are walked here; more is an attack.
const MAX_EXTENSION_HEADERS: usize = 6;

const HOP_BY_HOP: u8 = 0;
const ROUTING: u8 = 43;
const FRAGMENT: u8 = 44;
const DESTINATION_OPTIONS: u8 = 60;

/// What the tunnel needs of an IP header.
#[derive(Debug, Clone, Copy)]
pub(crate) struct IpHeader {
    pub(super) source: IpAddr,
    pub(super) destination: IpAddr,
    /// The protocol behind all extension headers.
    pub(crate) protocol: u8,
    /// Up to the transport header.
    pub(crate) header_len: usize,
    /// Of the whole packet, as the header says.
    pub(crate) total_len: usize,
    pub(crate) more_fragments: bool,
}

impl IpHeader {
    pub(crate) fn try_parse(bytes: &[u8]) -> Result<Self, PacketError> {
        let header = Self::try_parse_quoted(bytes)?;
        if header.total_len > bytes.len() {
            return Err(PacketError::Truncated);
        }
        if header.header_len > header.total_len {
            return Err(PacketError::HeaderLength);
        }
        Ok(header)
    }

    /// As [`Self::try_parse`], for a packet of which an ICMP error quotes only the beginning.
    pub(super) fn try_parse_quoted(bytes: &[u8]) -> Result<Self, PacketError> {
        let first = bytes.first().ok_or(PacketError::Empty)?;
        match first >> 4 {
            4 => Self::try_parse_ipv4(bytes),
            6 => Self::try_parse_ipv6(bytes),
            _ => Err(PacketError::Version),
        }
    }

    fn try_parse_ipv4(bytes: &[u8]) -> Result<Self, PacketError> {
        let fixed: &[u8; IPV4_HEADER_LEN] = bytes.first_chunk().ok_or(PacketError::Truncated)?;
        let header_len = usize::from(fixed[0] & 0x0f) * 4;
        if header_len < IPV4_HEADER_LEN {
            return Err(PacketError::HeaderLength);
        }
        let options = bytes.get(IPV4_HEADER_LEN..header_len).ok_or(PacketError::Truncated)?;
        refuse_ipv4_source_route(options)?;

        let total_len = usize::from(u16::from_be_bytes([fixed[2], fixed[3]]));
        let fragment = u16::from_be_bytes([fixed[6], fixed[7]]);
        if fragment & 0x1fff != 0 {
            return Err(PacketError::Fragment);
        }
        let [source, destination] = [[12, 13, 14, 15], [16, 17, 18, 19]]
            .map(|at: [usize; 4]| IpAddr::V4(Ipv4Addr::from(at.map(|index| fixed[index]))));
        Ok(Self {
            source,
            destination,
            protocol: fixed[9],
            header_len,
            total_len,
            more_fragments: fragment & 0x2000 != 0,
        })
    }

    fn try_parse_ipv6(bytes: &[u8]) -> Result<Self, PacketError> {
        let fixed: &[u8; IPV6_HEADER_LEN] = bytes.first_chunk().ok_or(PacketError::Truncated)?;
        let total_len = IPV6_HEADER_LEN + usize::from(u16::from_be_bytes([fixed[4], fixed[5]]));
        let mut header = Self {
            source: ipv6_address(fixed, 8),
            destination: ipv6_address(fixed, 24),
            protocol: fixed[6],
            header_len: IPV6_HEADER_LEN,
            total_len,
            more_fragments: false,
        };
        for position in 0..=MAX_EXTENSION_HEADERS {
            let here = bytes.get(header.header_len..).unwrap_or_default();
            let next = match header.protocol {
                HOP_BY_HOP if position != 0 => return Err(PacketError::ExtensionHeaders),
                HOP_BY_HOP | ROUTING | DESTINATION_OPTIONS => {
                    let &[next, len, _type, segments_left] =
                        here.first_chunk().ok_or(PacketError::Truncated)?;
                    // Segments that are left name the destination that is meant (RFC 8200 §4.4).
                    if header.protocol == ROUTING && segments_left != 0 {
                        return Err(PacketError::SourceRoute);
                    }
                    header.header_len += (usize::from(len) + 1) * 8;
                    next
                }
                FRAGMENT => {
                    let &[next, _reserved, high, low, ..] =
                        here.first_chunk::<8>().ok_or(PacketError::Truncated)?;
                    let fragment = u16::from_be_bytes([high, low]);
                    if fragment & 0xfff8 != 0 {
                        return Err(PacketError::Fragment);
                    }
                    header.more_fragments |= fragment & 1 != 0;
                    header.header_len += 8;
                    next
                }
                _ => return Ok(header),
            };
            header.protocol = next;
        }
        Err(PacketError::ExtensionHeaders)
    }
}

fn ipv6_address(fixed: &[u8; IPV6_HEADER_LEN], at: usize) -> IpAddr {
    let mut octets = [0; 16];
    for (octet, byte) in octets.iter_mut().zip(fixed.iter().skip(at)) {
        *octet = *byte;
    }
    IpAddr::V6(Ipv6Addr::from(octets))
}

/// Walks the options of RFC 791 §3.1.
fn refuse_ipv4_source_route(mut options: &[u8]) -> Result<(), PacketError> {
    const END: u8 = 0;
    const NO_OPERATION: u8 = 1;
    const LOOSE_SOURCE_ROUTE: u8 = 131;
    const STRICT_SOURCE_ROUTE: u8 = 137;

    loop {
        options = match options {
            [] | [END, ..] => return Ok(()),
            [NO_OPERATION, rest @ ..] => rest,
            [LOOSE_SOURCE_ROUTE | STRICT_SOURCE_ROUTE, ..] => {
                return Err(PacketError::SourceRoute);
            }
            [_kind, len, ..] if *len >= 2 => {
                options.get(usize::from(*len)..).ok_or(PacketError::HeaderLength)?
            }
            [_kind, ..] => return Err(PacketError::HeaderLength),
        };
    }
}
