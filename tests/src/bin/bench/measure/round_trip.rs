use std::time::Duration;

use super::{Tcp, iperf3, udp::Counter};
use crate::{
    contender::Tunnel,
    pair::{Pair, READY},
    reading::Reading,
};

/// Time between two datagrams, in microseconds: far more than one takes, so that each is alone.
const EVERY_US: u64 = 2_000;

/// How long small datagrams take there and back.
#[derive(Debug, Clone)]
pub(crate) struct RoundTrip {
    /// What else passes at the same time.
    pub(crate) load: Option<Tcp>,
}

impl RoundTrip {
    #[track_caller]
    pub(crate) fn measure(&self, pair: &Pair, tunnel: &Tunnel, duration: Duration) -> Reading {
        /// Until TCP has found its rate.
        const WARM_UP: Duration = Duration::from_secs(1);
        /// How much longer the load lasts: the last answers may take a second, and programs theirs
        /// to start.
        const COOL_DOWN: Duration = Duration::from_secs(3);

        let counter = Counter::start_at(&pair.server, tunnel.server);
        let load = self.load.as_ref().map(|load| {
            let server = iperf3::start_server(pair, tunnel);
            let client = load.start_client(pair, tunnel, WARM_UP + duration + COOL_DOWN);
            std::thread::sleep(WARM_UP);
            (client, server)
        });
        let duration_ms = duration.as_millis().to_string();
        let command = pair.laptop.probe("udp-round-trip").arg(&counter.address);
        let command = command.args(["--for-ms", &duration_ms, "--every-us", &EVERY_US.to_string()]);
        let event = command.spawn().wait_for_event("round_trips", duration + READY);
        let rate = load.map(|(client, server)| {
            assert!(client.is_running(), "the load ended too early: {}", client.output());
            let output = client.wait(duration + READY);
            assert!(output.success(), "{output:#?}");
            server.kill();
            output.json()["end"]["sum_received"]["bits_per_second"].as_f64().unwrap_or_default()
        });

        let times = &event["times"];
        let number = |value: &serde_json::Value| {
            value.as_f64().unwrap_or_else(|| panic!("not a number in {event}"))
        };
        let sent = number(&event["sent"]);
        Reading::default()
            .with("p99_ms", number(&times["p99_ms"]))
            .with("p50_ms", number(&times["p50_ms"]))
            .with("max_ms", number(&times["max_ms"]))
            .with("lost_percent", (1.0 - number(&times["count"]) / sent) * 100.0)
            .with_some("load_gbit_s", rate.map(|rate| rate / 1e9))
    }
}
