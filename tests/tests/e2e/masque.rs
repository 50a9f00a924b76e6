//! The connector speaks MASQUE as the RFCs have it: with stacks of HTTP/3 and HTTP/2 that know
//! nothing of it.

use std::{
    fmt::Write as _,
    net::{IpAddr, SocketAddr},
};

use adit_tests::{
    Conversation, Host, Lab, MasquePeer, Scene,
    lab::{READY_TIMEOUT, SVC_V4, SVC_V6},
    wait_until,
};
use serde_json::{Value, json};
use sha2::{Digest as _, Sha256};

/// Where services are that no policy lets anybody reach.
const CLOSED_V4: &str = "10.9.0.3";
/// See [`CLOSED_V4`].
const CLOSED_V6: &str = "fd00:9::3";

/// Exit codes of the peer, when nothing came in time and when the connector has refused.
const REFUSED: Option<i32> = Some(6);

/// `H3_MESSAGE_ERROR` (RFC 9114 §8.1) and `H3_DATAGRAM_ERROR` (RFC 9297 §5.2).
const MALFORMED: [u64; 2] = [0x10e, 0x33];

#[test]
fn an_independent_http3_stack_exchanges_packets_through_connect_ip() {
    let (scene, peer) = prepare("masque-ip");
    let svc = &scene.lab.svc;
    let udp = [SVC_V4, SVC_V6].map(|ip| svc.udp_echo(ip));
    let [udp_v4, udp_v6] = udp.each_ref().map(|server| server.address.to_string());

    let conversation = check(
        &peer,
        &["connect-ip", "--udp", &udp_v4, "--udp", &udp_v6, "--icmp", SVC_V4, "--icmp", SVC_V6],
    );

    let settings = &conversation.event("settings")["settings"];
    // Extended CONNECT, HTTP datagrams, and no dynamic table.
    assert_eq!((&settings["0x8"], &settings["0x33"]), (&json!(1), &json!(1)), "{settings}");
    assert_eq!(settings["0x1"].as_u64().unwrap_or_default(), 0, "{settings}");
    assert_eq!(conversation.status(), Some(200));
    let assigned = conversation.event("address-assign")["addresses"].as_array().unwrap();
    assert_eq!(assigned.len(), peer.addresses().len(), "{assigned:?}");
    for address in peer.addresses() {
        let expected = json!({ "request_id": 0, "prefix": host_prefix(*address) });
        assert!(assigned.contains(&expected), "no {expected} in {assigned:?}");
    }
    let routes = conversation.event("route-advertisement")["routes"].as_array().unwrap();
    for ip in [SVC_V4, SVC_V6] {
        assert!(routes.iter().any(|route| covers(route, ip)), "{ip} is not in {routes:?}");
    }
    let replies = conversation.events_of("reply");
    assert_eq!(replies.len(), 4, "{:#?}", conversation.output);
    for reply in replies {
        // Services send with 64, and the connector's machine is the only router on the way.
        assert_eq!(reply["ttl"], 63, "{reply}");
    }
}

#[test]
fn packets_in_capsules_are_packets_too() {
    let (scene, peer) = prepare("masque-capsules");
    let server = scene.lab.svc.udp_echo(SVC_V4);

    let conversation =
        check(&peer, &["connect-ip", "--in-capsules", "--udp", &server.address.to_string()]);

    assert_eq!(conversation.events_of("reply").len(), 1, "{:#?}", conversation.output);
}

#[test]
fn a_requested_address_is_assigned_if_it_is_the_devices_own_and_otherwise_refused() {
    let (_scene, peer) = prepare("masque-addresses");
    let own = |is_ipv4: bool| {
        let address = peer.addresses().iter().find(|address| address.is_ipv4() == is_ipv4);
        host_prefix(*address.expect("a device has addresses of both families"))
    };
    let (own_v4, own_v6) = (own(true), own(false));
    let requests = [
        ("0.0.0.0/32", own_v4.as_str()),
        ("::/128", &own_v6),
        (&own_v4, &own_v4),
        ("192.0.2.7/32", "0.0.0.0/32"),
        ("2001:db8::7/128", "::/128"),
    ];

    let mut args = vec!["connect-ip"];
    args.extend(requests.iter().flat_map(|(prefix, _)| ["--request", prefix]));
    let conversation = check(&peer, &args);

    let answers = conversation.events_of("requested");
    assert_eq!(answers.len(), requests.len(), "{:#?}", conversation.output);
    for ((prefix, expected), answer) in requests.iter().zip(answers) {
        assert_eq!(answer["prefix"], *prefix, "{answer}");
        let assigned = answer["answers"].as_array().unwrap();
        assert_eq!(assigned.len(), 1, "{answer}");
        assert_eq!(assigned[0]["prefix"], *expected, "{answer}");
    }
}

