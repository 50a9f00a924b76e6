//! Peers and packets for tests.

use std::time::Instant;

use adit_tunnel::{PeerConfig, PeerId, Tunnel, WireguardSecret};

pub(super) const SYN: u8 = 0x02;
pub(super) const RST: u8 = 0x04;
pub(super) const ACK: u8 = 0x10;

/// Two peers of one tunnel.
pub(super) fn peers() -> [PeerId; 2] {
    let now = Instant::now();
    let mut tunnel = Tunnel::new(WireguardSecret::try_generate().unwrap(), 1420, now);
    [(); 2].map(|()| {
        let config = PeerConfig {
            public_key: WireguardSecret::try_generate().unwrap().public_key(),
            allowed_ips: vec![],
            endpoint: None,
            keepalive: None,
        };
        tunnel.upsert(config, now).unwrap()
    })
}

/// A TCP segment over IPv4 from this port, without payload.
pub(super) fn tcp(port: u16, flags: u8) -> Vec<u8> {
    let mut packet = vec![0; 40];
    packet[0] = 0x45;
    packet[3] = 40;
    packet[8] = 64;
    packet[9] = 6;
    packet[12..20].copy_from_slice(&[100, 80, 0, 1, 10, 9, 0, 2]);
    packet[20..22].copy_from_slice(&port.to_be_bytes());
    packet[22..24].copy_from_slice(&443_u16.to_be_bytes());
    packet[32] = 0x50;
    packet[33] = flags;
    packet
}
