//! What people find out about the way to their services: `adit ping` and `adit netcheck`.

use std::time::{Duration, Instant};

use adit_tests::{
    Client, Connector, Output, Scene,
    lab::{READY_TIMEOUT, SVC_V4, SVC_V6},
    wait_until,
};
use serde_json::Value;

use crate::{carriers::block_udp, transfers::start_client_with_all_of_the_site};

#[test]
fn a_ping_shows_the_path_and_how_it_changes() {
    let scene = Scene::new("ping");
    let client = start_client_with_all_of_the_site(&scene);
    client.wait_until_reached(scene.lab.svc.tcp_echo(SVC_V4).address);
    for carrier in ["quic", "http2", "wireguard"] {
        client.set_carrier(carrier);
        client.wait_for_carrier(carrier, READY_TIMEOUT);
        for host in [SVC_V4, SVC_V6] {
            let (lines, output) = ping(&client, &[host, "--count", "2", "--interval-ms", "50"]);
            assert!(output.success(), "{output:#?}");
            let [first, second, summary] = lines.as_slice() else { panic!("{lines:#?}") };
            for line in [first, second] {
                assert_eq!(line["outcome"], "answered", "{line}");
                assert!(line["round_trip_ms"].as_f64().is_some_and(|it| it > 0.0), "{line}");
                assert_eq!(line["path"]["carrier"], carrier, "{line}");
                assert_eq!(line["path"]["connector_name"], "connector", "{line}");
                assert_eq!(line["path"]["endpoint"], scene.connector.listen(), "{line}");
            }
            assert_eq!((&summary["sent"], &summary["received"]), (&2.into(), &2.into()));
        }
    }
    let text = client.adit(&["ping", SVC_V4, "-c", "1"]);
    let way = format!(" ms by wireguard to connector at {}", scene.connector.listen());
    assert!(text.stdout.contains(&way), "{text:#?}");
    assert!(text.stdout.contains("1 sent, 1 received; min/median/max"), "{text:#?}");

    // The path changes while someone looks.
    let socket = client.socket();
    let pinging = client
        .host()
        .command(adit_tests::binary("adit"))
        .arg("--socket")
        .arg(socket)
        .args(["ping", SVC_V4, "-c", "0", "--interval-ms", "50"])
        .spawn();
    pinging.wait_for_line("by wireguard", READY_TIMEOUT);
    client.set_carrier("http2");
    pinging.wait_for_line("path changed: was wireguard to connector", READY_TIMEOUT);
    pinging.wait_for_line(" ms by http2 to connector", READY_TIMEOUT);
    pinging.signal(nix::sys::signal::Signal::SIGINT);
    let output = pinging.wait(READY_TIMEOUT);
    assert!(output.success(), "{output:#?}");
    assert!(output.stdout.contains(" received; min/median/max"), "{output:#?}");
}

#[test]
fn a_ping_that_is_not_answered_says_why() {
    let scene = Scene::new("ping-denied");
    let plane = &scene.control_plane;
    let user = plane.create_user("ada");
    let open = plane.create_resource(&scene.site, "open", &["10.9.0.0/24"], &[("tcp", &["80"])]);
    let silent = plane.create_resource(&scene.site, "silent", &["10.9.0.77/32"], &[]);
    plane.permit(&[&user], &[&open, &silent]);
    let client = scene.start_client(&scene.lab.laptop, &user);
    client.wait_for_carrier(&carrier_at_first(), READY_TIMEOUT);

    let (lines, output) = ping(&client, &["10.9.0.3", "-c", "1"]);
    assert!(!output.success(), "{output:#?}");
    let denied = &lines[0];
    assert_eq!(denied["outcome"], "refused", "{denied}");
    assert_eq!(denied["icmp"], "administratively prohibited", "{denied}");
    assert_eq!(denied["explanation"]["allowed"], false, "{denied}");
    let reason = denied["explanation"]["reason"].as_str().expect("a reason");
    assert_eq!(
        reason,
        client.adit(&["explain", "10.9.0.3", "--protocol", "icmp", "--json"]).json()["reason"]
    );
    let text = client.adit(&["ping", "10.9.0.3", "-c", "1"]);
    assert!(text.stdout.contains(&format!("denied by policy: {reason}")), "{text:#?}");
    assert!(text.stdout.contains("next: "), "{text:#?}");

    let (lines, output) = ping(&client, &["192.0.2.1"]);
    assert!(!output.success(), "{output:#?}");
    assert_eq!(lines[0]["outcome"], "not-behind-tunnel", "{}", lines[0]);
    assert_eq!(lines[1]["type"], "summary", "it is not asked again: {lines:#?}");
    let text = client.adit(&["ping", "192.0.2.1"]);
    assert!(text.stdout.contains("not behind the tunnel"), "{text:#?}");

    let (lines, output) = ping(&client, &["10.9.0.77", "-c", "1", "--timeout-ms", "300"]);
    assert!(!output.success(), "{output:#?}");
    assert_eq!(lines[0]["outcome"], "no-answer", "{}", lines[0]);
    assert_eq!(lines[0]["explanation"]["allowed"], true, "{}", lines[0]);

    client.adit(&["down"]);
    let output = client.adit(&["ping", SVC_V4]);
    assert!(!output.success() && output.stderr.contains("the tunnel is down"), "{output:#?}");
}

