//! Floods leave live flows and new clients alone.

use std::{
    env, fs,
    time::{Duration, Instant},
};

use adit_tests::{
    Host, Scene,
    lab::{Connector, SVC_V4},
    report,
};
use serde_json::{Value, json};

const SECOND: Duration = Duration::from_secs(1);

#[test]
fn a_flood_of_handshakes_leaves_live_flows_and_new_clients_alone() {
    // As much as was promised needs a machine without other tests; each night has it.
    let ([rate, flood_rate], patience) = if is_nightly() {
        (["60000", "100000"], 2 * SECOND)
    } else {
        (["10000", "20000"], 5 * SECOND)
    };
    let scene = Scene::new("flood");
    let plane = &scene.control_plane;
    let svc = &scene.lab.svc;
    let (counter, echo) = (svc.udp_counter(SVC_V4), svc.tcp_echo(SVC_V4));
    let resource = plane.create_resource(&scene.site, "service", &["10.9.0.2/32"], &[]);
    let (ada, bob) = (plane.create_user("ada"), plane.create_user("bob"));
    plane.permit(&[&ada, &bob], &[&resource]);
    let ada_client = scene.start_client(&scene.lab.laptop, &ada);
    let bob_client = scene.start_client(&scene.lab.laptop2, &bob);
    ada_client.wait_until_reached(echo.address);
    bob_client.wait_until_reached(echo.address);
    let inet = &scene.lab.inet;
    scene.lab.connector_link.b().add_addresses("198.18.10.101/24 198.18.10.102/24");
    let connectors = plane.get("/v1/connectors").ok();
    let key = connectors["items"][0]["wireguard_public_key"].as_str().expect("a key").to_owned();

    for (trial, with_cookies) in [(1, false), (2, true)] {
        let down = bob_client.adit(&["down"]);
        assert!(down.success(), "{down:#?}");
        let flood = inet.probe("handshake-flood").args([scene.connector.listen(), "--key", &key]);
        let flood = flood.args(["--from", "198.18.10.1,198.18.10.101,198.18.10.102"]);
        let flood = flood.args(["--rate", flood_rate, "--for-ms", "60000"]);
        let flood = if with_cookies { flood.arg("--with-cookies") } else { flood };
        let flood = flood.spawn();
        flood.wait_for_events("cookies are sent", 10 * SECOND, |events| {
            events.iter().any(|event| event["cookies"].as_u64() > Some(0)).then_some(())
        });
        let load = ada_client.host().probe("udp-load").arg(counter.address.to_string());
        let load = load.args(["--rate", rate, "--length", "1000", "--for-ms", "2000"]);
        let load = load.args(["--trial", &trial.to_string()]).spawn();

        // Bob comes while the flood goes on.
        bob_client.up();
        bob_client.wait_until_reached_within(echo.address, patience);
        let sent = load.wait_for_event("sent", 10 * SECOND);
        assert!(flood.is_running(), "the flood was over before: {}", flood.output());
        let flooded = flood.events().pop();
        flood.kill();
        report(&json!({
            "id": "S27", "with_cookies": with_cookies, "flow": sent, "flood": flooded,
        }));
        let count = |name: &str| sent[name].as_u64().expect("a count");
        let (offered, received) = (count("sent") - count("refused"), count("received"));
        assert!(received * 100 >= offered * 95, "{received} of {offered} arrived");
    }
}

#[test]
fn floods_of_quic_leave_those_alone_who_use_wireguard() {
    let scene = Scene::new("quic-flood");
    let addresses =
        (101..if is_nightly() { 165 } else { 117 }).map(|n| format!("198.18.10.{n}/24"));
    let underlay = Underlay {
        family: "ip",
        flooders: addresses.collect(),
        spoofed: "198.18.128.0/17",
        all: "198.18.10.0/24, 198.18.128.0/17",
    };
    withstand(&scene, "wireguard", &underlay);
}