#[test]
fn a_denied_packet_is_told_so_through_connect_ip() {
    let (scene, peer) = prepare("masque-denied");
    // Destination unreachable, administratively prohibited: RFC 1812 §5.2.7.1, RFC 4443 §3.1.
    for (ip, expected) in [(CLOSED_V4, (3, 13)), (CLOSED_V6, (1, 1))] {
        let server = scene.lab.svc.udp_echo(ip);

        let conversation = peer.run(&["connect-ip", "--udp", &server.address.to_string()]);

        assert_eq!(conversation.output.code, REFUSED, "{:#?}", conversation.output);
        let error = conversation.event("icmp-error");
        let told = (error["type"].as_u64().unwrap(), error["code"].as_u64().unwrap());
        assert_eq!(told, expected, "{error}");
    }
}

#[test]
fn what_fits_no_datagram_of_the_peer_comes_by_the_stream() {
    let (scene, peer) = prepare("masque-stream");
    let svc = &scene.lab.svc;
    let server = svc.udp_echo(SVC_V4);
    let target = server.address.to_string();
    // What fits no datagram of the peer comes by the stream, up to the 1,280 bytes that every link
    // takes (RFC 9484 §10.1).
    let options = ["--max-datagram-frame-size", "700", "--timeout-s", "10"];
    let conversation =
        peer.run_with(&options, &["connect-ip", "--udp", &target, "--bytes", "1000"]);
    assert_eq!(conversation.output.code, Some(0), "{:#?}", conversation.output);
    assert_eq!(conversation.events_of("reply").len(), 1, "{:#?}", conversation.output);
}

#[test]
fn an_independent_http3_stack_exchanges_datagrams_through_connect_udp() {
    let (scene, peer) = prepare("masque-udp");
    for ip in [SVC_V4, SVC_V6] {
        let server = scene.lab.svc.udp_echo(ip);
        let target = server.address.to_string();

        let conversation = check(&peer, &["connect-udp", "--target", &target]);

        assert_eq!(conversation.status(), Some(200));
        let replies = conversation.events_of("reply");
        assert_eq!(replies.len(), 3, "{:#?}", conversation.output);
        let datagram = server.process.wait_for_event("datagram", READY_TIMEOUT);
        assert_eq!(datagram["bytes"], 68, "{datagram}");
        expect_access_event(&scene, &peer, "allow", "udp", server.address);
    }
}

#[test]
fn an_independent_http3_stack_fetches_a_page_through_connect() {
    let (scene, peer) = prepare("masque-tcp");
    let marker = "open-secret-4711 ";
    let body = marker.repeat(5_000);
    for ip in [SVC_V4, SVC_V6] {
        let server = scene.lab.svc.http_server(ip, &body);
        let underlay = scene.lab.watch_underlay(marker);

        let conversation = check(&peer, &["connect", "--target", &server.address.to_string()]);

        assert_eq!(conversation.status(), Some(200));
        let page = conversation.event("page");
        assert_eq!(page["bytes"], body.len(), "{page}");
        assert_eq!(page["sha256"], sha256(&body), "{page}");
        assert_eq!(underlay.finish().matches, 0);
        expect_access_event(&scene, &peer, "allow", "tcp", server.address);
    }
}

#[test]
fn what_no_policy_permits_is_forbidden_with_a_reason() {
    let (scene, peer) = prepare("masque-forbidden");
    for ip in [CLOSED_V4, CLOSED_V6] {
        let (tcp, udp) = (scene.lab.svc.tcp_echo(ip), scene.lab.svc.udp_echo(ip));
        for (command, protocol, server) in [("connect", "tcp", &tcp), ("connect-udp", "udp", &udp)]
        {
            let conversation = peer.run(&[command, "--target", &server.address.to_string()]);

            assert_eq!(conversation.status(), Some(403), "{:#?}", conversation.output);
            let status = conversation.header("proxy-status").unwrap_or_default();
            assert!(status.contains("no-policy-permits"), "{status}");
            expect_access_event(&scene, &peer, "deny", protocol, server.address);
        }
    }
}

