use std::{fmt, net::Ipv4Addr, time::Duration};

use adit_tests::{Host, Process};
use serde_json::Value;

use crate::{
    contender::Tunnel,
    pair::{Pair, READY},
    reading::Reading,
};

/// What counts as free of loss: one datagram in a thousand may be lost to what else the machine
/// does.
const TOLERATED_LOSS: f64 = 0.001;

/// How often the search halves what is left between a rate that passed and one that did not.
const STEPS: u32 = 8;

/// What the search never asks for: more than any program sends.
const MAX_RATE: f64 = 20e6;

/// A server that counts datagrams and sends back what asks for it.
pub(super) struct Counter {
    _process: Process,
    /// Address and port.
    pub(super) address: String,
}

impl Counter {
    #[track_caller]
    pub(super) fn start_at(host: &Host, address: Ipv4Addr) -> Self {
        let process = host.probe("udp-count").args(["--bind", &address.to_string()]).spawn();
        let event = process.wait_for_event("listening", READY);
        let address = event["address"].as_str().expect("the probe prints where it listens");

        Self { address: address.to_owned(), _process: process }
    }
}

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
}

impl Sender {
    pub(crate) const fn name(self) -> &'static str {
        match self {
            Self::Single => "one datagram per system call",
            Self::Trains => "UDP segmentation offload",
        }
    }
}

/// What came of sending at one rate.
struct Trial {
    /// Datagrams a second that were sent.
    sent: f64,
    /// Datagrams a second that arrived.
    received: f64,
    /// Share of the datagrams that did not.
    loss: f64,
    cpu_s_per_gbit: Option<f64>,
}

impl Udp {
    /// Returns about how long a measurement takes.
    pub(crate) fn estimate(duration: Duration) -> Duration {
        (trial_duration(duration) + Duration::from_millis(350)) * (STEPS + 3)
    }

    /// Searches for the rate.
    ///
    /// It lies between nothing and what arrives when as much is sent as can be. A trial at a rate
    /// passes if it does at its second attempt, so that one hiccup of the machine does not halve
    /// the result.
    #[track_caller]
    pub(crate) fn measure(&self, pair: &Pair, tunnel: &Tunnel, duration: Duration) -> Reading {
        let counter = Counter::start_at(&pair.server, tunnel.server);
        let mut trials = 0;
        let mut attempt = |rate: f64| {
            trials += 1;
            self.attempt(pair, tunnel, &counter, Attempt { rate, number: trials, duration })
        };
        let flood = attempt(MAX_RATE);
        let mut best = None;
        let (mut low, mut high) = (flood.received / 16.0, flood.sent.min(flood.received * 1.3));
        if flood.loss <= TOLERATED_LOSS {
            best = Some(flood);
        } else {
            for _ in 0..STEPS {
                let rate = (low * high).sqrt();
                let mut trial = attempt(rate);
                if trial.loss > TOLERATED_LOSS {
                    trial = attempt(rate);
                }
                if trial.loss > TOLERATED_LOSS {
                    high = rate;
                    continue;
                }
                low = rate;
                // A sender that does not reach a rate does not reach a higher one.
                let bound = trial.sent < rate * 0.97;
                if best.as_ref().is_none_or(|best: &Trial| best.received < trial.received) {
                    best = Some(trial);
                }
                if bound || high / low < 1.02 {
                    break;
                }
            }
        }
        // None passed: then it is not even the lowest.
        let best = best.map_or((0.0, None), |best| (best.received, best.cpu_s_per_gbit));

        Reading::default()
            .with("gbit_s", best.0 * f64::from(self.length) * 8.0 / 1e9)
            .with_some("cpu_s_per_gbit", best.1)
            .with("packets_s", best.0.round())
    }

    #[track_caller]
    fn attempt(
        &self,
        pair: &Pair,
        tunnel: &Tunnel,
        counter: &Counter,
        Attempt { rate, number, duration }: Attempt,
    ) -> Trial {
        let length = self.length.to_string();
        let duration = trial_duration(duration).as_millis().to_string();
        let mut command = pair.laptop.probe("udp-load").arg(&counter.address);
        command = command.args(["--rate", &format!("{rate:.0}"), "--length", &length]);
        command = command.args(["--for-ms", &duration, "--trial", &number.to_string()]);
        if self.sender == Sender::Trains {
            command = command.arg("--trains");
        }
        let before = tunnel.processor_time();
        let sender = command.spawn();
        let sent = sender.wait_for_event("sent", READY);
        let spent = tunnel.processor_time().zip(before).map(|(after, before)| after - before);

        Trial::new(&sent, spent, self.length)
    }
}

struct Attempt {
    rate: f64,
    number: u32,
    duration: Duration,
}

impl Trial {
    fn new(event: &Value, spent: Option<Duration>, length: u32) -> Self {
        let number =
            |field: &str| event[field].as_f64().unwrap_or_else(|| panic!("no {field} in {event}"));
        let (sent, received, seconds) = (number("sent"), number("received"), number("seconds"));
        let gbit = received * f64::from(length) * 8.0 / 1e9;

        Self {
            sent: sent / seconds,
            received: received / seconds,
            loss: 1.0 - received / sent,
            cpu_s_per_gbit: spent.filter(|_| gbit > 0.0).map(|spent| spent.as_secs_f64() / gbit),
        }
    }
}

/// Many short trials say more than few long ones.
fn trial_duration(duration: Duration) -> Duration {
    (duration / 4).max(Duration::from_millis(500))
}

impl fmt::Display for Udp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "UDP, {} bytes, free of loss, {}", self.length, self.sender.name())
    }
}
