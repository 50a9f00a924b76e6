//! Which routes are needed. Pure: tables in, routes out.

use std::{
    collections::BTreeSet,
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
};

use ipnet::{IpNet, Ipv4Net, Ipv6Net};
use serde::{Deserialize, Serialize};

/// A route of the main table.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Route {
    pub(crate) destination: IpNet,
    pub(crate) gateway: Option<IpAddr>,
    /// Index of the interface.
    pub(crate) interface: u32,
    /// The smaller wins among equal destinations.
    pub(crate) metric: u32,
    /// The address to speak from.
    pub(crate) source: Option<IpAddr>,
}

#[cfg(test)]
impl Route {
    /// A route that says no source.
    pub(crate) fn sample(
        destination: &str,
        gateway: Option<&str>,
        interface: u32,
        metric: u32,
    ) -> Self {
        Self {
            destination: destination.parse().unwrap(),
            gateway: gateway.map(|gateway| gateway.parse().unwrap()),
            interface,
            metric,
            source: None,
        }
    }
}

/// How a wanted prefix and a route that was there before meet.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Overlap {
    /// The same prefix: the route that was there stays, and the tunnel does not get these packets.
    Same,
    /// The route is inside the prefix: its part stays outside the tunnel.
    RouteInside,
    /// The prefix is inside the route: its part of the local network becomes unreachable.
    PrefixInside,
}

/// Prefixes that the kernel takes beside its default route, and each once.
pub(crate) fn wanted_prefixes(prefixes: impl IntoIterator<Item = IpNet>) -> BTreeSet<IpNet> {
    let mut wanted = BTreeSet::new();
    for prefix in prefixes {
        if prefix.prefix_len() > 0 {
            wanted.insert(prefix.trunc());
            continue;
        }
        // Two halves leave the default route, by which connectors are reached, as it is.
        match prefix {
            IpNet::V4(_) => wanted.extend(
                [Ipv4Addr::UNSPECIFIED, Ipv4Addr::new(128, 0, 0, 0)]
                    .map(|half| IpNet::V4(Ipv4Net::new_assert(half, 1))),
            ),
            IpNet::V6(_) => wanted.extend(
                [Ipv6Addr::UNSPECIFIED, Ipv6Addr::new(0x8000, 0, 0, 0, 0, 0, 0, 0)]
                    .map(|half| IpNet::V6(Ipv6Net::new_assert(half, 1))),
            ),
        }
    }
    wanted
}

/// Where a wanted prefix meets a route of another interface.
pub(crate) fn overlaps<'a>(
    prefix: &IpNet,
    table: &'a [Route],
    own_interface: u32,
) -> Vec<(Overlap, &'a Route)> {
    let others = table.iter().filter(|route| {
        route.interface != own_interface
            && route.destination.prefix_len() > 0
            && !is_link_scoped(route.destination.addr())
    });
    others
        .filter_map(|route| {
            let overlap = if route.destination == *prefix {
                Overlap::Same
            } else if prefix.contains(&route.destination) {
                Overlap::RouteInside
            } else if route.destination.contains(prefix) && route.gateway.is_none() {
                Overlap::PrefixInside
            } else {
                return None;
            };
            Some((overlap, route))
        })
        .collect()
}

/// The route that the kernel would take if the tunnel were not there.
pub(crate) fn route_outside(
    address: IpAddr,
    table: &[Route],
    own_interface: u32,
) -> Option<&Route> {
    table
        .iter()
        .filter(|route| route.interface != own_interface && route.destination.contains(&address))
        .max_by_key(|route| (route.destination.prefix_len(), std::cmp::Reverse(route.metric)))
}

/// The route that keeps one address outside the tunnel.
pub(crate) fn host_route(address: IpAddr, outside: &Route) -> Route {
    Route {
        destination: IpNet::from(address),
        gateway: outside.gateway,
        interface: outside.interface,
        metric: 0,
        source: outside.source,
    }
}

fn is_link_scoped(address: IpAddr) -> bool {
    match address {
        IpAddr::V4(address) => address.is_link_local() || address.is_multicast(),
        IpAddr::V6(address) => address.is_unicast_link_local() || address.is_multicast(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TUNNEL: u32 = 9;

    fn found(prefix: &str, table: &[Route]) -> Vec<Overlap> {
        let found = overlaps(&prefix.parse().unwrap(), table, TUNNEL);
        found.into_iter().map(|(overlap, _)| overlap).collect()
    }

    #[test]
    fn a_default_prefix_becomes_two_halves() {
        let wanted = wanted_prefixes(["0.0.0.0/0".parse().unwrap()]);
        let texts: Vec<String> = wanted.iter().map(ToString::to_string).collect();
        assert_eq!(texts, ["0.0.0.0/1", "128.0.0.0/1"]);
    }

    #[test]
    fn overlaps_are_told_apart() {
        let table = [
            Route::sample("0.0.0.0/0", Some("192.168.1.1"), 2, 0),
            Route::sample("192.168.1.0/24", None, 2, 0),
        ];
        assert_eq!(found("192.168.1.0/24", &table), [Overlap::Same]);
        assert_eq!(found("192.168.0.0/16", &table), [Overlap::RouteInside]);
        assert_eq!(found("192.168.1.7/32", &table), [Overlap::PrefixInside]);
        assert_eq!(found("10.9.0.0/24", &table), []);
    }

    #[test]
    fn our_own_routes_overlap_nothing() {
        let table = [Route::sample("10.9.0.0/24", None, TUNNEL, 0)];
        assert_eq!(found("10.9.0.0/24", &table), []);
    }

    #[test]
    fn the_way_outside_is_the_most_specific_and_cheapest_that_is_not_ours() {
        let table = [
            Route::sample("0.0.0.0/0", Some("192.168.1.1"), 2, 600),
            Route::sample("0.0.0.0/0", Some("10.0.0.1"), 3, 100),
            Route::sample("10.9.0.0/16", None, TUNNEL, 0),
        ];
        let outside = route_outside("10.9.0.5".parse().unwrap(), &table, TUNNEL).unwrap();
        assert_eq!(outside.interface, 3);

        let host = host_route("10.9.0.5".parse().unwrap(), outside);
        assert_eq!(host.destination.to_string(), "10.9.0.5/32");
        assert_eq!(host.gateway, Some("10.0.0.1".parse().unwrap()));
    }

    #[test]
    fn an_address_without_a_way_has_none() {
        let table = [Route::sample("10.9.0.0/16", None, TUNNEL, 0)];
        assert!(route_outside("10.9.0.5".parse().unwrap(), &table, TUNNEL).is_none());
    }
}
