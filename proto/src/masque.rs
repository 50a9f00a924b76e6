//! What a connector carries for its clients beyond its own protocol: IP packets, UDP datagrams and
//! TCP streams (MASQUE), without a transport.
//!
//! A request says what is asked for: [`ProxyRequest`]. Packets travel in HTTP datagrams, or in
//! capsules on the request's stream where there are none (RFC 9297); addresses and routes are
//! agreed on by capsules (RFC 9484 §4.7).

mod address;
mod capsule;
mod capsule_decoder;
mod host;
mod percent;
mod proxy_request;

pub use self::{
    address::{AddressRange, AssignedAddress, RequestedAddress},
    capsule::{Capsule, CapsuleError, encode_datagram_capsule_header},
    capsule_decoder::{CapsuleDecoder, MAX_CAPSULE_LEN},
    proxy_request::{IpTarget, ProxyRequest, ProxyRequestError},
};

/// The context whose datagrams are whole IP packets (RFC 9484 §6) or payloads of UDP (RFC 9298 §4).
/// It stands before each, as an integer of HTTP/3.
pub const CONTEXT_ID_PACKET: u64 = 0;
