mod line;

use std::{os::fd::AsFd as _, time::Instant};

use adit_tests::{Impaired, Impairment, Random};
use anyhow::Context as _;
use nix::{
    errno::Errno,
    poll::{PollFd, PollFlags, ppoll},
    sys::{
        signal::{SigSet, Signal},
        signalfd::SignalFd,
    },
};
use serde_json::json;

use self::line::Line;
use crate::{
    event,
    packet_socket::{FrameBatch, PacketSocket},
};

#[derive(clap::Args)]
pub(crate) struct Args {
    /// What happens on the way from the first interface to the second, as JSON.
    #[arg(long)]
    there: Impairment,
    /// What happens on the way back, as JSON.
    #[arg(long)]
    back: Impairment,
    /// Brings the same fate back for the same packets.
    #[arg(long)]
    seed: u64,
    /// Interface with Ethernet frames.
    first: String,
    /// The other interface.
    second: String,
}

/// Passes frames in both directions until SIGTERM, and prints what happened to them.
pub(crate) fn run(args: &Args) -> anyhow::Result<()> {
    let terminate = SigSet::from(Signal::SIGTERM);
    terminate.thread_block().context("failed to block SIGTERM")?;
    let terminate = SignalFd::new(&terminate).context("failed to wait for SIGTERM")?;

    let open = |interface: &str| {
        PacketSocket::relay(interface).with_context(|| format!("failed to open {interface}"))
    };
    let sockets = [open(&args.first)?, open(&args.second)?];
    let mut random = Random::from_seed(args.seed);
    let mut lines = [Line::new(args.there, random.fork()), Line::new(args.back, random)];
    event::print("impairing", json!({ "seed": args.seed }));

    relay(&sockets, &mut lines, &terminate)?;
    let impaired = lines.iter().map(Line::impaired).fold(Impaired::default(), |all, one| all + one);
    event::print("impaired", json!(impaired));

    Ok(())
}

/// Passes what comes by one socket to the other, with a line for each direction.
fn relay(
    sockets: &[PacketSocket; 2],
    lines: &mut [Line; 2],
    terminate: &SignalFd,
) -> anyhow::Result<()> {
    let began = Instant::now();
    let mut batch = FrameBatch::new();
    loop {
        for (line, out) in lines.iter_mut().zip(sockets.iter().rev()) {
            while line.poll_frames(began.elapsed(), &mut batch) > 0 {
                out.send_batch(&mut batch).context("failed to send")?;
            }
        }
        let due = lines.iter().filter_map(Line::poll_timeout).min();
        let until_due = due.map(|due| due.saturating_sub(began.elapsed()).into());
        let mut polled = [sockets[0].as_fd(), sockets[1].as_fd(), terminate.as_fd()]
            .map(|fd| PollFd::new(fd, PollFlags::POLLIN));
        match ppoll(&mut polled, until_due, None) {
            Ok(_) | Err(Errno::EINTR) => {}
            Err(error) => return Err(error).context("failed to wait"),
        }
        let [first, second, terminated] = polled.map(|fd| fd.any().unwrap_or_default());
        if terminated {
            return Ok(());
        }
        for ((line, from), has_some) in lines.iter_mut().zip(sockets).zip([first, second]) {
            if has_some {
                from.receive_batch(&mut batch).context("failed to receive")?;
                let now = began.elapsed();
                batch.drain().for_each(|frame| line.handle_frame(frame, now));
            }
        }
    }
}
