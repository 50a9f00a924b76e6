use std::{fmt, time::Duration};

use adit_tests::Impairment;

use super::Tcp;
use crate::{contender::Tunnel, pair::Pair, reading::Reading};

/// A bulk transfer by a path that loses packets.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Lossy {
    /// What is lost either way, of a hundred.
    pub(crate) loss: f64,
    pub(crate) round_trip: Duration,
    pub(crate) tcp: Tcp,
}

/// What the path takes, in megabits a second.
const RATE: u32 = 200;

/// What waits for it at most.
const QUEUE: Duration = Duration::from_millis(40);

impl Lossy {
    #[track_caller]
    pub(crate) fn measure(&self, pair: &Pair, tunnel: &Tunnel, duration: Duration) -> Reading {
        let path = Impairment::default().delay(self.round_trip / 2).lose(self.loss);
        pair.impair(&path.limit(RATE, QUEUE));
        // What a tunnel knows of its path is of another one.
        tunnel.reconnect(pair);

        let reading = self.tcp.measure(pair, tunnel, duration);
        Reading::default().with_some("mbit_s", reading.figure("gbit_s").map(|rate| rate * 1e3))
    }
}

impl fmt::Display for Lossy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let round_trip = self.round_trip.as_millis();
        let cc = &self.tcp.congestion_control;

        write!(f, "{} % loss, {round_trip} ms, {cc}", self.loss)
    }
}