#[test]
fn a_service_that_refuses_is_a_bad_gateway() {
    let (scene, peer) = prepare("masque-refused");
    let server = scene.lab.svc.tcp_echo(SVC_V4);
    let target = server.address.to_string();
    server.process.kill();

    let conversation = peer.run(&["connect", "--target", &target]);

    // RFC 9209 §2.3.6
    assert_eq!(conversation.status(), Some(502), "{:#?}", conversation.output);
    let status = conversation.header("proxy-status").unwrap_or_default();
    assert!(status.contains("connection_refused"), "{status}");
}

#[test]
fn wrong_and_missing_credentials_get_the_answers_of_the_rfcs() {
    let (scene, peer) = prepare("masque-credentials");
    let (unauthorized, proxy) = ((401, "www-authenticate"), (407, "proxy-authenticate"));
    for (kind, (status, challenge)) in [
        ("no-credential", unauthorized),
        ("wrong-credential", unauthorized),
        ("wrong-scheme-of-credential", unauthorized),
        ("udp-no-credential", unauthorized),
        ("udp-wrong-credential", unauthorized),
        ("connect-no-credential", proxy),
        ("connect-wrong-credential", proxy),
    ] {
        let conversation = peer.run(&["misbehave", kind]);

        assert_eq!(conversation.status(), Some(status), "{kind}: {:#?}", conversation.output);
        let challenge = conversation.header(challenge).unwrap_or_default();
        assert!(challenge.starts_with("Bearer"), "{kind}: {challenge}");
    }

    // A credential is worth nothing without the device key that it names.
    let thief = enroll(&scene, &scene.lab.laptop2, "eve");
    let stolen = scene.lab.laptop.read(peer.credential_file());
    let stolen = scene.lab.laptop2.write("stolen", stolen);
    let stolen = ["--credential-file", &stolen.to_string_lossy()];
    for (args, (status, _)) in [
        (vec!["connect-ip"], unauthorized),
        (vec!["connect-udp", "--target", "10.9.0.2:9"], unauthorized),
        (vec!["connect", "--target", "10.9.0.2:9"], proxy),
    ] {
        let conversation = thief.run_with(&stolen, &args);

        assert_eq!(conversation.status(), Some(status), "{args:?}: {:#?}", conversation.output);
    }
}

#[test]
fn a_peer_without_a_certificate_is_turned_away() {
    let (_scene, peer) = prepare("masque-certificate");

    let conversation = peer.run(&["misbehave", "no-certificate"]);

    assert_eq!(conversation.status(), None, "{:#?}", conversation.output);
    // An alert of TLS: RFC 9001 §4.8.
    let code = conversation.event("closed")["code"].as_u64().unwrap();
    assert!((0x100..0x200).contains(&code), "{:#?}", conversation.output);
}

#[test]
fn wrong_requests_get_the_answers_of_the_rfcs() {
    let (_scene, peer) = prepare("masque-requests");
    for (kind, status) in [
        ("unknown-protocol", 501),
        ("wrong-path", 404),
        ("udp-wrong-path", 404),
        ("udp-bad-port", 400),
        ("udp-no-port", 400),
        ("udp-bad-host", 400),
        ("ip-bad-target", 400),
        ("connect-bad-target", 400),
    ] {
        let conversation = peer.run(&["misbehave", kind]);

        assert_eq!(conversation.status(), Some(status), "{kind}: {:#?}", conversation.output);
    }
}

#[test]
fn bad_capsules_abort_the_stream() {
    let (_scene, peer) = prepare("masque-bad-capsules");
    for kind in [
        "bad-capsule",
        "empty-address-request",
        "zero-request-id",
        "too-long-prefix",
        "bits-beyond-prefix",
        "cut-address-request",
        "trailing-byte",
        "backward-route",
        "unordered-routes",
        "overlapping-routes",
        "truncated-capsule",
    ] {
        let conversation = peer.run(&["misbehave", kind]);

        let code = conversation.event("reset")["code"].as_u64().unwrap();
        assert!(MALFORMED.contains(&code), "{kind}: {:#?}", conversation.output);
    }
}

