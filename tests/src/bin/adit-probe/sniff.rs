use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    thread,
    time::Duration,
};

use anyhow::{Context as _, anyhow};
use nix::sys::signal::{SigSet, Signal};
use serde_json::json;

use crate::{event, packet_socket::PacketSocket};

#[derive(clap::Args)]
pub(crate) struct Args {
    /// Interface to look at; may be given several times.
    #[arg(long, required = true)]
    interface: Vec<String>,
    /// What to look for.
    #[arg(long)]
    marker: String,
}

#[derive(Default)]
struct Counts {
    packets: u64,
    bytes: u64,
    matches: u64,
    dropped: u64,
}

/// Looks at packets until SIGTERM, then at those still queued, and prints the counts.
pub(crate) fn run(args: &Args) -> anyhow::Result<()> {
    let terminate = SigSet::from(Signal::SIGTERM);
    // Threads inherit the mask, so that only `wait` below gets the signal.
    terminate.thread_block().context("failed to block SIGTERM")?;

    let stopping = Arc::new(AtomicBool::new(false));
    let mut threads = Vec::new();
    for interface in &args.interface {
        let socket = PacketSocket::capture(interface)
            .with_context(|| format!("failed to capture on {interface}"))?;
        let (marker, stopping) = (args.marker.clone().into_bytes(), stopping.clone());
        threads.push(thread::spawn(move || capture(&socket, &marker, &stopping)));
    }
    event::print("sniffing", json!({}));

    terminate.wait().context("failed to wait for SIGTERM")?;
    stopping.store(true, Ordering::Relaxed);
    let mut total = Counts::default();
    for thread in threads {
        let counts = thread.join().map_err(|_| anyhow!("a capture panicked"))??;
        total.packets += counts.packets;
        total.bytes += counts.bytes;
        total.matches += counts.matches;
        total.dropped += counts.dropped;
    }
    event::print(
        "captured",
        json!({
            "packets": total.packets,
            "bytes": total.bytes,
            "matches": total.matches,
            "dropped": total.dropped,
        }),
    );

    Ok(())
}

fn capture(socket: &PacketSocket, marker: &[u8], stopping: &AtomicBool) -> anyhow::Result<Counts> {
    let mut counts = Counts::default();
    // A packet that is segmented later is up to 64 KiB here.
    let mut buffer = vec![0; 128 * 1024];
    loop {
        let stop = stopping.load(Ordering::Relaxed);
        let timeout = if stop { Duration::ZERO } else { Duration::from_millis(20) };
        match socket.receive(&mut buffer, timeout).context("failed to receive")? {
            Some(length) => {
                counts.packets += 1;
                counts.bytes += length as u64;
                counts.matches += u64::from(contains(&buffer[..length], marker));
            }
            None if stop => {
                counts.dropped = socket.dropped().context("failed to read statistics")?;
                return Ok(counts);
            }
            None => {}
        }
    }
}

fn contains(packet: &[u8], marker: &[u8]) -> bool {
    let Some((first, rest)) = marker.split_first() else { return true };
    let mut from = packet;
    while let Some(at) = from.iter().position(|byte| byte == first) {
        from = &from[at + 1..];
        if from.starts_with(rest) {
            return true;
        }
    }

    false
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn finds_a_marker_anywhere_and_only_whole() {
        assert!(contains(b"xxaab", b"aab"));
        assert!(contains(b"aaab", b"aab"));
        assert!(!contains(b"xxaa", b"aab"));
        assert!(!contains(b"", b"a"));
    }
}
