use std::{fmt, time::Duration};

use anyhow::{Context as _, bail, ensure};

use crate::{
    contender::{Contender, Tunnel},
    machine::Machine,
    measure::{Crowd, Direction, Lossy, RoundTrip, Sender, Tcp, Udp},
    pair::Pair,
    reading::Reading,
};

/// Something to measure, by the name that users know it by.
#[derive(Debug, Clone)]
pub(crate) struct Test {
    name: String,
    kind: Kind,
}

#[derive(Debug, Clone)]
enum Kind {
    Tcp(Tcp),
    Lossy(Lossy),
    Udp(Udp),
    RoundTrip(RoundTrip),
    Crowd(Crowd),
}

/// A figure of a test's reading, as the table shows it.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Column {
    pub(crate) figure: &'static str,
    pub(crate) heading: &'static str,
    pub(crate) decimals: usize,
    pub(crate) better: Better,
}

/// Which of two figures is the better one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Better {
    More,
    Less,
}

const TCP_TESTS: [(&str, u8, Direction); 4] = [
    ("tcp1", 1, Direction::ToServer),
    ("rev", 1, Direction::ToLaptop),
    ("tcp8", 8, Direction::ToServer),
    ("rev8", 8, Direction::ToLaptop),
];

const UDP_TESTS: [(&str, u32, Sender); 5] = [
    ("udp1350", 1350, Sender::Single),
    ("udp1350-gso", 1350, Sender::Trains),
    ("udp1350-iperf3", 1350, Sender::Iperf3),
    ("udp64", 64, Sender::Single),
    ("udp64-gso", 64, Sender::Trains),
];

const RTT_IDLE: &str = "rtt_idle";
const RTT_LOAD: &str = "rtt_load";
const PEERS: &str = "peers";
const NEW_FLOWS: &str = "new_flows";

const MBIT_S: Column = Column::more_is_better("mbit_s", "Mbit/s", 1);
const GBIT_S: Column = Column::more_is_better("gbit_s", "Gbit/s", 2);
const CPU: Column = Column::less_is_better("cpu_s_per_gbit", "CPU s/Gbit", 3);
const PACKETS_S: Column = Column::more_is_better("packets_s", "packets/s", 0);
const P50: Column = Column::less_is_better("p50_ms", "p50 ms", 3);
const P99: Column = Column::less_is_better("p99_ms", "p99 ms", 3);
const LOAD: Column = Column::more_is_better("load_gbit_s", "load Gbit/s", 2);

const KIB_PER_PEER: Column = Column::less_is_better("kib_per_peer", "KiB/peer", 1);
const RSS: Column = Column::less_is_better("rss_mib", "RSS MiB", 1);
const CONNECT: Column = Column::less_is_better("connect_s", "all connected s", 2);
const IDLE: Column = Column::less_is_better("idle_core_percent", "idle % of a core", 1);
const FLOWS: Column = Column::more_is_better("flows_s", "flows/s", 0);
const CPU_PER_FLOW: Column = Column::less_is_better("cpu_us_per_flow", "CPU us/flow", 1);

impl Column {
    const fn more_is_better(figure: &'static str, heading: &'static str, decimals: usize) -> Self {
        Self { figure, heading, decimals, better: Better::More }
    }

    const fn less_is_better(figure: &'static str, heading: &'static str, decimals: usize) -> Self {
        Self { figure, heading, decimals, better: Better::Less }
    }
}

impl Test {
    /// Returns the names of all tests, the most important first.
    ///
    /// The bulk transfers use the machine's own congestion control, and where it is there the one
    /// of BBR and CUBIC that the machine does not use by itself.
    pub(crate) fn names(machine: &Machine) -> Vec<String> {
        let tcp = TCP_TESTS.map(|(name, _, _)| name);
        let others = ["bbr", "cubic"].into_iter().filter(|other| {
            machine.congestion_control != *other && machine.offers_congestion_control(other)
        });
        let others = others.flat_map(|other| tcp.map(|name| format!("{name}-{other}")));
        let udp = UDP_TESTS.map(|(name, _, _)| name);
        let rest = [RTT_IDLE, RTT_LOAD, "peers1", "peers100", "peers10000", NEW_FLOWS];
        let rest = udp.into_iter().chain(rest).map(str::to_owned);

        tcp.map(str::to_owned).into_iter().chain(others).chain(rest).collect()
    }

