//! Much data, and none of it in plain text on the way.

use std::{thread, time::Duration};

use adit_tests::{
    Client, Host, Lab, Scene,
    lab::{READY_TIMEOUT, SVC_V4, SVC_V6},
};

#[test]
fn a_gigabyte_arrives_whole_both_ways() {
    const GIBIBYTE: u64 = 1 << 30;
    let scene = Scene::new("gigabyte");
    let (server, echo) = (scene.lab.svc.transfer_server(SVC_V4), scene.lab.svc.tcp_echo(SVC_V4));
    let client = start_client_with_all_of_the_site(&scene);
    client.wait_until_reached(echo.address);

    for (name, transfer) in [
        ("down", scene.lab.laptop.download(server.address, GIBIBYTE)),
        ("up", scene.lab.laptop.upload(server.address, GIBIBYTE)),
    ] {
        assert_eq!(transfer.bytes, GIBIBYTE, "{name} {transfer:?}");
        assert_eq!(transfer.sha256, transfer.expected, "{name} {transfer:?}");
        assert_eq!(transfer.sha256.len(), 64, "{name} {transfer:?}");
        println!("{name}: {:.2} Gbit/s", 8.0 * 1.073_741_824 / transfer.seconds);
    }
}

#[test]
fn the_underlay_sees_no_plain_text_of_the_tunnel() {
    let scene = Scene::new("secrecy");
    let lab = &scene.lab;
    let marker = "open-secret-0815";
    // What these watchers would see without a tunnel.
    let plain = lab.connector.http_server("198.18.10.2", marker);
    let underlay = lab.watch_underlay(marker);
    let url = format!("http://{}/", plain.address);
    assert_eq!(lab.laptop.check(["curl", "--silent", &url]), marker);
    assert_eq!(underlay.finish().matches, 2, "once on either link");

    let client = start_client_with_all_of_the_site(&scene);
    assert_secrecy(&scene, &client);
}

/// Sends a marker through the tunnel in every way, and looks for it outside.
#[track_caller]
pub(crate) fn assert_secrecy(scene: &Scene, client: &Client) {
    let (lab, marker) = (&scene.lab, "open-secret-0816");
    let servers =
        [SVC_V4, SVC_V6].map(|ip| (lab.svc.http_server(ip, marker), lab.svc.udp_echo(ip)));
    let reached = lab.svc.tcp_echo(SVC_V4);
    client.wait_until_reached(reached.address);
    let (underlay, site) = (lab.watch_underlay(marker), lab.watch_site(marker));
    for (http, udp) in &servers {
        let url = format!("http://{}/{marker}", http.address);
        let page = lab.laptop.check(["curl", "--silent", "--globoff", "--max-time", "5", &url]);
        assert_eq!(page, marker);
        let pinged = lab
            .laptop
            .probe("udp-ping")
            .arg(udp.address.to_string())
            .args(["--text", marker, "--count", "5"])
            .check();
        assert!(pinged.contains("\"received\":5"), "{pinged}");
    }
    let pattern: String = marker.bytes().map(|byte| format!("{byte:02x}")).collect();
    lab.laptop.check(["ping", "-c", "2", "-i", "0.2", "-p", &pattern, SVC_V4]);

    let (underlay, site) = (underlay.finish(), site.finish());
    assert_eq!(underlay.matches, 0, "{underlay:?}");
    assert_eq!((underlay.dropped, site.dropped), (0, 0));
    assert!(underlay.packets > 40, "{underlay:?}");
    // For each family a request, a page and five datagrams with their answers; and two pings.
    assert_eq!(site.matches, 2 * (2 + 10) + 4, "{site:?}");
}