#[test]
fn a_check_of_an_open_network_finds_nothing_in_the_way() {
    let scene = Scene::new("netcheck");
    let second = scene.lab.add_connector_host();
    let second = Connector::start(&second, "2001:db8:11::2", &scene.control_plane, &scene.site);
    let client = start_client_with_all_of_the_site(&scene);
    wait_until_configured(&client, 2);
    // A choice changes what packets would go by, and nothing of what passes.
    client.set_carrier("auto");

    let (checked, took) = netcheck(&client);
    assert!(took < Duration::from_secs(4), "{took:?}");
    for (family, source) in [("ipv4", "198.18.1.2"), ("ipv6", "2001:db8:1::2")] {
        assert_eq!(checked[family]["usable"], "passes", "{checked:#}");
        assert_eq!(checked[family]["source"], source, "{checked:#}");
        assert_eq!(checked[family]["path_mtu"], 1500, "{checked:#}");
    }
    for way in ["udp", "quic", "tcp"] {
        assert_eq!(checked[way], "passes", "{checked:#}");
    }
    assert_eq!(checked["nat"]["kind"], "none", "{checked:#}");
    assert_eq!(checked["control_plane"]["reachable"], true, "{checked:#}");
    assert!(checked["control_plane"]["round_trip_ms"].is_number(), "{checked:#}");
    assert_eq!(checked["next"], Value::Array(Vec::new()), "{checked:#}");
    for connector in [&scene.connector, &second] {
        let (found, address) = connector_at(&checked, connector.listen());
        assert_eq!(found["carrier"], "wireguard", "{found:#}");
        for way in ["udp", "quic", "tcp"] {
            assert_eq!(address[way]["works"], true, "{address:#}");
            assert!(address[way]["round_trip_ms"].is_number(), "{address:#}");
        }
    }
    let text = client.adit(&["netcheck"]);
    assert!(text.success(), "{text:#?}");
    println!("{}", text.stdout);
    assert!(text.stdout.contains("connector in site: packets would go by wireguard"), "{text:#?}");
    for secret in ["adit_", "PRIVATE", "eyJ"] {
        assert!(
            !text.stdout.contains(secret) && !checked.to_string().contains(secret),
            "{text:#?}"
        );
    }

    // The same is found while the tunnel is down.
    client.adit(&["down"]);
    client.wait_for_state("disconnected", READY_TIMEOUT);
    let (checked, _took) = netcheck(&client);
    assert_eq!(checked["udp"], "passes", "{checked:#}");
    assert_eq!(checked["ipv6"]["path_mtu"], 1500, "{checked:#}");

    // Nothing is left open.
    let sockets = client.host().check(["ss", "-tunH"]);
    assert!(!sockets.contains(second.listen()), "{sockets}");
}

#[test]
fn a_check_tells_kinds_of_nat_apart() {
    for (name, option, several, expected) in [
        ("nat-alone", "", false, "unknown-mapping"),
        ("nat-steady", "", true, "endpoint-independent-mapping"),
        ("nat-random", "fully-random", true, "address-dependent-mapping"),
    ] {
        let scene = Scene::new(name);
        let lab = &scene.lab;
        translate(&scene, option);
        let second = several.then(|| {
            let host = lab.add_connector_host();
            Connector::start(&host, "198.18.11.2", &scene.control_plane, &scene.site)
        });
        let client = start_client_with_all_of_the_site(&scene);
        wait_until_configured(&client, if several { 2 } else { 1 });

        let (checked, _took) = netcheck(&client);
        let _running = second;
        let kind = checked["nat"]["kind"].as_str().expect("a kind");
        println!("{name}: {:#}", checked["nat"]);
        assert_eq!(kind, expected, "{checked:#}");
        assert!(
            checked["nat"]["local"].as_str().is_some_and(|it| it.starts_with("198.18.1.2:")),
            "{checked:#}"
        );
        for way in ["udp", "quic", "tcp"] {
            assert_eq!(checked[way], "passes", "{checked:#}");
        }
    }
}

#[test]
fn a_check_says_that_udp_is_blocked_and_what_carries_instead() {
    let scene = Scene::new("netcheck-no-udp");
    let client = start_client_with_all_of_the_site(&scene);
    client.set_carrier("auto");
    block_udp(&scene);

    let (checked, took) = netcheck(&client);
    assert!(took < Duration::from_secs(4), "{took:?}");
    assert_eq!(
        (&checked["udp"], &checked["quic"], &checked["tcp"]),
        (&"blocked".into(), &"blocked".into(), &"passes".into()),
        "{checked:#}"
    );
    let (connector, address) = connector_at(&checked, scene.connector.listen());
    assert_eq!(connector["carrier"], "http2", "{checked:#}");
    assert!(address["quic"]["error"].as_str().is_some_and(|it| it.contains("no answer")));
    assert_eq!(checked["nat"]["kind"], "unknown", "{checked:#}");
    let text = client.adit(&["netcheck"]);
    println!("{}", text.stdout);
    assert!(text.stdout.contains("UDP is blocked here; packets go by HTTP/2"), "{text:#?}");
}

