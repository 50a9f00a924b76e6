//! Peers for tests.

use std::time::Instant;

use adit_tunnel::{PeerConfig, PeerId, Tunnel, WireguardSecret};

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
