//! Probes of our own, for connections that a restart made us forget.

use std::{
    net::IpAddr,
    time::{Duration, Instant},
};

use adit_proto::FlowTuple;
use adit_tunnel::Packet;

use super::recent::{Bounds, Recent};
use crate::flow_table::{DevicePlace, FlowKey};

/// A TCP segment that makes a device speak, if it has the connection at all.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Probe(Vec<u8>);

const IPV6_HEADER_LEN: usize = 40;
const TCP: u8 = 6;
const ACK: u8 = 0x10;

impl Probe {
    /// The headers of a service's segment as a keepalive has them (RFC 9293 §3.8.4): without data
    /// and one byte back. A device that has the connection acknowledges anew, one that has not
    /// resets; neither takes anything in.
    pub(super) fn try_new(from_service: &Packet<'_>) -> Option<Self> {
        let bytes = from_service.bytes();
        let ip_len = match from_service.source() {
            IpAddr::V4(_) => usize::from(bytes.first()? & 0x0f) * 4,
            IpAddr::V6(_) if bytes.get(6) == Some(&TCP) => IPV6_HEADER_LEN,
            IpAddr::V6(_) => return None,
        };
        let tcp_len = usize::from(bytes.get(ip_len + 12)? >> 4) * 4;
        let mut packet = bytes.get(..ip_len + tcp_len)?.to_vec();
        let (ip, tcp) = packet.split_at_mut(ip_len);

        let sequence = u32::from_be_bytes(*tcp.get(4..)?.first_chunk()?).wrapping_sub(1);
        tcp.get_mut(4..8)?.copy_from_slice(&sequence.to_be_bytes());
        *tcp.get_mut(13)? = ACK;
        tcp.get_mut(16..18)?.fill(0);
        let address_len = match from_service.source() {
            IpAddr::V4(_) => {
                let total = u16::try_from(ip_len + tcp_len).ok()?;
                ip.get_mut(2..4)?.copy_from_slice(&total.to_be_bytes());
                ip.get_mut(10..12)?.fill(0);
                let sum = !folded(sum(ip));
                ip.get_mut(10..12)?.copy_from_slice(&sum.to_be_bytes());
                12..20
            }
            IpAddr::V6(_) => {
                let payload = u16::try_from(tcp_len).ok()?;
                ip.get_mut(4..6)?.copy_from_slice(&payload.to_be_bytes());
                8..IPV6_HEADER_LEN
            }
        };
        let pseudo_header =
            sum(ip.get(address_len)?) + u64::from(TCP) + u64::try_from(tcp_len).unwrap_or_default();
        let checksum = !folded(pseudo_header + sum(tcp));
        tcp.get_mut(16..18)?.copy_from_slice(&checksum.to_be_bytes());
        Some(Self(packet))
    }

    pub(crate) fn bytes(&self) -> &[u8] {
        &self.0
    }
}

/// The sum of RFC 1071 over bytes of even number.
fn sum(bytes: &[u8]) -> u64 {
    let (pairs, _odd) = bytes.as_chunks::<2>();
    pairs.iter().map(|pair| u64::from(u16::from_be_bytes(*pair))).sum()
}

fn folded(mut sum: u64) -> u16 {
    while sum > 0xffff {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    u16::try_from(sum).expect("the loop leaves at most 16 bits")
}

/// Which connections were probed a moment ago.
#[derive(Debug)]
pub(super) struct RecentProbes(Recent<()>);

impl RecentProbes {
    /// A service sends again within a second or more. More connections than that wait for their
    /// turn: each costs a decision, and whoever is behind a connector can make up as many as there
    /// are ports.
    const BOUNDS: Bounds =
        Bounds { memory: Duration::from_millis(500), in_all: 4096, of_device: 64 };

    pub(super) fn new() -> Self {
        Self(Recent::new(Self::BOUNDS))
    }

    /// Whether it is time to probe this connection, which counts as done.
    pub(super) fn is_due(&mut self, device: DevicePlace, tuple: &FlowTuple, now: Instant) -> bool {
        let key = FlowKey::new(tuple);
        let is_new = self.0.of(device, key, now).is_none();
        is_new && self.0.note(device, key, (), now)
    }

    pub(super) fn expire(&mut self, at_once: usize, now: Instant) {
        self.0.expire(at_once, now);
    }
}
