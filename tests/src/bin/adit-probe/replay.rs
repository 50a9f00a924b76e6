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
    /// Interface with Ethernet frames, on which the packets are seen and sent again.
    #[arg(long)]
    interface: String,
    /// Only UDP datagrams over IPv4 to this port.
    #[arg(long)]
    to_port: u16,
    /// How often each is sent again.
    #[arg(long, default_value_t = 2)]
    times: u32,
}

/// Sends again what others send, until SIGTERM, and prints how much that was.
pub(crate) fn run(args: Args) -> anyhow::Result<()> {
    let terminate = SigSet::from(Signal::SIGTERM);
    // Threads inherit the mask, so that only `wait` below gets the signal.
    terminate.thread_block().context("failed to block SIGTERM")?;

    let socket = PacketSocket::capture(&args.interface)
        .with_context(|| format!("failed to capture on {}", args.interface))?;
    let stopping = Arc::new(AtomicBool::new(false));
    let replaying = {
        let stopping = stopping.clone();
        thread::spawn(move || replay(&socket, &args, &stopping))
    };
    event::print("replaying", json!({}));

    terminate.wait().context("failed to wait for SIGTERM")?;
    stopping.store(true, Ordering::Relaxed);
    let replayed = replaying.join().map_err(|_| anyhow!("the replay panicked"))??;
    event::print("replayed", json!({ "packets": replayed }));

    Ok(())
}

fn replay(socket: &PacketSocket, args: &Args, stopping: &AtomicBool) -> anyhow::Result<u64> {
    let mut buffer = vec![0; 128 * 1024];
    let mut replayed = 0;
    while !stopping.load(Ordering::Relaxed) {
        let received = socket.receive(&mut buffer, Duration::from_millis(20));
        let Some(length) = received.context("failed to receive")? else { continue };
        let frame = &mut buffer[..length];
        // A train that the kernel would cut later is longer than a frame may be.
        if length > 1514 || !is_udp_to(frame, args.to_port) {
            continue;
        }
        // It may be one that a card would have computed; none is as good over IPv4.
        let udp = 14 + usize::from(frame[14] & 0xf) * 4;
        frame[udp + 6..udp + 8].fill(0);
        for _ in 0..args.times {
            socket.send(&args.interface, libc::ETH_P_IP, frame).context("failed to send")?;
            replayed += 1;
        }
    }

    Ok(replayed)
}

/// Whether an Ethernet frame holds a UDP datagram over IPv4 to this port.
fn is_udp_to(frame: &[u8], port: u16) -> bool {
    let Some((ethernet, packet)) = frame.split_at_checked(14) else { return false };
    let header = packet.first().map_or(0, |first| usize::from(first & 0xf) * 4);

    ethernet.ends_with(&[0x08, 0x00])
        && packet.get(9) == Some(&17)
        && packet.get(header + 2..header + 4) == Some(&port.to_be_bytes())
        && packet.len() >= header + 8
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_datagrams_to_the_port_are_sent_again() {
        let mut frame = vec![0; 14 + 20 + 8];
        frame[12] = 0x08;
        frame[14] = 0x45;
        frame[14 + 9] = 17;
        frame[14 + 20 + 2..14 + 20 + 4].copy_from_slice(&443_u16.to_be_bytes());

        assert!(is_udp_to(&frame, 443));
        assert!(!is_udp_to(&frame, 444));
        assert!(!is_udp_to(&frame[..30], 443));
        frame[14 + 9] = 6;
        assert!(!is_udp_to(&frame, 443));
    }
}
