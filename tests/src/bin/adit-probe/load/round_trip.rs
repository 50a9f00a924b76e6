use std::{
    io::ErrorKind,
    net::SocketAddr,
    time::{Duration, Instant},
};

use adit_tests::{Distribution, monotonic_ns};
use anyhow::{Context as _, ensure};
use serde_json::json;

use super::{
    datagram::{HEADER_LEN, Header, Kind},
    sender,
};
use crate::event;

/// How long the last answers may take.
const STRAGGLERS: Duration = Duration::from_secs(1);

#[derive(clap::Args)]
pub(crate) struct Args {
    /// Server to send to.
    to: SocketAddr,
    /// Time between two datagrams.
    #[arg(long)]
    every_us: u64,
    /// How long to send.
    #[arg(long)]
    for_ms: u64,
}

/// Sends datagrams that come back, and prints how long they took.
pub(crate) fn run(args: &Args) -> anyhow::Result<()> {
    let socket = sender::bind(args.to)?;
    socket.connect(args.to).context("failed to connect")?;
    let start = Instant::now();
    let count = args.for_ms * 1_000 / args.every_us.max(1);
    let mut times = Distribution::default();
    let mut datagram = [0; HEADER_LEN];
    for number in 0..count {
        Header { kind: Kind::Echo, trial: 0, value: monotonic_ns() }.write(&mut datagram);
        socket.send(&datagram).context("failed to send")?;
        let next = start + Duration::from_micros((number + 1) * args.every_us);
        let deadline = if number + 1 == count { next + STRAGGLERS } else { next };
        loop {
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() || times.count() as u64 == count {
                break;
            }
            socket.set_read_timeout(Some(left)).context("failed to set a timeout")?;
            match socket.recv(&mut datagram) {
                Ok(length) => {
                    let now = monotonic_ns();
                    let header = Header::read(&datagram[..length]);
                    if let Some(header) = header.filter(|header| header.kind == Kind::Echo) {
                        times.add_ns(now.saturating_sub(header.value));
                    }
                }
                Err(error)
                    if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => {}
                Err(error) => return Err(error).context("failed to receive"),
            }
        }
    }
    ensure!(times.count() > 0, "nothing came back");
    event::print("round_trips", json!({ "sent": count, "times": times.to_json() }));

    Ok(())
}
