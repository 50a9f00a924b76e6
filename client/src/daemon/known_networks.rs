//! Which carriers worked in which network: pure, and kept on disk.

use std::net::IpAddr;

use adit_proto::ConnectorId;
use ipnet::IpNet;
use serde::{Deserialize, Serialize};

use super::routing::Route;
use crate::carrier::{Carrier, SessionCarrier};

/// As many are remembered; the one that was longest not used goes first.
const MAX_NETWORKS: usize = 64;

/// As many are remembered of each network.
const MAX_CONNECTORS: usize = 64;

/// A network that this machine is in, as far as it can be told from others.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct NetworkId {
    gateway: IpAddr,
    /// Of the interface toward the gateway.
    prefix: IpNet,
}

impl std::fmt::Display for NetworkId {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} by {}", self.prefix, self.gateway)
    }
}

impl NetworkId {
    /// The network of the default route, by the main table without the tunnel's routes.
    ///
    /// IPv4 comes first: gateways of IPv6 mostly have the same link-local address everywhere.
    pub(crate) fn find(table: &[Route]) -> Option<Self> {
        let is_default = |route: &&Route| route.destination.prefix_len() == 0;
        let defaults = table.iter().filter(is_default).filter_map(|route| {
            let prefix = prefix_toward(route.gateway?, route.interface, table)?;
            Some((route, Self { gateway: route.gateway?, prefix }))
        });
        let preference = |(route, _id): &(&Route, Self)| {
            (route.destination.addr().is_ipv6(), route.metric, route.interface)
        };
        defaults.min_by_key(preference).map(|(_route, id)| id)
    }
}

/// The network on an interface that speaks of it best: the gateway's, or one of more than the link.
fn prefix_toward(gateway: IpAddr, interface: u32, table: &[Route]) -> Option<IpNet> {
    let on_link = table.iter().filter(|route| {
        route.interface == interface
            && route.gateway.is_none()
            && route.destination.addr().is_ipv4() == gateway.is_ipv4()
            && !is_host(&route.destination)
    });
    on_link
        .map(|route| route.destination)
        .min_by_key(|prefix| (is_link_local(prefix), !prefix.contains(&gateway), *prefix))
}

fn is_host(prefix: &IpNet) -> bool {
    prefix.prefix_len() == prefix.max_prefix_len()
}

fn is_link_local(prefix: &IpNet) -> bool {
    match prefix.addr() {
        IpAddr::V4(address) => address.is_link_local(),
        IpAddr::V6(address) => address.is_unicast_link_local() || address.is_multicast(),
    }
}

/// What worked with one connector.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub(crate) struct Remembered {
    /// What carried packets last.
    pub(crate) carrier: Option<Carrier>,
    /// What carried the session last.
    pub(crate) session_carrier: Option<SessionCarrier>,
}

/// All that is remembered, the network that was used last at the end.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub(crate) struct KnownNetworks(Vec<KnownNetwork>);

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct KnownNetwork {
    network: NetworkId,
    /// The one that changed last is at the end.
    connectors: Vec<(ConnectorId, Remembered)>,
}

impl KnownNetworks {
    pub(crate) fn contains(&self, network: &NetworkId) -> bool {
        self.0.iter().any(|known| known.network == *network)
    }

    /// What worked with a connector in a network.
    pub(crate) fn remembered(&self, network: &NetworkId, connector: ConnectorId) -> Remembered {
        let known = self.0.iter().find(|known| known.network == *network);
        let known = known.into_iter().flat_map(|known| &known.connectors);
        let mut its = known.filter(|(id, _remembered)| *id == connector);
        its.next().map(|(_id, remembered)| *remembered).unwrap_or_default()
    }

    /// Notes what works; says whether that is worth writing down.
    pub(crate) fn note(
        &mut self,
        network: &NetworkId,
        connector: ConnectorId,
        change: impl FnOnce(&mut Remembered),
    ) -> bool {
        let before = self.remembered(network, connector);
        let mut after = before;
        change(&mut after);
        let place = self.0.iter().position(|known| known.network == *network);
        let mut known = match place {
            Some(place) => self.0.remove(place),
            None => KnownNetwork { network: *network, connectors: Vec::new() },
        };
        if after != before {
            known.connectors.retain(|(id, _remembered)| *id != connector);
            known.connectors.push((connector, after));
        }
        drop_first(&mut known.connectors, MAX_CONNECTORS);
        self.0.push(known);
        drop_first(&mut self.0, MAX_NETWORKS);
        after != before
    }
}

