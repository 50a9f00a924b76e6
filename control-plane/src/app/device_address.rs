//! Which addresses a device has inside the tunnel.
//!
//! A device holds one number, and that many hosts into each of the organisation's ranges lie its
//! addresses.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use ipnet::IpNet;

/// Number 0 is the network itself and 1 is left for whoever routes it.
pub(crate) const FIRST_HOST_NUMBER: u32 = 2;

/// The largest number that fits each of the ranges, its broadcast address left out.
pub(crate) fn last_host_number(ranges: &[IpNet]) -> u32 {
    ranges
        .iter()
        .map(|range| {
            let host_bits = range.max_prefix_len().saturating_sub(range.prefix_len());
            1_u32.checked_shl(host_bits.into()).map_or(u32::MAX, |count| count.saturating_sub(2))
        })
        .min()
        .unwrap_or(0)
}

/// The addresses of the device with this number, one for each range.
pub(crate) fn device_addresses(ranges: &[IpNet], host_number: u32) -> Vec<IpAddr> {
    ranges
        .iter()
        .map(|range| match range {
            IpNet::V4(range) => Ipv4Addr::from_bits(range.network().to_bits() | host_number).into(),
            IpNet::V6(range) => {
                Ipv6Addr::from_bits(range.network().to_bits() | u128::from(host_number)).into()
            }
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ranges() -> Vec<IpNet> {
        vec!["100.80.0.0/12".parse().unwrap(), "fd12:3456:789a::/48".parse().unwrap()]
    }

    fn addresses(host_number: u32) -> Vec<String> {
        device_addresses(&ranges(), host_number).iter().map(ToString::to_string).collect()
    }

    #[test]
    fn both_addresses_bear_the_same_number() {
        assert_eq!(addresses(FIRST_HOST_NUMBER), ["100.80.0.2", "fd12:3456:789a::2"]);
        assert_eq!(addresses(0x1_0203), ["100.81.2.3", "fd12:3456:789a::1:203"]);
    }

    #[test]
    fn the_last_number_stays_below_the_broadcast_address() {
        assert_eq!(last_host_number(&ranges()), (1 << 20) - 2);
        assert_eq!(addresses(last_host_number(&ranges())).first().unwrap(), "100.95.255.254");
    }

    #[test]
    fn addresses_that_stand_for_dns_resources_are_never_given() {
        let dns: IpNet = "100.112.0.0/12".parse().unwrap();
        let last = device_addresses(&ranges(), last_host_number(&ranges()));
        assert!(!dns.contains(&last[0]));
    }
}
