//! The connector's own addresses, which are never a destination by accident.

use std::{
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
    time::Duration,
};

use tokio::sync::watch;
use tracing::{debug, warn};

/// Every address of every interface of this host, sorted.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct OwnAddresses(Vec<IpAddr>);

impl OwnAddresses {
    /// Asks the kernel.
    pub(crate) fn read() -> nix::Result<Self> {
        let addresses = nix::ifaddrs::getifaddrs()?.filter_map(|interface| {
            let address = interface.address?;
            let v4 = address.as_sockaddr_in().map(|address| IpAddr::V4(address.ip()));
            v4.or_else(|| address.as_sockaddr_in6().map(|address| IpAddr::V6(address.ip())))
        });
        Ok(addresses.collect())
    }

    /// Whether `address` is one of these, in any spelling.
    pub(crate) fn contain(&self, address: IpAddr) -> bool {
        self.has(address) || embedded_ipv4(address).is_some_and(|inner| self.has(inner.into()))
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = IpAddr> + '_ {
        self.0.iter().copied()
    }

    fn has(&self, address: IpAddr) -> bool {
        self.0.binary_search(&address).is_ok()
    }
}

impl FromIterator<IpAddr> for OwnAddresses {
    fn from_iter<I: IntoIterator<Item = IpAddr>>(addresses: I) -> Self {
        let mut addresses: Vec<IpAddr> =
            addresses.into_iter().map(|address| address.to_canonical()).collect();
        addresses.sort_unstable();
        addresses.dedup();
        Self(addresses)
    }
}

/// Publishes the addresses whenever they have changed, until nobody listens.
pub(crate) async fn follow(addresses: watch::Sender<OwnAddresses>) {
    /// How long a new address of this host may be taken for a service's.
    const INTERVAL: Duration = Duration::from_secs(2);

    while !addresses.is_closed() {
        match OwnAddresses::read() {
            Ok(read) => {
                addresses.send_if_modified(|known| {
                    let changed = *known != read;
                    if changed {
                        debug!(addresses = ?read, "Addresses of this host have changed");
                        *known = read;
                    }
                    changed
                });
            }
            Err(error) => warn!(%error, "Failed to list this host's addresses"),
        }
        tokio::time::sleep(INTERVAL).await;
    }
}

/// The IPv4 address that an IPv6 one stands for: mapped and compatible (RFC 4291 §2.5.5), NAT64
/// (RFC 6052 §2.1, RFC 8215) and 6to4 (RFC 3056).
fn embedded_ipv4(address: IpAddr) -> Option<Ipv4Addr> {
    let IpAddr::V6(address) = address else { return None };
    let from_segments =
        |high: u16, low: u16| Ipv4Addr::from(u32::from(high) << 16 | u32::from(low));
    match address.segments() {
        [0, 0, 0, 0, 0, 0 | 0xffff, high, low] if address != Ipv6Addr::LOCALHOST => {
            Some(from_segments(high, low))
        }
        [0, 0, 0, 0, 0xffff, 0, high, low] => Some(from_segments(high, low)),
        [0x64, 0xff9b, 0, 0, 0, 0, high, low] => Some(from_segments(high, low)),
        [0x64, 0xff9b, 1, _, _, _, high, low] => Some(from_segments(high, low)),
        [0x2002, high, low, ..] => Some(from_segments(high, low)),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn own() -> OwnAddresses {
        ["10.9.0.1", "2001:db8::1", "127.0.0.1"].iter().map(|a| a.parse().unwrap()).collect()
    }

    #[test]
    fn an_own_address_is_recognised_in_every_spelling() {
        for spelling in [
            "10.9.0.1",
            "::ffff:10.9.0.1",
            "::10.9.0.1",
            "::ffff:0:10.9.0.1",
            "64:ff9b::10.9.0.1",
            "64:ff9b:1::10.9.0.1",
            "2002:a09:1::1",
            "2001:db8::1",
        ] {
            assert!(own().contain(spelling.parse().unwrap()), "{spelling}");
        }
    }

    #[test]
    fn a_neighbour_is_not_an_own_address() {
        for other in ["10.9.0.2", "::ffff:10.9.0.2", "2001:db8::2", "64:ff9b::10.9.0.2"] {
            assert!(!own().contain(other.parse().unwrap()), "{other}");
        }
    }

    #[test]
    fn the_kernel_names_at_least_loopback() {
        assert!(OwnAddresses::read().unwrap().iter().all(|address| !address.is_multicast()));
    }
}