#[test]
fn a_capsule_that_never_ends_is_not_waited_for() {
    let (_scene, peer) = prepare("masque-huge-capsule");

    let conversation = peer.run(&["misbehave", "huge-capsule"]);

    // Which code is the connector's choice; RFC 9297 has none for this.
    assert_eq!(conversation.events_of("reset").len(), 1, "{:#?}", conversation.output);
}

#[test]
fn what_is_unknown_is_ignored() {
    let (_scene, peer) = prepare("masque-unknown");
    // RFC 9297 §3.2, RFC 9298 §4.
    for kind in ["unknown-capsule", "unknown-context", "packet-too-short"] {
        let conversation = peer.run(&["misbehave", kind]);

        assert_eq!(conversation.output.code, Some(0), "{kind}: {:#?}", conversation.output);
        assert_eq!(conversation.events_of("requested").len(), 1, "{:#?}", conversation.output);
    }
}

#[test]
fn a_datagram_of_no_stream_ends_the_connection() {
    let (_scene, peer) = prepare("masque-datagram");

    let conversation = peer.run(&["misbehave", "empty-datagram"]);

    // H3_DATAGRAM_ERROR: RFC 9297 §2.1.
    assert_eq!(conversation.event("closed")["code"], 0x33, "{:#?}", conversation.output);
}

#[test]
fn an_independent_http2_stack_exchanges_packets_through_connect_ip() {
    let (scene, peer) = prepare("masque-h2-ip");
    let svc = &scene.lab.svc;
    let udp = [SVC_V4, SVC_V6].map(|ip| svc.udp_echo(ip));
    let [udp_v4, udp_v6] = udp.each_ref().map(|server| server.address.to_string());

    let targets = ["--udp", &udp_v4, "--udp", &udp_v6, "--icmp", SVC_V4, "--icmp", SVC_V6];
    let conversation = check(&peer, &[&["--http2", "connect-ip"], &targets[..]].concat());

    assert_eq!(conversation.event("connected")["alpn"], "h2");
    assert_eq!(conversation.status(), Some(200));
    let assigned = conversation.event("address-assign")["addresses"].as_array().unwrap();
    assert_eq!(assigned.len(), peer.addresses().len(), "{assigned:?}");
    assert_eq!(conversation.events_of("reply").len(), 4, "{:#?}", conversation.output);

    let server = svc.udp_echo(CLOSED_V4);
    let denied = peer.run(&["--http2", "connect-ip", "--udp", &server.address.to_string()]);
    let error = denied.event("icmp-error");
    assert_eq!((&error["type"], &error["code"]), (&json!(3), &json!(13)), "{error}");
}

#[test]
fn an_independent_http2_stack_exchanges_datagrams_and_fetches_a_page() {
    let (scene, peer) = prepare("masque-h2-connect");
    let udp = scene.lab.svc.udp_echo(SVC_V4);
    let page = scene.lab.svc.http_server(SVC_V4, "hello");

    let target = udp.address.to_string();
    let conversation = check(&peer, &["--http2", "connect-udp", "--target", &target]);
    assert_eq!(conversation.events_of("reply").len(), 3, "{:#?}", conversation.output);
    expect_access_event(&scene, &peer, "allow", "udp", udp.address);

    let target = page.address.to_string();
    let conversation = check(&peer, &["--http2", "connect", "--target", &target]);
    assert_eq!(conversation.event("page")["sha256"], sha256("hello"));
    expect_access_event(&scene, &peer, "allow", "tcp", page.address);
}

#[test]
fn what_is_refused_over_http3_is_refused_over_http2() {
    let (scene, peer) = prepare("masque-h2-refused");

    let forbidden = format!("{CLOSED_V4}:80");
    let conversation = peer.run(&["--http2", "connect", "--target", &forbidden]);
    assert_eq!((conversation.output.code, conversation.status()), (REFUSED, Some(403)));
    assert!(
        conversation
            .header("proxy-status")
            .is_some_and(|status| status.contains("no-policy-permits"))
    );

    let other = scene.lab.laptop.write("other-credential", "none");
    let other = other.to_str().unwrap();
    for (command, status) in [("connect-udp", 401), ("connect", 407)] {
        let options = ["--http2", "--credential-file", other];
        let conversation = peer.run_with(&options, &[command, "--target", &forbidden]);
        assert_eq!((conversation.output.code, conversation.status()), (REFUSED, Some(status)));
    }
}

