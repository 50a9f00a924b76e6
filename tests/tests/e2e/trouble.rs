//! Bad networks: NATs that forget, packets that get lost and overtake each other, no IPv4. By each
//! carrier the client connects at once, and what arrives is what was sent.

use std::{
    env,
    net::SocketAddr,
    thread,
    time::{Duration, Instant},
};

use adit_tests::{
    Client, Host, Impairment, Scene,
    lab::{READY_TIMEOUT, SVC_V4, SVC_V6},
    report,
};
use serde_json::{Value, json};

use crate::transfers::permit_all_of_the_site;

const SECOND: Duration = Duration::from_secs(1);

/// Within which a client has to be connected, and a service to be reached.
const CONNECTED_WITHIN: Duration = Duration::from_secs(3);

const CARRIERS: [&str; 3] = ["wireguard", "quic", "http2"];

/// What arrives whole.
const BYTES: u64 = 100 << 20;

#[test]
fn two_nats_that_forget_within_two_seconds_are_no_obstacle() {
    const FORGETS_AFTER: u32 = 2;
    let scene = Scene::new("double-nat");
    let pc = behind_two_nats(&scene, FORGETS_AFTER);
    let lab = &scene.lab;
    let client = enrolled(&scene, &pc);
    let (echo, datagrams) = (lab.svc.tcp_echo(SVC_V4), lab.svc.udp_echo(SVC_V6));
    let server = lab.svc.transfer_server(SVC_V4);

    for name in CARRIERS {
        let connected = connect(&client, name, echo.address);
        let [down, up] = check_transfers(&pc, server.address, BYTES);
        println!("{name}: connected after {connected:?}, {down:.0} and {up:.0} Mbit/s");

        // The second one is sent when both have forgotten the first.
        let silence = SECOND * (FORGETS_AFTER + 2);
        let pinged = pc.udp_ping(datagrams.address, 2, silence);
        assert_eq!(pinged.received, 2, "{name} {pinged:?}");
        // The scenario itself: nothing happens for so long.
        thread::sleep(silence);
        let began = Instant::now();
        client.wait_until_reached_within(echo.address, SECOND);
        println!("{name}: reached {:?} after a silence of {silence:?}", began.elapsed());
        assert_eq!(client.carrier().as_deref(), Some(name));
    }
}

/// S19: where both have forgotten a client, nothing reaches it before it speaks again, which it is
/// asked to do by the session channel: by TCP, as another by UDP would be forgotten with the packets.
#[test]
fn what_a_service_sends_to_a_forgotten_client_arrives_at_once() {
    const PAUSE: Duration = Duration::from_secs(6);
    let scene = Scene::new("forgotten");
    let pc = behind_two_nats(&scene, 2);
    let client = enrolled(&scene, &pc);
    let svc = &scene.lab.svc;
    let echo = svc.tcp_echo(SVC_V4);
    // The session goes by TCP, and stays when another carrier is chosen.
    connect(&client, "wireguard", echo.address);
    for name in CARRIERS {
        client.set_carrier(name);
        client.wait_for_carrier(name, READY_TIMEOUT);
        client.wait_until_reached(echo.address);
        let late = svc.udp_late_echo(SVC_V4, PAUSE);
        let patience = (PAUSE + 5 * SECOND).as_millis().to_string();
        let ping = pc.probe("udp-ping").arg(late.address.to_string());
        let ping = ping.args(["--count", "1", "--timeout-ms", &patience]).spawn();
        let asked = late.process.wait_for_event("datagram", SECOND);
        let pinged = ping.wait_for_event("pinged", PAUSE + 10 * SECOND);
        assert_eq!(pinged["received"], 1, "{name}: {pinged}");
        let answered = pinged["last_answer_t"].as_u64().expect("an answer has a time");
        let by_udp = Duration::from_nanos(answered - time_of(&asked)).saturating_sub(PAUSE);

        let server = svc.tcp_pulse(SVC_V4, PAUSE);
        let download = pc.tcp_download(server.address, Duration::ZERO);
        let arrived = download.wait_for_event("progress", PAUSE + 60 * SECOND);
        let pulse = server.process.wait_for_event("pulse", SECOND);
        let by_tcp = Duration::from_nanos(time_of(&arrived) - time_of(&pulse));
        report(&json!({
            "id": "S19", "carrier": name,
            "udp_ms": by_udp.as_secs_f64() * 1e3, "tcp_ms": by_tcp.as_secs_f64() * 1e3,
        }));
        assert!(by_udp < SECOND && by_tcp < SECOND, "{name}: {by_udp:?}, {by_tcp:?}");
        assert_eq!(client.carrier().as_deref(), Some(name));
    }
}

