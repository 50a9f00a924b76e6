//! Several connectors in a site: one carries, another takes over.

use std::time::{Duration, Instant};

use adit_tests::{
    Client, Connector, Distribution, Process, Scene,
    lab::{READY_TIMEOUT, SVC_V4},
    monotonic_ns,
    probe::{self, Server},
    report, wait_until,
};
use nix::sys::signal::Signal;
use serde_json::json;

use crate::transfers::permit_all_of_the_site;

const SECOND: Duration = Duration::from_secs(1);

/// A site with two connectors, a client that has both, and a service.
struct Pair {
    second: Connector,
    ids: [String; 2],
    client: Client,
    echo: Server,
    scene: Scene,
}

/// A connector of the pair, by its place.
type Place = usize;

impl Pair {
    fn new(name: &str) -> Self {
        let pair = Self::with_arguments(name, &[]);
        pair.client.wait_until_reached(pair.echo.address);

        pair
    }

    /// Both connectors run with these arguments.
    fn with_arguments(name: &str, args: &[&str]) -> Self {
        let mut scene = Scene::new(name);
        let (plane, lab) = (&scene.control_plane, &scene.lab);
        let host = lab.add_connector_host();
        let second = Connector::start_with(&host, "198.18.11.2", plane, &scene.site, args);
        if !args.is_empty() {
            scene.connector.restart_with(args);
        }
        let plane = &scene.control_plane;
        let ids = [&scene.connector, &second].map(|connector| {
            let listen = json!(connector.listen());
            let item = plane.wait_for_item("/v1/connectors", READY_TIMEOUT, |item| {
                item["endpoints"].as_array().is_some_and(|them| them.contains(&listen))
            });
            item["id"].as_str().expect("a connector has an id").to_owned()
        });
        let user = permit_all_of_the_site(&scene);
        let client = scene.start_client(&scene.lab.laptop, &user);
        let echo = scene.lab.svc.tcp_echo(SVC_V4);
        client.wait_for_standby();

        Self { second, ids, client, echo, scene }
    }

    fn connector(&self, place: Place) -> &Connector {
        [&self.scene.connector, &self.second][place]
    }

    /// The connector that carries.
    fn active(&self) -> Place {
        let active = self.client.active();
        self.ids.iter().position(|id| *id == active).expect("a connector of the pair carries")
    }

    fn wait_until_active(&self, place: Place) {
        wait_until("the other connector carries", READY_TIMEOUT, || {
            (self.client.active() == self.ids[place]).then_some(())
        });
    }

    /// Starts a connector again, and waits until it stands by.
    fn restart(&mut self, place: Place) {
        [&mut self.scene.connector, &mut self.second][place].restart();
        assert_eq!(self.client.wait_for_standby(), self.ids[place]);
    }

    fn poll(&self) -> Process {
        self.client.host().tcp_poll(self.echo.address, Duration::from_millis(50))
    }
}

/// S41: kill -9.
#[test]
fn new_flows_go_through_the_standby_when_a_connector_dies() {
    let repetitions = if std::env::var_os("ADIT_NIGHTLY").is_some() { 200 } else { 4 };
    let mut pair = Pair::new("failover");
    let (mut first, mut all) = (Distribution::default(), Distribution::default());
    for _ in 0..repetitions {
        let dying = pair.active();
        let poll = pair.poll();
        wait_for_answers(&poll, 3);

        let killed = monotonic_ns();
        pair.connector(dying).process().kill();
        let answered = wait_until("answers by the other", READY_TIMEOUT, || {
            let polled = probe::polled(&poll).into_iter();
            let polled: Vec<_> = polled.filter(|it| it.started_t > killed).collect();
            (polled.len() >= 20).then_some(polled)
        });
        assert!(answered.iter().all(|it| it.how == "answered"), "{answered:?}");
        first.add_ns(answered.iter().map(|it| it.t).min().unwrap_or(killed) - killed);
        for polled in answered.iter().filter(|it| it.started_t < killed + 1_000_000_000) {
            all.add_ns(polled.t - polled.started_t);
        }
        drop(poll);
        pair.wait_until_active(1 - dying);
        pair.restart(dying);
    }
    report(&json!({
        "id": "S41", "first_answer_after_kill": first.to_json(), "flows_begun_within_1_s": all.to_json(),
    }));
    assert!(first.percentile_ms(50) <= 1000.0, "{}", first.to_json());
    assert!(first.percentile_ms(99) <= 3000.0, "{}", first.to_json());
    assert!(all.percentile_ms(50) <= 1000.0, "{}", all.to_json());
    assert!(all.percentile_ms(99) <= 3000.0, "{}", all.to_json());
}

