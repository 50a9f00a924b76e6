//! Echoes of ICMP through the tunnel (RFC 792, RFC 4443).

mod message;
mod socket;

use std::{
    net::IpAddr,
    time::{Duration, Instant},
};

use tokio::time::timeout_at;

use self::{
    message::{Echo, Heard},
    socket::EchoSocket,
};
use crate::ipc::PingOutcome;

/// An echo that is to be sent.
#[derive(Debug, Clone)]
pub(crate) struct EchoParts {
    pub(crate) destination: IpAddr,
    /// Our own address inside the tunnel.
    pub(crate) source: IpAddr,
    /// The tunnel's interface.
    pub(crate) interface: String,
    pub(crate) sequence: u16,
    pub(crate) patience: Duration,
}

/// Sends an echo and waits for what comes of it.
pub(crate) async fn ping(parts: EchoParts) -> PingOutcome {
    match try_ping(&parts).await {
        Ok(outcome) => outcome,
        Err(error) => PingOutcome::Unsendable { problem: format!("{error:#}") },
    }
}

async fn try_ping(parts: &EchoParts) -> anyhow::Result<PingOutcome> {
    /// Longer messages are cut, and none of ours is.
    const BUFFER_LEN: usize = 2048;

    let socket = EchoSocket::try_open(parts.source, &parts.interface)?;
    let echo = Echo::try_new(parts.destination, parts.sequence)?;
    let began = Instant::now();
    socket.send(&echo.encode(), parts.destination).await?;
    let deadline = began + parts.patience;
    let mut buffer = vec![0; BUFFER_LEN];
    loop {
        let Ok(received) = timeout_at(deadline.into(), socket.receive(&mut buffer)).await else {
            let waited_ms = u64::try_from(parts.patience.as_millis()).unwrap_or(u64::MAX);
            return Ok(PingOutcome::NoAnswer { waited_ms });
        };
        let (len, from) = received?;
        let round_trip = began.elapsed();
        match echo.hear(buffer.get(..len).unwrap_or_default(), from) {
            Some(Heard::Reply) => {
                let round_trip_ms = (round_trip.as_secs_f64() * 100_000.0).round() / 100.0;
                return Ok(PingOutcome::Answered { round_trip_ms });
            }
            Some(Heard::Error(icmp)) => {
                return Ok(PingOutcome::Refused { by: from, icmp: icmp.to_owned() });
            }
            None => {}
        }
    }
}