#[test]
fn floods_of_quic_leave_those_alone_who_use_it() {
    let scene = Scene::with_connector_at("quic-flood-v6", "2001:db8:10::2");
    let underlay = Underlay {
        family: "ip6",
        flooders: (101..117).map(|n| format!("2001:db8:10::{n}/64")).collect(),
        spoofed: "2001:db8:f::/64",
        all: "2001:db8:10::/64, 2001:db8:f::/64",
    };
    withstand(&scene, "quic", &underlay);
}

/// Where floods come from.
struct Underlay {
    /// In the words of nftables.
    family: &'static str,
    /// Addresses that the flood has.
    flooders: Vec<String>,
    /// Addresses that it only says it has.
    spoofed: &'static str,
    all: &'static str,
}

/// Measures a flow by a carrier, and how long a client takes to connect by QUIC, while each flood of
/// QUIC goes on.
fn withstand(scene: &Scene, carrier: &str, underlay: &Underlay) {
    // As much as was promised needs a machine without other tests; each night has it.
    let ([rate, flood_rate], patience) = match (is_nightly(), carrier) {
        (true, "wireguard") => (["60000", "100000"], 2 * SECOND),
        (true, _) => (["30000", "100000"], 2 * SECOND),
        (false, _) => (["5000", "10000"], 5 * SECOND),
    };
    let plane = &scene.control_plane;
    let svc = &scene.lab.svc;
    let (counter, echo) = (svc.udp_counter(SVC_V4), svc.tcp_echo(SVC_V4));
    let resource = plane.create_resource(&scene.site, "service", &["10.9.0.2/32"], &[]);
    let (ada, bob) = (plane.create_user("ada"), plane.create_user("bob"));
    plane.permit(&[&ada, &bob], &[&resource]);
    let ada_client = scene.start_client(&scene.lab.laptop, &ada);
    ada_client.set_carrier(carrier);
    let bob_client = scene.start_client(&scene.lab.laptop2, &bob);
    bob_client.set_carrier("quic");
    ada_client.wait_until_reached(echo.address);
    bob_client.wait_until_reached(echo.address);
    ada_client.wait_for_carrier(carrier, 10 * SECOND);
    bob_client.wait_for_carrier("quic", 10 * SECOND);
    let inet = &scene.lab.inet;
    scene.lab.connector_link.b().add_addresses(&underlay.flooders.join(" "));
    inet.sh(&format!("ip route add blackhole {}", underlay.spoofed));
    inet.sysctl("net.ipv6.ip_nonlocal_bind", "1");
    let traffic = FloodTraffic::count(scene, underlay);
    let connectors = plane.get("/v1/connectors").ok();
    let pin = connectors["items"][0]["pin"].as_str().expect("a pin").to_owned();
    let load = |trial: &str| {
        let load = ada_client.host().probe("udp-load").arg(counter.address.to_string());
        let load = load.args(["--rate", rate, "--length", "1000", "--for-ms", "2000"]);
        load.args(["--trial", trial]).spawn()
    };
    let before = load("1").wait_for_event("sent", 10 * SECOND);

    let flooders = underlay.flooders.join(",");
    let begun =
        || scene.connector.metric(r#"adit_connector_quic_handshakes_total{outcome="begun"}"#);
    // A proof of an address is worth nothing to who cannot read what is asked of it.
    let floods = [
        ("2", "spoofed", underlay.spoofed.to_owned(), 1.0),
        ("3", "attempts", flooders.clone(), 3.0),
        ("4", "junk", flooders, 1.0),
    ];
    for (trial, kind, from, most) in floods {
        let down = bob_client.adit(&["down"]);
        assert!(down.success(), "{down:#?}");
        let (already, already_begun) = (traffic.bytes(), begun());
        let flood = inet.probe("quic-flood").args([scene.connector.listen(), kind, "--pin", &pin]);
        let flood = flood.args(["--from", &from, "--rate", flood_rate, "--for-ms", "60000"]);
        let flood = flood.spawn();
        // Until there are as many strangers as there may be before addresses are to be proven.
        flood.wait_for_events("the flood is there", 10 * SECOND, |events| {
            events.iter().any(|event| event["seconds"].as_f64() > Some(1.0)).then_some(())
        });
        let load = load(trial);

        // Bob comes while the flood goes on.
        let mut connected_after_ms = Vec::new();
        for _ in 0..if is_nightly() { 10 } else { 2 } {
            let down = bob_client.adit(&["down"]);
            assert!(down.success(), "{down:#?}");
            let came = Instant::now();
            bob_client.up();
            bob_client.wait_until_reached_within(echo.address, patience);
            let connected_after = came.elapsed();
            assert!(connected_after <= patience, "{kind}: {connected_after:?}");
            connected_after_ms.push(connected_after.as_millis() as u64);
        }
        let sent = load.wait_for_event("sent", 10 * SECOND);
        assert!(flood.is_running(), "the flood was over before: {}", flood.output());
        let flooded = flood.events().pop();
        flood.kill();
        let bytes = traffic.bytes();
        let (come, gone) = (bytes.0 - already.0, bytes.1 - already.1);
        let peak = peak_memory(&scene.connector);
        report(&json!({
            "id": "S28/S29", "kind": kind, "carrier": carrier, "flow": sent, "flood": flooded,
            "flow_before": before, "connected_after_ms": connected_after_ms,
            "handshakes": begun() - already_begun, "flood_bytes": come, "answer_bytes": gone, "peak_memory_mib": peak >> 20,
        }));
        let count = |name: &str| sent[name].as_u64().expect("a count");
        let (offered, received) = (count("sent") - count("refused"), count("received"));
        assert!(received * 100 >= offered * 95, "{kind}: {received} of {offered} arrived");
        assert!(come > 0, "the flood arrives");
        assert!(gone as f64 <= come as f64 * most, "{kind}: {gone} bytes for {come}");
        assert!(peak <= 256 << 20, "{kind}: {peak} bytes");
        bob_client.wait_for_carrier("quic", patience);
    }
}

fn is_nightly() -> bool {
    env::var_os("ADIT_NIGHTLY").is_some()
}

/// What goes from flooders to the connector and back.
struct FloodTraffic<'a>(&'a Host);

