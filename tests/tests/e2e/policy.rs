//! What policies let through, and how soon a changed one does.

use std::{net::SocketAddr, time::Duration};

use adit_tests::{
    Client, Process, Scene,
    lab::{SVC_V4, SVC_V6},
    monotonic_ns, probe,
};
use serde_json::json;

const SECOND: Duration = Duration::from_secs(1);

/// Time for a change to reach the connector while nothing but this test is slow.
const CHANGE_TIMEOUT: Duration = Duration::from_secs(5);

#[test]
fn a_forbid_beats_a_permit_and_a_disabled_policy_does_nothing() {
    let scene = Scene::new("forbid");
    let plane = &scene.control_plane;
    let service = scene.lab.svc.tcp_echo(SVC_V4);
    let server = service.address;
    let resource = resource_at(&scene, "web", server);
    let user = plane.create_user("ada");
    open_lobby(&scene);
    let permit = plane.permit(&[&user], &[&resource]);
    let client = scene.start_client(&scene.lab.laptop, &user);
    client.wait_until_reached(server);

    let (everyone, this) = (json!({ "everyone": true }), json!({ "ids": [resource] }));
    let forbid = plane.create_policy("nobody", "forbid", &everyone, &this);
    client.wait_until_refused(server);
    let explained = client.explain(&server.to_string());
    assert_eq!(explained["reason"], "policy-forbids", "{explained}");
    assert_eq!(explained["policy_id"], forbid.as_str(), "{explained}");

    set_disabled(&scene, &forbid, true);
    client.wait_until_reached(server);
    set_disabled(&scene, &permit, true);
    client.wait_until_refused(server);
    set_disabled(&scene, &permit, false);
    client.wait_until_reached(server);
    let _ = plane.delete(&format!("/v1/policies/{permit}")).ok();
    client.wait_until_refused(server);
}

#[test]
fn port_ranges_hold_both_their_ends_and_nothing_beyond() {
    let scene = Scene::new("ports");
    let plane = &scene.control_plane;
    let (tcp, udp) = (scene.lab.svc.tcp_echo(SVC_V4), scene.lab.svc.udp_echo(SVC_V4));
    let (tcp_port, udp_port) = (tcp.address.port(), udp.address.port());
    let resource = resource_at(&scene, "range", tcp.address);
    let user = plane.create_user("ada");
    plane.permit(&[&user], &[&resource]);
    let client = scene.start_client(&scene.lab.laptop, &user);
    let set_ports = |tcp: String, udp: String| {
        let filters = json!([
            { "protocol": "tcp", "ports": [tcp] }, { "protocol": "udp", "ports": ["1", udp] },
        ]);
        let path = format!("/v1/resources/{resource}");
        let _ = plane.edit(&path, |body| body["filters"] = filters).ok();
    };
    let last_port = |port: u16| port.saturating_add(5);

    let first = |port: u16| format!("{port}-{}", last_port(port));
    let last = |port: u16| format!("{}-{port}", port - 5);
    let above = |port: u16| format!("{}-{}", port - 5, port - 1);
    let below = |port: u16| format!("{}-{}", port + 1, port.saturating_add(6));
    let ranges: [(&dyn Fn(u16) -> String, bool); 5] =
        [(&first, true), (&above, false), (&last, true), (&below, false), (&first, true)];
    for (range, reached) in ranges {
        set_ports(range(tcp_port), range(udp_port));
        if reached {
            client.wait_until_reached(tcp.address);
        } else {
            client.wait_until_refused(tcp.address);
            let explained = client.explain(&tcp.address.to_string());
            assert_eq!(explained["reason"], "resource-unknown", "{explained}");
        }
        let pinged = scene.lab.laptop.udp_ping(udp.address, 1, SECOND);
        assert_eq!(pinged.received == 1, reached, "{} {pinged:?}", range(udp_port));
    }
}

