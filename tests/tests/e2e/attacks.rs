//! What strangers, and devices that lie, do not achieve.

use std::{
    net::{IpAddr, SocketAddr},
    path::Path,
    time::Duration,
};

use adit_tests::{
    Scene,
    lab::{SVC_V4, SVC_V6},
    wait_until,
};
use serde_json::Value;

const SECOND: Duration = Duration::from_secs(1);

#[test]
fn packets_with_the_source_of_another_reach_no_service() {
    let scene = Scene::new("spoofed");
    let plane = &scene.control_plane;
    let (echo, echo_v6) = (scene.lab.svc.udp_echo(SVC_V4), scene.lab.svc.udp_echo(SVC_V6));
    let prefixes = ["10.9.0.2/32", "fd00:9::2/128"];
    let resource = plane.create_resource(&scene.site, "echo", &prefixes, &[]);
    let (ada, bob) = (plane.create_user("ada"), plane.create_user("bob"));
    plane.permit(&[&ada, &bob], &[&resource]);
    let client = scene.start_client(&scene.lab.laptop, &ada);
    let client_addresses = addresses_of(&scene, &ada);
    // Bob's device runs plain WireGuard.
    let _ = scene.start_wireguard(&scene.lab.laptop2, "wg-bob", &bob);
    let bob_addresses = addresses_of(&scene, &bob);
    let (laptop, bobs) = (&scene.lab.laptop, &scene.lab.laptop2);
    for host in [laptop, bobs] {
        wait_until("datagrams pass", 10 * SECOND, || {
            let pinged = host.udp_ping(echo.address, 1, Duration::from_millis(500));
            (pinged.received == 1).then_some(())
        });
    }
    let spoofed = r#"adit_connector_packets_dropped_total{stage="policy",reason="source-spoofed"}"#;
    assert_eq!(scene.connector.metric(spoofed), 0);
    let (honest, lying) = (scene.lab.watch_site("honest-1"), scene.lab.watch_site("lying-1"));

    let mut sent = 0;
    for (host, interface, own, others) in [
        (laptop, "adit0", &client_addresses, &bob_addresses),
        (bobs, "wg-bob", &bob_addresses, &client_addresses),
    ] {
        let foreign: [IpAddr; 4] = [
            "10.9.0.3".parse().expect("an address"),
            "203.0.113.9".parse().expect("an address"),
            "fd00:9::3".parse().expect("an address"),
            "2001:db8:1::99".parse().expect("an address"),
        ];
        for from in others.iter().chain(&foreign) {
            let to = if from.is_ipv4() { echo.address } else { echo_v6.address };
            host.send_spoofed(interface, SocketAddr::new(*from, 4000), to, "lying-1");
            sent += 1;
        }
        for from in own {
            let to = if from.is_ipv4() { echo.address } else { echo_v6.address };
            host.send_spoofed(interface, SocketAddr::new(*from, 4000), to, "honest-1");
        }
    }

    wait_until("every lie is counted", 10 * SECOND, || {
        (scene.connector.metric(spoofed) >= sent).then_some(())
    });
    wait_until("honest datagrams pass", 10 * SECOND, || {
        let text = |event: &Value| event["text"] == "honest-1";
        let seen =
            [&echo, &echo_v6].map(|echo| echo.process.events().iter().filter(|e| text(e)).count());
        (seen == [2, 2]).then_some(())
    });
    assert_eq!(scene.connector.metric(spoofed), sent);
    assert_eq!(lying.finish().matches, 0);
    assert!(honest.finish().matches >= 8, "four datagrams and their answers");
    for (user, own) in [(&ada, &client_addresses), (&bob, &bob_addresses)] {
        let path = format!("/v1/access-events?user_id={user}&verdict=deny");
        let denied =
            plane.wait_for_item(&path, 10 * SECOND, |event| event["reason"] == "source-spoofed");
        let source: IpAddr =
            denied["flow"]["source"].as_str().expect("text").parse().expect("an ip");
        assert!(!own.contains(&source), "{denied}");
    }
    assert_eq!(client.status()["state"], "connected");
}

