//! What the findings mean.

use std::{net::SocketAddr, time::Duration};

use adit_proto::{ConnectorId, SiteId};

use super::{
    nat::{self, Observation},
    target::{Asked, Tried},
};
use crate::{
    carrier::{Carrier, CarrierChoice, SessionCarrier},
    ipc::{
        AddressOnNetcheck, ConnectorOnNetcheck, ControlPlaneOnNetcheck, FamilyOnNetcheck,
        NatOnNetcheck, Netcheck, Passage, ProbeOnNetcheck, SiteOnNetcheck,
    },
};

#[derive(Debug)]
pub(super) struct FoundSite {
    pub(super) id: SiteId,
    pub(super) name: String,
    pub(super) connectors: Vec<FoundConnector>,
}

#[derive(Debug)]
pub(super) struct FoundConnector {
    pub(super) id: ConnectorId,
    pub(super) name: String,
    pub(super) addresses: Vec<Tried>,
    pub(super) problem: Option<String>,
}

#[derive(Debug)]
pub(super) struct FoundControlPlane {
    pub(super) url: String,
    pub(super) round_trip: Option<Duration>,
    /// Why it does not answer as it should.
    pub(super) error: Option<String>,
}

/// The report; everything over UDP went out from this local port.
pub(super) fn report(
    sites: Vec<FoundSite>,
    control_plane: FoundControlPlane,
    choice: CarrierChoice,
    port: u16,
) -> Netcheck {
    let connectors = || sites.iter().flat_map(|site| &site.connectors);
    let tried: Vec<&Tried> = connectors().flat_map(|connector| &connector.addresses).collect();
    let ipv4: Vec<&Tried> = tried.iter().copied().filter(|it| it.address.is_ipv4()).collect();
    let ipv6: Vec<&Tried> = tried.iter().copied().filter(|it| it.address.is_ipv6()).collect();
    let passage = |works: fn(&Tried) -> bool| passage(&tried, works);
    let [udp, quic, tcp] =
        [passage(|it| it.udp.is_ok()), passage(|it| it.quic.is_ok()), passage(|it| it.tcp.is_ok())];
    let control_plane = ControlPlaneOnNetcheck {
        url: control_plane.url,
        reachable: control_plane.error.is_none(),
        round_trip_ms: control_plane.round_trip.map(millis),
        error: control_plane.error,
    };
    let next = next(udp, quic, tcp, choice, &control_plane);
    // Where IPv6 is translated at all, IPv4 is, too.
    let nat = [&ipv4, &ipv6]
        .map(|family| nat_of(family, port))
        .into_iter()
        .reduce(|ipv4, ipv6| if ipv4.observed.is_empty() { ipv6 } else { ipv4 })
        .expect("there are two families");
    Netcheck {
        ipv4: family(&ipv4, "IPv4"),
        ipv6: family(&ipv6, "IPv6"),
        udp,
        quic,
        tcp,
        nat,
        control_plane,
        sites: sites.into_iter().map(|site| site_view(site, choice)).collect(),
        next,
    }
}

fn passage(tried: &[&Tried], works: impl Fn(&Tried) -> bool) -> Passage {
    if tried.is_empty() {
        Passage::Untested
    } else if tried.iter().any(|tried| works(tried)) {
        Passage::Passes
    } else {
        Passage::Blocked
    }
}

fn is_reached(tried: &Tried) -> bool {
    tried.udp.is_ok() || tried.quic.is_ok() || tried.tcp.is_ok()
}

fn family(tried: &[&Tried], name: &str) -> FamilyOnNetcheck {
    let usable = passage(tried, is_reached);
    let problem = match usable {
        Passage::Passes => None,
        Passage::Blocked => tried.iter().find_map(|tried| tried.tcp.as_ref().err().cloned()),
        Passage::Untested => Some(format!("no connector has an {name} address")),
    };
    let reached = tried.iter().filter(|tried| is_reached(tried));
    FamilyOnNetcheck {
        usable,
        source: reached.filter_map(|tried| tried.source).next(),
        path_mtu: tried.iter().filter_map(|tried| tried.path_mtu).max(),
        problem,
    }
}