    /// Returns the names of the tests by paths that lose packets.
    pub(crate) fn sweep(machine: &Machine) -> Vec<String> {
        let mut names = Vec::new();
        for congestion_control in ["cubic", "bbr"] {
            if !machine.offers_congestion_control(congestion_control) {
                continue;
            }
            for loss in ["0.1", "1", "5"] {
                let points = [20, 80];
                names.extend(
                    points.map(|rtt| format!("loss{loss}/rtt{rtt}/tcp1-{congestion_control}")),
                );
            }
        }

        names
    }

    /// Finds a test by its name.
    pub(crate) fn parse(name: &str, machine: &Machine) -> anyhow::Result<Self> {
        let kind = if let Some((_, length, sender)) =
            UDP_TESTS.into_iter().find(|(test, _, _)| *test == name)
        {
            Kind::Udp(Udp { length, sender })
        } else if name == RTT_IDLE {
            Kind::RoundTrip(RoundTrip { load: None })
        } else if name == RTT_LOAD {
            Kind::RoundTrip(RoundTrip { load: Some(tcp("tcp1", machine)?) })
        } else if let Some(rest) = name.strip_prefix("loss") {
            Kind::Lossy(lossy(rest, machine).with_context(|| format!("there is no test {name:?}"))?)
        } else if name == NEW_FLOWS {
            Kind::Crowd(Crowd::NewFlows)
        } else if let Some(count) = name.strip_prefix(PEERS) {
            let count = count.parse().ok().filter(|count| (1..=100_000).contains(count));
            let count = count.with_context(|| format!("{name:?} needs a number up to 100000"))?;
            Kind::Crowd(Crowd::Peers(count))
        } else {
            Kind::Tcp(tcp(name, machine)?)
        };

        Ok(Self { name: name.to_owned(), kind })
    }

    pub(crate) fn name(&self) -> &str {
        &self.name
    }

    /// Tells whether there is something to measure with this contender.
    pub(crate) fn is_for(&self, contender: &Contender) -> bool {
        match self.kind {
            Kind::Tcp(_) | Kind::Lossy(_) => true,
            Kind::Udp(_) | Kind::RoundTrip(_) => !matches!(contender, Contender::Streams(_)),
            Kind::Crowd(_) => contender.adit().is_some(),
        }
    }

    /// Returns about how long one measurement takes.
    pub(crate) fn estimate(&self, duration: Duration) -> Duration {
        match &self.kind {
            Kind::Tcp(_) => duration + Duration::from_millis(500),
            Kind::Lossy(_) => duration + Duration::from_secs(2),
            Kind::Udp(udp) => udp.estimate(duration),
            Kind::RoundTrip(RoundTrip { load: None }) => duration + Duration::from_millis(500),
            Kind::RoundTrip(RoundTrip { load: Some(_) }) => duration + Duration::from_secs(5),
            Kind::Crowd(crowd) => crowd.estimate(duration),
        }
    }

    #[track_caller]
    pub(crate) fn measure(
        &self,
        contender: &Contender,
        pair: &Pair,
        tunnel: &Tunnel,
        duration: Duration,
    ) -> Reading {
        match &self.kind {
            Kind::Tcp(tcp) => tcp.measure(pair, tunnel, duration),
            Kind::Lossy(lossy) => lossy.measure(pair, tunnel, duration),
            Kind::Udp(udp) => udp.measure(pair, tunnel, duration),
            Kind::RoundTrip(round_trip) => round_trip.measure(pair, tunnel, duration),
            Kind::Crowd(crowd) => {
                let adit = contender.adit().expect("the test is for nobody else");
                crowd.measure(adit, duration)
            }
        }
    }