impl<'a> FloodTraffic<'a> {
    /// Begins to count.
    fn count(scene: &'a Scene, underlay: &Underlay) -> Self {
        let Underlay { family, all, .. } = underlay;
        let host = &scene.lab.connector;
        let rules = format!(
            "table inet flood {{
                counter come {{ }}
                counter gone {{ }}
                chain input {{
                    type filter hook input priority raw
                    meta l4proto udp {family} saddr {{ {all} }} counter name come
                }}
                chain output {{
                    type filter hook output priority raw
                    meta l4proto udp {family} daddr {{ {all} }} counter name gone
                }}
            }}"
        );
        let _ = host.command("nft").args(["-f", "-"]).stdin(rules).check();
        Self(host)
    }

    /// How many bytes have come, and gone.
    fn bytes(&self) -> (u64, u64) {
        let listed = self.0.check(["nft", "--json", "list", "counters", "table", "inet", "flood"]);
        let listed: Value = serde_json::from_str(&listed).expect("JSON");
        let objects = listed["nftables"].as_array().expect("a list");
        let bytes = |name: &str| {
            let counter = objects.iter().map(|object| &object["counter"]);
            let mut named = counter.filter(|counter| counter["name"] == name);
            named.next().and_then(|counter| counter["bytes"].as_u64()).expect("a counter")
        };
        (bytes("come"), bytes("gone"))
    }
}

/// The most memory that a connector has had, in bytes.
fn peak_memory(connector: &Connector) -> u64 {
    let id = connector.process().id().expect("it runs");
    let status = fs::read_to_string(format!("/proc/{id}/status")).expect("it runs");
    let peak = status.lines().find_map(|line| line.strip_prefix("VmHWM:"));
    let kib = peak.and_then(|peak| peak.trim().strip_suffix(" kB")?.parse::<u64>().ok());
    kib.expect("it has memory") << 10
}
