use std::{fmt, time::Duration};

use adit_tests::Process;

use super::iperf3;
use crate::{
    contender::Tunnel,
    pair::{Pair, READY},
    reading::Reading,
};

/// A bulk transfer by iperf3.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Tcp {
    pub(crate) streams: u8,
    pub(crate) direction: Direction,
    /// Congestion control of whoever sends.
    pub(crate) congestion_control: String,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Direction {
    ToServer,
    ToLaptop,
}

impl Tcp {
    #[track_caller]
    pub(crate) fn measure(&self, pair: &Pair, tunnel: &Tunnel, duration: Duration) -> Reading {
        let server = iperf3::start_server(pair, tunnel);
        let before = tunnel.processor_time();
        let client = self.start_client(pair, tunnel, duration);
        let output = client.wait(duration + READY);
        let spent = tunnel.processor_time().zip(before).map(|(after, before)| after - before);
        assert!(output.success(), "{output:#?}");
        server.kill();

        let end = &output.json()["end"]["sum_received"];
        let number =
            |field: &str| end[field].as_f64().unwrap_or_else(|| panic!("no {field}: {end}"));
        let gbit = number("bytes") * 8.0 / 1e9;
        Reading::default()
            .with("gbit_s", number("bits_per_second") / 1e9)
            .with_some("cpu_s_per_gbit", spent.map(|spent| spent.as_secs_f64() / gbit))
    }

    #[track_caller]
    pub(super) fn start_client(&self, pair: &Pair, tunnel: &Tunnel, duration: Duration) -> Process {
        let client = iperf3::client(pair, tunnel, duration)
            .args(["--parallel", &self.streams.to_string()])
            .args(["--congestion", &self.congestion_control]);
        let client = match self.direction {
            Direction::ToServer => client,
            Direction::ToLaptop => client.arg("--reverse"),
        };

        client.spawn()
    }
}

impl fmt::Display for Tcp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let streams = if self.streams == 1 { "stream" } else { "streams" };
        let direction = match self.direction {
            Direction::ToServer => "laptop to server",
            Direction::ToLaptop => "server to laptop",
        };

        write!(f, "TCP, {} {streams}, {direction}, {}", self.streams, self.congestion_control)
    }
}