fn nat_of(tried: &[&Tried], port: u16) -> NatOnNetcheck {
    let observations: Vec<Observation> = tried
        .iter()
        .filter_map(|tried| {
            let observed = tried.quic.as_ref().ok()?.observed?;
            let local = SocketAddr::new(tried.source?, port);
            Some(Observation { local, by: tried.address, observed })
        })
        .collect();
    let mut observed: Vec<SocketAddr> = observations.iter().map(|it| it.observed).collect();
    observed.sort_unstable();
    observed.dedup();
    NatOnNetcheck {
        kind: nat::classify(&observations),
        local: observations.first().map(|it| it.local),
        observed,
    }
}

fn site_view(site: FoundSite, choice: CarrierChoice) -> SiteOnNetcheck {
    let connectors = site.connectors.into_iter().map(|connector| ConnectorOnNetcheck {
        carrier: carrier(&connector.addresses, choice),
        id: connector.id,
        name: connector.name,
        addresses: connector.addresses.into_iter().map(address_view).collect(),
        problem: connector.problem,
    });
    SiteOnNetcheck { id: site.id, name: site.name, connectors: connectors.collect() }
}

/// The best that would work, where a session can be opened, too.
fn carrier(addresses: &[Tried], choice: CarrierChoice) -> Option<Carrier> {
    let with_session = || addresses.iter().filter(|tried| has_session(tried, choice));
    Carrier::ALL.into_iter().filter(|carrier| choice.allows(*carrier)).find(|carrier| {
        with_session().any(|tried| match carrier {
            Carrier::Wireguard => tried.udp.is_ok(),
            Carrier::Quic => tried.quic.is_ok(),
            Carrier::Http2 => tried.tcp.is_ok(),
        })
    })
}

/// Whether a session can be opened there: by TCP or by QUIC.
fn has_session(tried: &Tried, choice: CarrierChoice) -> bool {
    choice.of_sessions(None).iter().any(|carrier| match carrier {
        SessionCarrier::Http2 => tried.tcp.is_ok(),
        SessionCarrier::Quic => tried.quic.is_ok(),
    })
}

fn address_view(tried: Tried) -> AddressOnNetcheck {
    let asked = |asked: Result<Asked, String>| probe(asked.map(|asked| asked.round_trip));
    AddressOnNetcheck {
        address: tried.address,
        udp: probe(tried.udp),
        quic: asked(tried.quic),
        tcp: asked(tried.tcp),
        path_mtu: tried.path_mtu,
    }
}

fn probe(outcome: Result<Duration, String>) -> ProbeOnNetcheck {
    match outcome {
        Ok(round_trip) => {
            ProbeOnNetcheck { works: true, round_trip_ms: Some(millis(round_trip)), error: None }
        }
        Err(error) => ProbeOnNetcheck { works: false, round_trip_ms: None, error: Some(error) },
    }
}

/// What to do where something is blocked.
fn next(
    udp: Passage,
    quic: Passage,
    tcp: Passage,
    choice: CarrierChoice,
    control_plane: &ControlPlaneOnNetcheck,
) -> Vec<String> {
    use Passage::{Blocked, Passes, Untested};

    let is_lost = match choice.only() {
        None => false,
        Some(Carrier::Http2) => tcp == Blocked,
        Some(Carrier::Wireguard) => udp == Blocked,
        Some(Carrier::Quic) => quic == Blocked,
    };
    let mut next = Vec::new();
    match (udp, quic, tcp) {
        (Untested, _, _) => next.push(
            "There is no connector to test with: ask an administrator for access to a resource",
        ),
        (Blocked, Blocked, Blocked) => next.push(
            "No connector can be reached: check this network; if others cannot either, tell an \
             administrator",
        ),
        _ if is_lost => {
            next.push("The only carrier that is allowed is blocked here: adit set carrier auto")
        }
        (Passes, Blocked, Blocked) => next.push(
            "TCP and QUIC are blocked, and sessions go by one of both: use another network, or ask \
             whoever runs this one to let the connectors' ports through",
        ),
        (_, _, Blocked) => {
            next.push("TCP is blocked here; sessions go by QUIC, packets by WireGuard or QUIC");
        }
        (Blocked, _, Passes) => next.push("UDP is blocked here; packets go by HTTP/2"),
        (Passes, Blocked, Passes) => next.push(
            "QUIC is blocked here; packets go by WireGuard, or by HTTP/2 if that is blocked, too",
        ),
        (Passes, _, _) => {}
        (Blocked, _, Untested) => {}
    }
    let mut next: Vec<String> = next.into_iter().map(str::to_owned).collect();
    if !control_plane.reachable {
        next.push(
            "The control plane cannot be reached: what is connected goes on until its credential \
             expires; check this network, or tell an administrator"
                .to_owned(),
        );
    }
    next
}