#[test]
fn the_most_specific_resource_decides() {
    let scene = Scene::new("specific");
    let plane = &scene.control_plane;
    let serve = |ip: &str| scene.lab.svc.tcp_echo(ip);
    let servers = [serve(SVC_V4), serve("10.9.0.3"), serve("10.9.0.3"), serve("fd00:9::3")];
    let [elsewhere, named, other_port, named_v6] = servers.each_ref().map(|server| server.address);
    let wide = plane.create_resource(&scene.site, "wide", &["10.9.0.0/24", "fd00:9::/64"], &[]);
    let ports = [named.port(), named_v6.port()].map(|port| port.to_string());
    let narrow = plane.create_resource(
        &scene.site,
        "narrow",
        &["10.9.0.3/32", "fd00:9::3/128"],
        &[("tcp", &[&ports[0], &ports[1]])],
    );
    let user = plane.create_user("ada");
    let permit_wide = plane.permit(&[&user], &[&wide]);
    let client = scene.start_client(&scene.lab.laptop, &user);

    // A permit for the prefix is none for what has a resource of its own inside it.
    client.wait_until_reached(elsewhere);
    client.wait_until_reached(other_port);
    for named in [named, named_v6] {
        let refused = client.host().tcp_ask(named, "hello").expect_err("only the prefix is open");
        assert_eq!(refused.how, "refused");
        let explained = client.explain(&named.to_string());
        assert_eq!(explained["resource_id"], narrow.as_str(), "{explained}");
        assert_eq!(explained["reason"], "no-policy-permits", "{explained}");
    }

    // And the other way round.
    plane.permit(&[&user], &[&narrow]);
    set_disabled(&scene, &permit_wide, true);
    client.wait_until_reached(named);
    client.wait_until_reached(named_v6);
    let refused = client.wait_until_refused(other_port);
    assert_eq!(refused.how, "refused");
    let explained = client.explain(&other_port.to_string());
    assert_eq!(explained["resource_id"], wide.as_str(), "{explained}");
}

#[test]
fn policies_select_by_groups_and_tags() {
    let scene = Scene::new("groups");
    let plane = &scene.control_plane;
    let (service, sender) =
        (scene.lab.svc.tcp_echo(SVC_V4), scene.lab.svc.tcp_sender(SVC_V4, None));
    let server = service.address;
    let resource = plane.create_resource(&scene.site, "web", &["10.9.0.2/32"], &[]);
    let resource_path = format!("/v1/resources/{resource}");
    let (ada, bob) = (plane.create_user("ada"), plane.create_user("bob"));
    let group = plane.create_group("operators", &[&ada]);
    open_lobby(&scene);
    let (operators, tagged) = (json!({ "groups": [group] }), json!({ "tags": ["production"] }));
    plane.create_policy("operators", "permit", &operators, &tagged);
    let ada_client = scene.start_client(&scene.lab.laptop, &ada);
    let bob_client = scene.start_client(&scene.lab.laptop2, &bob);
    let member = |user: &str| format!("/v1/groups/{group}/members/{user}");

    assert!(ada_client.host().tcp_try(server, "hello").is_err(), "nothing bears the tag");
    let _ = plane.edit(&resource_path, |body| body["tags"] = json!(["production"])).ok();
    ada_client.wait_until_reached(server);
    assert!(bob_client.host().tcp_try(server, "hello").is_err(), "Bob is not in the group");

    let _ = plane.request("PUT", &member(&bob), &[], None).ok();
    bob_client.wait_until_reached_within(server, CHANGE_TIMEOUT);
    let download = ada_client.host().tcp_download(sender.address, Duration::from_millis(10));
    probe::downloaded(&download, 1 << 20, 10 * SECOND);
    let answer = plane.request("DELETE", &member(&ada), &[], None);
    assert_eq!(answer.status, 204, "{answer:?}");
    let ended = probe::ended(&download, CHANGE_TIMEOUT);
    assert_eq!(ended.how, "reset", "{ended:?}");
    let last_byte = ended.last_byte_t.unwrap_or_default();
    let after = Duration::from_nanos(last_byte.saturating_sub(answer.answered_ns));
    assert!(after < SECOND, "the last byte came {after:?} after the answer");
    assert!(ada_client.host().tcp_try(server, "hello").is_err(), "Ada left the group");
    assert!(bob_client.host().tcp_ask(server, "hello").is_ok(), "Bob is in the group");

    let _ = plane.edit(&resource_path, |body| body["tags"] = json!(["staging"])).ok();
    bob_client.wait_until_refused(server);
}

