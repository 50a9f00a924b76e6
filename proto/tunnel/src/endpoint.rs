//! Where datagrams go.

use std::{
    fmt,
    net::{IpAddr, SocketAddr},
};

/// The other end of a path, and which of our addresses to speak from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Endpoint {
    remote: SocketAddr,
    local: Option<IpAddr>,
}

impl Endpoint {
    /// The path to `remote` from `local`, or from whichever address the kernel chooses.
    ///
    /// IPv4-mapped addresses become IPv4 ones, so that one path has one spelling.
    pub fn new(remote: SocketAddr, local: Option<IpAddr>) -> Self {
        let remote = match remote.ip().to_canonical() {
            ip @ IpAddr::V4(_) => SocketAddr::new(ip, remote.port()),
            // Keeps the scope of a link-local address.
            IpAddr::V6(_) => remote,
        };
        Self { remote, local: local.map(|local| local.to_canonical()) }
    }

    /// The other end.
    pub const fn remote(&self) -> SocketAddr {
        self.remote
    }

    /// Our own address on the path, where it matters.
    pub const fn local(&self) -> Option<IpAddr> {
        self.local
    }
}

impl From<SocketAddr> for Endpoint {
    fn from(remote: SocketAddr) -> Self {
        Self::new(remote, None)
    }
}

impl fmt::Display for Endpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(&self.remote, f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_mapped_address_is_the_ipv4_address() {
        let mapped = Endpoint::from("[::ffff:192.0.2.1]:443".parse::<SocketAddr>().unwrap());
        assert_eq!(mapped, Endpoint::from("192.0.2.1:443".parse::<SocketAddr>().unwrap()));
    }
}
