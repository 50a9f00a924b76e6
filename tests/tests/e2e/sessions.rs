//! A session with a connector, by TCP or by QUIC, whichever a network lets through.

use std::{
    net::SocketAddr,
    time::{Duration, Instant},
};

use adit_tests::{
    Client, Lab, Scene,
    lab::{READY_TIMEOUT, SVC_V4},
    probe, report, wait_until,
};
use serde_json::json;

use crate::transfers::permit_all_of_the_site;

const SECOND: Duration = Duration::from_secs(1);

/// Within which a session whose connection is blocked is missed and made anew: pings of HTTP/2 take
/// 13 s, as do those of a session over QUIC.
const MOVES_WITHIN: Duration = Duration::from_secs(25);

#[test]
fn where_tcp_is_blocked_everything_works_by_a_session_over_quic() {
    let scene = Scene::new("no-tcp");
    let (lab, control_plane) = (&scene.lab, &scene.control_plane);
    let svc = &lab.svc;
    let (open, closed, pacer) = (svc.tcp_echo(SVC_V4), svc.tcp_echo(SVC_V4), svc.tcp_pacer(SVC_V4));
    let resource = |name: &str, address: SocketAddr| {
        let port = address.port().to_string();
        let filters: [(&str, &[&str]); 1] = [("tcp", &[&port])];
        control_plane.create_resource(&scene.site, name, &["10.9.0.2/32"], &filters)
    };
    let open_resource = resource("open", open.address);
    let pacer_resource = resource("pacer", pacer.address);
    let closed_resource = resource("closed", closed.address);
    let user = control_plane.create_user("ada");
    control_plane.permit(&[&user], &[&open_resource, &pacer_resource]);
    block_tcp(lab);
    let client = client_by_any(&scene, &user);
    client.wait_until_reached(open.address);

    let down = client.adit(&["down"]);
    assert!(down.success(), "{down:#?}");
    let began = Instant::now();
    client.up();
    client.wait_until_reached(open.address);
    let took = began.elapsed();
    assert_eq!(session_carrier(&client).as_deref(), Some("quic"));
    report(&json!({ "what": "connected where TCP is blocked", "ms": took.as_millis() }));
    assert!(took < 3 * SECOND, "connected after {took:?}");

    let refused = client.host().tcp_ask(closed.address, "hello").expect_err("not permitted");
    assert_eq!(refused.how, "refused", "{refused:?}");
    wait_until("the client is told why", READY_TIMEOUT, || {
        let denials = client.status()["recent_denials"].as_array().cloned().unwrap_or_default();
        denials.iter().find(|denial| denial["reason"] == "no-policy-permits").map(|_| ())
    });
    let explained = client.explain(&closed.address.to_string());
    assert_eq!(explained["reason"], "no-policy-permits", "{explained}");
    assert_eq!(explained["resource_id"], closed_resource.as_str(), "{explained}");

    // The connector asks for another credential, and takes it.
    let group = control_plane.create_group("staff", &[&user]);
    control_plane.create_policy(
        "staff",
        "permit",
        &json!({ "groups": [group] }),
        &json!({ "ids": [closed_resource] }),
    );
    client.wait_until_reached(closed.address);
    assert_eq!(session_carrier(&client).as_deref(), Some("quic"));

    let download = client.host().tcp_download(pacer.address, Duration::from_millis(10));
    probe::downloaded(&download, 100 << 10, READY_TIMEOUT);
    let device = control_plane.devices_of(&user).pop().expect("it was enrolled");
    let answer = control_plane.revoke_device(&device);
    let ended = probe::ended(&download, READY_TIMEOUT);
    let last_byte = ended.last_byte_t.expect("bytes came");
    let latency = Duration::from_nanos(last_byte.saturating_sub(answer.answered_ns));
    report(&json!({ "what": "revoked by a session over QUIC", "cut_ms": latency.as_millis() }));
    assert!(latency < SECOND, "cut after {latency:?}");
    wait_until("the client is told that it is revoked", READY_TIMEOUT, || {
        (client.status()["state"] != "connected").then_some(())
    });
}

