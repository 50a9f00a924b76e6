mod counter;
mod search;

use std::{fmt, time::Duration};

pub(super) use self::{counter::Counter, search::Count};
use self::{counter::Load, search::Trial};
use super::iperf3;
use crate::{contender::Tunnel, pair::Pair, reading::Reading};

/// The highest rate of datagrams of which none is lost.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Udp {
    /// Bytes in each datagram.
    pub(crate) length: u32,
    pub(crate) sender: Sender,
}

/// How datagrams reach the kernel.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Sender {
    /// One by one, as most programs send.
    Single,
    /// Many at a time, by UDP segmentation offload.
    Trains,
    /// One by one, by the program that most people measure with. It reads one by one too.
    Iperf3,
}

impl Sender {
    pub(crate) const fn name(self) -> &'static str {
        match self {
            Self::Single => "one datagram per system call",
            Self::Trains => "UDP segmentation offload",
            Self::Iperf3 => "iperf3",
        }
    }
}

impl Udp {
    /// Returns about how long a measurement takes.
    pub(crate) fn estimate(&self, duration: Duration) -> Duration {
        (self.trial_duration(duration) + Duration::from_millis(350)) * search::USUAL_TRIALS
    }

    /// Searches for the rate.
    #[track_caller]
    pub(crate) fn measure(&self, pair: &Pair, tunnel: &Tunnel, duration: Duration) -> Reading {
        let duration = self.trial_duration(duration);
        let best = match self.sender {
            Sender::Single => self.search_with_probe(pair, tunnel, duration, false),
            Sender::Trains => self.search_with_probe(pair, tunnel, duration, true),
            Sender::Iperf3 => search::highest_rate(|rate| {
                Trial::watch(tunnel, self.length, || {
                    iperf3::send_datagrams(pair, tunnel, rate, self.length, duration)
                })
            }),
        };
        // None passed: then it is not even the lowest.
        let best = best.map_or((0.0, None), |best| (best.received, best.cpu_s_per_gbit));

        Reading::default()
            .with("gbit_s", best.0 * f64::from(self.length) * 8.0 / 1e9)
            .with_some("cpu_s_per_gbit", best.1)
            .with("packets_s", best.0.round())
    }

    #[track_caller]
    fn search_with_probe(
        &self,
        pair: &Pair,
        tunnel: &Tunnel,
        duration: Duration,
        trains: bool,
    ) -> Option<Trial> {
        let counter = Counter::start_at(&pair.server, tunnel.server);
        let mut number = 0;
        search::highest_rate(|rate| {
            number += 1;
            let load = Load { rate, length: self.length, duration, number, trains };
            Trial::watch(tunnel, self.length, || load.send(&pair.laptop, &counter))
        })
    }

    /// Many short trials say more than few long ones.
    fn trial_duration(&self, duration: Duration) -> Duration {
        let shortest = match self.sender {
            Sender::Single | Sender::Trains => Duration::from_millis(500),
            // It counts in seconds.
            Sender::Iperf3 => Duration::from_secs(1),
        };

        (duration / 4).max(shortest)
    }
}

impl fmt::Display for Udp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "UDP, {} bytes, free of loss, {}", self.length, self.sender.name())
    }
}