#[test]
fn a_resource_of_everything_holds_no_reserved_address() {
    let scene = Scene::new("reserved");
    let plane = &scene.control_plane;
    let lab = &scene.lab;
    let everything = plane.create_resource(&scene.site, "all", &["0.0.0.0/0", "::/0"], &[]);
    let (ada, bob) = (plane.create_user("ada"), plane.create_user("bob"));
    plane.permit(&[&ada, &bob], &[&everything]);
    let bob_client = scene.start_client(&lab.laptop2, &bob);
    let client = scene.start_client(&lab.laptop, &ada);
    let (service, service_v6) = (lab.svc.tcp_echo(SVC_V4), lab.svc.tcp_echo(SVC_V6));
    client.wait_until_reached(service.address);
    client.wait_until_reached(service_v6.address);
    // Cloud machines have such a service beside them; this one is on the connector and behind it.
    lab.connector.sh("ip addr add 169.254.169.254/32 dev lo");
    lab.svc.sh("ip addr add 169.254.169.254/32 dev lo");
    let metadata =
        [&lab.connector, &lab.svc].map(|host| host.http_server("169.254.169.254", "keys"));
    let port = metadata[0].address.port();
    let own = addresses_of(&scene, &ada);
    let bobs = addresses_of(&scene, &bob);
    // Counts whatever the connector hands to its kernel beside what may pass.
    lab.connector
        .command("nft")
        .args(["-f", "-"])
        .stdin(
            r#"table inet spy {
                chain prerouting {
                    type filter hook prerouting priority raw
                    iifname "adit-conn0" ip daddr != 10.9.0.2 counter
                    iifname "adit-conn0" ip6 daddr != fd00:9::2 counter
                }
            }"#,
        )
        .check();
    let handed_on = || {
        let rules = lab.connector.check(["nft", "list", "table", "inet", "spy"]);
        rules.matches("counter packets").count() - rules.matches("counter packets 0 ").count()
    };

    let targets = [
        "127.0.0.1",
        "127.8.8.8",
        "169.254.169.254",
        "169.254.1.1",
        "0.0.0.0",
        "0.1.2.3",
        "224.0.0.1",
        "239.255.255.250",
        "255.255.255.255",
        "10.9.0.1",
        "198.18.10.2",
        "::1",
        "::",
        "fe80::1",
        "ff02::1",
        "ff0e::1",
        "fd00:9::1",
        "2001:db8:10::2",
        "::127.0.0.1",
        "::ffff:127.0.0.1",
        "::ffff:169.254.169.254",
        "::ffff:10.9.0.1",
        "::ffff:0:127.0.0.1",
        "::ffff:0:169.254.169.254",
        "64:ff9b::127.0.0.1",
        "64:ff9b::169.254.169.254",
        "64:ff9b::10.9.0.1",
        "64:ff9b:1::169.254.169.254",
        "2002:7f00:1::1",
        "2002:a9fe:a9fe::1",
        "2002:a09:1::1",
    ];
    let targets = targets.map(|target| target.parse::<IpAddr>().expect("an address"));
    let own_of = |target: &IpAddr| {
        let same_family = own.iter().find(|address| address.is_ipv4() == target.is_ipv4());
        *same_family.expect("a device has an address of each family")
    };
    for target in targets.iter().chain(&bobs) {
        let from = SocketAddr::new(own_of(target), 4000);
        lab.laptop.send_syn("adit0", from, SocketAddr::new(*target, port));
    }
    let mut denied = Vec::new();
    let reasons_for = |denied: &[Value], target: &IpAddr| -> Vec<String> {
        let to = |event: &Value| event["flow"]["destination"].as_str()?.parse::<IpAddr>().ok();
        let to_target = denied.iter().filter(|event| to(event) == Some(*target));
        to_target.filter_map(|event| event["reason"].as_str().map(str::to_owned)).collect()
    };
    wait_until("every attempt is in the log", 15 * SECOND, || {
        let path = format!("/v1/access-events?user_id={ada}&verdict=deny&limit=200");
        let events = plane.get(&path).ok();
        denied = events["items"].as_array().cloned().unwrap_or_default();
        let mut all = targets.iter().chain(&bobs);
        all.all(|target| !reasons_for(&denied, target).is_empty()).then_some(())
    });
    for target in targets.iter().chain(&bobs) {
        assert_eq!(reasons_for(&denied, target), ["address-reserved"], "{target}");
    }
    // Programs of the laptop fare no better, and learn it at once.
    for target in ["169.254.169.254", "10.9.0.1", "fd00:9::1"] {
        let target = SocketAddr::new(target.parse().expect("an address"), port);
        let refused = lab.laptop.tcp_ask(target, "GET /").expect_err("a reserved address");
        assert_eq!(refused.how, "refused", "{target} {refused:?}");
    }
    let explained = client.explain("169.254.169.254:80");
    assert_eq!(explained["reason"], "address-reserved", "{explained}");
    for address in &bobs {
        let ping = lab.laptop.run(["ping", "-c", "1", "-W", "1", &address.to_string()]);
        assert!(!ping.success(), "from device to device: {ping:#?}");
    }
    assert_eq!(handed_on(), 0);
    for server in &metadata {
        assert!(!server.process.output().contains("request"), "{}", server.process.output());
    }

    // Unless an administrator means this very address.
    lab.connector.sh(
        "ip addr del 169.254.169.254/32 dev lo && ip route add 169.254.169.254/32 via 10.9.0.2",
    );
    let named = plane.create_resource(&scene.site, "metadata", &["169.254.169.254/32"], &[]);
    plane.permit(&[&ada], &[&named]);
    let url = format!("http://{}/", metadata[1].address);
    wait_until("the named address is reached", 10 * SECOND, || {
        let page = lab.laptop.run(["curl", "--silent", "--max-time", "2", &url]);
        (page.stdout == "keys").then_some(())
    });
    assert_eq!(handed_on(), 1, "the counter counts");
    assert_eq!(bob_client.status()["state"], "connected");
}