#[test]
fn a_narrowed_policy_cuts_its_flow_and_no_other() {
    let scene = Scene::new("narrowed");
    let plane = &scene.control_plane;
    let svc = &scene.lab.svc;
    // Slow enough that nothing is lost to full queues.
    let [kept, lost] = [SVC_V4, "10.9.0.3"].map(|ip| svc.tcp_pacer(ip));
    let kept_udp = svc.udp_echo(SVC_V4);
    let kept_resource = plane.create_resource(&scene.site, "kept", &["10.9.0.2/32"], &[]);
    let lost_resource = plane.create_resource(&scene.site, "lost", &["10.9.0.3/32"], &[]);
    let (ada, bob) = (plane.create_user("ada"), plane.create_user("bob"));
    let ada_policy = plane.permit(&[&ada], &[&kept_resource, &lost_resource]);
    plane.permit(&[&bob], &[&lost_resource]);
    let ada_client = scene.start_client(&scene.lab.laptop, &ada);
    let bob_client = scene.start_client(&scene.lab.laptop2, &bob);
    let download = |client: &Client, from: SocketAddr| {
        let process = client.host().tcp_download(from, Duration::from_millis(10));
        probe::downloaded(&process, 10 << 10, 10 * SECOND);
        process
    };
    let ada_keeps = download(&ada_client, kept.address);
    let ada_loses = download(&ada_client, lost.address);
    let bob_keeps = download(&bob_client, lost.address);
    let denied = bob_client.explain(&kept.address.to_string());
    assert_eq!(denied["allowed"], false, "Bob has other rights than Ada: {denied}");
    let datagrams = ada_client
        .host()
        .probe("udp-ping")
        .arg(kept_udp.address.to_string())
        .args(["--count", "200", "--every-ms", "10"])
        .spawn();
    datagrams.wait_for_event("answer", 5 * SECOND);

    let path = format!("/v1/policies/{ada_policy}");
    let narrowed = plane.edit(&path, |body| body["resources"] = json!({ "ids": [kept_resource] }));

    let ended = probe::ended(&ada_loses, CHANGE_TIMEOUT);
    assert_eq!(ended.how, "reset", "{ended:?}");
    let after = Duration::from_nanos(ended.t.saturating_sub(narrowed.answered_ns));
    assert!(after < 2 * SECOND, "cut after {after:?}");
    assert_eq!(narrowed.status, 200, "{narrowed:?}");
    for running in [&ada_keeps, &bob_keeps] {
        let so_far = bytes_of(running);
        probe::downloaded(running, so_far + (200 << 10), 10 * SECOND);
        assert!(running.is_running(), "{}", running.output());
    }
    let pinged = datagrams.wait_for_event("pinged", 10 * SECOND);
    assert_eq!(pinged["sent"], 200, "{pinged}");
    assert_eq!(pinged["received"], 200, "{pinged}");
    let denial = &ada_client.status()["recent_denials"][0];
    assert_eq!(denial["verdict"], "cut", "{denial}");
    assert_eq!(denial["resource_id"], lost_resource.as_str(), "{denial}");
    // The service is told as well, and does not keep a dead connection.
    let peer_ends = lost.process.wait_for_event("closed", CHANGE_TIMEOUT);
    assert_eq!(peer_ends["how"], "reset", "{peer_ends}");
}

