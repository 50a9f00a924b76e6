//! `adit netcheck`.

use std::{path::Path, time::Duration};

use clap::Args;

use super::{
    CliError, Format, Verdict, connection, print, print_json,
    table::{Table, printable},
};
use crate::ipc::{
    ConnectorOnNetcheck, FamilyOnNetcheck, NatKind, NatOnNetcheck, Netcheck, Passage,
    ProbeOnNetcheck, Request, Response,
};

/// A check takes some three seconds.
const TAKES: Duration = Duration::from_secs(5);

#[derive(Debug, Args)]
pub(crate) struct Arguments {
    #[command(flatten)]
    format: Format,
}

pub(super) async fn run(arguments: Arguments, socket: &Path) -> Result<Verdict, CliError> {
    let answer = connection::ask(&Request::Netcheck, socket, TAKES).await?;
    let Response::Netcheck(netcheck) = &answer.response else {
        return Err(connection::unexpected());
    };
    if arguments.format.json {
        print_json(&answer);
    } else {
        print(&to_text(netcheck));
    }
    Ok(Verdict::Yes)
}

fn to_text(netcheck: &Netcheck) -> String {
    let mut text = String::new();
    let mut line = |name: &str, value: &str| {
        text.push_str(&format!("{name:<14} {}\n", printable(value)));
    };
    line("IPv4", &family(&netcheck.ipv4));
    line("IPv6", &family(&netcheck.ipv6));
    line("UDP", passage(netcheck.udp));
    line("QUIC", passage(netcheck.quic));
    line("TCP", passage(netcheck.tcp));
    line("NAT", &nat(&netcheck.nat));
    let control_plane = &netcheck.control_plane;
    let reachable = match (&control_plane.error, control_plane.round_trip_ms) {
        (Some(error), _) => format!("not reachable: {error}"),
        (None, Some(millis)) => format!("reachable in {}", round_trip(millis)),
        (None, None) => "reachable".to_owned(),
    };
    line("Control plane", &format!("{}, {reachable}", control_plane.url));

    for site in &netcheck.sites {
        for connector in &site.connectors {
            text.push_str(&connector_text(connector, &site.name));
        }
    }
    if !netcheck.next.is_empty() {
        text.push_str("\nNext\n");
        for next in &netcheck.next {
            text.push_str(&format!("  {}\n", printable(next)));
        }
    }
    text
}

fn family(family: &FamilyOnNetcheck) -> String {
    let problem = family.problem.as_deref().unwrap_or("no reason is known");
    match family.usable {
        Passage::Passes => {
            let source = family.source.map(|source| format!(" from {source}"));
            let mtu = family.path_mtu.map(|mtu| format!(", path MTU at least {mtu}"));
            format!("usable{}{}", source.unwrap_or_default(), mtu.unwrap_or_default())
        }
        Passage::Blocked => format!("not usable: {problem}"),
        Passage::Untested => format!("not tested: {problem}"),
    }
}

const fn passage(passage: Passage) -> &'static str {
    match passage {
        Passage::Passes => "passes",
        Passage::Blocked => "blocked",
        Passage::Untested => "not tested: there is no connector",
    }
}

fn nat(nat: &NatOnNetcheck) -> String {
    let kind = match nat.kind {
        NatKind::None => "none",
        NatKind::EndpointIndependentMapping => "endpoint-independent mapping",
        NatKind::AddressDependentMapping => "address-dependent mapping",
        NatKind::AddressAndPortDependentMapping => "address- and port-dependent mapping",
        NatKind::UnknownMapping => "there is one; its kind takes a second connector to tell",
        NatKind::Unknown => "unknown: no connector was asked by QUIC",
    };
    let observed: Vec<String> = nat.observed.iter().map(ToString::to_string).collect();
    match nat.local {
        Some(local) if nat.kind != NatKind::None => {
            format!("{kind}; {local} is seen as {}", observed.join(" and "))
        }
        Some(_) | None => kind.to_owned(),
    }
}

