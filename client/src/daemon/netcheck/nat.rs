//! Which translation of addresses is on the way, by what others see of one socket.

use std::{
    collections::BTreeSet,
    net::{IpAddr, SocketAddr},
};

use crate::ipc::NatKind;

/// What one target sees of our socket.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Observation {
    /// Our own address toward it.
    pub(super) local: SocketAddr,
    /// The target.
    pub(super) by: SocketAddr,
    /// From where packets come to it.
    pub(super) observed: SocketAddr,
}

/// The kind of translation (RFC 4787 §4.1), by observations of one socket in one IP version.
pub(super) fn classify(observations: &[Observation]) -> NatKind {
    if observations.is_empty() {
        return NatKind::Unknown;
    }
    if observations.iter().all(|it| it.observed == it.local) {
        return NatKind::None;
    }
    let mappings: BTreeSet<SocketAddr> = observations.iter().map(|it| it.observed).collect();
    let hosts: BTreeSet<IpAddr> = observations.iter().map(|it| it.by.ip()).collect();
    let varies_with_port = hosts.iter().any(|host| {
        let of_host = observations.iter().filter(|it| it.by.ip() == *host);
        of_host.map(|it| it.observed).collect::<BTreeSet<_>>().len() > 1
    });
    match (mappings.len(), hosts.len()) {
        _ if varies_with_port => NatKind::AddressAndPortDependentMapping,
        (1, 2..) => NatKind::EndpointIndependentMapping,
        (1, _) => NatKind::UnknownMapping,
        (_, _) => NatKind::AddressDependentMapping,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn seen(by: &str, observed: &str) -> Observation {
        Observation {
            local: "10.1.0.2:4000".parse().unwrap(),
            by: by.parse().unwrap(),
            observed: observed.parse().unwrap(),
        }
    }

    #[test]
    fn whoever_is_seen_at_its_own_address_has_no_nat() {
        let own = "10.1.0.2:4000";
        assert_eq!(classify(&[seen("192.0.2.1:443", own)]), NatKind::None);
        let two = [seen("192.0.2.1:443", own), seen("192.0.2.2:443", own)];
        assert_eq!(classify(&two), NatKind::None);
    }

    #[test]
    fn one_mapping_for_all_is_endpoint_independent() {
        let outside = "203.0.113.7:61000";
        let two = [seen("192.0.2.1:443", outside), seen("192.0.2.2:443", outside)];
        assert_eq!(classify(&two), NatKind::EndpointIndependentMapping);
    }

    #[test]
    fn a_mapping_for_each_address_is_address_dependent() {
        let two = [seen("192.0.2.1:443", "203.0.113.7:1"), seen("192.0.2.2:443", "203.0.113.7:2")];
        assert_eq!(classify(&two), NatKind::AddressDependentMapping);
    }

    #[test]
    fn a_mapping_for_each_port_is_address_and_port_dependent() {
        let two = [seen("192.0.2.1:443", "203.0.113.7:1"), seen("192.0.2.1:444", "203.0.113.7:2")];
        assert_eq!(classify(&two), NatKind::AddressAndPortDependentMapping);
    }

    #[test]
    fn with_one_observer_a_nat_is_seen_but_not_its_kind() {
        let outside = "203.0.113.7:61000";
        assert_eq!(classify(&[seen("192.0.2.1:443", outside)]), NatKind::UnknownMapping);
        // A second port of the same host tells no more of other hosts.
        let ports = [seen("192.0.2.1:443", outside), seen("192.0.2.1:444", outside)];
        assert_eq!(classify(&ports), NatKind::UnknownMapping);
        assert_eq!(classify(&[]), NatKind::Unknown);
    }

    #[test]
    fn a_nat_on_the_way_to_some_only_is_one() {
        let two = [seen("192.0.2.1:443", "10.1.0.2:4000"), seen("192.0.2.2:443", "203.0.113.7:2")];
        assert_eq!(classify(&two), NatKind::AddressDependentMapping);
    }
}
