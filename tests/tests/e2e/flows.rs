//! Flows, permitted and denied, of every protocol and both families, inside and outside.

use std::{collections::BTreeSet, net::SocketAddr, time::Duration};

use adit_tests::{
    Client, Scene,
    lab::{SVC_V4, SVC_V6},
    probe::Server,
};
use serde_json::{Value, json};

const SECOND: Duration = Duration::from_secs(1);

#[test]
fn flows_over_ipv4_pass_if_permitted_and_are_told_at_once_if_not() {
    flows_pass_if_permitted_and_are_told_at_once_if_not(&Scene::new("flows-4"));
}

#[test]
fn flows_over_ipv6_pass_if_permitted_and_are_told_at_once_if_not() {
    let scene = Scene::with_connector_at("flows-6", "2001:db8:10::2");
    flows_pass_if_permitted_and_are_told_at_once_if_not(&scene);
}

#[test]
fn explain_names_what_decided() {
    let scene = Scene::new("explain");
    let place = Place::prepare(&scene, &FAMILIES[0]);
    let (client, device) = start_client(&scene);
    client.wait_until_reached(place.open.tcp.address);

    let allowed = client.explain(&place.open.tcp.address.to_string());
    assert_eq!(allowed["schema_version"], 1, "{allowed}");
    assert_eq!(allowed["allowed"], true, "{allowed}");
    assert_eq!(allowed["reason"], "policy-permits", "{allowed}");
    assert_eq!(allowed["resource_name"], "open-v4", "{allowed}");
    assert_eq!(allowed["policy_id"], place.policy.as_str(), "{allowed}");
    assert!(allowed["policy_name"].as_str().is_some_and(|n| n.starts_with("permit")), "{allowed}");
    assert_eq!(allowed["connector_name"], "connector", "{allowed}");
    assert_eq!(allowed["site_name"], "site", "{allowed}");

    let denied = client.explain(&place.closed.tcp.address.to_string());
    assert_eq!(denied["allowed"], false, "{denied}");
    assert_eq!(denied["reason"], "no-policy-permits", "{denied}");
    assert_eq!(denied["resource_id"], place.closed_resource.as_str(), "{denied}");
    assert_eq!(denied["connector_name"], "connector", "{denied}");
    assert!(denied["remedy"].as_str().is_some_and(|text| text.contains("ask an")), "{denied}");

    let output = client.adit(&["explain", &place.closed.tcp.address.to_string()]);
    assert_eq!(output.code, Some(1), "{output:#?}");
    assert!(output.stdout.contains("no-policy-permits"), "{output:#?}");

    // The administrator asks the same question and sees the policies that came near.
    for (server, expected) in [(&place.open.tcp, &allowed), (&place.closed.tcp, &denied)] {
        let explained = scene.control_plane.post(
            "/v1/policy/explain",
            &json!({
                "device_id": device, "destination": server.address.ip(),
                "port": server.address.port(), "protocol": "tcp",
            }),
        );
        let explained = explained.ok();
        for member in ["allowed", "reason", "resource_id", "policy_id"] {
            assert_eq!(explained[member], expected[member], "{member}: {explained}");
        }
    }
}

#[test]
fn a_network_that_routes_devices_sees_their_own_addresses_without_source_nat() {
    let mut scene = Scene::new("routed");
    let plane = &scene.control_plane;
    let user = plane.create_user("ada");
    let prefixes = ["10.9.0.2/32", "fd00:9::2/128"];
    let resource = plane.create_resource(&scene.site, "all", &prefixes, &[]);
    plane.permit(&[&user], &[&resource]);
    scene.connector.restart_with(&["--source-nat", "off"]);
    scene.connector.process().wait_for_line("Forwarding", 10 * SECOND);
    let client = scene.start_client(&scene.lab.laptop, &user);
    let device = scene.control_plane.devices_of(&user).remove(0);
    let device = scene.control_plane.get(&format!("/v1/devices/{device}")).ok();
    let svc = &scene.lab.svc;

    for (ip, gateway) in [(SVC_V4, "10.9.0.1"), (SVC_V6, "fd00:9::1")] {
        let (tcp, udp) = (svc.tcp_echo(ip), svc.udp_echo(ip));
        let addresses = device["addresses"].as_array().expect("a list").iter();
        let addresses = addresses.map(|address| address.as_str().expect("a text"));
        let same_family = |address: &&str| address.contains(':') == ip.contains(':');
        let own = addresses.filter(same_family).collect::<Vec<_>>().concat();
        svc.check(["ip", "route", "add", &own, "via", gateway]);

        client.wait_until_reached(tcp.address);
        let pinged = scene.lab.laptop.udp_ping(udp.address, 1, SECOND);
        assert_eq!(pinged.received, 1, "{pinged:?}");
        let datagram = udp.process.wait_for_event("datagram", SECOND);
        let from: SocketAddr =
            datagram["from"].as_str().expect("a text").parse().expect("a socket");
        assert_eq!(from.ip().to_string(), own);
    }
}