#[test]
fn a_session_moves_to_quic_when_tcp_is_blocked_and_breaks_no_connection() {
    let scene = Scene::new("tcp-goes");
    let lab = &scene.lab;
    let user = permit_all_of_the_site(&scene);
    let client = client_by_any(&scene, &user);
    let (echo, sender) = (lab.svc.tcp_echo(SVC_V4), lab.svc.tcp_pacer(SVC_V4));
    client.wait_until_reached(echo.address);
    assert_eq!(session_carrier(&client).as_deref(), Some("http2"));
    let download = lab.laptop.tcp_download(sender.address, Duration::from_millis(10));
    probe::downloaded(&download, 100 << 10, READY_TIMEOUT);

    block_tcp(lab);

    wait_until("the session goes by QUIC", MOVES_WITHIN, || {
        let status = client.status();
        assert_eq!(status["state"], "connected", "{status:#}");
        (session_carrier(&client).as_deref() == Some("quic")).then_some(())
    });
    let so_far = download.events().iter().filter_map(|event| event["bytes"].as_u64()).max();
    probe::downloaded(&download, so_far.unwrap_or_default() + (200 << 10), READY_TIMEOUT);
    assert!(download.is_running(), "{} {:#}", download.output(), client.status());
    assert_eq!(client.explain("192.0.2.1:80")["reason"], "resource-unknown");
    assert_eq!(client.explain(&echo.address.to_string())["allowed"], true);

    // And back, without UDP.
    lab.inet.check(["nft", "delete", "table", "inet", "no_tcp"]);
    client.set_carrier("http2");
    wait_until("the session goes by HTTP/2", READY_TIMEOUT, || {
        (session_carrier(&client).as_deref() == Some("http2")).then_some(())
    });
    client.wait_for_carrier("http2", READY_TIMEOUT);
    assert!(download.is_running(), "{} {:#}", download.output(), client.status());
}

#[test]
fn a_choice_of_http2_keeps_sessions_from_quic_and_one_of_quic_needs_no_tcp() {
    let scene = Scene::new("session-choice");
    let lab = &scene.lab;
    let user = permit_all_of_the_site(&scene);
    block_tcp(lab);
    let client = Client::start(&lab.laptop);
    client.set_carrier("quic");
    client.enroll(&scene.control_plane.create_enrollment_key(&user));
    client.up();
    let echo = lab.svc.tcp_echo(SVC_V4);
    client.wait_until_reached(echo.address);
    assert_eq!(client.carrier().as_deref(), Some("quic"));
    assert_eq!(session_carrier(&client).as_deref(), Some("quic"));

    client.set_carrier("http2");
    assert_eq!(session_carrier(&client), None);
    client.wait_for_state("connecting", READY_TIMEOUT);
    assert_eq!(session_carrier(&client), None);

    lab.inet.check(["nft", "delete", "table", "inet", "no_tcp"]);
    client.wait_until_reached(echo.address);
    assert_eq!(client.carrier().as_deref(), Some("http2"));
    assert_eq!(session_carrier(&client).as_deref(), Some("http2"));
}

/// Starts a client that may use every carrier, whatever the tests are told to use.
fn client_by_any(scene: &Scene, user: &str) -> Client {
    let client = Client::start(&scene.lab.laptop);
    client.set_carrier("auto");
    client.enroll(&scene.control_plane.create_enrollment_key(user));
    client.up();
    client
}

/// What carries the session channel of the first site at this moment.
fn session_carrier(client: &Client) -> Option<String> {
    client.status()["sessions"][0]["session_carrier"].as_str().map(str::to_owned)
}

/// Lets nothing of TCP through between the laptop and the connector.
fn block_tcp(lab: &Lab) {
    lab.inet.sh("nft 'add table inet no_tcp
         add chain inet no_tcp forward { type filter hook forward priority 0; }
         add rule inet no_tcp forward ip saddr 198.18.1.0/24 ip daddr 198.18.10.2 \
             meta l4proto tcp drop
         add rule inet no_tcp forward ip saddr 198.18.10.2 ip daddr 198.18.1.0/24 \
             meta l4proto tcp drop'");
}
