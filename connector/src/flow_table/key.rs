//! What a flow is found by.

use std::{
    hash::{Hash, Hasher},
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
};

use adit_proto::{FlowTuple, Protocol};

/// A tuple, packed so that it is hashed and compared in whole words: a run of packets waits for
/// both.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct FlowKey {
    /// Ports, protocol, and whether the addresses are of IPv6.
    transport: u64,
    /// Two addresses of IPv4 fit into the first word; the others are zero then.
    addresses: [u64; 4],
}

const IS_IPV6: u64 = 1;
const TCP: u64 = 2;
const UDP: u64 = 4;
const ICMP: u64 = 8;

impl FlowKey {
    pub(crate) fn new(tuple: &FlowTuple) -> Self {
        let protocol = match tuple.protocol {
            Protocol::Tcp => TCP,
            Protocol::Udp => UDP,
            Protocol::Icmp => ICMP,
        };
        let transport =
            u64::from(tuple.source_port) << 48 | u64::from(tuple.destination_port) << 32 | protocol;
        if let (IpAddr::V4(source), IpAddr::V4(destination)) = (tuple.source, tuple.destination) {
            let both = u64::from(source.to_bits()) << 32 | u64::from(destination.to_bits());
            return Self { transport, addresses: [both, 0, 0, 0] };
        }
        // No packet has one address of each, and a packet's addresses are all there is.
        let [a, b] = words(tuple.source);
        let [c, d] = words(tuple.destination);
        Self { transport: transport | IS_IPV6, addresses: [a, b, c, d] }
    }

    pub(crate) const fn protocol(self) -> Protocol {
        if self.transport & TCP != 0 {
            Protocol::Tcp
        } else if self.transport & UDP != 0 {
            Protocol::Udp
        } else {
            Protocol::Icmp
        }
    }

    pub(crate) fn tuple(self) -> FlowTuple {
        let [a, b, c, d] = self.addresses;
        let [source, destination] = if self.transport & IS_IPV6 != 0 {
            [[a, b], [c, d]].map(|[high, low]| {
                Ipv6Addr::from_bits(u128::from(high) << 64 | u128::from(low)).into()
            })
        } else {
            let [e, f, g, h, i, j, k, l] = a.to_be_bytes();
            [[e, f, g, h], [i, j, k, l]].map(|octets| Ipv4Addr::from(octets).into())
        };
        let [e, f, g, h, ..] = self.transport.to_be_bytes();
        FlowTuple {
            protocol: self.protocol(),
            source,
            source_port: u16::from_be_bytes([e, f]),
            destination,
            destination_port: u16::from_be_bytes([g, h]),
        }
    }
}

fn words(address: IpAddr) -> [u64; 2] {
    let bits = match address {
        IpAddr::V4(address) => address.to_ipv6_mapped().to_bits(),
        IpAddr::V6(address) => address.to_bits(),
    };
    let [a, b, c, d, e, f, g, h, i, j, k, l, m, n, o, p] = bits.to_be_bytes();
    [[a, b, c, d, e, f, g, h], [i, j, k, l, m, n, o, p]].map(u64::from_be_bytes)
}

impl Hash for FlowKey {
    fn hash<H: Hasher>(&self, state: &mut H) {
        let [first, rest @ ..] = self.addresses;
        state.write_u64(self.transport);
        state.write_u64(first);
        // The transport says whether more follows.
        if self.transport & IS_IPV6 != 0 {
            for word in rest {
                state.write_u64(word);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    #[test]
    fn every_tuple_has_a_key_of_its_own_and_comes_back_from_it() {
        let addresses = ["10.0.0.1", "0.0.0.1", "::ffff:10.0.0.1", "::10.0.0.1", "::1", "fd00::1"];
        let mut keys = HashSet::new();
        let mut tuples = 0;
        for protocol in [Protocol::Tcp, Protocol::Udp, Protocol::Icmp] {
            for source in addresses {
                for destination in addresses {
                    let [source, destination]: [IpAddr; 2] =
                        [source, destination].map(|address| address.parse().unwrap());
                    if source.is_ipv4() != destination.is_ipv4() {
                        continue;
                    }
                    for (source_port, destination_port) in [(1, 2), (2, 1), (0, 0x100)] {
                        tuples += 1;
                        let tuple = FlowTuple {
                            protocol,
                            source,
                            source_port,
                            destination,
                            destination_port,
                        };
                        let key = FlowKey::new(&tuple);
                        assert_eq!(key.tuple(), tuple);
                        keys.insert(key);
                    }
                }
            }
        }
        assert_eq!(keys.len(), tuples);
    }
}