fn drop_first<T>(all: &mut Vec<T>, max_len: usize) {
    let excess = all.len().saturating_sub(max_len);
    all.drain(..excess);
}

#[cfg(test)]
mod tests {
    use super::*;

    fn network(number: u8) -> NetworkId {
        let gateway = IpAddr::from([10, 0, number, 1]);
        NetworkId { gateway, prefix: format!("10.0.{number}.0/24").parse().unwrap() }
    }

    fn connector(number: u8) -> ConnectorId {
        format!("conn_{number:032x}").parse().unwrap()
    }

    fn by(carrier: Carrier) -> impl Fn(&mut Remembered) {
        move |remembered| remembered.carrier = Some(carrier)
    }

    #[test]
    fn a_network_is_its_gateway_and_the_prefix_toward_it() {
        let table = [
            Route::sample("0.0.0.0/0", Some("192.168.1.1"), 2, 600),
            Route::sample("0.0.0.0/0", Some("10.0.0.1"), 3, 100),
            Route::sample("::/0", Some("fe80::1"), 3, 0),
            Route::sample("192.168.1.0/24", None, 2, 600),
            Route::sample("10.0.0.0/16", None, 3, 100),
            Route::sample("10.9.0.0/24", None, 9, 0),
        ];
        let found = NetworkId::find(&table).unwrap();
        assert_eq!(found.to_string(), "10.0.0.0/16 by 10.0.0.1");
    }

    #[test]
    fn a_network_of_ipv6_alone_is_told_by_more_than_its_link() {
        let table = [
            Route::sample("::/0", Some("fe80::1"), 2, 1024),
            Route::sample("fe80::/64", None, 2, 256),
            Route::sample("2001:db8:7::/64", None, 2, 256),
        ];
        let found = NetworkId::find(&table).unwrap();
        assert_eq!(found.to_string(), "2001:db8:7::/64 by fe80::1");
        assert_eq!(NetworkId::find(&table[1..]), None);
    }

    #[test]
    fn what_worked_is_remembered_by_network_and_connector() {
        let mut known = KnownNetworks::default();
        assert!(known.note(&network(1), connector(1), by(Carrier::Http2)));
        assert!(!known.note(&network(1), connector(1), by(Carrier::Http2)));
        assert!(known.note(&network(2), connector(1), by(Carrier::Quic)));
        let carrier = |network, connector| known.remembered(&network, connector).carrier;
        assert_eq!(carrier(network(1), connector(1)), Some(Carrier::Http2));
        assert_eq!(carrier(network(2), connector(1)), Some(Carrier::Quic));
        assert_eq!(carrier(network(1), connector(2)), None);
    }

    #[test]
    fn the_network_that_was_longest_not_used_is_forgotten() {
        let mut known = KnownNetworks::default();
        for number in 0..64 {
            known.note(&network(number), connector(1), by(Carrier::Quic));
        }
        known.note(&network(0), connector(1), by(Carrier::Quic));
        known.note(&network(64), connector(1), by(Carrier::Quic));
        assert_eq!(known.0.len(), MAX_NETWORKS);
        assert_eq!(known.remembered(&network(0), connector(1)).carrier, Some(Carrier::Quic));
        assert_eq!(known.remembered(&network(1), connector(1)).carrier, None);
    }

    #[test]
    fn connectors_of_one_network_are_bounded_too() {
        let mut known = KnownNetworks::default();
        for number in 0..=64 {
            known.note(&network(1), connector(number), by(Carrier::Quic));
        }
        assert_eq!(known.remembered(&network(1), connector(0)).carrier, None);
        assert_eq!(known.remembered(&network(1), connector(64)).carrier, Some(Carrier::Quic));
    }

    #[test]
    fn memory_survives_its_file() {
        let mut known = KnownNetworks::default();
        known.note(&network(1), connector(1), |remembered| {
            *remembered = Remembered {
                carrier: Some(Carrier::Http2),
                session_carrier: Some(SessionCarrier::Http2),
            };
        });
        let json = serde_json::to_string(&known).unwrap();
        assert_eq!(serde_json::from_str::<KnownNetworks>(&json).unwrap(), known);
    }
}
