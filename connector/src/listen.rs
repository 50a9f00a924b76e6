//! One port for sessions over TCP and WireGuard over UDP.

use std::{
    io,
    net::{IpAddr, SocketAddr},
};

use adit_tunnel::{KeyPair, SessionListener, UdpError, UdpSocket};
use anyhow::Context as _;

use crate::own_addresses::OwnAddresses;

/// Binds TCP and UDP to the same port; port 0 means any that is free for both.
pub(crate) fn bind(
    address: SocketAddr,
    key: &KeyPair,
) -> anyhow::Result<(SessionListener, UdpSocket)> {
    /// A port that is free for TCP is nearly always free for UDP too.
    const ATTEMPTS: usize = 32;

    let mut attempt = 0;
    loop {
        attempt += 1;
        let listener =
            SessionListener::try_bind(address, key).with_context(|| tcp_hint(address))?;
        match UdpSocket::try_bind(listener.local_address()) {
            Ok(udp) => return Ok((listener, udp)),
            Err(UdpError::InUse { .. }) if address.port() == 0 && attempt < ATTEMPTS => {}
            Err(error) => return Err(error.into()),
        }
    }
}

fn tcp_hint(address: SocketAddr) -> String {
    format!("failed to listen on tcp {address}; if it is in use, choose another with --listen")
}

/// Says what went wrong with the metrics address.
pub(crate) async fn bind_metrics(address: SocketAddr) -> anyhow::Result<tokio::net::TcpListener> {
    let bound: io::Result<_> = tokio::net::TcpListener::bind(address).await;
    bound.with_context(|| {
        format!(
            "failed to listen on tcp {address} for metrics; if it is in use, choose another with \
             --metrics-listen"
        )
    })
}

/// Where clients may find a connector that was not told what to advertise.
pub(crate) fn endpoints(listening: SocketAddr, own_addresses: &OwnAddresses) -> Vec<String> {
    /// As many as the control plane takes.
    const MAX_ENDPOINTS: usize = 20;

    if !listening.ip().is_unspecified() {
        return vec![listening.to_string()];
    }
    own_addresses
        .iter()
        .filter(|address| listening.is_ipv6() || address.is_ipv4())
        .filter(|address| !is_local(*address))
        .map(|address| SocketAddr::new(address, listening.port()).to_string())
        .take(MAX_ENDPOINTS)
        .collect()
}

fn is_local(address: IpAddr) -> bool {
    match address {
        IpAddr::V4(address) => address.is_loopback() || address.is_link_local(),
        IpAddr::V6(address) => address.is_loopback() || address.is_unicast_link_local(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_addresses_that_others_can_reach_are_advertised() {
        let own: OwnAddresses = ["127.0.0.1", "192.0.2.1", "169.254.1.1", "fe80::1", "2001:db8::1"]
            .iter()
            .map(|address| address.parse().unwrap())
            .collect();
        let any: SocketAddr = "[::]:443".parse().unwrap();
        assert_eq!(endpoints(any, &own), ["192.0.2.1:443", "[2001:db8::1]:443"]);
        let any_ipv4: SocketAddr = "0.0.0.0:443".parse().unwrap();
        assert_eq!(endpoints(any_ipv4, &own), ["192.0.2.1:443"]);
        let one: SocketAddr = "127.0.0.1:443".parse().unwrap();
        assert_eq!(endpoints(one, &own), ["127.0.0.1:443"]);
    }
}
