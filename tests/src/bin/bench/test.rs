use std::{fmt, time::Duration};

use anyhow::{Context as _, bail};

use crate::{
    contender::{Contender, Tunnel},
    machine::Machine,
    measure::{Direction, Tcp},
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
}

/// A figure of a test's reading, as the table shows it.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Column {
    pub(crate) figure: &'static str,
    pub(crate) heading: &'static str,
    pub(crate) decimals: usize,
}

const TCP_TESTS: [(&str, u8, Direction); 4] = [
    ("tcp1", 1, Direction::ToServer),
    ("rev", 1, Direction::ToLaptop),
    ("tcp8", 8, Direction::ToServer),
    ("rev8", 8, Direction::ToLaptop),
];

const GBIT_S: Column = Column { figure: "gbit_s", heading: "Gbit/s", decimals: 2 };
const CPU: Column = Column { figure: "cpu_s_per_gbit", heading: "CPU s/Gbit", decimals: 3 };

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

        tcp.map(str::to_owned).into_iter().chain(others).collect()
    }

    /// Finds a test by its name.
    pub(crate) fn parse(name: &str, machine: &Machine) -> anyhow::Result<Self> {
        let (base, congestion_control) = match name.split_once('-') {
            Some((base, other)) if machine.offers_congestion_control(other) => (base, other),
            Some((_, other)) => bail!(
                "this machine has no congestion control {other:?}: it has {}",
                machine.available_congestion_controls.join(", ")
            ),
            None => (name, machine.congestion_control.as_str()),
        };
        let (_, streams, direction) = TCP_TESTS
            .into_iter()
            .find(|(test, _, _)| *test == base)
            .with_context(|| format!("there is no test {name:?}"))?;
        let congestion_control = congestion_control.to_owned();
        let kind = Kind::Tcp(Tcp { streams, direction, congestion_control });

        Ok(Self { name: name.to_owned(), kind })
    }

    pub(crate) fn name(&self) -> &str {
        &self.name
    }

    /// Tells whether there is something to measure with this contender.
    pub(crate) fn is_for(&self, _contender: &Contender) -> bool {
        match self.kind {
            Kind::Tcp(_) => true,
        }
    }

    /// Returns about how long one measurement takes.
    pub(crate) fn estimate(&self, duration: Duration) -> Duration {
        match self.kind {
            Kind::Tcp(_) => duration + Duration::from_millis(500),
        }
    }

    #[track_caller]
    pub(crate) fn measure(&self, pair: &Pair, tunnel: &Tunnel, duration: Duration) -> Reading {
        match &self.kind {
            Kind::Tcp(tcp) => tcp.measure(pair, tunnel, duration),
        }
    }

    /// Returns the figures to show, that which counts first.
    pub(crate) fn columns(&self) -> &'static [Column] {
        match self.kind {
            Kind::Tcp(_) => &[GBIT_S, CPU],
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
            Kind::Tcp(tcp) => Some(&tcp.congestion_control),
        }
    }
}

impl fmt::Display for Test {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.kind {
            Kind::Tcp(tcp) => {
                let streams = if tcp.streams == 1 { "stream" } else { "streams" };
                let direction = match tcp.direction {
                    Direction::ToServer => "laptop to server",
                    Direction::ToLaptop => "server to laptop",
                };
                write!(f, "TCP, {} {streams}, {direction}, {}", tcp.streams, tcp.congestion_control)
            }
        }
    }
}
