//! From address, protocol and port to a resource.

use std::cmp::Reverse;
use std::fmt;

use adit_proto::{Protocol, api::PortFilter};
use ip_network::IpNetwork;
use ip_network_table::IpNetworkTable;
use ipnet::IpNet;

use crate::evaluate::Destination;

/// Finds the most specific of many things that have addresses, protocols and ports.
///
/// The longest prefix wins among those whose filters match too; then the narrowest range of ports
/// that holds the port; then the one that was put in first.
pub struct ResourceMap<T> {
    /// Where in `buckets` to look.
    prefixes: IpNetworkTable<usize>,
    /// For each prefix where in `entries` to look, in the order of insertion.
    buckets: Vec<Vec<usize>>,
    entries: Vec<Entry<T>>,
}

struct Entry<T> {
    filters: Vec<PortFilter>,
    value: T,
}

/// What was found, and by what.
pub(crate) struct Found<'a, T> {
    pub(crate) value: &'a T,
    /// Whether the prefix that matched is this one address.
    pub(crate) is_alone: bool,
}

impl<T> ResourceMap<T> {
    /// A map without entries.
    pub fn new() -> Self {
        Self { prefixes: IpNetworkTable::new(), buckets: Vec::new(), entries: Vec::new() }
    }

    /// Puts in `value` under all of `addresses`; no `filters` means every protocol and port.
    ///
    /// Of two that are equally specific the first stays in front, so put them in in the order of
    /// their ids.
    pub fn upsert(&mut self, addresses: &[IpNet], filters: &[PortFilter], value: T) {
        let entry = self.entries.len();
        self.entries.push(Entry { filters: filters.to_vec(), value });
        for address in addresses {
            let network = to_network(*address);
            let bucket = match self.prefixes.exact_match(network) {
                Some(bucket) => *bucket,
                None => {
                    self.prefixes.insert(network, self.buckets.len());
                    self.buckets.push(Vec::new());
                    self.buckets.len() - 1
                }
            };
            if let Some(bucket) = self.buckets.get_mut(bucket)
                && bucket.last() != Some(&entry)
            {
                bucket.push(entry);
            }
        }
    }

    /// The most specific value for `destination`.
    pub fn find(&self, destination: &Destination) -> Option<&T> {
        self.find_match(destination).map(|found| found.value)
    }

    pub(crate) fn find_match(&self, destination: &Destination) -> Option<Found<'_, T>> {
        let mut prefixes: Vec<(IpNetwork, &usize)> =
            self.prefixes.matches(destination.address).collect();
        prefixes.sort_unstable_by_key(|(network, _bucket)| Reverse(network.netmask()));
        prefixes.into_iter().find_map(|(network, bucket)| {
            let entry = self
                .buckets
                .get(*bucket)?
                .iter()
                .filter_map(|entry| self.entries.get(*entry))
                .filter_map(|entry| Some((width(&entry.filters, destination)?, entry)))
                // Of equals this takes the first.
                .min_by_key(|(width, _entry)| *width)
                .map(|(_width, entry)| entry)?;
            let full_len = if destination.address.is_ipv4() { 32 } else { 128 };
            Some(Found { value: &entry.value, is_alone: network.netmask() == full_len })
        })
    }
}

impl<T> Default for ResourceMap<T> {
    fn default() -> Self {
        Self::new()
    }
}

impl<T> fmt::Debug for ResourceMap<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ResourceMap")
            .field("prefixes", &self.buckets.len())
            .field("values", &self.entries.len())
            .finish()
    }
}

/// How many ports the narrowest range has that lets `destination` through; none when none does.
///
/// A protocol without ports counts as wider than every range, and no filter at all as wider still.
fn width(filters: &[PortFilter], destination: &Destination) -> Option<u32> {
    const ALL_PORTS: u32 = 1 << 16;
    const ALL_PROTOCOLS: u32 = ALL_PORTS + 1;

    if filters.is_empty() {
        return Some(ALL_PROTOCOLS);
    }
    filters
        .iter()
        .filter(|filter| filter.protocol == destination.protocol)
        .filter_map(|filter| {
            if filter.ports.is_empty() || filter.protocol == Protocol::Icmp {
                return Some(ALL_PORTS);
            }
            filter
                .ports
                .iter()
                .filter(|range| range.contains(destination.port))
                .map(|range| range.count())
                .min()
        })
        .min()
}

