//! Programs that are killed and started again, in every order.

use std::time::Duration;

use adit_tests::{Scene, lab::SVC_V4, monotonic_ns, probe, wait_until};
use serde_json::json;

const SECOND: Duration = Duration::from_secs(1);

#[test]
fn connector_and_client_restart_while_the_control_plane_is_down() {
    let mut scene = Scene::new("all-down");
    let svc = &scene.lab.svc;
    let (open, closed) = (svc.tcp_echo(SVC_V4), svc.tcp_echo(SVC_V4));
    let user = scene.control_plane.create_user("ada");
    let [open_port, closed_port] = [&open, &closed].map(|s| s.address.port().to_string());
    let resource = |name: &str, port: &str| {
        let filters: [(&str, &[&str]); 1] = [("tcp", &[port])];
        scene.control_plane.create_resource(&scene.site, name, &["10.9.0.2/32"], &filters)
    };
    let (open_resource, closed_resource) =
        (resource("open", &open_port), resource("closed", &closed_port));
    scene.control_plane.permit(&[&user], &[&open_resource]);
    let mut client = scene.start_client(&scene.lab.laptop, &user);
    client.wait_until_reached(open.address);

    scene.control_plane.process().kill();
    client.process().kill();
    scene.connector.process().kill();
    scene.connector.restart();
    client.restart();

    client.wait_until_reached(open.address);
    let refused = client.host().tcp_ask(closed.address, "hello").expect_err("not permitted");
    assert_eq!(refused.how, "refused", "{refused:?}");
    let status = client.status();
    assert_eq!(status["control_plane"]["reachable"], false, "{status:#}");

    scene.control_plane.restart();
    scene.control_plane.permit(&[&user], &[&closed_resource]);
    client.wait_until_reached(closed.address);
    // What was decided meanwhile is in the log.
    scene.control_plane.wait_for_item(
        &format!("/v1/access-events?resource_id={closed_resource}&verdict=deny"),
        20 * SECOND,
        |event| event["reason"] == "no-policy-permits",
    );
}

#[test]
fn a_killed_connector_serves_again_soon_after_its_start() {
    let mut scene = Scene::new("connector");
    let server = scene.lab.svc.udp_echo(SVC_V4);
    let user = scene.control_plane.create_user("ada");
    let resource = scene.control_plane.create_resource(&scene.site, "s", &["10.9.0.2/32"], &[]);
    scene.control_plane.permit(&[&user], &[&resource]);
    let client = scene.start_client(&scene.lab.laptop, &user);
    let pings = client
        .host()
        .probe("udp-ping")
        .arg(server.address.to_string())
        .args(["--count", "1500", "--every-ms", "20"])
        .spawn();
    pings.wait_for_event("answer", 10 * SECOND);

    scene.connector.process().kill();
    let started = monotonic_ns();
    scene.connector.restart();

    let back = pings.wait_for_events("an answer", 20 * SECOND, |events| {
        let answers = events.iter().filter(|event| event["event"] == "answer");
        answers.filter_map(|event| event["t"].as_u64()).find(|t| *t > started)
    });
    let took = Duration::from_nanos(back - started);
    println!("served again {took:?} after the start");
    assert!(took < 5 * SECOND, "served again {took:?} after the start");
}

#[test]
fn a_killed_client_leaves_no_routes_to_the_next() {
    let scene = Scene::new("routes");
    let server = scene.lab.svc.tcp_echo(SVC_V4);
    let user = scene.control_plane.create_user("ada");
    // One prefix holds the connector itself, which must stay reachable outside the tunnel.
    let prefixes = ["10.9.0.0/24", "198.18.8.0/21", "fd00:9::/64"];
    let resource = scene.control_plane.create_resource(&scene.site, "wide", &prefixes, &[]);
    scene.control_plane.permit(&[&user], &[&resource]);
    let laptop = &scene.lab.laptop;
    let routes = || {
        let both = laptop.sh("ip -4 route show table all && ip -6 route show table all");
        both.lines().map(|line| line.trim().to_owned()).collect::<Vec<_>>()
    };
    let before = routes();
    let mut client = scene.start_client(laptop, &user);
    client.wait_until_reached(server.address);
    let connected = routes();
    let outside = |routes: &[String]| routes.iter().any(|r| r.starts_with("198.18.10.2 via"));
    assert!(connected.iter().any(|route| route.contains("dev adit0")), "{connected:#?}");
    assert!(outside(&connected), "{connected:#?}");

    client.process().kill();
    let left = routes();
    assert!(!left.iter().any(|route| route.contains("adit0")), "{left:#?}");
    assert!(outside(&left), "nobody was there to take it away: {left:#?}");

    client.restart();
    client.wait_until_reached(server.address);
    let down = client.adit(&["down"]);
    assert!(down.success(), "{down:#?}");
    wait_until("the routes are as they were", 5 * SECOND, || (routes() == before).then_some(()));
    assert!(!laptop.run(["ip", "link", "show", "adit0"]).success());

    // And when the tunnel is never wanted again: the next start alone takes them away.
    client.up();
    client.wait_until_reached(server.address);
    client.process().kill();
    assert!(outside(&routes()));
    let wish = laptop.dir().join("client/wish.json");
    laptop.check(["rm".as_ref(), wish.as_os_str()]);
    client.restart();
    assert_eq!(routes(), before);
}

#[test]
fn a_connector_without_word_from_the_control_plane_fails_closed() {
    let mut scene = Scene::new("offline");
    let svc = &scene.lab.svc;
    let (server, sender) = (svc.tcp_echo(SVC_V4), svc.tcp_sender(SVC_V4, None));
    let user = scene.control_plane.create_user("ada");
    let resource = scene.control_plane.create_resource(&scene.site, "s", &["10.9.0.2/32"], &[]);
    scene.control_plane.permit(&[&user], &[&resource]);
    let organisation = scene.control_plane.edit("/v1/organisation", |body| {
        body["max_offline_s"] = json!(5);
    });
    assert_eq!(organisation.status, 200, "{organisation:#?}");
    let client = scene.start_client(&scene.lab.laptop, &user);
    client.wait_until_reached(server.address);
    let download = client.host().tcp_download(sender.address, Duration::from_millis(20));
    probe::downloaded(&download, 1 << 20, 10 * SECOND);

    let stopped = monotonic_ns();
    scene.control_plane.process().kill();

    let ended = probe::ended(&download, 15 * SECOND);
    assert_eq!(ended.how, "reset", "{ended:?}");
    let held = Duration::from_nanos(ended.t - stopped);
    println!("failed closed after {held:?}");
    assert!(held > 3 * SECOND && held < 8 * SECOND, "failed closed after {held:?}");
    let refused = client.host().tcp_ask(server.address, "hello").expect_err("the bundle is stale");
    assert_eq!(refused.how, "refused", "{refused:?}");
    let explained = client.explain(&server.address.to_string());
    assert_eq!(explained["reason"], "bundle-stale", "{explained}");
    let url = scene.connector.health_url("readyz");
    let ready = scene.lab.connector.check(["curl", "--silent", &url]);
    assert!(ready.contains("stale"), "{ready}");
    let output = scene.connector.process().output();
    assert_eq!(output.matches("silent for too long").count(), 1, "{output}");

    // A restart does not make it forget.
    scene.connector.restart();
    scene.connector.process().wait_for_line("silent for too long", 10 * SECOND);

    scene.control_plane.restart();
    client.wait_until_reached(server.address);
}
