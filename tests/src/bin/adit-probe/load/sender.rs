use std::{
    io::{self, IoSlice},
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket},
    os::fd::AsRawFd as _,
    time::Duration,
};

use anyhow::{Context as _, ensure};
use nix::sys::socket::{ControlMessage, MsgFlags, SockaddrStorage, sendmsg, setsockopt, sockopt};
use serde_json::json;

use super::{
    datagram::{HEADER_LEN, Header, Kind},
    pace::Pace,
    report,
};
use crate::event;

/// A train of UDP segmentation offload has at most so many segments on older kernels.
const MAX_TRAIN: usize = 64;

/// The longest train fits a datagram.
const MAX_TRAIN_LEN: usize = 65_000;

/// Enough that a train never waits for the one before.
const SEND_BUFFER: usize = 4 << 20;

/// How long datagrams may still be on their way.
const STRAGGLERS: Duration = Duration::from_millis(200);

#[derive(clap::Args)]
pub(crate) struct Args {
    /// Server to send to.
    to: SocketAddr,
    /// Datagrams a second.
    #[arg(long)]
    rate: u64,
    /// Bytes in each datagram.
    #[arg(long)]
    length: usize,
    /// How long to send.
    #[arg(long)]
    for_ms: u64,
    /// Number of this trial, greater than that of the one before.
    #[arg(long)]
    trial: u32,
    /// Hand the kernel many datagrams at a time (UDP segmentation offload).
    #[arg(long)]
    trains: bool,
}

/// Sends datagrams at a rate, asks the server how many came, and prints it.
pub(crate) fn run(args: &Args) -> anyhow::Result<()> {
    ensure!(args.length >= HEADER_LEN, "a datagram has at least {HEADER_LEN} bytes");
    ensure!(args.rate > 0, "the rate must not be 0");
    let socket = bind(args.to)?;
    // Without privileges the kernel grants less.
    let _ = setsockopt(&socket, sockopt::SndBufForce, &SEND_BUFFER);
    socket.connect(args.to).context("failed to connect")?;

    // A train is what is due in a millisecond, if that is not too much.
    let per_ms = usize::try_from(args.rate / 1_000).unwrap_or(MAX_TRAIN);
    let most = MAX_TRAIN.min(MAX_TRAIN_LEN / args.length);
    let train = if args.trains { per_ms.clamp(1, most.max(1)) } else { 1 };
    let mut buffer = vec![0; train * args.length];
    let count = train as u64;
    let mut pace = Pace::start(args.rate, count);
    let (mut sent, mut refused) = (0, 0);
    while pace.elapsed() < Duration::from_millis(args.for_ms) {
        pace.wait_for(count);
        for (value, datagram) in (sent..).zip(buffer.chunks_mut(args.length)) {
            Header { kind: Kind::Load, trial: args.trial, value }.write(datagram);
        }
        sent += count;
        if let Err(error) = send(&socket, &buffer, args.length) {
            // A full queue is a loss like others.
            ensure!(error.raw_os_error() == Some(libc::ENOBUFS), "failed to send: {error}");
            refused += count;
        }
    }
    let elapsed = pace.elapsed();
    std::thread::sleep(STRAGGLERS);
    let received = report::ask(&socket, args.trial)?;
    event::print(
        "sent",
        json!({
            "sent": sent, "refused": refused, "received": received, "train": train,
            "seconds": elapsed.as_secs_f64(),
        }),
    );

    Ok(())
}

pub(crate) fn bind(to: SocketAddr) -> anyhow::Result<UdpSocket> {
    let any: IpAddr = match to {
        SocketAddr::V4(_) => Ipv4Addr::UNSPECIFIED.into(),
        SocketAddr::V6(_) => Ipv6Addr::UNSPECIFIED.into(),
    };

    UdpSocket::bind((any, 0)).context("failed to bind")
}

fn send(socket: &UdpSocket, buffer: &[u8], length: usize) -> io::Result<()> {
    if buffer.len() == length {
        socket.send(buffer)?;
        return Ok(());
    }
    let segment = u16::try_from(length).map_err(io::Error::other)?;
    sendmsg::<SockaddrStorage>(
        socket.as_raw_fd(),
        &[IoSlice::new(buffer)],
        &[ControlMessage::UdpGsoSegments(&segment)],
        MsgFlags::empty(),
        None,
    )?;

    Ok(())
}
