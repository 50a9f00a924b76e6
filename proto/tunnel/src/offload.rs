//! Super-packets: many packets of one flow that cross the TUN device in one call.
//!
//! [`Frame`] splits what the kernel hands out into the packets that the tunnel carries; [`Merger`]
//! makes one of the packets that come out of it. Splitting what was merged gives the same bytes
//! again; only the identification of IPv4 packets that must not be fragmented, which means nothing
//! (RFC 6864 §4.1), counts up from that of the first.

mod merge;
#[cfg(test)]
mod sample;
mod split;
mod switches;
mod virtio_header;

pub use merge::{Merger, Run};
pub use split::{Frame, FrameError, Segments};
pub use switches::{Offloads, UnknownOffload};
pub use virtio_header::VirtioHeader;

use crate::packet::{Sum, TCP, UDP};

/// The protocols whose packets come in super-packets.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Protocol {
    Tcp,
    Udp,
}

impl Protocol {
    const fn number(self) -> u8 {
        match self {
            Self::Tcp => TCP,
            Self::Udp => UDP,
        }
    }

    /// Where the checksum is in the header.
    const fn checksum_offset(self) -> usize {
        match self {
            Self::Tcp => 16,
            Self::Udp => 6,
        }
    }
}

/// The sum of both addresses of an IP header.
fn address_sum(ip_header: &[u8]) -> Sum {
    Sum::of(if is_ipv4(ip_header) { &ip_header[12..20] } else { &ip_header[8..40] })
}

fn is_ipv4(packet: &[u8]) -> bool {
    packet.first().is_some_and(|first| first >> 4 == 4)
}