#[test]
fn congestion_on_the_way_is_told_to_the_sender_without_a_loss() {
    const BYTES: u64 = 16 << 20;
    let scene = Scene::new("congestion");
    let lab = &scene.lab;
    for host in [&lab.laptop, &lab.svc] {
        host.sysctl("net.ipv4.tcp_ecn", "1");
    }
    // A router that marks instead of dropping (RFC 3168 §5).
    lab.inet.sh("nft 'add table ip congestion
         add chain ip congestion forward { type filter hook forward priority 0; }
         add rule ip congestion forward udp length > 200 ip ecn != not-ect ip ecn set ce'");
    let client = start_client_with_all_of_the_site(&scene);
    // QUIC keeps marks to itself, since it has a control of congestion of its own (RFC 9484 §9.2).
    client.set_carrier("wireguard");
    client.wait_for_carrier("wireguard", READY_TIMEOUT);
    let server = lab.svc.transfer_server(SVC_V4);
    client.wait_until_reached(lab.svc.tcp_echo(SVC_V4).address);
    // What the sender of TCP has heard of, on either side.
    let marked = |host: &Host| -> u64 {
        let counted = host.sh("nstat -asz TcpExtTCPDeliveredCE | tail -n 1");
        counted.split_whitespace().nth(1).and_then(|count| count.parse().ok()).unwrap_or_default()
    };
    assert_eq!([marked(&lab.laptop), marked(&lab.svc)], [0, 0]);

    let transfer = lab.laptop.upload(server.address, BYTES);
    assert_eq!(transfer.sha256, transfer.expected, "{transfer:?}");
    assert!(marked(&lab.laptop) > 0, "the upload heard of no congestion");
    let transfer = lab.laptop.download(server.address, BYTES);
    assert_eq!(transfer.sha256, transfer.expected, "{transfer:?}");
    assert!(marked(&lab.svc) > 0, "the download heard of no congestion");
}

#[test]
fn fifty_mixed_flows_pass_side_by_side() {
    let scene = Scene::new("mixed");
    let lab = &scene.lab;
    let transfers = [SVC_V4, SVC_V6].map(|ip| lab.svc.transfer_server(ip));
    let datagrams = [SVC_V4, SVC_V6].map(|ip| lab.svc.udp_echo(ip));
    let echo = lab.svc.tcp_echo(SVC_V4);
    let client = start_client_with_all_of_the_site(&scene);
    client.wait_until_reached(echo.address);
    let laptop = &lab.laptop;

    thread::scope(|scope| {
        for number in 0..50 {
            let (transfer, datagram) = (&transfers[number % 2], &datagrams[number % 2]);
            let ip = [SVC_V4, SVC_V6][number % 2];
            scope.spawn(move || match number % 5 {
                0 | 1 => {
                    let bytes = 1_000_000 + number as u64;
                    let transfer = match number % 2 {
                        0 => laptop.download(transfer.address, bytes),
                        _ => laptop.upload(transfer.address, bytes),
                    };
                    assert_eq!(transfer.bytes, bytes, "{number} {transfer:?}");
                    assert_eq!(transfer.sha256, transfer.expected, "{number} {transfer:?}");
                }
                2 | 3 => {
                    let pinged = laptop.udp_ping(datagram.address, 50, Duration::from_millis(10));
                    assert_eq!(pinged.sent, 50, "{number} {pinged:?}");
                    // UDP may lose what a full queue does not take.
                    let is_whole = pinged.received >= 48;
                    assert!(is_whole, "{number} {pinged:?} {}", queue_losses(lab));
                    assert!(pinged.errors.is_empty(), "{number} {pinged:?}");
                }
                _ => {
                    let ping = laptop.run(["ping", "-c", "5", "-i", "0.2", "-W", "5", ip]);
                    assert!(ping.success(), "{number} {ping:#?}");
                }
            });
        }
    });

    assert_eq!(client.status()["recent_denials"].as_array().map(Vec::len), Some(0));
}

/// How many packets found the queues of the TUN devices full.
fn queue_losses(lab: &Lab) -> String {
    let read =
        "grep . /sys/class/net/adit*/statistics/tx_dropped /sys/class/net/adit*/tx_queue_len";
    [&lab.laptop, &lab.connector].map(|host| host.sh(read)).concat()
}

pub(crate) fn start_client_with_all_of_the_site(scene: &Scene) -> Client {
    let user = permit_all_of_the_site(scene);

    scene.start_client(&scene.lab.laptop, &user)
}

/// Creates a user who may use the whole site.
pub(crate) fn permit_all_of_the_site(scene: &Scene) -> String {
    let plane = &scene.control_plane;
    let user = plane.create_user("ada");
    let prefixes = ["10.9.0.0/24", "fd00:9::/64"];
    let resource = plane.create_resource(&scene.site, "all of the site", &prefixes, &[]);
    plane.permit(&[&user], &[&resource]);

    user
}
