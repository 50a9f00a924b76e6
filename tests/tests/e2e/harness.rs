//! The harness itself: tests that rely on it are worth no more than it.

use std::{
    fs,
    io::{BufRead as _, BufReader},
    path::Path,
    process::{Command, Stdio},
    time::Duration,
};

use adit_tests::{Impairment, Lab, Share, World, binary, lab::SVC_V4, probe, wait_until};

const SECOND: Duration = Duration::from_secs(1);

#[test]
fn a_sniffer_sees_plain_text_that_crosses_its_link() {
    let lab = Lab::new("leak");
    let marker = "open-secret-4711";
    for ip in ["198.18.1.2", "2001:db8:1::2"] {
        let server = lab.laptop.http_server(ip, marker);
        let underlay = lab.watch_underlay(marker);

        let url = format!("http://{}/", server.address);
        assert_eq!(lab.cp.check(["curl", "--silent", "--globoff", &url]), marker);

        let capture = underlay.finish();
        // Seen once on the laptop's link and once on the control plane's.
        assert_eq!(capture.matches, 2, "{capture:?}");
        assert_eq!(capture.dropped, 0, "{capture:?}");
    }
}

#[test]
fn a_sniffer_does_not_see_what_takes_another_link() {
    let lab = Lab::new("no-leak");
    let marker = "open-secret-4711";
    let server = lab.svc.http_server(SVC_V4, marker);
    let (underlay, site) = (lab.watch_underlay(marker), lab.watch_site(marker));

    let url = format!("http://{}/", server.address);
    assert_eq!(lab.connector.check(["curl", "--silent", &url]), marker);

    assert_eq!(underlay.finish().matches, 0);
    assert_eq!(site.finish().matches, 1);
}

#[test]
fn a_sniffer_does_not_see_what_a_tunnel_carries() {
    let world = World::new("wireguard");
    let (a, b) = (world.host("a"), world.host("b"));
    let link = world.link((&a, "198.18.0.1/24"), (&b, "198.18.0.2/24"));
    let keys = [&a, &b].map(|host| {
        let private = host.check(["wg", "genkey"]);
        let public = host.command("wg").arg("pubkey").stdin(private.clone()).check();
        (private.trim().to_owned(), public.trim().to_owned())
    });
    for (host, own, peer, net, peer_net, endpoint) in [
        (&a, &keys[0].0, &keys[1].1, "10.7.0.1", "10.7.0.2", "Endpoint = 198.18.0.2:51820"),
        (&b, &keys[1].0, &keys[0].1, "10.7.0.2", "10.7.0.1", ""),
    ] {
        let config = format!(
            "[Interface]\nPrivateKey = {own}\nAddress = {net}/32\nListenPort = 51820\n\n\
             [Peer]\nPublicKey = {peer}\nAllowedIPs = {peer_net}/32\n{endpoint}\n"
        );
        host.wg_quick(&format!("wg-{host}"), &config);
    }
    let marker = "open-secret-4711";
    let server = b.http_server("10.7.0.2", marker);
    let sniffer = link.sniff(marker);

    let url = format!("http://{}/", server.address);
    assert_eq!(a.check(["curl", "--silent", "--max-time", "10", &url]), marker);

    let capture = sniffer.finish();
    assert_eq!(capture.matches, 0, "{capture:?}");
    assert!(capture.packets >= 4, "{capture:?}");
}

#[test]
fn private_services_are_out_of_reach_without_a_tunnel() {
    let lab = Lab::new("unreachable");
    let server = lab.svc.tcp_echo(SVC_V4);

    let denied = lab.laptop.tcp_ask(server.address, "hello").expect_err("there is no route");
    let allowed = lab.connector.tcp_ask(server.address, "hello");

    assert_eq!(denied.how, "unreachable");
    assert_eq!(allowed.expect("they share a link"), "hello");
}

#[test]
fn a_nat_hides_the_source_and_lets_nothing_in_unasked() {
    let world = World::new("nat");
    let (home, nat, outside) = (world.host("home"), world.router("nat"), world.host("outside"));
    let _inner = world.link((&home, "10.1.0.2/24 fd01::2/64"), (&nat, "10.1.0.1/24 fd01::1/64"));
    let outer = world
        .link((&nat, "198.18.0.1/24 2001:db8::1/64"), (&outside, "198.18.0.2/24 2001:db8::2/64"));
    home.default_route("10.1.0.1");
    home.default_route("fd01::1");
    outside.default_route("198.18.0.1");
    outside.default_route("2001:db8::1");
    nat.nat(outer.a());

    for (ip, seen, home_ip) in
        [("198.18.0.2", "198.18.0.1", "10.1.0.2"), ("2001:db8::2", "[2001:db8::1]", "fd01::2")]
    {
        let echo = outside.udp_echo(ip);
        let pinged = home.udp_ping(echo.address, 3, Duration::from_millis(5));
        assert_eq!((pinged.sent, pinged.received), (3, 3), "{pinged:?}");
        let datagram = echo.process.wait_for_event("datagram", SECOND);
        let from = datagram["from"].as_str().expect("a source");
        assert!(from.starts_with(&format!("{seen}:")), "{from}");

        let inside = home.udp_echo(home_ip);
        let pinged = outside.udp_ping(inside.address, 2, Duration::from_millis(5));
        assert_eq!(pinged.received, 0, "{pinged:?}");
    }
}

