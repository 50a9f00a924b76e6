//! A connector with several lanes does what one with one does.

use std::thread;

use adit_tests::{Scene, lab::SVC_V4};

use crate::{revocation::leave_a_group, transfers::assert_secrecy};

const LANES: &[&str] = &["--lanes", "5"];

#[test]
fn access_ends_at_once_in_every_lane() {
    leave_a_group("lanes-leave", [LANES, &[]], |_lab| {});
}

#[test]
fn every_lane_carries_its_own_devices() {
    const BYTES: u64 = 64 << 20;

    let mut scene = Scene::new("lanes");
    scene.connector.restart_with(LANES);
    let (lab, plane) = (&scene.lab, &scene.control_plane);
    let prefixes = ["10.9.0.0/16", "fd00:9::/64"];
    let resource = plane.create_resource(&scene.site, "site", &prefixes, &[]);
    let [ada, bob] = ["ada", "bob"].map(|name| plane.create_user(name));
    plane.permit(&[&ada, &bob], &[&resource]);
    let client = scene.start_client(&lab.laptop, &ada);
    // Many plain devices of one user, of which each has a key that leads to some lane.
    let interfaces: Vec<String> = (0..8).map(|number| format!("wg-{number}")).collect();
    let echo = lab.svc.tcp_echo(SVC_V4);
    client.wait_until_reached(echo.address);
    assert_secrecy(&scene, &client);
    for interface in &interfaces {
        let _device = scene.start_wireguard(&lab.laptop2, interface, &bob);
        adit_tests::wait_until(interface, adit_tests::lab::READY_TIMEOUT, || {
            lab.laptop2.tcp_try(echo.address, "hello").ok()
        });
        lab.laptop2.wg_quick_down(interface);
    }

    let _last = scene.start_wireguard(&lab.laptop2, "wg-last", &bob);
    let server = lab.svc.transfer_server(SVC_V4);
    thread::scope(|scope| {
        for host in [&lab.laptop, &lab.laptop2] {
            scope.spawn(|| {
                for transfer in
                    [host.download(server.address, BYTES), host.upload(server.address, BYTES)]
                {
                    assert_eq!(transfer.sha256, transfer.expected, "{transfer:?}");
                }
            });
        }
    });
    let astray =
        r#"adit_connector_packets_dropped_total{stage="wireguard",reason="index-unknown"}"#;
    assert_eq!(scene.connector.metric(astray), 0);
    let full = r#"adit_connector_packets_dropped_total{stage="io",reason="lane-full"}"#;
    assert_eq!(scene.connector.metric(full), 0);
    assert_eq!(scene.connector.metric("adit_connector_peers"), 10);
}