fn connector_text(connector: &ConnectorOnNetcheck, site: &str) -> String {
    let (name, site) = (printable(&connector.name), printable(site));
    let carrier = match connector.carrier {
        Some(carrier) => format!("packets would go by {carrier}"),
        None => "no way to it".to_owned(),
    };
    let mut text = format!("\n{name} in {site}: {carrier}\n");
    if !connector.addresses.is_empty() {
        let mut table = Table::new(&["ADDRESS", "UDP", "QUIC", "TCP", "PATH MTU"]);
        for address in &connector.addresses {
            table.push(vec![
                address.address.to_string(),
                probe(&address.udp),
                probe(&address.quic),
                probe(&address.tcp),
                address.path_mtu.map_or("-".to_owned(), |mtu| mtu.to_string()),
            ]);
        }
        text.push_str(&table.to_text("  "));
    }
    for address in &connector.addresses {
        let probes = [("UDP", &address.udp), ("QUIC", &address.quic), ("TCP", &address.tcp)];
        for (name, probe) in probes {
            if let Some(error) = &probe.error {
                text.push_str(&format!("  {name} to {}: {}\n", address.address, printable(error)));
            }
        }
    }
    if let Some(problem) = &connector.problem {
        text.push_str(&format!("  {}\n", printable(problem)));
    }
    text
}

fn probe(probe: &ProbeOnNetcheck) -> String {
    match (probe.works, probe.round_trip_ms) {
        (true, Some(millis)) => round_trip(millis),
        (true, None) => "passes".to_owned(),
        (false, _) => "blocked".to_owned(),
    }
}

fn round_trip(millis: f64) -> String {
    format!("{millis:.1} ms")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        carrier::Carrier,
        ipc::{AddressOnNetcheck, ControlPlaneOnNetcheck, SiteOnNetcheck},
    };

    fn blocked() -> ProbeOnNetcheck {
        let error = Some("no answer".to_owned());
        ProbeOnNetcheck { works: false, round_trip_ms: None, error }
    }

    #[test]
    fn a_network_without_udp_is_told_on_one_screen() {
        let untested = FamilyOnNetcheck {
            usable: Passage::Untested,
            source: None,
            path_mtu: None,
            problem: Some("no connector has an IPv6 address".to_owned()),
        };
        let usable = FamilyOnNetcheck {
            usable: Passage::Passes,
            source: Some("10.1.0.2".parse().unwrap()),
            path_mtu: None,
            problem: None,
        };
        let address = AddressOnNetcheck {
            address: "198.51.100.7:443".parse().unwrap(),
            udp: blocked(),
            quic: blocked(),
            tcp: ProbeOnNetcheck { works: true, round_trip_ms: Some(1.25), error: None },
            path_mtu: None,
        };
        let connector = ConnectorOnNetcheck {
            id: "conn_00000000000000000000000000000001".parse().unwrap(),
            name: "office-1".to_owned(),
            carrier: Some(Carrier::Http2),
            addresses: vec![address],
            problem: None,
        };
        let netcheck = Netcheck {
            ipv4: usable,
            ipv6: untested,
            udp: Passage::Blocked,
            quic: Passage::Blocked,
            tcp: Passage::Passes,
            nat: NatOnNetcheck { kind: NatKind::Unknown, local: None, observed: Vec::new() },
            control_plane: ControlPlaneOnNetcheck {
                url: "https://control.example:8443".to_owned(),
                reachable: true,
                round_trip_ms: Some(3.0),
                error: None,
            },
            sites: vec![SiteOnNetcheck {
                id: "site_00000000000000000000000000000001".parse().unwrap(),
                name: "office".to_owned(),
                connectors: vec![connector],
            }],
            next: vec!["UDP is blocked here; packets go by HTTP/2".to_owned()],
        };
        let text = to_text(&netcheck);
        for words in [
            "IPv4           usable from 10.1.0.2\n",
            "IPv6           not tested: no connector has an IPv6 address\n",
            "UDP            blocked\n",
            "office-1 in office: packets would go by http2\n",
            "  198.51.100.7:443  blocked  blocked  1.2 ms  -\n",
            "  UDP to 198.51.100.7:443: no answer\n",
            "\nNext\n  UDP is blocked here; packets go by HTTP/2\n",
        ] {
            assert!(text.contains(words), "{words}\n{text}");
        }
        assert!(text.lines().count() <= 24, "{text}");
    }
}
