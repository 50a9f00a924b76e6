use std::{fs, time::Duration};

use adit_tests::{Command, Process};

use super::udp::Count;
use crate::{
    contender::Tunnel,
    pair::{Pair, READY},
};

/// Starts a server for one client.
#[track_caller]
pub(super) fn start_server(pair: &Pair, tunnel: &Tunnel) -> Process {
    let address = tunnel.server.to_string();
    let server = pair.server.command("iperf3").args(["--server", "--one-off", "--forceflush"]);
    let server = server.args(["--bind", &address]).spawn();
    server.wait_for_line("Server listening", READY);

    server
}

/// Prepares a client.
#[track_caller]
pub(super) fn client(pair: &Pair, tunnel: &Tunnel, duration: Duration) -> Command {
    let client = pair.laptop.command("iperf3").args(["--client", &tunnel.server.to_string()]);
    let client = client.args(["--json", "--connect-timeout", "5000"]);

    client.args(["--time", &duration.as_secs().to_string()])
}

/// Sends datagrams of `length` bytes, `rate` of them a second.
#[track_caller]
pub(super) fn send_datagrams(
    pair: &Pair,
    tunnel: &Tunnel,
    rate: f64,
    length: u32,
    duration: Duration,
) -> Count {
    let server = start_server(pair, tunnel);
    let bit_s = rate * f64::from(length) * 8.0;
    let client = client(pair, tunnel, duration).arg("--udp");
    let client =
        client.args(["--length", &length.to_string(), "--bitrate", &format!("{bit_s:.0}")]);
    let client = client.args(["--window", &largest_buffer().to_string()]).spawn();
    let output = client.wait(duration + READY);
    assert!(output.success(), "{output:#?}");
    server.kill();

    let end = &output.json()["end"];
    let number = |sum: &str, field: &str| {
        end[sum][field].as_f64().unwrap_or_else(|| panic!("no {field} of {sum}: {end}"))
    };
    Count {
        sent: number("sum_sent", "packets"),
        // Its count of lost datagrams knows nothing of those after the last that arrived.
        received: number("sum_received", "bytes") / f64::from(length),
        seconds: number("sum_sent", "seconds"),
    }
}

/// Returns the largest socket buffer that a program gets that asks as iperf3 does. What it takes
/// by itself overflows within a millisecond, and tells more of the scheduler than of the tunnel.
fn largest_buffer() -> u32 {
    let limit = |name: &str| -> Option<u32> {
        fs::read_to_string(format!("/proc/sys/net/core/{name}")).ok()?.trim().parse().ok()
    };
    let limits = [limit("rmem_max"), limit("wmem_max")].into_iter().flatten();

    limits.min().unwrap_or(212_992)
}