#[test]
fn connections_through_a_dead_connector_that_translates_addresses_are_reset() {
    let pair = Pair::new("failover-reset");
    let sender = pair.scene.lab.svc.tcp_pacer(SVC_V4);
    let download = pair.client.host().tcp_download(sender.address, Duration::from_millis(20));
    probe::downloaded(&download, 200 << 10, READY_TIMEOUT);

    let began = Instant::now();
    pair.connector(pair.active()).process().kill();

    let ended = probe::ended(&download, 10 * SECOND);
    assert_eq!(ended.how, "reset", "{ended:?}");
    println!("reset after {:?}", began.elapsed());
}

#[test]
fn connections_survive_the_death_of_a_connector_that_routes() {
    let pair = Pair::with_arguments("failover-routed", &["--source-nat", "off"]);
    let svc = &pair.scene.lab.svc;
    // As a routing protocol would have it.
    let route_by = |place: Place| {
        let gateways = [["10.9.0.1", "fd00:9::1"], ["10.9.1.1", "fd00:9:1::1"]];
        svc.check(["ip", "route", "replace", "100.80.0.0/12", "via", gateways[place][0]]);
    };
    let dying = pair.active();
    route_by(dying);
    let sender = svc.tcp_pacer(SVC_V4);
    let download = pair.client.host().tcp_download(sender.address, Duration::from_millis(20));
    probe::downloaded(&download, 200 << 10, READY_TIMEOUT);

    pair.connector(dying).process().kill();
    route_by(1 - dying);

    let so_far = download.events().iter().filter_map(|event| event["bytes"].as_u64()).max();
    probe::downloaded(&download, so_far.unwrap_or_default() + (1 << 20), 20 * SECOND);
    assert!(download.is_running(), "{}", download.output());
}

/// S43: an upgrade.
#[test]
fn a_connector_that_is_told_to_stop_loses_no_request() {
    let repetitions = if std::env::var_os("ADIT_NIGHTLY").is_some() { 200 } else { 2 };
    let mut pair = Pair::new("drain");
    let server = pair.scene.lab.svc.transfer_server(SVC_V4);
    let (mut moves, mut stops) = (Distribution::default(), Distribution::default());
    for _ in 0..repetitions {
        let draining = pair.active();
        let poll = pair.poll();
        wait_for_answers(&poll, 3);
        let laptop = pair.client.host();
        let command = laptop.probe("download").arg(server.address.to_string());
        let download = command.args(["--bytes", &(256_u64 << 20).to_string()]).spawn();
        wait_until("the download has begun", READY_TIMEOUT, || {
            (pair
                .connector(draining)
                .metric("adit_connector_network_io_bytes_total{direction=\"to_device\"}")
                > 8 << 20)
                .then_some(())
        });

        let told = monotonic_ns();
        pair.connector(draining).process().signal(Signal::SIGTERM);
        pair.wait_until_active(1 - draining);
        moves.add_ns(monotonic_ns() - told);
        let transferred = download.wait_for_event("transferred", 60 * SECOND);
        assert_eq!(transferred["sha256"], transferred["expected"], "{transferred}");
        // A connection that was just begun may be begun again elsewhere; then the grace is waited for.
        let stopped = pair.connector(draining).process().wait(40 * SECOND);
        assert!(stopped.success(), "{stopped:#?}");
        stops.add_ns(monotonic_ns() - told);
        wait_for_answers(&poll, 5);
        let polled = probe::polled(&poll);
        assert!(polled.iter().all(|it| it.how == "answered"), "{polled:?}");
        drop(poll);
        pair.restart(draining);
    }
    report(&json!({ "id": "S43", "moved": moves.to_json(), "stopped": stops.to_json() }));
}

#[test]
fn a_connector_without_another_stops_at_once() {
    let scene = Scene::new("drain-alone");
    let user = permit_all_of_the_site(&scene);
    let client = scene.start_client(&scene.lab.laptop, &user);
    let sender = scene.lab.svc.tcp_pacer(SVC_V4);
    let download = client.host().tcp_download(sender.address, Duration::from_millis(20));
    probe::downloaded(&download, 200 << 10, READY_TIMEOUT);
    let began = Instant::now();
    let stopped = scene.connector.process().stop(20 * SECOND);
    assert!(stopped.success(), "{stopped:#?}");
    // Less than the client's connections would be waited for.
    assert!(began.elapsed() < 10 * SECOND, "{:?}", began.elapsed());
}

#[track_caller]
fn wait_for_answers(poll: &Process, count: usize) {
    let before = probe::polled(poll).len();
    wait_until("connections are answered", READY_TIMEOUT, || {
        (probe::polled(poll).len() >= before + count).then_some(())
    });
}
