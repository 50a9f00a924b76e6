use std::net::SocketAddrV4;

use crate::load::{HEADER_LEN, Header, Kind};

const IP_LEN: usize = 20;
const UDP_LEN: usize = 8;
const LEN: usize = IP_LEN + UDP_LEN + HEADER_LEN;

/// A UDP packet inside the tunnel, for the server that counts.
pub(super) struct InnerPacket([u8; LEN]);

impl InnerPacket {
    pub(super) fn new(to: SocketAddrV4) -> Self {
        let mut packet = [0; LEN];
        let length = |length: usize| u16::try_from(length).unwrap_or_default().to_be_bytes();
        // Version 4, five words of header; do not fragment; 64 hops; UDP.
        packet[0] = 0x45;
        packet[2..4].copy_from_slice(&length(LEN));
        packet[6] = 0x40;
        packet[8] = 64;
        packet[9] = 17;
        packet[16..20].copy_from_slice(&to.ip().octets());
        packet[22..24].copy_from_slice(&to.port().to_be_bytes());
        packet[24..26].copy_from_slice(&length(UDP_LEN + HEADER_LEN));

        Self(packet)
    }

    /// Makes it another flow's. Its UDP checksum is 0, which is none.
    pub(super) fn set_source(&mut self, from: SocketAddrV4, value: u64) {
        self.0[12..16].copy_from_slice(&from.ip().octets());
        self.0[20..22].copy_from_slice(&from.port().to_be_bytes());
        let header = Header { kind: Kind::Load, trial: 1, value };
        header.write(&mut self.0[IP_LEN + UDP_LEN..]);
        self.0[10..12].fill(0);
        let words = self.0[..IP_LEN].chunks_exact(2);
        let sum: u32 = words.map(|word| u32::from(u16::from_be_bytes([word[0], word[1]]))).sum();
        let folded = (sum & 0xffff) + (sum >> 16);
        let folded = u16::try_from((folded & 0xffff) + (folded >> 16)).unwrap_or_default();
        self.0[10..12].copy_from_slice(&(!folded).to_be_bytes());
    }

    pub(super) fn as_bytes(&self) -> &[u8] {
        &self.0
    }
}