fn time_of(event: &Value) -> u64 {
    event["t"].as_u64().expect("every event has a time")
}

#[test]
fn what_is_lost_and_overtaken_both_ways_arrives_whole() {
    let scene = Scene::new("lossy");
    let lab = &scene.lab;
    let bytes = if env::var_os("ADIT_NIGHTLY").is_some() { BYTES } else { 16 << 20 };
    let impairment = Impairment::default()
        .delay(Duration::from_millis(5))
        .lose(5.0)
        .reorder(20.0, Duration::from_millis(3));
    let client = enrolled(&scene, &lab.laptop);
    let path = lab.world.impair(&lab.laptop_link, &impairment);
    let echo = lab.svc.tcp_echo(SVC_V4);
    let server = lab.svc.transfer_server(SVC_V4);

    for name in CARRIERS {
        let connected = connect(&client, name, echo.address);
        let [down, up] = check_transfers(&lab.laptop, server.address, bytes);
        println!("{name}: connected after {connected:?}, {down:.1} and {up:.1} Mbit/s");
        assert_eq!(client.carrier().as_deref(), Some(name));
    }

    let impaired = path.finish();
    let share = impaired.lost as f64 / impaired.came as f64;
    assert!((0.04..0.06).contains(&share), "{impaired:?}");
}

#[test]
fn without_ipv4_everything_goes_by_ipv6() {
    let scene = Scene::over_ipv6("ipv6-only");
    let lab = &scene.lab;
    let client = enrolled(&scene, &lab.laptop);
    let echo = lab.svc.tcp_echo(SVC_V4);
    let servers = [SVC_V4, SVC_V6].map(|ip| lab.svc.transfer_server(ip));

    for name in CARRIERS {
        connect(&client, name, echo.address);
        for server in &servers {
            check_transfers(&lab.laptop, server.address, BYTES);
        }
        assert_eq!(client.carrier().as_deref(), Some(name));
    }
}

/// Adds a machine behind two routers that give each flow a port of its own, and forget it after a
/// silence of so many seconds.
#[track_caller]
fn behind_two_nats(scene: &Scene, seconds: u32) -> Host {
    let lab = &scene.lab;
    let (pc, home, carrier) =
        (lab.world.host("pc"), lab.world.router("home"), lab.world.router("cgnat"));
    lab.world.link((&pc, "192.168.1.2/24"), (&home, "192.168.1.1/24"));
    let home_link = lab.world.link((&home, "100.64.0.2/24"), (&carrier, "100.64.0.1/24"));
    let carrier_link = lab.world.link((&carrier, "198.18.3.2/24"), (&lab.inet, "198.18.3.1/24"));
    pc.default_route("192.168.1.1");
    home.default_route("100.64.0.1");
    carrier.default_route("198.18.3.1");
    home.forgetful_nat(home_link.a(), seconds);
    carrier.forgetful_nat(carrier_link.a(), seconds);

    pc
}

/// Starts a client that may use the whole site, and is not connected.
#[track_caller]
fn enrolled(scene: &Scene, host: &Host) -> Client {
    let user = permit_all_of_the_site(scene);
    let client = Client::start(host);
    client.enroll(&scene.control_plane.create_enrollment_key(&user));

    client
}

/// Connects by one carrier alone, and returns how long that took.
#[track_caller]
fn connect(client: &Client, carrier: &str, service: SocketAddr) -> Duration {
    client.adit(&["down"]);
    client.set_carrier(carrier);
    let began = Instant::now();
    client.up();
    client.wait_until_reached(service);
    let took = began.elapsed();
    assert!(took <= CONNECTED_WITHIN, "{carrier}: connected after {took:?}");
    assert_eq!(client.carrier().as_deref(), Some(carrier));

    took
}

/// Downloads and uploads, and returns how fast, in megabits a second.
#[track_caller]
fn check_transfers(host: &Host, server: SocketAddr, bytes: u64) -> [f64; 2] {
    [host.download(server, bytes), host.upload(server, bytes)].map(|transfer| {
        assert_eq!(transfer.bytes, bytes, "{transfer:?}");
        assert_eq!(transfer.sha256, transfer.expected, "{transfer:?}");

        bytes as f64 * 8e-6 / transfer.seconds
    })
}