struct Family {
    name: &'static str,
    open: &'static str,
    closed: &'static str,
    prefix_len: u8,
    /// Length of an IP header.
    header: u64,
    /// What an ICMP *administratively prohibited* becomes for a connected UDP socket.
    prohibited: &'static str,
    /// What it becomes for `ping`.
    pinged: &'static str,
}

const FAMILIES: [Family; 2] = [
    Family {
        name: "v4",
        open: SVC_V4,
        closed: "10.9.0.3",
        prefix_len: 32,
        header: 20,
        prohibited: "unreachable",
        pinged: "Packet filtered",
    },
    Family {
        name: "v6",
        open: SVC_V6,
        closed: "fd00:9::3",
        prefix_len: 128,
        header: 40,
        prohibited: "prohibited",
        pinged: "Administratively prohibited",
    },
];

struct Services {
    tcp: Server,
    udp: Server,
}

/// An address with services that are permitted, and one with services that are not.
struct Place {
    open: Services,
    closed: Services,
    policy: String,
    closed_resource: String,
}

impl Place {
    fn prepare(scene: &Scene, family: &Family) -> Self {
        let plane = &scene.control_plane;
        let serve =
            |ip| Services { tcp: scene.lab.svc.tcp_echo(ip), udp: scene.lab.svc.udp_echo(ip) };
        let resource = |name: &str, ip: &str, services: &Services| {
            let port = |server: &Server| server.address.port().to_string();
            plane.create_resource(
                &scene.site,
                &format!("{name}-{}", family.name),
                &[&format!("{ip}/{}", family.prefix_len)],
                &[
                    ("tcp", &[&port(&services.tcp)]),
                    ("udp", &[&port(&services.udp)]),
                    ("icmp", &[]),
                ],
            )
        };
        let (open, closed) = (serve(family.open), serve(family.closed));
        let open_resource = resource("open", family.open, &open);
        let closed_resource = resource("closed", family.closed, &closed);
        // A door of the same house is open, so that the way into the tunnel is there.
        let door = plane.create_resource(
            &scene.site,
            &format!("door-{}", family.name),
            &[&format!("{}/{}", family.closed, family.prefix_len)],
            &[("tcp", &["1"])],
        );
        let policy = plane.create_policy(
            &format!("permit {}", family.name),
            "permit",
            &json!({ "everyone": true }),
            &json!({ "ids": [open_resource, door] }),
        );

        Self { open, closed, policy, closed_resource }
    }
}

fn start_client(scene: &Scene) -> (Client, String) {
    let user = scene.control_plane.create_user("ada");
    let client = scene.start_client(&scene.lab.laptop, &user);
    let device = scene.control_plane.devices_of(&user).remove(0);

    (client, device)
}