#[test]
fn a_lossy_link_loses_about_what_it_should() {
    let world = World::new("loss");
    let (a, b) = (world.host("a"), world.host("b"));
    let link = world.link((&a, "10.0.0.1/24"), (&b, "10.0.0.2/24"));
    let echo = b.udp_echo("10.0.0.2");
    b.lose(link.b(), 300);

    let pinged = a.udp_ping(echo.address, 200, Duration::ZERO);

    // Six standard deviations of a fair draw around 140.
    assert!((101..=179).contains(&pinged.received), "{pinged:?}");
}

#[test]
fn a_bad_path_is_as_bad_as_it_was_told() {
    let world = World::new("bad-path");
    let (a, b) = (world.host("a"), world.host("b"));
    let link = world.link((&a, "10.0.0.1/24 fd00::1/64"), (&b, "10.0.0.2/24 fd00::2/64"));
    let delay = Duration::from_millis(20);
    let path = world.impair(&link, &Impairment::default().delay(delay));

    let ping = a.check(["ping", "-q", "-c", "20", "-i", "0.05", "fd00::2"]);
    let times = ping.lines().find_map(|line| line.strip_prefix("rtt min/avg/max/mdev = "));
    let shortest = times.and_then(|times| times.split('/').next()?.parse().ok());
    let shortest: f64 = shortest.unwrap_or_else(|| panic!("no times: {ping}"));
    assert!((40.0..41.0).contains(&shortest), "{ping}");
    assert_eq!(path.finish().lost, 0);
}

#[test]
fn a_bad_path_loses_reorders_and_damages_and_tcp_gets_through() {
    const BYTES: u64 = 8 << 20;
    let world = World::new("bad-path-tcp");
    let (a, b) = (world.host("a"), world.host("b"));
    let link = world.link((&a, "10.0.0.1/24"), (&b, "10.0.0.2/24"));
    let impairment = Impairment {
        duplicate: Share::percent(1.0),
        corrupt: Share::percent(0.5),
        ..Impairment::default().lose(1.0).reorder(5.0, Duration::from_millis(2))
    };
    let path = world.impair(&link, &impairment);
    let server = b.transfer_server("10.0.0.2");

    let transfers = [a.download(server.address, BYTES), a.upload(server.address, BYTES)];

    let impaired = path.finish();
    for transfer in transfers {
        assert_eq!(transfer.sha256, transfer.expected, "{transfer:?}");
    }
    let share = |count: u64| count as f64 / impaired.came as f64 * 100.0;
    assert!((0.5..1.5).contains(&share(impaired.lost)), "{impaired:?}");
    assert!((4.0..6.0).contains(&share(impaired.overtaken)), "{impaired:?}");
    assert!((0.5..1.5).contains(&share(impaired.duplicated)), "{impaired:?}");
    assert!((0.1..1.0).contains(&share(impaired.corrupted)), "{impaired:?}");
}

#[test]
fn a_download_reports_when_and_how_it_ended() {
    let world = World::new("download");
    let (a, b) = (world.host("a"), world.host("b"));
    let _link = world.link((&a, "10.0.0.1/24"), (&b, "10.0.0.2/24"));
    let server = b.tcp_sender("10.0.0.2", None);
    let download = a.tcp_download(server.address, Duration::from_millis(5));
    probe::downloaded(&download, 1_000_000, 10 * SECOND);

    let cut_at = adit_tests::monotonic_ns();
    server.process.kill();

    let end = probe::ended(&download, 10 * SECOND);
    assert!(["eof", "reset"].contains(&end.how.as_str()), "{end:?}");
    let last_byte = end.last_byte_t.expect("bytes came");
    assert!(end.bytes >= 1_000_000 && end.started_t < cut_at && last_byte <= end.t, "{end:?}");
}

