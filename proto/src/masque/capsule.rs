//! Capsules: messages on the stream of a request.

use bytes::Bytes;

use crate::{
    http3::encode_varint,
    masque::address::{AddressRange, AssignedAddress, RequestedAddress},
};

pub(super) const DATAGRAM: u64 = 0x00;
pub(super) const ADDRESS_ASSIGN: u64 = 0x01;
pub(super) const ADDRESS_REQUEST: u64 = 0x02;
pub(super) const ROUTE_ADVERTISEMENT: u64 = 0x03;

/// A capsule (RFC 9297 §3.2).
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Capsule {
    /// The payload of an HTTP datagram, which begins with a context id (RFC 9297 §3.5).
    Datagram(Bytes),
    /// All addresses that the receiver may send from, in place of those assigned before (RFC 9484
    /// §4.7.1).
    AddressAssign(Vec<AssignedAddress>),
    /// Addresses that the sender would like to have; never none (RFC 9484 §4.7.2).
    AddressRequest(Vec<RequestedAddress>),
    /// All addresses that the receiver may send to, in place of those advertised before (RFC 9484
    /// §4.7.3). They are in order and do not overlap.
    RouteAdvertisement(Vec<AddressRange>),
}

/// Why what a peer sent is no capsule that it may send. The stream is to be aborted (RFC 9297 §3.3).
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum CapsuleError {
    /// The stream ended inside a capsule (RFC 9297 §3.3).
    #[error("stream ended inside a capsule")]
    Truncated,
    /// Longer than [`MAX_CAPSULE_LEN`](super::MAX_CAPSULE_LEN).
    #[error("capsule of {len} bytes is too long")]
    TooLong {
        /// Length of the payload, in bytes.
        len: u64,
    },
    /// The payload ends inside an address.
    #[error("payload of a capsule is cut")]
    Payload,
    /// Neither 4 nor 6 (RFC 9484 §4.7).
    #[error("version of IP is neither 4 nor 6")]
    IpVersion,
    /// A prefix is longer than the address, or the address has bits that it does not cover (RFC
    /// 9484 §4.7.1, §4.7.2).
    #[error("prefix does not fit its address")]
    Prefix,
    /// A request for addresses has the id 0 (RFC 9484 §4.7.2).
    #[error("request for an address has the id 0")]
    RequestIdZero,
    /// A request for addresses asks for none (RFC 9484 §4.7.2).
    #[error("request for addresses is empty")]
    RequestEmpty,
    /// The first address of a range is above its last (RFC 9484 §4.7.3).
    #[error("first address of a range is above its last")]
    RangeReversed,
    /// Ranges overlap or are not in order (RFC 9484 §4.7.3).
    #[error("ranges overlap or are not in order")]
    RangeOrder,
}

impl Capsule {
    /// Appends the whole capsule (RFC 9297 §3.2).
    ///
    /// What the types do not say is for the caller to see to: requests have ids and are not none,
    /// ranges are in order.
    pub fn encode(&self, out: &mut Vec<u8>) {
        let mut payload = Vec::new();
        let capsule_type = match self {
            Self::Datagram(payload) => {
                encode_datagram_capsule_header(payload.len(), out);
                out.extend_from_slice(payload);
                return;
            }
            Self::AddressAssign(addresses) => {
                addresses.iter().for_each(|address| address.encode(&mut payload));
                ADDRESS_ASSIGN
            }
            Self::AddressRequest(addresses) => {
                addresses.iter().for_each(|address| address.encode(&mut payload));
                ADDRESS_REQUEST
            }
            Self::RouteAdvertisement(ranges) => {
                ranges.iter().for_each(|range| range.encode(&mut payload));
                ROUTE_ADVERTISEMENT
            }
        };
        encode_varint(capsule_type, out);
        encode_varint(payload.len() as u64, out);
        out.extend_from_slice(&payload);
    }

    /// Reads a payload of one of the four types.
    pub(super) fn try_from_payload(
        capsule_type: u64,
        payload: Bytes,
    ) -> Result<Self, CapsuleError> {
        match capsule_type {
            ADDRESS_ASSIGN => take_all(&payload, AssignedAddress::take).map(Self::AddressAssign),
            ADDRESS_REQUEST => {
                let addresses = take_all(&payload, RequestedAddress::take)?;
                if addresses.is_empty() {
                    return Err(CapsuleError::RequestEmpty);
                }
                Ok(Self::AddressRequest(addresses))
            }
            ROUTE_ADVERTISEMENT => {
                let ranges = take_all(&payload, AddressRange::take)?;
                if !ranges.is_sorted_by(AddressRange::may_precede) {
                    return Err(CapsuleError::RangeOrder);
                }
                Ok(Self::RouteAdvertisement(ranges))
            }
            _ => Ok(Self::Datagram(payload)),
        }
    }
}

/// Appends type and length of a DATAGRAM capsule, behind which `payload_len` bytes must follow: a
/// context id and what it says (RFC 9297 §3.5).
pub fn encode_datagram_capsule_header(payload_len: usize, out: &mut Vec<u8>) {
    encode_varint(DATAGRAM, out);
    encode_varint(payload_len as u64, out);
}

fn take_all<T>(
    payload: &[u8],
    take: impl Fn(&mut &[u8]) -> Result<T, CapsuleError>,
) -> Result<Vec<T>, CapsuleError> {
    let mut rest = payload;
    let mut all = Vec::new();
    while !rest.is_empty() {
        all.push(take(&mut rest)?);
    }
    Ok(all)
}
