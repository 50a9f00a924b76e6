//! Floods of QUIC.

mod attempts;
mod junk;
mod spoofed;

use std::{net::SocketAddr, time::Duration};

use adit_proto::Pin;
use anyhow::ensure;
use ipnet::IpNet;
use serde_json::json;

use self::{attempts::Attempts, junk::Junk, spoofed::Spoofed};
use crate::{event, load::Pace};

/// Datagrams are sent so many at a time.
const AT_ONCE: u64 = 16;

/// How often it is told how much was sent so far.
const EVENT_INTERVAL: Duration = Duration::from_millis(200);

#[derive(clap::Args)]
pub(crate) struct Args {
    /// The connector.
    to: SocketAddr,
    /// What to send.
    #[arg(value_enum)]
    kind: Kind,
    /// The connector's pin.
    #[arg(long, allow_hyphen_values = true)]
    pin: Pin,
    /// Addresses of this host to send from, or networks to take any address of.
    #[arg(long, value_delimiter = ',')]
    from: Vec<IpNet>,
    /// Datagrams a second.
    #[arg(long)]
    rate: u64,
    /// How long to send at most; it may be killed before.
    #[arg(long)]
    for_ms: u64,
}

#[derive(Clone, Copy, clap::ValueEnum)]
enum Kind {
    /// First words of clients, from any address of the networks.
    Spoofed,
    /// The same from addresses that are ours, doing everything that is asked for.
    Attempts,
    /// What is no handshake.
    Junk,
}

/// What was sent and came back so far.
#[derive(Default)]
struct Count {
    sent: u64,
    answers: u64,
    retries: u64,
    handshakes: u64,
}

/// One source of a flood.
trait Flood {
    /// Sends so many datagrams, or a few more.
    fn send(&mut self, at_least: u64, count: &mut Count) -> anyhow::Result<()>;
    /// Reads what has come.
    fn read(&mut self, count: &mut Count) -> anyhow::Result<()>;
}

/// Floods a connector.
pub(crate) fn run(args: &Args) -> anyhow::Result<()> {
    ensure!(!args.from.is_empty() && args.rate > 0, "a flood has sources and a rate");
    let mut floods: Vec<Box<dyn Flood>> = Vec::new();
    match args.kind {
        Kind::Spoofed => floods.push(Box::new(Spoofed::new(args.to, args.pin, &args.from)?)),
        Kind::Attempts => {
            for from in &args.from {
                floods.push(Box::new(Attempts::new(from.addr(), args.to, args.pin)?));
            }
        }
        Kind::Junk => {
            for from in &args.from {
                floods.push(Box::new(Junk::new(from.addr(), args.to)?));
            }
        }
    }

    let (mut count, mut told) = (Count::default(), Duration::ZERO);
    let mut pace = Pace::start(args.rate, AT_ONCE);
    while pace.elapsed() < Duration::from_millis(args.for_ms) {
        for flood in &mut floods {
            pace.wait_for(AT_ONCE);
            flood.send(AT_ONCE, &mut count)?;
            flood.read(&mut count)?;
        }
        let elapsed = pace.elapsed();
        if elapsed >= told + EVENT_INTERVAL {
            told = elapsed;
            let Count { sent, answers, retries, handshakes } = count;
            let fields = json!({
                "sent": sent, "answers": answers, "retries": retries, "handshakes": handshakes,
                "seconds": elapsed.as_secs_f64(),
            });
            event::print("flooding", fields);
        }
    }

    Ok(())
}