fn to_network(network: IpNet) -> IpNetwork {
    IpNetwork::new_truncate(network.addr(), network.prefix_len())
        .expect("both crates bound the length of a prefix alike")
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::{collection::vec, prelude::*};
    use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

    fn map(entries: &[(&str, &str)]) -> ResourceMap<usize> {
        let mut map = ResourceMap::new();
        for (place, (prefixes, filters)) in entries.iter().enumerate() {
            let addresses: Vec<IpNet> =
                prefixes.split(' ').map(|prefix| prefix.parse().unwrap()).collect();
            map.upsert(&addresses, &serde_json::from_str::<Vec<_>>(filters).unwrap(), place);
        }
        map
    }

    fn tcp(address: &str, port: u16) -> Destination {
        Destination { address: address.parse().unwrap(), port, protocol: Protocol::Tcp }
    }

    const ALL: &str = "[]";
    const ALL_TCP: &str = r#"[{"protocol": "tcp"}]"#;
    const WEB: &str = r#"[{"protocol": "tcp", "ports": ["80", "8000-8100"]}]"#;
    const LOW: &str = r#"[{"protocol": "tcp", "ports": ["1-1023"]}]"#;

    #[test]
    fn the_longest_prefix_wins() {
        let map = map(&[("10.0.0.0/8", ALL), ("10.1.2.0/24", ALL), ("10.1.0.0/16", ALL)]);
        assert_eq!(map.find(&tcp("10.1.2.3", 1)), Some(&1));
        assert_eq!(map.find(&tcp("10.1.3.3", 1)), Some(&2));
        assert_eq!(map.find(&tcp("10.2.0.0", 1)), Some(&0));
        assert_eq!(map.find(&tcp("11.0.0.0", 1)), None);
    }

    #[test]
    fn a_longer_prefix_on_other_ports_is_passed_over() {
        let map = map(&[("0.0.0.0/0", ALL), ("10.0.0.0/8", LOW), ("10.1.2.3/32", WEB)]);
        assert_eq!(map.find(&tcp("10.1.2.3", 80)), Some(&2));
        assert_eq!(map.find(&tcp("10.1.2.3", 81)), Some(&1));
        assert_eq!(map.find(&tcp("10.1.2.3", 8101)), Some(&0));
        let udp = Destination { protocol: Protocol::Udp, ..tcp("10.1.2.3", 80) };
        assert_eq!(map.find(&udp), Some(&0));
    }

    #[test]
    fn on_one_prefix_the_narrower_range_wins_and_then_the_first() {
        let one = "10.0.0.0/8";
        let map = map(&[(one, ALL), (one, ALL_TCP), (one, LOW), (one, WEB), (one, WEB)]);
        assert_eq!(map.find(&tcp("10.0.0.1", 80)), Some(&3));
        assert_eq!(map.find(&tcp("10.0.0.1", 81)), Some(&2));
        assert_eq!(map.find(&tcp("10.0.0.1", 8050)), Some(&3));
        assert_eq!(map.find(&tcp("10.0.0.1", 9000)), Some(&1));
        let icmp = Destination { protocol: Protocol::Icmp, ..tcp("10.0.0.1", 0) };
        assert_eq!(map.find(&icmp), Some(&0));
    }

    #[test]
    fn icmp_has_no_ports() {
        let map = map(&[("::/0", r#"[{"protocol": "icmp"}]"#)]);
        for port in [0, 8, u16::MAX] {
            let destination = Destination { protocol: Protocol::Icmp, ..tcp("::1", port) };
            assert_eq!(map.find(&destination), Some(&0));
        }
        assert_eq!(map.find(&tcp("::1", 8)), None);
    }

    #[test]
    fn host_bits_and_repeated_prefixes_are_of_no_account() {
        let map = map(&[("10.0.0.1/8 10.0.0.0/8 10.255.0.0/8", ALL)]);
        assert_eq!(map.find(&tcp("10.3.0.1", 1)), Some(&0));
    }

    #[test]
    fn versions_of_ip_stay_apart() {
        let map = map(&[("0.0.0.0/0", ALL)]);
        assert_eq!(map.find(&tcp("::ffff:10.0.0.1", 1)), None);
        assert_eq!(map.find(&tcp("10.0.0.1", 1)), Some(&0));
    }

    /// Few distinct bits, so that prefixes overlap.
    fn addresses() -> impl Strategy<Value = IpAddr> {
        let sparse = |bits: u32| bits & 0x8101_8103;
        let spread = move |bits: u32| {
            u128::from(sparse(bits)) << 96 | u128::from(sparse(bits.rotate_left(7)))
        };
        prop_oneof![
            any::<u32>().prop_map(move |bits| Ipv4Addr::from_bits(sparse(bits)).into()),
            any::<u32>().prop_map(move |bits| Ipv6Addr::from_bits(spread(bits)).into()),
        ]
    }

    proptest! {
        #[test]
        fn a_linear_search_agrees(
            prefixes in vec((addresses(), 0..=128_u8), 0..60),
            asked in vec(addresses(), 40),
        ) {
            let networks: Vec<IpNet> = prefixes
                .into_iter()
                .map(|(address, len)| {
                    let len = if address.is_ipv4() { len / 4 } else { len };
                    IpNet::new(address, len).unwrap().trunc()
                })
                .collect();
            let mut map = ResourceMap::new();
            for (place, network) in networks.iter().enumerate() {
                map.upsert(&[*network], &[], place);
            }
            for address in asked {
                let mut expected: Option<(u8, usize)> = None;
                for (place, network) in networks.iter().enumerate() {
                    if network.contains(&address)
                        && expected.is_none_or(|(len, _place)| network.prefix_len() > len)
                    {
                        expected = Some((network.prefix_len(), place));
                    }
                }
                let destination = Destination { address, port: 1, protocol: Protocol::Tcp };
                let found = map.find(&destination).copied();
                prop_assert_eq!(found, expected.map(|(_len, place)| place));
            }
        }
    }
}
