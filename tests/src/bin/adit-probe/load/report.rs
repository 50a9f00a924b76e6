use std::{
    net::{SocketAddr, UdpSocket},
    time::Duration,
};

use anyhow::{Context as _, bail};
use serde_json::json;

use super::{
    datagram::{HEADER_LEN, Header, Kind},
    sender,
};
use crate::event;

#[derive(clap::Args)]
pub(crate) struct Args {
    /// Server to ask.
    of: SocketAddr,
    /// Number of the trial.
    #[arg(long)]
    trial: u32,
}

/// Prints how many datagrams of a trial a server has counted.
pub(crate) fn run(args: &Args) -> anyhow::Result<()> {
    let socket = sender::bind(args.of)?;
    socket.connect(args.of).context("failed to connect")?;
    event::print("counted", json!({ "received": ask(&socket, args.trial)? }));

    Ok(())
}

/// Asks how many datagrams of a trial have arrived.
pub(super) fn ask(socket: &UdpSocket, trial: u32) -> anyhow::Result<u64> {
    socket.set_read_timeout(Some(Duration::from_millis(200))).context("failed to set a timeout")?;
    let question = Header { kind: Kind::Report, trial, value: 0 };
    let mut datagram = [0; HEADER_LEN];
    for _ in 0..20 {
        question.write(&mut datagram);
        // What was sent last may be answered by an error.
        let _ = socket.send(&datagram);
        let Ok(length) = socket.recv(&mut datagram) else { continue };
        let answer = Header::read(&datagram[..length]);
        if let Some(answer) = answer.filter(|answer| answer.kind == Kind::Report) {
            return Ok(answer.value);
        }
    }

    bail!("the server does not say how many datagrams came")
}