fn flows_pass_if_permitted_and_are_told_at_once_if_not(scene: &Scene) {
    let places = FAMILIES.map(|family| Place::prepare(scene, &family));
    let (client, device) = start_client(scene);
    let laptop = &scene.lab.laptop;

    for (family, place) in FAMILIES.iter().zip(&places) {
        client.wait_until_reached(place.open.tcp.address);
        let pinged = laptop.udp_ping(place.open.udp.address, 3, Duration::from_millis(5));
        assert_eq!((pinged.sent, pinged.received), (3, 3), "{pinged:?}");
        let ping = laptop.run(["ping", "-c", "2", "-i", "0.2", "-W", "2", family.open]);
        assert!(ping.success(), "{ping:#?}");

        let refused = laptop.tcp_ask(place.closed.tcp.address, "hello").expect_err("no permit");
        assert_eq!(refused.how, "refused", "{refused:?}");
        assert!(refused.t - refused.started_t < 1_000_000_000, "{refused:?}");
        let pinged = laptop.udp_ping(place.closed.udp.address, 1, SECOND);
        assert_eq!(pinged.received, 0, "{pinged:?}");
        assert_eq!(pinged.errors, [family.prohibited], "{pinged:?}");
        let ping = laptop.run(["ping", "-c", "1", "-W", "2", family.closed]);
        assert!(!ping.success() && ping.stdout.contains(family.pinged), "{ping:#?}");
    }

    let status = client.status();
    for place in &places {
        let resource = place.closed_resource.as_str();
        for protocol in ["tcp", "udp", "icmp"] {
            let denials = status["recent_denials"].as_array().cloned().unwrap_or_default();
            let denial = denials.iter().find(|denial| {
                denial["flow"]["protocol"] == protocol && denial["resource_id"] == resource
            });
            let denial = denial.unwrap_or_else(|| panic!("no {protocol} in {status:#}"));
            assert_eq!(denial["reason"], "no-policy-permits", "{denial}");
        }
        scene.control_plane.wait_for_item(
            &format!("/v1/access-events?device_id={device}&resource_id={resource}&verdict=deny"),
            10 * SECOND,
            |event| event["flow"]["protocol"] == "tcp" && event["reason"] == "no-policy-permits",
        );
    }

    // Flows that are open when the connector stops are accounted for then.
    let stopped = scene.connector.process().stop(10 * SECOND);
    assert!(stopped.success(), "{stopped:#?}");
    let events =
        scene.control_plane.get(&format!("/v1/access-events?device_id={device}&limit=200"));
    let events = events.ok();
    let events = events["items"].as_array().cloned().unwrap_or_default();
    for (family, place) in FAMILIES.iter().zip(&places) {
        let flows_of = |verdict: &str, protocol: &str, to: Option<SocketAddr>| -> Vec<Value> {
            let is_one = |event: &&Value| {
                event["verdict"] == verdict
                    && event["flow"]["protocol"] == protocol
                    && event["flow"]["destination"] == family.open
                    && to.is_none_or(|to| event["flow"]["destination_port"] == to.port())
            };
            events.iter().filter(is_one).cloned().collect()
        };
        let payloads = [("udp", Some(place.open.udp.address), 3, 8 + 2), ("icmp", None, 2, 8 + 56)];
        for (protocol, to, packets, payload) in payloads {
            for verdict in ["allow", "closed"] {
                let flows = flows_of(verdict, protocol, to);
                assert_eq!(flows.len(), 1, "{verdict} {protocol}: {flows:#?}");
                assert_eq!(flows[0]["policy_id"], place.policy.as_str(), "{flows:#?}");
            }
            let flow = &flows_of("closed", protocol, to)[0];
            let bytes = packets * (family.header + payload);
            for direction in ["from_device", "to_device"] {
                assert_eq!(flow[format!("packets_{direction}")], packets, "{flow:#}");
                assert_eq!(flow[format!("bytes_{direction}")], bytes, "{flow:#}");
            }
        }
        let opened = flows_of("allow", "tcp", Some(place.open.tcp.address));
        let closed = flows_of("closed", "tcp", Some(place.open.tcp.address));
        assert!(!closed.is_empty() && opened.len() == closed.len(), "{opened:#?} {closed:#?}");
        let ports = |flows: &[Value]| -> BTreeSet<Option<u64>> {
            flows.iter().map(|flow| flow["flow"]["source_port"].as_u64()).collect()
        };
        assert_eq!(ports(&opened), ports(&closed));
        for flow in &closed {
            // At least SYN, ACK, "hello" and FIN from the device, and as many answers but one.
            let least = 3 * (family.header + 20) + 5;
            assert!(flow["bytes_from_device"].as_u64() >= Some(least), "{flow:#}");
            assert!(flow["bytes_to_device"].as_u64() >= Some(least), "{flow:#}");
            assert!(flow["packets_from_device"].as_u64() >= Some(4), "{flow:#}");
        }
    }
}
