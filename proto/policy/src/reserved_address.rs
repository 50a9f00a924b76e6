//! Addresses that are never forwarded to unless a resource names them alone.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// Whether `address` means this host, its own link or everybody, in any spelling.
///
/// An IPv4 address is looked for inside IPv6 too: mapped and compatible (RFC 4291 §2.5.5),
/// translated (RFC 2765 §2.1), NAT64 (RFC 6052, RFC 8215), 6to4 (RFC 3056) and Teredo (RFC 4380).
/// The last two lead out of the site and back in, so private addresses inside them count as well.
pub fn reserved_address(address: IpAddr) -> bool {
    match address {
        IpAddr::V4(address) => reserved_ipv4(address),
        IpAddr::V6(address) => reserved_ipv6(address),
    }
}

fn reserved_ipv4(address: Ipv4Addr) -> bool {
    // All of 0.0.0.0/8 is "this network" (RFC 1122 §3.2.1.3), not only the unspecified address.
    address.octets()[0] == 0 || reserved_ipv4_beyond_zero(address)
}

fn reserved_ipv4_beyond_zero(address: Ipv4Addr) -> bool {
    address.is_loopback()
        || address.is_link_local()
        || address.is_multicast()
        || address.is_broadcast()
}

fn private_ipv4(address: Ipv4Addr) -> bool {
    let [a, b, ..] = address.octets();
    address.is_private() || (a == 100 && b & 0xc0 == 64)
}

fn reserved_ipv6(address: Ipv6Addr) -> bool {
    let o = address.octets();
    let last = Ipv4Addr::new(o[12], o[13], o[14], o[15]);
    let at = |[a, b, c, d]: [usize; 4]| Ipv4Addr::new(o[a], o[b], o[c], o[d]);
    match address.segments() {
        // Covers ::, ::1 and the IPv4-compatible addresses.
        [0, 0, 0, 0, 0, 0, ..] => reserved_ipv4(last),
        [0, 0, 0, 0, 0, 0xffff, ..] => reserved_ipv4(last),
        [0, 0, 0, 0, 0xffff, 0, ..] => reserved_ipv4(last),
        [0x64, 0xff9b, 0, 0, 0, 0, ..] => reserved_ipv4(last),
        // RFC 8215 leaves the length of the prefix open: RFC 6052 §2.2 has a place for each. Zeros
        // in the places of the other lengths are no address.
        [0x64, 0xff9b, 1, ..] => {
            reserved_ipv4(last)
                || [[6, 7, 9, 10], [7, 9, 10, 11], [9, 10, 11, 12]]
                    .into_iter()
                    .any(|place| reserved_ipv4_beyond_zero(at(place)))
        }
        [0x2002, ..] => {
            let router = at([2, 3, 4, 5]);
            reserved_ipv4(router) || private_ipv4(router)
        }
        [0x2001, 0, ..] => {
            let server = at([4, 5, 6, 7]);
            let client = Ipv4Addr::from_bits(!last.to_bits());
            [server, client].into_iter().any(|hop| reserved_ipv4(hop) || private_ipv4(hop))
        }
        _ => address.is_multicast() || address.is_unicast_link_local(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn reserved(text: &str) -> bool {
        reserved_address(text.parse().unwrap())
    }

    #[test]
    fn this_host_its_link_and_everybody_are_reserved() {
        for address in [
            "0.0.0.0",
            "0.1.2.3",
            "127.0.0.1",
            "127.255.255.254",
            "169.254.169.254",
            "224.0.0.1",
            "239.255.255.255",
            "255.255.255.255",
            "::",
            "::1",
            "fe80::1",
            "febf::1",
            "ff02::1",
            "ff0e::1",
        ] {
            assert!(reserved(address), "{address}");
        }
    }

    #[test]
    fn other_spellings_of_a_reserved_address_are_reserved() {
        for address in [
            "::ffff:127.0.0.1",
            "::ffff:169.254.169.254",
            "::ffff:0.0.0.0",
            "::127.0.0.1",
            "::ffff:0:127.0.0.1",
            "64:ff9b::169.254.169.254",
            "64:ff9b::127.0.0.1",
            "64:ff9b:1::169.254.169.254",
            "64:ff9b:1:a9fe:a9:fe00::",
            "64:ff9b:1:fa9:fe:a9fe::",
            "64:ff9b:1:1:a9:fea9:fe00::",
            "2002:7f00:1::1",
            "2002:a9fe:a9fe::1",
            "2002:a00:1::1",
            "2002:6450:1::1",
            // Teredo: the client's address is stored inverted.
            "2001:0:5db8:d822::80ff:fffe",
            "2001:0:5db8:d822::f5ff:fffe",
            "2001:0:7f00:1::f7f7:f7f7",
        ] {
            assert!(reserved(address), "{address}");
        }
    }

    #[test]
    fn ordinary_addresses_are_not_reserved() {
        for address in [
            "10.0.0.1",
            "192.168.1.1",
            "100.80.0.1",
            "8.8.8.8",
            "169.253.0.1",
            "2001:db8::1",
            "fd00::1",
            "::ffff:10.0.0.1",
            "64:ff9b::10.0.0.1",
            "64:ff9b:1::10.0.0.1",
            "2002:808:808::1",
            "2001:0:808:808::f7f7:f7f7",
            "fec0::1",
        ] {
            assert!(!reserved(address), "{address}");
        }
    }
}
