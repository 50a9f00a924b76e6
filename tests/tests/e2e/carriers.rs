//! A way through every network: WireGuard, QUIC or HTTP/2, and from one to the other.

use std::{
    thread,
    time::{Duration, Instant},
};

use adit_tests::{
    Client, Process, Scene,
    lab::{READY_TIMEOUT, SVC_V4, SVC_V6},
    monotonic_ns, probe,
};

use crate::transfers::permit_all_of_the_site;

const SECOND: Duration = Duration::from_secs(1);

/// A blackout when carriers change may last so long.
const BLACKOUT: Duration = Duration::from_secs(2);

/// After so many bytes a download has all that its service could not send meanwhile.
const CAUGHT_UP: u64 = 4 << 20;

/// A carrier that works again is found within its longest retry.
const MOVES_UP_WITHIN: Duration = Duration::from_secs(30);

#[test]
fn the_chosen_carrier_carries_and_no_other() {
    let scene = Scene::new("carriers");
    let lab = &scene.lab;
    let client = client_by(&scene, "auto");
    let (echo, server) = (lab.svc.tcp_echo(SVC_V4), lab.svc.transfer_server(SVC_V6));
    for carrier in ["quic", "http2", "wireguard", "http2", "quic"] {
        client.set_carrier(carrier);
        client.wait_for_carrier(carrier, READY_TIMEOUT);
        client.wait_until_reached(echo.address);

        check_transfers(&scene, server.address, 16 << 20);

        assert_eq!(client.carrier().as_deref(), Some(carrier));
    }
    // The choice outlives the daemon.
    let mut client = client;
    client.restart();
    client.wait_for_carrier("quic", READY_TIMEOUT);
}

#[test]
fn where_udp_is_blocked_everything_works_by_http2() {
    let scene = Scene::new("no-udp");
    let lab = &scene.lab;
    block_udp(&scene);
    let client = client_by(&scene, "auto");
    let (echo, udp) = (lab.svc.tcp_echo(SVC_V4), lab.svc.udp_echo(SVC_V6));
    let server = lab.svc.transfer_server(SVC_V4);
    let began = Instant::now();
    client.adit(&["down"]);
    client.up();
    client.wait_until_reached(echo.address);
    let took = began.elapsed();
    assert!(took < 3 * SECOND, "connected after {took:?}");
    assert_eq!(client.carrier().as_deref(), Some("http2"));

    let pinged = lab.laptop.udp_ping(udp.address, 20, Duration::from_millis(10));
    assert_eq!(pinged.received, 20, "{pinged:?}");
    lab.laptop.check(["ping", "-c", "2", "-W", "2", SVC_V4]);
    check_transfers(&scene, server.address, 100 << 20);
    assert_eq!(client.explain("192.0.2.1:80")["reason"], "resource-unknown");
}

#[test]
fn a_change_of_carrier_breaks_no_connection() {
    let scene = Scene::new("carrier-change");
    let lab = &scene.lab;
    let client = client_by(&scene, "auto");
    client.wait_for_carrier("wireguard", READY_TIMEOUT);
    let sender = lab.svc.tcp_pacer(SVC_V4);
    let download = lab.laptop.tcp_download(sender.address, Duration::from_millis(10));
    probe::downloaded(&download, 100 << 10, READY_TIMEOUT);

    block_udp(&scene);
    client.wait_for_carrier("http2", READY_TIMEOUT);
    go_on(&download, &client);
    let blackout = longest_gap(&download);
    assert!(blackout <= BLACKOUT, "nothing came for {blackout:?}");

    lab.inet.check(["nft", "delete", "table", "inet", "no_udp"]);
    client.wait_for_carrier("wireguard", MOVES_UP_WITHIN);
    go_on(&download, &client);
    let blackout = longest_gap(&download);
    assert!(blackout <= BLACKOUT, "nothing came for {blackout:?}");
}

