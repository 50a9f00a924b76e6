//! Floods leave live flows and new clients alone.

use std::{env, time::Duration};

use adit_tests::{Scene, lab::SVC_V4, report};
use serde_json::json;

const SECOND: Duration = Duration::from_secs(1);

#[test]
fn a_flood_of_handshakes_leaves_live_flows_and_new_clients_alone() {
    // As much as was promised needs a machine without other tests; each night has it.
    let ([rate, flood_rate], patience) = if env::var_os("ADIT_NIGHTLY").is_some() {
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
