//! A way through every network: WireGuard, QUIC or HTTP/2, and from one to the other.

use std::{
    thread,
    time::{Duration, Instant},
};

use adit_tests::{
    Client, Process, Scene,
    lab::{READY_TIMEOUT, SVC_V4, SVC_V6},
    probe,
};

use crate::transfers::start_client_with_all_of_the_site;

const SECOND: Duration = Duration::from_secs(1);

/// A blackout when carriers change may last so long.
const BLACKOUT: Duration = Duration::from_secs(2);

/// A carrier that works again is found within its longest retry.
const MOVES_UP_WITHIN: Duration = Duration::from_secs(30);

#[test]
fn the_chosen_carrier_carries_and_no_other() {
    let scene = Scene::new("carriers");
    let lab = &scene.lab;
    let client = start_client_with_all_of_the_site(&scene);
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
    let client = start_client_with_all_of_the_site(&scene);
    client.set_carrier("auto");
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
    let client = start_client_with_all_of_the_site(&scene);
    client.set_carrier("auto");
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

/// Lets nothing of UDP through between client and connector.
fn block_udp(scene: &Scene) {
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
        transfers.map(|transfer| transfer.join().unwrap())
    });
    for transfer in transfers {
        assert_eq!(transfer.bytes, bytes, "{transfer:?}");
        assert_eq!(transfer.sha256, transfer.expected, "{transfer:?}");
    }
}

/// Waits until a download has gone on for a while.
#[track_caller]
fn go_on(download: &Process, client: &Client) {
    let so_far = download.events().iter().filter_map(|event| event["bytes"].as_u64()).max();
    probe::downloaded(download, so_far.unwrap_or_default() + (200 << 10), 20 * SECOND);
    assert!(download.is_running(), "{} {:#}", download.output(), client.status());
}

/// The longest time in which nothing came.
fn longest_gap(download: &Process) -> Duration {
    let times: Vec<u64> = download
        .events()
        .iter()
        .filter(|event| event["event"] == "progress")
        .filter_map(|event| event["t"].as_u64())
        .collect();
    let gaps = times.windows(2).map(|pair| pair[1] - pair[0]);
    Duration::from_nanos(gaps.max().unwrap_or_default())
}
