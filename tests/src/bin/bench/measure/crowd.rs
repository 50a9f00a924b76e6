use std::{fmt, fs, time::Duration};

use adit_tests::{Command, Process, wait_until};

use super::{ProcessorTime, udp::Counter};
use crate::{
    contender::{Adit, AditServer, SERVICE},
    pair::{Pair, READY},
    reading::Reading,
};

/// WireGuard programs give up after 90 s (REKEY_ATTEMPT_TIME); the machine may be slow.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(120);

/// Many devices on one connector, in a world of their own.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Crowd {
    /// So many devices connect at once, and stay.
    Peers(u32),
    /// Some devices open flow after flow, of which each has to be decided.
    NewFlows,
}

impl Crowd {
    /// Returns about how long a measurement takes.
    pub(crate) fn estimate(self, duration: Duration) -> Duration {
        match self {
            Self::Peers(count) => Duration::from_secs(12) + Duration::from_millis(3) * count,
            Self::NewFlows => Duration::from_secs(5) + duration,
        }
    }

    #[track_caller]
    pub(crate) fn measure(self, adit: &Adit, duration: Duration) -> Reading {
        let pair = Pair::new("crowd");
        let mut server = adit.start_server(&pair);
        match self {
            Self::Peers(count) => peers(&pair, &mut server, count),
            Self::NewFlows => new_flows(&pair, &mut server, duration),
        }
    }
}

#[track_caller]
fn peers(pair: &Pair, server: &mut AditServer, count: u32) -> Reading {
    /// Fewer peers need less than what comes and goes anyhow.
    const ENOUGH: u32 = 50;
    /// Until what connecting left to be done is done.
    const SETTLE: Duration = Duration::from_secs(2);
    /// How long nobody sends anything.
    const IDLE: Duration = Duration::from_secs(5);

    let alone = resident_kib(server.connector.process());
    let crowd = gather(pair, server, count);
    let registered = resident_kib(server.connector.process());
    let crowd =
        crowd.args(["--stay", "--timeout-s", &CONNECT_TIMEOUT.as_secs().to_string()]).spawn();
    let event = crowd.wait_for_event("connected", CONNECT_TIMEOUT + READY);
    let connected = resident_kib(server.connector.process());
    let connector = server.connector.process().id().expect("the connector runs");
    std::thread::sleep(SETTLE);
    let before = ProcessorTime::of_tree(connector);
    std::thread::sleep(IDLE);
    let idle = ProcessorTime::of_tree(connector) - before;
    assert!(crowd.is_running(), "the devices ended: {}", crowd.output());

    let per_peer = (count >= ENOUGH).then(|| (connected - alone) / f64::from(count));
    Reading::default()
        .with("rss_mib", connected / 1024.0)
        .with_some("kib_per_peer", per_peer)
        .with("connect_s", event["seconds"].as_f64().unwrap_or_default())
        .with("idle_core_percent", idle.as_secs_f64() / IDLE.as_secs_f64() * 100.0)
        .with("rss_mib_without_peers", alone / 1024.0)
        .with("rss_mib_before_handshakes", registered / 1024.0)
}

#[track_caller]
fn new_flows(pair: &Pair, server: &mut AditServer, duration: Duration) -> Reading {
    /// Each device has ports for sixty thousand flows, and may open only so many a second.
    const DEVICES: u32 = 256;

    let crowd = gather(pair, server, DEVICES);
    let counter = Counter::start_at(&pair.server, SERVICE);
    let connector = server.connector.process().id().expect("the connector runs");
    let before = ProcessorTime::of_tree(connector);
    let duration_ms = duration.as_millis().to_string();
    let crowd =
        crowd.args(["--flows-to", &counter.address, "--flows-for-ms", &duration_ms]).spawn();
    let event = crowd.wait_for_event("opened", duration + CONNECT_TIMEOUT);
    let number = |value: &serde_json::Value| {
        value.as_f64().unwrap_or_else(|| panic!("not a number in {event}"))
    };
    let (opened, seconds) = (number(&event["flows"]), number(&event["seconds"]));
    let spent = ProcessorTime::of_tree(connector) - before;
    let command = pair.server.probe("udp-report").args([&counter.address, "--trial", "1"]);
    let counted = command.spawn().wait_for_event("counted", READY);
    let passed = number(&counted["received"]);
    let decisions = server.connector.metric("adit_connector_decisions_total{reason=\"permitted\"}");
    assert!(passed > 0.0, "no flow passed: {decisions} were decided");

    Reading::default()
        .with("flows_s", passed / seconds)
        .with("cpu_us_per_flow", spent.as_secs_f64() * 1e6 / passed)
        .with("opened_flows_s", opened / seconds)
}

/// Registers devices, starts the connector anew, and returns the command that is them all.
#[track_caller]
fn gather(pair: &Pair, server: &mut AditServer, count: u32) -> Command {
    let file = pair.laptop.dir().join("devices.json");
    server.register_devices(pair, count, &file);
    server.connector.restart();
    wait_until("the connector knows the devices", CONNECT_TIMEOUT, || {
        let process = server.connector.process();
        assert!(process.is_running(), "the connector ended: {}", process.output());
        (server.connector.metric("adit_connector_peers") == u64::from(count)).then_some(())
    });
    let (to, key) = (server.connector.listen(), server.wireguard_key());

    pair.laptop.probe("crowd").args([to, "--key", &key, "--devices-file"]).arg(file)
}

/// Reads how much memory a process holds, in KiB.
#[track_caller]
fn resident_kib(process: &Process) -> f64 {
    let id = process.id().unwrap_or_else(|| panic!("a program ended: {}", process.output()));
    let status = fs::read_to_string(format!("/proc/{id}/status")).unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
    let kib = line.and_then(|line| line.trim().strip_suffix(" kB")?.trim().parse().ok());

    kib.unwrap_or_else(|| panic!("no VmRSS in {status:?}"))
}

impl fmt::Display for Crowd {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Peers(count) => {
                let peers = if *count == 1 { "peer connects" } else { "peers connect" };
                write!(f, "{count} {peers} to one connector at once")
            }
            Self::NewFlows => f.write_str("new flows, each decided by policy"),
        }
    }
}
