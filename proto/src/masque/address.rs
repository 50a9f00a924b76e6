//! Addresses and routes, as capsules carry them.

use std::{
    cmp::Ordering,
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
};

use ipnet::IpNet;

use crate::{
    http3::{decode_varint, encode_varint},
    masque::capsule::CapsuleError,
};

/// Addresses that the peer may send from (RFC 9484 §4.7.1).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct AssignedAddress {
    /// The request that is answered; 0 when none was made.
    pub request_id: u64,
    /// The addresses. When a request is refused, the single address `0.0.0.0` or `::`.
    pub prefix: IpNet,
}

/// Addresses that the sender would like to have (RFC 9484 §4.7.2).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RequestedAddress {
    /// Echoed in the answer; never 0, and never the same twice on a stream.
    pub request_id: u64,
    /// The addresses. An address of zeros leaves the choice to the peer.
    pub prefix: IpNet,
}

/// A route: addresses that the peer may send to (RFC 9484 §4.7.3).
///
/// The order is the one in which routes are advertised.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct AddressRange {
    /// The first of the addresses.
    pub first: IpAddr,
    /// The last of the addresses: of the same family and not below the first.
    pub last: IpAddr,
    /// The protocol of IP that may be sent; 0 for all.
    pub protocol: u8,
}

impl AssignedAddress {
    pub(super) fn encode(&self, out: &mut Vec<u8>) {
        encode_prefix(self.request_id, self.prefix, out);
    }

    pub(super) fn take(rest: &mut &[u8]) -> Result<Self, CapsuleError> {
        let (request_id, prefix) = take_prefix(rest)?;
        Ok(Self { request_id, prefix })
    }
}

impl RequestedAddress {
    pub(super) fn encode(&self, out: &mut Vec<u8>) {
        encode_prefix(self.request_id, self.prefix, out);
    }

    pub(super) fn take(rest: &mut &[u8]) -> Result<Self, CapsuleError> {
        let (request_id, prefix) = take_prefix(rest)?;
        if request_id == 0 {
            return Err(CapsuleError::RequestIdZero);
        }
        Ok(Self { request_id, prefix })
    }
}

impl AddressRange {
    pub(super) fn encode(&self, out: &mut Vec<u8>) {
        encode_version(self.first, out);
        encode_address(self.first, out);
        encode_address(self.last, out);
        out.push(self.protocol);
    }

    pub(super) fn take(rest: &mut &[u8]) -> Result<Self, CapsuleError> {
        let version = take_byte(rest)?;
        let first = take_address(version, rest)?;
        let last = take_address(version, rest)?;
        if first > last {
            return Err(CapsuleError::RangeReversed);
        }
        Ok(Self { first, last, protocol: take_byte(rest)? })
    }

    /// Whether the other may directly follow this one: its addresses are all above, unless its
    /// family or its protocol is.
    pub(super) fn may_precede(&self, next: &Self) -> bool {
        let rank = |range: &Self| (range.first.is_ipv6(), range.protocol);
        match rank(self).cmp(&rank(next)) {
            Ordering::Less => true,
            Ordering::Equal => self.last < next.first,
            Ordering::Greater => false,
        }
    }
}

impl Ord for AddressRange {
    fn cmp(&self, other: &Self) -> Ordering {
        let key = |range: &Self| (range.first.is_ipv6(), range.protocol, range.first, range.last);
        key(self).cmp(&key(other))
    }
}

impl PartialOrd for AddressRange {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

fn encode_prefix(request_id: u64, prefix: IpNet, out: &mut Vec<u8>) {
    encode_varint(request_id, out);
    // The bits that the prefix does not cover must be zero.
    let address = prefix.network();
    encode_version(address, out);
    encode_address(address, out);
    out.push(prefix.prefix_len());
}

fn encode_version(address: IpAddr, out: &mut Vec<u8>) {
    out.push(if address.is_ipv4() { 4 } else { 6 });
}

fn encode_address(address: IpAddr, out: &mut Vec<u8>) {
    match address {
        IpAddr::V4(address) => out.extend_from_slice(&address.octets()),
        IpAddr::V6(address) => out.extend_from_slice(&address.octets()),
    }
}

fn take_prefix(rest: &mut &[u8]) -> Result<(u64, IpNet), CapsuleError> {
    let (request_id, len) = decode_varint(rest).ok_or(CapsuleError::Payload)?;
    *rest = &rest[len..];
    let version = take_byte(rest)?;
    let address = take_address(version, rest)?;
    let prefix = IpNet::new(address, take_byte(rest)?).map_err(|_error| CapsuleError::Prefix)?;
    if prefix.network() != address {
        return Err(CapsuleError::Prefix);
    }
    Ok((request_id, prefix))
}

fn take_address(version: u8, rest: &mut &[u8]) -> Result<IpAddr, CapsuleError> {
    match version {
        4 => Ok(Ipv4Addr::from(take_bytes::<4>(rest)?).into()),
        6 => Ok(Ipv6Addr::from(take_bytes::<16>(rest)?).into()),
        _ => Err(CapsuleError::IpVersion),
    }
}

fn take_byte(rest: &mut &[u8]) -> Result<u8, CapsuleError> {
    let [byte] = take_bytes(rest)?;
    Ok(byte)
}

fn take_bytes<const N: usize>(rest: &mut &[u8]) -> Result<[u8; N], CapsuleError> {
    let (bytes, behind) = rest.split_first_chunk().ok_or(CapsuleError::Payload)?;
    *rest = behind;
    Ok(*bytes)
}
