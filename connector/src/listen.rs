//! One port for HTTP/2 over TCP, and for WireGuard and QUIC over UDP.

use std::{
    io,
    net::{IpAddr, SocketAddr},
};

use adit_tunnel::{Http2Listener, KeyPair, Offloads, UdpError, UdpSocket};

use crate::own_addresses::OwnAddresses;

/// Binds TCP and UDP to the same port; port 0 means any that is free for both.
pub(crate) fn bind(
    address: SocketAddr,
    key: &KeyPair,
    offloads: Offloads,
    lanes: u8,
) -> anyhow::Result<(Http2Listener, Vec<UdpSocket>)> {
    /// A port that is free for TCP is nearly always free for UDP too.
    const ATTEMPTS: usize = 32;

    let mut attempt = 0;
    loop {
        attempt += 1;
        let listener =
            Http2Listener::try_bind(address, key).map_err(|error| explained(address, error))?;
        match UdpSocket::try_bind_lanes(listener.local_address(), offloads, lanes) {
            Ok(udp) => return Ok((listener, udp)),
            Err(UdpError::InUse { .. }) if address.port() == 0 && attempt < ATTEMPTS => {}
            Err(error) => return Err(error.into()),
        }
    }
}

/// Says what to do about an address that cannot be listened on.
fn explained(address: SocketAddr, error: io::Error) -> anyhow::Error {
    let (ip, port) = (address.ip(), address.port());
    let kind = error.kind();
    let advice = if kind == io::ErrorKind::AddrInUse {
        format!(
            "tcp port {port} is in use on {ip}; stop the program that holds it or choose another \
             port"
        )
    } else if kind == io::ErrorKind::PermissionDenied {
        format!(
            "no permission to listen on tcp {address}; run as root or with CAP_NET_BIND_SERVICE"
        )
    } else if kind == io::ErrorKind::AddrNotAvailable {
        format!("{ip} is not an address of this host")
    } else {
        format!("failed to listen on tcp {address}")
    };
    anyhow::Error::new(error).context(advice)
}

pub(crate) async fn bind_metrics(address: SocketAddr) -> anyhow::Result<tokio::net::TcpListener> {
    tokio::net::TcpListener::bind(address)
        .await
        .map_err(|error| explained(address, error).context("failed to serve metrics"))
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
