//! Handshakes of nobody, as many as one likes.

use std::{
    io::ErrorKind,
    net::{IpAddr, SocketAddr, UdpSocket},
    time::Duration,
};

use anyhow::{Context as _, ensure};
use boringtun::{
    noise::{Tunn, TunnResult},
    x25519::{PublicKey, StaticSecret},
};
use serde_json::json;

use crate::{crowd::decode_key, event, load::Pace};

/// Initiations are sent so many at a time, and many times: making one takes longer than sending it.
const AT_ONCE: u64 = 16;

/// How often it is told how much was sent so far.
const EVENT_INTERVAL: Duration = Duration::from_millis(200);

#[derive(clap::Args)]
pub(crate) struct Args {
    /// The connector.
    to: SocketAddr,
    /// The connector's WireGuard key.
    #[arg(long)]
    key: String,
    /// Addresses of this host to send from.
    #[arg(long, value_delimiter = ',')]
    from: Vec<IpAddr>,
    /// Initiations a second.
    #[arg(long)]
    rate: u64,
    /// How long to send at most; it may be killed before.
    #[arg(long)]
    for_ms: u64,
    /// Do what a cookie asks for.
    #[arg(long)]
    with_cookies: bool,
}

/// Floods a connector with initiations that know its key and belong to no peer.
pub(crate) fn run(args: &Args) -> anyhow::Result<()> {
    ensure!(!args.from.is_empty() && args.rate > 0, "a flood has sources and a rate");
    let key: PublicKey = decode_key(&args.key)?;
    let sources = args.from.iter().map(|from| Source::new(*from, args.to, key));
    let mut sources: Vec<Source> = sources.collect::<anyhow::Result<_>>()?;

    let (mut sent, mut cookies) = (0, 0);
    let mut told = Duration::ZERO;
    let mut pace = Pace::start(args.rate, AT_ONCE);
    while pace.elapsed() < Duration::from_millis(args.for_ms) {
        for source in &mut sources {
            pace.wait_for(AT_ONCE);
            for _ in 0..AT_ONCE {
                // A full queue is the flood's own.
                sent += u64::from(source.socket.send(&source.initiation).is_ok());
            }
            cookies += source.read(args.with_cookies)?;
        }
        let elapsed = pace.elapsed();
        if elapsed >= told + EVENT_INTERVAL {
            told = elapsed;
            let seconds = elapsed.as_secs_f64();
            event::print(
                "flooding",
                json!({ "sent": sent, "cookies": cookies, "seconds": seconds }),
            );
        }
    }

    Ok(())
}

struct Source {
    socket: UdpSocket,
    tunnel: Tunn,
    initiation: Vec<u8>,
}

impl Source {
    fn new(from: IpAddr, to: SocketAddr, key: PublicKey) -> anyhow::Result<Self> {
        let socket = UdpSocket::bind((from, 0)).with_context(|| format!("no address {from}"))?;
        socket.connect(to).context("failed to connect")?;
        socket.set_nonblocking(true).context("failed to set options")?;
        let mut secret = [0; 32];
        getrandom::fill(&mut secret).context("failed to draw a key")?;
        let secret = StaticSecret::from(secret);
        let mut tunnel = Tunn::new(secret, key, None, None, 0, None);
        let initiation = initiation(&mut tunnel)?;

        Ok(Self { socket, tunnel, initiation })
    }

    /// Reads the answers, and returns how many.
    fn read(&mut self, with_cookies: bool) -> anyhow::Result<u64> {
        let (mut answer, mut unused, mut count) = ([0; 256], [0; 256], 0);
        loop {
            let length = match self.socket.recv(&mut answer) {
                Ok(length) => length,
                Err(error) if error.kind() == ErrorKind::WouldBlock => break,
                // Tells of an earlier datagram.
                Err(_error) => continue,
            };
            count += 1;
            let datagram = &answer[..length];
            if with_cookies
                && let TunnResult::Done = self.tunnel.decapsulate(None, datagram, &mut unused)
            {
                self.initiation = initiation(&mut self.tunnel)?;
            }
        }

        Ok(count)
    }
}

fn initiation(tunnel: &mut Tunn) -> anyhow::Result<Vec<u8>> {
    let mut buffer = [0; 256];
    let formatted = tunnel.format_handshake_initiation(&mut buffer, true);
    let TunnResult::WriteToNetwork(message) = formatted else {
        anyhow::bail!("no initiation: {formatted:?}")
    };

    Ok(message.to_vec())
}