/// S13: the laptop loses its network for three seconds and has another address afterwards.
#[test]
fn a_laptop_that_roams_keeps_its_connections() {
    let repetitions = if std::env::var_os("ADIT_NIGHTLY").is_some() { 200 } else { 3 };
    for carrier in ["wireguard", "quic"] {
        let scene = Scene::new(&format!("roam-{carrier}"));
        let lab = &scene.lab;
        let client = client_by(&scene, carrier);
        let sender = lab.svc.tcp_pacer(SVC_V4);
        let download = lab.laptop.tcp_download(sender.address, Duration::from_millis(10));
        probe::downloaded(&download, 100 << 10, READY_TIMEOUT);
        let mut blackouts = Vec::new();
        for repetition in 0..repetitions {
            let (old, new) = (2 + repetition % 2, 3 - repetition % 2);
            lab.laptop_link.down();
            lab.laptop_link.a().remove_address(&format!("198.18.1.{old}/24"));
            // The scenario itself: nothing happens for so long.
            thread::sleep(3 * SECOND);
            lab.laptop_link.a().add_addresses(&format!("198.18.1.{new}/24"));
            let up_at = monotonic_ns();
            lab.laptop_link.up();
            lab.laptop.default_route("198.18.1.1");
            // No less: a service by BBR whose repetitions are cut off once more takes the path for
            // one of 10 kbit/s, whatever carries it, and needs half a minute to learn better.
            go_on_for(&download, &client, CAUGHT_UP);
            let after = download.events().into_iter().filter_map(|event| event["t"].as_u64());
            let times = [up_at].into_iter().chain(after.filter(|at| *at > up_at));
            blackouts.push(longest_between(times));
        }
        blackouts.sort_unstable();
        let p99 = blackouts[(blackouts.len() * 99).div_ceil(100) - 1];
        let p50 = blackouts[blackouts.len() / 2];
        println!(
            "{}",
            serde_json::json!({
                "id": "S13", "carrier": carrier, "count": blackouts.len(),
                "p50_ms": p50.as_millis(), "p99_ms": p99.as_millis(),
            })
        );
        assert!(p99 <= SECOND, "{carrier}: {blackouts:?}");
        // Of a few on a busy machine the median is no better known than the worst.
        assert!(repetitions == 3 || p50 <= SECOND * 3 / 20, "{carrier}: {blackouts:?}");
    }
}

/// Starts a client that may use the whole site, by carriers of this choice.
fn client_by(scene: &Scene, carrier: &str) -> Client {
    let user = permit_all_of_the_site(scene);
    let client = Client::start(&scene.lab.laptop);
    client.set_carrier(carrier);
    client.enroll(&scene.control_plane.create_enrollment_key(&user));
    client.up();
    client
}

/// Lets nothing of UDP through between client and connector.
pub(crate) fn block_udp(scene: &Scene) {
    scene.lab.inet.sh("nft 'add table inet no_udp
         add chain inet no_udp forward { type filter hook forward priority 0; }
         add rule inet no_udp forward meta l4proto udp drop'");
}

fn check_transfers(scene: &Scene, server: std::net::SocketAddr, bytes: u64) {
    let laptop = &scene.lab.laptop;
    let transfers = thread::scope(|scope| {
        let transfers = [
            scope.spawn(|| laptop.download(server, bytes)),
            scope.spawn(|| laptop.upload(server, bytes)),
        ];
        transfers.map(|transfer| transfer.join().expect("a transfer does not panic"))
    });
    for transfer in transfers {
        assert_eq!(transfer.bytes, bytes, "{transfer:?}");
        assert_eq!(transfer.sha256, transfer.expected, "{transfer:?}");
    }
}

/// Waits until a download has gone on for a while.
#[track_caller]
fn go_on(download: &Process, client: &Client) {
    go_on_for(download, client, 200 << 10);
}

#[track_caller]
fn go_on_for(download: &Process, client: &Client, bytes: u64) {
    let so_far = download.events().iter().filter_map(|event| event["bytes"].as_u64()).max();
    probe::downloaded(download, so_far.unwrap_or_default() + bytes, 20 * SECOND);
    assert!(download.is_running(), "{} {:#}", download.output(), client.status());
}

/// The longest time in which nothing came.
fn longest_gap(download: &Process) -> Duration {
    let events = download.events();
    let progress = events.iter().filter(|event| event["event"] == "progress");
    longest_between(progress.filter_map(|event| event["t"].as_u64()))
}

/// The longest time between two of these, in nanoseconds.
fn longest_between(times: impl Iterator<Item = u64>) -> Duration {
    let times: Vec<u64> = times.collect();
    let gaps = times.windows(2).map(|pair| pair[1] - pair[0]);
    Duration::from_nanos(gaps.max().unwrap_or_default())
}
