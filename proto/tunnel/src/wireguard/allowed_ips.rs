//! Which peer owns an inner address.

use std::net::IpAddr;

use ip_network::IpNetwork;
use ip_network_table::IpNetworkTable;
use ipnet::IpNet;

/// Prefixes with their owners; the longest that holds an address decides.
pub(super) struct AllowedIps<T> {
    table: IpNetworkTable<T>,
}

impl<T: Copy + PartialEq> AllowedIps<T> {
    pub(super) fn new() -> Self {
        Self { table: IpNetworkTable::new() }
    }

    pub(super) fn owner_of(&self, address: IpAddr) -> Option<T> {
        self.table.longest_match(address).map(|(_network, owner)| *owner)
    }

    /// The owner of exactly this prefix.
    pub(super) fn owner_of_prefix(&self, prefix: IpNet) -> Option<T> {
        self.table.exact_match(network(prefix)).copied()
    }

    /// Hands over from `former` to `prefixes`.
    pub(super) fn replace(&mut self, owner: T, former: &[IpNet], prefixes: &[IpNet]) {
        self.remove(owner, former);
        for prefix in prefixes {
            self.table.insert(network(*prefix), owner);
        }
    }

    pub(super) fn remove(&mut self, owner: T, prefixes: &[IpNet]) {
        for prefix in prefixes {
            if self.owner_of_prefix(*prefix) == Some(owner) {
                self.table.remove(network(*prefix));
            }
        }
    }
}

fn network(prefix: IpNet) -> IpNetwork {
    IpNetwork::new_truncate(prefix.addr(), prefix.prefix_len())
        .expect("a prefix is never longer than its address")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn prefixes(texts: &[&str]) -> Vec<IpNet> {
        texts.iter().map(|text| text.parse().unwrap()).collect()
    }

    #[test]
    fn the_longest_prefix_owns_an_address() {
        let mut allowed = AllowedIps::new();
        allowed.replace(1, &[], &prefixes(&["0.0.0.0/0", "10.0.0.0/8", "fd00::/8"]));
        allowed.replace(2, &[], &prefixes(&["10.1.0.7/16", "fd00:1::1/128"]));
        for (address, owner) in [
            ("192.0.2.1", Some(1)),
            ("10.2.0.1", Some(1)),
            ("10.1.255.1", Some(2)),
            ("fd00:1::1", Some(2)),
            ("fd00:1::2", Some(1)),
            ("2001:db8::1", None),
            ("::ffff:10.1.0.1", None),
        ] {
            assert_eq!(allowed.owner_of(address.parse().unwrap()), owner, "{address}");
        }
    }

    #[test]
    fn prefixes_that_are_not_named_again_are_lost() {
        let mut allowed = AllowedIps::new();
        let former = prefixes(&["10.0.0.0/8", "10.1.0.0/16"]);
        allowed.replace(1, &[], &former);
        allowed.replace(1, &former, &prefixes(&["10.1.0.0/16"]));
        assert_eq!(allowed.owner_of("10.1.0.1".parse().unwrap()), Some(1));
        assert_eq!(allowed.owner_of("10.2.0.1".parse().unwrap()), None);
    }
}