#[test]
fn checked_transfers_compare_both_ways() {
    let world = World::new("transfer");
    let (a, b) = (world.host("a"), world.host("b"));
    let _link = world.link((&a, "fd01::1/64"), (&b, "fd01::2/64"));
    let server = b.transfer_server("fd01::2");

    let (down, up) = (a.download(server.address, 5_000_001), a.upload(server.address, 5_000_001));

    for transfer in [down, up] {
        assert_eq!(transfer.bytes, 5_000_001);
        assert_eq!(transfer.sha256, transfer.expected);
        assert_eq!(transfer.sha256.len(), 64);
    }
}

#[test]
fn a_spoofed_packet_arrives_with_its_false_source() {
    let world = World::new("spoof");
    let host = world.host("a");
    host.sysctl("net.ipv4.conf.all.rp_filter", "0");
    host.sysctl("net.ipv4.conf.lo.rp_filter", "0");
    host.sh("ip addr add 10.2.0.2/32 dev lo && ip addr add fd02::2/128 dev lo nodad");
    let sources = [("10.2.0.2", "192.0.2.99:1234"), ("fd02::2", "[2001:db8::99]:1234")];

    for (ip, from) in sources {
        let server = host.udp_echo(ip);
        host.send_spoofed("lo", from.parse().expect("an address"), server.address, "who am I");

        let datagram = server.process.wait_for_event("datagram", 5 * SECOND);
        assert_eq!(datagram["from"], from);
        assert_eq!(datagram["text"], "who am I");
    }
}

#[test]
fn hosts_have_their_own_resolver_configuration() {
    let world = World::new("resolv");
    let (a, b) = (world.host("a"), world.host("b"));
    a.set_resolv_conf("nameserver 192.0.2.1\n");
    b.set_resolv_conf("nameserver 192.0.2.2\n");

    assert_eq!(a.check(["cat", "/etc/resolv.conf"]), "nameserver 192.0.2.1\n");
    assert_eq!(b.check(["cat", "/etc/resolv.conf"]), "nameserver 192.0.2.2\n");
}

#[test]
#[should_panic(expected = "not ended within")]
fn a_command_that_hangs_fails_the_test() {
    let world = World::new("hang");
    let host = world.host("a");

    host.command("sleep").arg("infinity").timeout(Duration::from_millis(200)).run();
}

#[test]
fn a_dropped_process_is_gone() {
    let world = World::new("drop");
    let host = world.host("a");
    let sleeper = host.spawn(["sleep", "4711"]);
    wait_until("it runs", 5 * SECOND, || {
        host.run(["pgrep", "-f", "^sleep 4711"]).success().then_some(())
    });

    drop(sleeper);

    wait_until("it is gone", 5 * SECOND, || {
        (!host.run(["pgrep", "-f", "^sleep 4711"]).success()).then_some(())
    });
}

#[test]
fn a_world_whose_maker_was_killed_leaves_nothing_behind() {
    let mut maker = Command::new(binary("adit-probe"))
        .arg("hold-world")
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .spawn()
        .expect("the probe starts");
    let mut line = String::new();
    BufReader::new(maker.stdout.take().expect("a pipe")).read_line(&mut line).expect("a line");
    let held: serde_json::Value = serde_json::from_str(&line).expect("an event");
    let init = held["init"].as_u64().expect("a process id");
    let namespace = held["namespace"].as_str().expect("a namespace");
    let pid_namespace = fs::read_link(format!("/proc/{init}/ns/pid")).expect("it runs");
    assert!(processes_in("pid", &pid_namespace).len() >= 2, "the first process and a sleeper");

    // SIGKILL: nothing of the maker runs after this.
    maker.kill().expect("it runs");
    maker.wait().expect("it ended");

    wait_until("every process of the world is gone", 5 * SECOND, || {
        processes_in("pid", &pid_namespace).is_empty().then_some(())
    });
    assert!(processes_in("net", Path::new(namespace)).is_empty());
    assert_eq!(mounts_of_worlds(), Vec::<String>::new());
}

/// Processes of this machine in a namespace.
fn processes_in(kind: &str, namespace: &Path) -> Vec<String> {
    fs::read_dir("/proc")
        .expect("there is /proc")
        .filter_map(Result::ok)
        .filter(|entry| {
            let link = fs::read_link(entry.path().join("ns").join(kind));
            link.is_ok_and(|link| link == namespace)
        })
        .map(|entry| entry.file_name().to_string_lossy().into_owned())
        .collect()
}

/// Mounts of worlds that this machine sees outside of them; their source is named `world`.
fn mounts_of_worlds() -> Vec<String> {
    let mounts = fs::read_to_string("/proc/self/mountinfo").expect("there is /proc");
    mounts.lines().filter(|line| line.contains(" tmpfs world ")).map(str::to_owned).collect()
}