#[test]
fn garbage_and_replayed_datagrams_do_not_disturb_a_session() {
    let scene = Scene::new("replayed");
    let plane = &scene.control_plane;
    let server = scene.lab.svc.transfer_server(SVC_V4);
    let user = plane.create_user("ada");
    let resource = plane.create_resource(&scene.site, "files", &["10.9.0.2/32"], &[]);
    plane.permit(&[&user], &[&resource]);
    let mut client = scene.start_client(&scene.lab.laptop, &user);
    // Each datagram is to be seen, and replayed, as a packet of its own.
    client.restart_with(&["--offloads", "tso,uso,gro"]);
    let listen: SocketAddr = scene.connector.listen().parse().expect("an address");
    let corpus = Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz/corpus/outer_datagram");
    let throw_garbage = || {
        let script = format!(
            "for file in {}/*; do cat \"$file\" > /dev/udp/{ip}/{port}; done
             for length in $(seq 1 40) 148 500 1400; do
               head -c $length /dev/urandom > /dev/udp/{ip}/{port}
               (printf '\\001\\000\\000\\000'; head -c $length /dev/urandom) > /dev/udp/{ip}/{port}
               (printf '\\004\\000\\000\\000'; head -c $length /dev/urandom) > /dev/udp/{ip}/{port}
             done",
            corpus.display(),
            ip = listen.ip(),
            port = listen.port(),
        );
        scene.lab.laptop2.check(["bash", "-ec", &script]);
    };
    let replays = scene
        .lab
        .inet
        .probe("replay")
        .args(["--interface", "connector", "--to-port", &listen.port().to_string()])
        .spawn();
    replays.wait_for_event("replaying", 5 * SECOND);

    // The handshake is replayed as well as the data behind it.
    let down = client.adit(&["down"]);
    assert!(down.success(), "{down:#?}");
    client.up();
    throw_garbage();
    let download = scene.lab.laptop.download(server.address, 20 << 20);
    throw_garbage();
    let upload = scene.lab.laptop.upload(server.address, 10 << 20);

    for transfer in [download, upload] {
        assert_eq!(transfer.sha256, transfer.expected, "{transfer:?}");
    }
    replays.signal(nix::sys::signal::Signal::SIGTERM);
    let replayed = replays.wait_for_event("replayed", 5 * SECOND);
    // By HTTP/2 only attempts of the other carriers are there to be replayed.
    let carrier = client.carrier();
    let expected = if carrier.as_deref() == Some("http2") { 100 } else { 5_000 };
    assert!(replayed["packets"].as_u64() > Some(expected), "{replayed}");
    let dropped = |reason: &str| {
        let name = "adit_connector_packets_dropped_total";
        scene.connector.metric(&format!("{name}{{stage=\"wireguard\",reason=\"{reason}\"}}"))
    };
    // QUIC drops what is replayed without counting it here.
    if carrier.as_deref() == Some("wireguard") {
        wait_until("the drops are counted", 5 * SECOND, || {
            (dropped("counter-replayed") > 1_000).then_some(())
        });
    }
    assert!(scene.connector.process().is_running());
    let status = client.status();
    assert_eq!(status["sessions"][0]["state"], "established", "{status:#}");
    // Nobody took the session over by replaying from elsewhere. It is counted once a second.
    wait_until("the device is counted", 5 * SECOND, || {
        (scene.connector.metric("adit_connector_peers") == 1).then_some(())
    });
}