#[test]
fn independent_stacks_hold_a_session_and_none_without_a_credential() {
    let (scene, peer) = prepare("masque-session");
    for version in [&["--timeout-s", "20"][..], &["--http2"]] {
        let conversation = peer.run_with(version, &["session"]);
        assert_eq!(conversation.output.code, Some(0), "{:#?}", conversation.output);
        let types: Vec<&Value> = conversation
            .events_of("message")
            .into_iter()
            .map(|event| &event["message"]["type"])
            .collect();
        assert_eq!(types, ["admitted", "pong"], "{:#?}", conversation.output);
    }

    // The stack of HTTP/2 takes no data after the GOAWAY that announces the end (RFC 9113 §6.8).
    let other = scene.lab.laptop.write("other-credential", "none");
    let refused = peer.run_with(&["--credential-file", other.to_str().unwrap()], &["session"]);
    assert_eq!(refused.output.code, REFUSED, "{:#?}", refused.output);
    let message = &refused.event("message")["message"];
    assert_eq!(message["reason"], "credential-invalid", "{message}");
}

/// A scene whose connector knows open and closed services, and a peer that may use the open ones.
fn prepare(name: &str) -> (Scene, MasquePeer) {
    let lab = Lab::new(name);
    let control_plane = lab.start_control_plane();
    let site = control_plane.create_site("site");
    let open = control_plane.create_resource(&site, "open", &["10.9.0.2/32", "fd00:9::2/128"], &[]);
    control_plane.create_resource(&site, "closed", &["10.9.0.3/32", "fd00:9::3/128"], &[]);
    control_plane.create_policy(
        "everyone to open",
        "permit",
        &json!({ "everyone": true }),
        &json!({ "ids": [open] }),
    );
    let connector = lab.start_connector(&control_plane, &site);
    wait_until("the connector has a bundle", READY_TIMEOUT, || {
        (connector.metric("adit_connector_bundle_sequence") > 0).then_some(())
    });
    let scene = Scene { connector, control_plane, site, lab };
    let peer = enroll(&scene, &scene.lab.laptop, "ada");

    (scene, peer)
}

/// Enrols a peer of a new user.
fn enroll(scene: &Scene, host: &Host, user: &str) -> MasquePeer {
    let user = scene.control_plane.create_user(user);

    MasquePeer::enroll(host, &scene.control_plane.create_enrollment_key(&user))
}

/// Runs the peer with what must succeed.
#[track_caller]
fn check(peer: &MasquePeer, args: &[&str]) -> Conversation {
    let conversation = peer.run(args);
    assert_eq!(conversation.output.code, Some(0), "{:#?}", conversation.output);

    conversation
}

#[track_caller]
fn expect_access_event(
    scene: &Scene,
    peer: &MasquePeer,
    verdict: &str,
    protocol: &str,
    destination: SocketAddr,
) {
    let path = format!("/v1/access-events?device_id={}&verdict={verdict}", peer.id());
    scene.control_plane.wait_for_item(&path, READY_TIMEOUT, |event| {
        let flow = &event["flow"];
        flow["protocol"] == protocol
            && flow["destination"] == destination.ip().to_string()
            && flow["destination_port"] == destination.port()
    });
}

/// An address as a prefix that holds nothing else.
fn host_prefix(address: IpAddr) -> String {
    format!("{address}/{}", if address.is_ipv4() { 32 } else { 128 })
}

/// Tells whether a route carries UDP and ICMP to an address.
fn covers(route: &Value, ip: &str) -> bool {
    let parse = |text: &str| text.parse::<IpAddr>().expect("an address");
    let end = |name: &str| parse(route[name].as_str().expect("a text"));
    let (ip, first, last) = (parse(ip), end("start"), end("end"));

    route["protocol"] == 0 && first.is_ipv4() == ip.is_ipv4() && (first..=last).contains(&ip)
}

fn sha256(text: &str) -> String {
    Sha256::digest(text).iter().fold(String::new(), |mut hex, byte| {
        let _ = write!(hex, "{byte:02x}");
        hex
    })
}