#[test]
fn a_widened_policy_is_of_use_within_a_second_and_without_a_new_session() {
    let scene = Scene::new("widened");
    let plane = &scene.control_plane;
    let (old, new) = (scene.lab.svc.tcp_echo(SVC_V4), scene.lab.svc.tcp_echo(SVC_V6));
    let old_resource = resource_at(&scene, "old", old.address);
    let new_resource = resource_at(&scene, "new", new.address);
    let user = plane.create_user("ada");
    let policy = plane.permit(&[&user], &[&old_resource]);
    let client = scene.start_client(&scene.lab.laptop, &user);
    client.wait_until_reached(old.address);
    let session_since = client.status()["sessions"][0]["since"].clone();
    assert!(session_since.is_string(), "{:#}", client.status());
    assert!(client.host().tcp_try(new.address, "hello").is_err());

    let path = format!("/v1/policies/{policy}");
    let resources = json!({ "ids": [old_resource, new_resource] });
    let widened = plane.edit(&path, |body| body["resources"] = resources);

    client.wait_until_reached_within(new.address, CHANGE_TIMEOUT);
    let after = Duration::from_nanos(monotonic_ns().saturating_sub(widened.answered_ns));
    println!("of use after {after:?}");
    assert!(after < Duration::from_millis(1500), "of use after {after:?}");
    assert_eq!(client.status()["sessions"][0]["since"], session_since);
}

#[test]
fn a_first_permit_is_of_use_within_seconds() {
    let scene = Scene::new("first");
    let server = scene.lab.svc.tcp_echo(SVC_V4);
    let user = scene.control_plane.create_user("ada");
    let resource = resource_at(&scene, "web", server.address);
    let client = scene.start_client(&scene.lab.laptop, &user);
    assert_eq!(client.status()["sessions"].as_array().map(Vec::len), Some(0));
    assert!(client.host().tcp_try(server.address, "hello").is_err());

    scene.control_plane.permit(&[&user], &[&resource]);

    // No connector knows the client yet that could tell it: it asks by itself.
    client.wait_until_reached_within(server.address, 10 * SECOND);
}

#[test]
fn a_source_network_tells_devices_of_one_user_apart() {
    let scene = Scene::new("source");
    let plane = &scene.control_plane;
    let service = scene.lab.svc.tcp_echo(SVC_V4);
    let server = service.address;
    let resource = resource_at(&scene, "web", server);
    let user = plane.create_user("ada");
    let policy = plane.permit(&[&user], &[&resource]);
    let path = format!("/v1/policies/{policy}");
    let come_from = |network: &str| {
        let conditions = json!({ "source_networks": [network] });
        let _ = plane.edit(&path, |body| body["conditions"] = conditions).ok();
    };
    come_from("198.18.1.0/24");
    let here = scene.start_client(&scene.lab.laptop, &user);
    let there = scene.start_client(&scene.lab.laptop2, &user);

    here.wait_until_reached(server);
    there.wait_until_refused(server);
    let explained = there.explain(&server.to_string());
    assert_eq!(explained["reason"], "source-network-other", "{explained}");

    come_from("198.18.2.0/24");
    there.wait_until_reached(server);
    here.wait_until_refused(server);
}

/// A resource of one address and TCP port.
fn resource_at(scene: &Scene, name: &str, server: SocketAddr) -> String {
    let prefix = format!("{}/{}", server.ip(), if server.is_ipv4() { 32 } else { 128 });
    let port = server.port().to_string();
    scene.control_plane.create_resource(&scene.site, name, &[&prefix], &[("tcp", &[&port])])
}

/// Opens another port of the same address to everyone: whoever loses the one that a test is about
/// still has a way into the tunnel, and a channel by which news come at once.
fn open_lobby(scene: &Scene) {
    let plane = &scene.control_plane;
    let lobby = plane.create_resource(&scene.site, "lobby", &["10.9.0.2/32"], &[("tcp", &["1"])]);
    let (everyone, this) = (json!({ "everyone": true }), json!({ "ids": [lobby] }));
    plane.create_policy("lobby", "permit", &everyone, &this);
}

fn set_disabled(scene: &Scene, policy: &str, disabled: bool) {
    let path = format!("/v1/policies/{policy}");
    let _ = scene.control_plane.edit(&path, |body| body["disabled"] = json!(disabled)).ok();
}

fn bytes_of(download: &Process) -> u64 {
    download.events().iter().filter_map(|event| event["bytes"].as_u64()).max().unwrap_or_default()
}