#[test]
fn strangers_get_nothing_from_the_session_channel() {
    let scene = Scene::new("strangers");
    let plane = &scene.control_plane;
    let server = scene.lab.svc.tcp_echo(SVC_V4);
    let user = plane.create_user("ada");
    let resource = plane.create_resource(&scene.site, "web", &["10.9.0.2/32"], &[]);
    plane.permit(&[&user], &[&resource]);
    let client = scene.start_client(&scene.lab.laptop, &user);
    client.wait_until_reached(server.address);
    let since = client.status()["sessions"][0]["since"].clone();
    let stranger = &scene.lab.laptop2;
    let listen = scene.connector.listen();
    let url = format!("https://{listen}/v1/session");
    let curl = ["curl", "--silent", "--show-error", "--insecure", "--http2", "--max-time", "5"];
    let present = r#"{"type":"present","credential":"bm9uZQ.bm9uZQ.bm9uZQ"}"#;

    // Without a certificate.
    let anonymous = stranger.command("curl").args(&curl[1..]).args(["--data", present, &url]).run();
    assert!(!anonymous.success(), "{anonymous:#?}");
    assert_eq!(anonymous.stdout, "", "{anonymous:#?}");
    // With one, and a credential that nobody signed.
    stranger
        .sh("cd $HOME && openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes \
         -keyout key.pem -out cert.pem -days 1 -subj /CN=stranger 2>/dev/null");
    let with_key = |body: &str, path: &str| {
        let (cert, key) = (stranger.dir().join("cert.pem"), stranger.dir().join("key.pem"));
        let command = stranger.command("curl").args(&curl[1..]).arg("--cert").arg(cert);
        let command = command.arg("--key").arg(key).args(["--data-binary", "@-"]);
        command.stdin(body).arg(format!("https://{listen}{path}")).run()
    };
    let refused = with_key(&format!("{present}\n"), "/v1/session");
    assert!(refused.stdout.contains(r#""reason":"credential-invalid""#), "{refused:#?}");
    // And what is no message at all.
    for garbage in ["not json\n", "{\"type\":\"ping\",\"request_id\":1}\n", &"x".repeat(1 << 20)] {
        let output = with_key(garbage, "/v1/session");
        assert!(
            !output.stdout.contains("admitted") && !output.stdout.contains("pong"),
            "{output:#?}"
        );
    }
    let elsewhere = with_key("", "/v1/other");
    assert!(!elsewhere.stdout.contains("admitted"), "{elsewhere:#?}");
    // TLS 1.2 and no TLS at all.
    let old = format!("openssl s_client -connect {listen} -tls1_2 </dev/null 2>&1 || true");
    assert!(stranger.sh(&old).contains("Cipher is (NONE)"), "TLS 1.2 is refused");
    let listen_address: SocketAddr = listen.parse().expect("an address");
    let plain = format!(
        "for length in 1 5 500 70000; do \
           head -c $length /dev/urandom > /dev/tcp/{}/{} || true; done 2>/dev/null",
        listen_address.ip(),
        listen_address.port()
    );
    stranger.check(["bash", "-c", &plain]);

    assert!(client.host().tcp_ask(server.address, "hello").is_ok());
    assert_eq!(client.status()["sessions"][0]["since"], since);
    assert!(scene.connector.process().is_running());
    wait_until("one device is known", 5 * SECOND, || {
        (scene.connector.metric("adit_connector_peers") == 1).then_some(())
    });
}

#[test]
fn a_bundle_that_was_changed_on_disk_opens_nothing() {
    let mut scene = Scene::new("bundle");
    let server = scene.lab.svc.tcp_echo(SVC_V4);
    let user = scene.control_plane.create_user("ada");
    let resource = scene.control_plane.create_resource(&scene.site, "s", &["10.9.0.2/32"], &[]);
    scene.control_plane.permit(&[&user], &[&resource]);
    let client = scene.start_client(&scene.lab.laptop, &user);
    client.wait_until_reached(server.address);
    let file = scene.connector.state_dir().join("bundle.jws");
    let good = scene.lab.connector.read(&file);
    let parts: Vec<_> = good.trim().split('.').collect();
    let [header, payload, signature] = parts[..] else { panic!("no JWS: {good}") };
    let unsigned_header = "eyJhbGciOiJub25lIiwidHlwIjoiYWRpdC1idW5kbGUifQ";
    let flipped = if payload.ends_with('A') { "B" } else { "A" };
    let bad = [
        ("cut short", good[..good.len() / 2].to_owned()),
        ("unsigned", format!("{unsigned_header}.{payload}.")),
        ("changed", format!("{header}.{}{flipped}.{signature}", &payload[..payload.len() - 1])),
        ("empty", String::new()),
        ("garbage", "\u{0}\u{1}\u{2}".to_owned()),
    ];
    scene.control_plane.process().kill();

    for (name, text) in bad {
        scene.connector.process().kill();
        scene.lab.connector.write(&file, text);
        scene.connector.restart();

        let line = scene.connector.process().wait_for_line("Bundle on disk", 10 * SECOND);
        assert!(line.contains("WARN") && line.contains("waiting for the control plane"), "{line}");
        scene.connector.process().wait_for_line("Lost the control plane", 10 * SECOND);
        let url = scene.connector.health_url("readyz");
        let ready = scene.lab.connector.check(["curl", "--silent", &url]);
        assert!(ready.contains("no bundle yet"), "{name}: {ready}");
        assert!(client.host().tcp_try(server.address, "hello").is_err(), "{name}");
        assert!(scene.connector.process().is_running(), "{name}");
    }

    scene.control_plane.restart();
    client.wait_until_reached(server.address);
    assert_eq!(scene.lab.connector.read(&file).matches('.').count(), 2);
}

#[test]
fn a_bundle_older_than_the_newest_is_replaced_at_once() {
    let mut scene = Scene::new("older");
    let server = scene.lab.svc.tcp_echo(SVC_V4);
    let user = scene.control_plane.create_user("ada");
    let resource = scene.control_plane.create_resource(&scene.site, "s", &["10.9.0.2/32"], &[]);
    // Another port stays open, so that the way into the tunnel is there.
    let filters: [(&str, &[&str]); 1] = [("tcp", &["1"])];
    let door = scene.control_plane.create_resource(&scene.site, "door", &["10.9.0.2/32"], &filters);
    scene.control_plane.permit(&[&user], &[&door]);
    let policy = scene.control_plane.permit(&[&user], &[&resource]);
    let client = scene.start_client(&scene.lab.laptop, &user);
    client.wait_until_reached(server.address);
    let file = scene.connector.state_dir().join("bundle.jws");
    let permitting = scene.lab.connector.read(&file);
    let _ = scene.control_plane.delete(&format!("/v1/policies/{policy}")).ok();
    client.wait_until_refused(server.address);

    scene.connector.process().kill();
    scene.lab.connector.write(&file, permitting);
    scene.connector.restart();

    scene.connector.process().wait_for_line("Enforcing a bundle", 10 * SECOND);
    client.wait_until_refused(server.address);
}

fn addresses_of(scene: &Scene, user: &str) -> Vec<IpAddr> {
    let devices = scene.control_plane.get("/v1/devices").ok();
    let devices = devices["items"].as_array().cloned().unwrap_or_default();
    let device = devices.iter().find(|device| device["user_id"] == user).expect("a device");
    let addresses = device["addresses"].as_array().cloned().unwrap_or_default();
    addresses.iter().filter_map(|address| address.as_str()?.parse().ok()).collect()
}
