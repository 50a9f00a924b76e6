use std::{net::Ipv4Addr, time::Duration};

use adit_tests::{Host, Process};

use super::search::Count;
use crate::pair::READY;

/// A server that counts datagrams and sends back what asks for it.
pub(in crate::measure) struct Counter {
    _process: Process,
    /// Address and port.
    pub(in crate::measure) address: String,
}

impl Counter {
    #[track_caller]
    pub(in crate::measure) fn start_at(host: &Host, address: Ipv4Addr) -> Self {
        let process = host.probe("udp-count").args(["--bind", &address.to_string()]).spawn();
        let event = process.wait_for_event("listening", READY);
        let address = event["address"].as_str().expect("the probe prints where it listens");

        Self { address: address.to_owned(), _process: process }
    }
}

/// Datagrams that the probe sends to a counter.
pub(super) struct Load {
    /// Datagrams a second.
    pub(super) rate: f64,
    /// Bytes in each datagram.
    pub(super) length: u32,
    pub(super) duration: Duration,
    /// Number of the trial, greater than that of the one before.
    pub(super) number: u32,
    /// Whether the kernel gets many at a time.
    pub(super) trains: bool,
}

impl Load {
    #[track_caller]
    pub(super) fn send(&self, from: &Host, to: &Counter) -> Count {
        let (rate, length) = (format!("{:.0}", self.rate), self.length.to_string());
        let (duration, number) = (self.duration.as_millis().to_string(), self.number.to_string());
        let command = from.probe("udp-load").arg(&to.address);
        let command = command.args(["--rate", &rate, "--length", &length]);
        let command = command.args(["--for-ms", &duration, "--trial", &number]);
        let command = if self.trains { command.arg("--trains") } else { command };
        let event = command.spawn().wait_for_event("sent", READY);
        let number =
            |field: &str| event[field].as_f64().unwrap_or_else(|| panic!("no {field} in {event}"));

        Count { sent: number("sent"), received: number("received"), seconds: number("seconds") }
    }
}
