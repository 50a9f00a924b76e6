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
