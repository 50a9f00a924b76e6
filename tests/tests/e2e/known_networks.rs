//! What worked in a network is tried first when a laptop comes back to it.

use std::time::Duration;

use adit_tests::{
    Client, Lab, Scene,
    lab::{READY_TIMEOUT, SVC_V4},
    report,
};
use serde_json::json;

use crate::transfers::permit_all_of_the_site;

/// A carrier that works again is found within its longest retry.
const MOVES_UP_WITHIN: Duration = Duration::from_secs(30);

#[test]
fn a_known_network_without_udp_is_left_by_http2_first_and_by_wireguard_once_that_works() {
    let scene = Scene::new("known-network");
    let lab = &scene.lab;
    let user = permit_all_of_the_site(&scene);
    let echo = lab.svc.tcp_echo(SVC_V4);
    block_udp(lab);
    let mut client = client_by_any(&scene, &user);
    client.wait_for_carrier("http2", READY_TIMEOUT);
    client.wait_until_reached(echo.address);
    assert_eq!(first_tried(&client), "wireguard");
    let unknown = time_to_carrier(&client);

    // What was learnt outlives the daemon.
    client.restart();
    client.wait_for_carrier("http2", READY_TIMEOUT);
    client.wait_until_reached(echo.address);
    assert_eq!(first_tried(&client), "http2");
    let known = time_to_carrier(&client);
    report(&json!({
        "what": "from admission to the first carrier where UDP is blocked",
        "unknown_ms": unknown.as_millis(), "known_ms": known.as_millis(),
    }));
    assert!(known < unknown, "{known:?} after {unknown:?}");

    lab.inet.check(["nft", "delete", "table", "inet", "no_udp"]);
    client.wait_for_carrier("wireguard", MOVES_UP_WITHIN);
    client.wait_until_reached(echo.address);

    client.restart();
    client.wait_for_carrier("wireguard", READY_TIMEOUT);
    client.wait_until_reached(echo.address);
    assert_eq!(first_tried(&client), "wireguard");
}

/// Starts a client that may use every carrier, whatever the tests are told to use.
fn client_by_any(scene: &Scene, user: &str) -> Client {
    let client = Client::start(&scene.lab.laptop);
    client.set_carrier("auto");
    client.enroll(&scene.control_plane.create_enrollment_key(user));
    client.up();
    client
}

/// The carrier that the running daemon has tried first.
#[track_caller]
fn first_tried(client: &Client) -> String {
    let output = client.process().output();
    let line = output.lines().find(|line| line.contains("Opening a carrier"));
    let line = line.unwrap_or_else(|| panic!("no carrier was tried: {output}"));
    let carrier = line.split(' ').find_map(|field| field.strip_prefix("carrier="));

    carrier.unwrap_or_else(|| panic!("no carrier in {line}")).to_owned()
}

/// How long it took the running daemon from being admitted to the first carrier.
#[track_caller]
fn time_to_carrier(client: &Client) -> Duration {
    let output = client.process().output();
    let time_of = |message: &str| {
        let line = output.lines().find(|line| line.contains(message));
        let line = line.unwrap_or_else(|| panic!("no \"{message}\": {output}"));
        let time = line.split(' ').find_map(|word| word.split_once('T')?.1.strip_suffix('Z'));
        let parts = time.into_iter().flat_map(|time| time.split(':'));
        let parts = parts.map(|part| part.parse::<f64>().expect("a number"));
        Duration::from_secs_f64(parts.fold(0.0, |sum, part| sum * 60.0 + part))
    };
    // The day may end between the two.
    let (admitted, carried) = (time_of("Connector admits us"), time_of("Packets go by this"));
    carried.checked_sub(admitted).unwrap_or_default()
}

/// Lets nothing of UDP through between client and connector.
fn block_udp(lab: &Lab) {
    lab.inet.sh("nft 'add table inet no_udp
         add chain inet no_udp forward { type filter hook forward priority 0; }
         add rule inet no_udp forward meta l4proto udp drop'");
}