    /// Returns the figures to show, that which counts first.
    pub(crate) fn columns(&self) -> &'static [Column] {
        match &self.kind {
            Kind::Tcp(_) => &[GBIT_S, CPU],
            Kind::Lossy(_) => &[MBIT_S],
            Kind::Udp(udp) if udp.length < 1_000 => &[PACKETS_S, GBIT_S, CPU],
            Kind::Udp(_) => &[GBIT_S, PACKETS_S, CPU],
            Kind::RoundTrip(RoundTrip { load: None }) => &[P50, P99],
            Kind::RoundTrip(RoundTrip { load: Some(_) }) => &[P99, P50, LOAD],
            Kind::Crowd(Crowd::Peers(_)) => &[RSS, KIB_PER_PEER, CONNECT, IDLE],
            Kind::Crowd(Crowd::NewFlows) => &[FLOWS, CPU_PER_FLOW],
        }
    }

    /// Returns a reading in one line.
    pub(crate) fn describe(&self, reading: &Reading) -> String {
        let figures = self.columns().iter().filter_map(|column| {
            let value = reading.figure(column.figure)?;
            Some(format!("{value:.*} {}", column.decimals, column.heading))
        });

        figures.collect::<Vec<_>>().join(", ")
    }

    pub(crate) fn congestion_control(&self) -> Option<&str> {
        match &self.kind {
            Kind::Tcp(tcp)
            | Kind::Lossy(Lossy { tcp, .. })
            | Kind::RoundTrip(RoundTrip { load: Some(tcp) }) => Some(&tcp.congestion_control),
            Kind::Udp(_) | Kind::RoundTrip(RoundTrip { load: None }) | Kind::Crowd(_) => None,
        }
    }

    /// Returns how datagrams reach the kernel.
    pub(crate) fn sender(&self) -> Option<&'static str> {
        match &self.kind {
            Kind::Udp(udp) => Some(udp.sender.name()),
            Kind::Tcp(_) | Kind::Lossy(_) | Kind::RoundTrip(_) | Kind::Crowd(_) => None,
        }
    }
}

/// Parses the rest of the name of a bulk transfer by a path that loses packets, such as
/// `0.1/rtt20/tcp1-cubic`.
fn lossy(rest: &str, machine: &Machine) -> anyhow::Result<Lossy> {
    let (loss, rest) = rest.split_once("/rtt").context("it has no round trip")?;
    let (round_trip, rest) = rest.split_once('/').context("it has no transfer")?;
    let loss: f64 = loss.parse().context("its loss is no number")?;
    ensure!((0.0..100.0).contains(&loss), "its loss is no share of a hundred");
    let round_trip = round_trip.parse().context("its round trip is no number")?;

    Ok(Lossy { loss, round_trip: Duration::from_millis(round_trip), tcp: tcp(rest, machine)? })
}

/// Parses the name of a bulk transfer, such as `tcp1` or `rev8-cubic`.
fn tcp(name: &str, machine: &Machine) -> anyhow::Result<Tcp> {
    let (base, congestion_control) = match name.split_once('-') {
        Some((base, other)) => (base, other),
        None => (name, machine.congestion_control.as_str()),
    };
    let test = TCP_TESTS.into_iter().find(|(test, _, _)| *test == base);
    let Some((_, streams, direction)) = test else { bail!("there is no test {name:?}") };
    ensure!(
        machine.offers_congestion_control(congestion_control),
        "this machine has no congestion control {congestion_control:?}, but {}",
        machine.available_congestion_controls.join(", ")
    );

    Ok(Tcp { streams, direction, congestion_control: congestion_control.to_owned() })
}

impl fmt::Display for Test {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.kind {
            Kind::Tcp(tcp) => write!(f, "{tcp}"),
            Kind::Lossy(lossy) => write!(f, "{lossy}"),
            Kind::Udp(udp) => write!(f, "{udp}"),
            Kind::RoundTrip(RoundTrip { load: None }) => f.write_str("round trip, idle"),
            Kind::RoundTrip(RoundTrip { load: Some(load) }) => {
                write!(f, "round trip, under {load}")
            }
            Kind::Crowd(crowd) => write!(f, "{crowd}"),
        }
    }
}