#[test]
fn a_check_finds_a_small_path_that_swallows_icmp() {
    let scene = Scene::new("netcheck-mtu");
    let lab = &scene.lab;
    lab.inet.sh("nft 'add table inet silence
         add chain inet silence out { type filter hook output priority 0; }
         add rule inet silence out icmp type destination-unreachable drop
         add rule inet silence out icmpv6 type packet-too-big drop'");
    // Behind the first hop, so that the laptop's own link says nothing of it.
    lab.connector_link.set_mtu(1_280);
    let client = start_client_with_all_of_the_site(&scene);

    let (checked, _took) = netcheck(&client);
    assert_eq!(checked["ipv4"]["path_mtu"], 1_280, "{checked:#}");
    for way in ["udp", "quic", "tcp"] {
        assert_eq!(checked[way], "passes", "{checked:#}");
    }
}

#[test]
fn a_check_says_which_connector_and_control_plane_do_not_answer() {
    let scene = Scene::new("netcheck-dead");
    let client = start_client_with_all_of_the_site(&scene);
    scene.connector.process().kill();
    scene.control_plane.process().kill();

    let (checked, took) = netcheck(&client);
    assert!(took < Duration::from_secs(4), "{took:?}");
    assert_eq!(checked["tcp"], "blocked", "{checked:#}");
    assert_eq!(checked["control_plane"]["reachable"], false, "{checked:#}");
    let (connector, address) = connector_at(&checked, scene.connector.listen());
    assert_eq!(connector["carrier"], Value::Null, "{checked:#}");
    let error = address["tcp"]["error"].as_str().expect("an error");
    assert!(error.contains("refused"), "{error}");
    assert_eq!(checked["next"].as_array().map(Vec::len), Some(2), "{checked:#}");

    let stranger = Client::start(&scene.lab.laptop2);
    let output = stranger.adit(&["netcheck"]);
    assert!(!output.success() && output.stderr.contains("not enrolled"), "{output:#?}");
}

/// Runs `adit ping --json` and returns its lines, whatever its exit code.
#[track_caller]
fn ping(client: &Client, args: &[&str]) -> (Vec<Value>, Output) {
    let output = client.adit(&[&["ping", "--json"], args].concat());
    let lines = output.stdout.lines().map(|line| {
        serde_json::from_str(line).unwrap_or_else(|error| panic!("{error}: {output:#?}"))
    });
    (lines.collect(), output)
}

/// Runs `adit netcheck --json`; returns what it says and how long it took.
#[track_caller]
fn netcheck(client: &Client) -> (Value, Duration) {
    let began = Instant::now();
    let output = client.adit(&["netcheck", "--json"]);
    assert!(output.success(), "{output:#?}");
    (output.json(), began.elapsed())
}

/// The connector that has this address, and what was found there.
#[track_caller]
fn connector_at<'a>(checked: &'a Value, listen: &str) -> (&'a Value, &'a Value) {
    let sites = checked["sites"].as_array().into_iter().flatten();
    let connectors = sites.flat_map(|site| site["connectors"].as_array().into_iter().flatten());
    connectors
        .flat_map(|connector| {
            let addresses = connector["addresses"].as_array().into_iter().flatten();
            addresses.map(move |address| (connector, address))
        })
        .find(|(_connector, address)| address["address"] == listen)
        .unwrap_or_else(|| panic!("nothing of {listen}: {checked:#}"))
}

/// Waits until the client knows so many connectors.
#[track_caller]
fn wait_until_configured(client: &Client, connectors: usize) {
    wait_until("the client knows all connectors", READY_TIMEOUT, || {
        let (checked, _took) = netcheck(client);
        let found = checked["sites"][0]["connectors"].as_array().map_or(0, Vec::len);
        (found == connectors).then_some(())
    });
}

/// Rewrites the source of what comes from the laptop to one address, whichever way it leaves, with
/// options of nftables.
#[track_caller]
fn translate(scene: &Scene, option: &str) {
    scene.lab.inet.sh(&format!(
        "nft 'add table inet translation
         add chain inet translation out {{ type nat hook postrouting priority srcnat; }}
         add rule inet translation out ip saddr 198.18.1.2 snat ip to 198.18.100.1 {option}'"
    ));
}

/// What carries packets before anyone chooses.
fn carrier_at_first() -> String {
    std::env::var("ADIT_TEST_CARRIER").unwrap_or_else(|_unset| "wireguard".to_owned())
}
