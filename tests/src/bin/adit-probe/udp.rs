use std::{
    io::{self, ErrorKind},
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket},
    time::{Duration, Instant},
};

use adit_tests::monotonic_ns;
use anyhow::Context as _;
use nix::sys::socket::{setsockopt, sockopt};
use serde_json::json;

use crate::{Bind, event};

#[derive(clap::Args)]
pub(crate) struct ServeArgs {
    #[command(flatten)]
    bind: Bind,
    /// How long an answer is held back.
    #[arg(long, default_value_t = 0)]
    pause_ms: u64,
}

#[derive(clap::Args)]
pub(crate) struct PingArgs {
    /// Server to send to.
    to: SocketAddr,
    /// How many datagrams to send.
    #[arg(long, default_value_t = 3)]
    count: u64,
    /// Time between two datagrams.
    #[arg(long, default_value_t = 20)]
    every_ms: u64,
    /// How long to wait for answers after the last datagram.
    #[arg(long, default_value_t = 1_000)]
    timeout_ms: u64,
    /// What to send, after the number of the datagram.
    #[arg(long, default_value = "")]
    text: String,
}

/// What a server may leave lying while the machine is busy, so that it loses nothing itself.
const RECEIVE_BUFFER_LEN: usize = 4 * 1024 * 1024;

pub(crate) fn serve(args: &ServeArgs) -> anyhow::Result<()> {
    let socket = UdpSocket::bind((args.bind.bind, args.bind.port))
        .with_context(|| format!("failed to bind {}", args.bind.bind))?;
    // Without privileges as much as the system allows.
    setsockopt(&socket, sockopt::RcvBufForce, &RECEIVE_BUFFER_LEN)
        .or_else(|_error| setsockopt(&socket, sockopt::RcvBuf, &RECEIVE_BUFFER_LEN))
        .context("failed to enlarge the receive buffer")?;
    event::print_listening(socket.local_addr().context("failed to read the port")?);

    let mut buffer = vec![0; 65_536];
    loop {
        let (length, from) = socket.recv_from(&mut buffer).context("failed to receive")?;
        let text = String::from_utf8_lossy(&buffer[..length.min(100)]);
        event::print(
            "datagram",
            json!({ "from": from.to_string(), "bytes": length, "text": text }),
        );
        std::thread::sleep(Duration::from_millis(args.pause_ms));
        // An unreachable sender is no concern of a server.
        let _ = socket.send_to(&buffer[..length], from);
    }
}

pub(crate) fn ping(args: &PingArgs) -> anyhow::Result<()> {
    let any: IpAddr = match args.to {
        SocketAddr::V4(_) => Ipv4Addr::UNSPECIFIED.into(),
        SocketAddr::V6(_) => Ipv6Addr::UNSPECIFIED.into(),
    };
    let socket = UdpSocket::bind((any, 0)).context("failed to bind")?;

    let mut errors = Vec::new();
    if let Err(error) = socket.connect(args.to) {
        errors.push(event::name_of(&error));
        event::print(
            "pinged",
            json!({ "sent": 0, "received": 0, "errors": errors, "last_answer_t": null }),
        );
        return Ok(());
    }
    let mut note = |error: &io::Error| {
        let name = event::name_of(error);
        if !errors.contains(&name) {
            errors.push(name);
        }
    };

    let (mut sent, mut received, mut last_answer) = (0, 0, None);
    let mut buffer = vec![0; 65_536];
    for number in 0..args.count {
        match socket.send(format!("{number} {}", args.text).as_bytes()) {
            Ok(_) => sent += 1,
            Err(error) => note(&error),
        }
        let last = number + 1 == args.count;
        let wait = if last { args.timeout_ms } else { args.every_ms };
        let deadline = Instant::now() + Duration::from_millis(wait);
        while received < sent || !last {
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                break;
            }
            socket.set_read_timeout(Some(left)).context("failed to set a timeout")?;
            match socket.recv(&mut buffer) {
                Ok(_) => {
                    received += 1;
                    last_answer = Some(monotonic_ns());
                    event::print("answer", json!({ "received": received }));
                }
                Err(error)
                    if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => {}
                Err(error) => {
                    note(&error);
                    if last {
                        break;
                    }
                }
            }
        }
    }
    event::print(
        "pinged",
        json!({
            "sent": sent, "received": received, "errors": errors, "last_answer_t": last_answer,
        }),
    );

    Ok(())
}