/// To a hundredth.
fn millis(duration: Duration) -> f64 {
    (duration.as_secs_f64() * 100_000.0).round() / 100.0
}

#[cfg(test)]
mod tests {
    use super::*;

    const RTT: Duration = Duration::from_millis(2);

    fn tried(udp: bool, quic: bool, tcp: bool) -> Tried {
        let why = || "no answer".to_owned();
        let asked = Asked { round_trip: RTT, observed: Some("203.0.113.7:1".parse().unwrap()) };
        Tried {
            address: "192.0.2.1:443".parse().unwrap(),
            source: Some("10.1.0.2".parse().unwrap()),
            udp: udp.then_some(RTT).ok_or_else(why),
            path_mtu: udp.then_some(1500),
            quic: quic.then_some(asked).ok_or_else(why),
            tcp: tcp.then_some(asked).ok_or_else(why),
        }
    }

    fn report_of(tried: Vec<Tried>, choice: CarrierChoice) -> Netcheck {
        let connector = FoundConnector {
            id: "conn_00000000000000000000000000000001".parse().unwrap(),
            name: "office-1".to_owned(),
            addresses: tried,
            problem: None,
        };
        let site = FoundSite {
            id: "site_00000000000000000000000000000001".parse().unwrap(),
            name: "office".to_owned(),
            connectors: vec![connector],
        };
        let control_plane =
            FoundControlPlane { url: String::new(), round_trip: Some(RTT), error: None };
        report(vec![site], control_plane, choice, 4000)
    }

    fn carrier_of(report: &Netcheck) -> Option<Carrier> {
        report.sites[0].connectors[0].carrier
    }

    #[test]
    fn where_everything_passes_nothing_is_to_be_done() {
        let report = report_of(vec![tried(true, true, true)], CarrierChoice::Auto);
        assert_eq!(report.next, Vec::<String>::new());
        assert_eq!(carrier_of(&report), Some(Carrier::Wireguard));
        assert_eq!((report.ipv4.usable, report.ipv4.path_mtu), (Passage::Passes, Some(1500)));
        assert_eq!(report.ipv6.usable, Passage::Untested);
    }

    #[test]
    fn where_udp_is_blocked_packets_go_by_http2() {
        let report = report_of(vec![tried(false, false, true)], CarrierChoice::Auto);
        assert_eq!(report.next, ["UDP is blocked here; packets go by HTTP/2"]);
        assert_eq!(carrier_of(&report), Some(Carrier::Http2));
        assert_eq!(report.udp, Passage::Blocked);
    }

    #[test]
    fn a_choice_that_is_blocked_is_named() {
        let report = report_of(vec![tried(false, false, true)], CarrierChoice::Quic);
        assert_eq!(carrier_of(&report), None);
        assert!(report.next[0].ends_with("adit set carrier auto"), "{:?}", report.next);
    }

    #[test]
    fn without_tcp_sessions_go_by_quic() {
        let report = report_of(vec![tried(true, true, false)], CarrierChoice::Auto);
        assert_eq!(carrier_of(&report), Some(Carrier::Wireguard));
        assert!(report.next[0].starts_with("TCP is blocked"), "{:?}", report.next);
    }

    #[test]
    fn without_tcp_and_quic_there_is_no_session() {
        let report = report_of(vec![tried(true, false, false)], CarrierChoice::Auto);
        assert_eq!(carrier_of(&report), None);
        assert!(report.next[0].contains("sessions"), "{:?}", report.next);
    }

    #[test]
    fn one_address_that_works_is_enough() {
        let addresses = vec![tried(false, false, false), tried(true, true, true)];
        let report = report_of(addresses, CarrierChoice::Auto);
        assert_eq!(report.next, Vec::<String>::new());
        assert_eq!(carrier_of(&report), Some(Carrier::Wireguard));
    }

    #[test]
    fn without_connectors_nothing_is_said_to_be_blocked() {
        let report = report_of(Vec::new(), CarrierChoice::Auto);
        assert_eq!((report.udp, report.tcp), (Passage::Untested, Passage::Untested));
        assert_eq!(report.next.len(), 1);
    }
}
