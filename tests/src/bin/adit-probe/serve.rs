use std::{
    io::{self, Read as _, Write as _},
    net::{TcpListener, TcpStream},
    sync::Arc,
    thread,
    time::Duration,
};

use anyhow::Context as _;
use serde_json::json;

use crate::{Bind, event};

#[derive(clap::Args)]
pub(crate) struct Args {
    #[command(flatten)]
    bind: Bind,
    /// What to do with a connection.
    #[arg(long, value_enum)]
    mode: Mode,
    /// What to send, again and again.
    #[arg(long, default_value = "0123456789abcdef")]
    marker: String,
    /// The pause between pulses.
    #[arg(long, default_value_t = 1_000)]
    pause_ms: u64,
}

#[derive(Clone, Copy, clap::ValueEnum)]
enum Mode {
    /// Send back what comes.
    Echo,
    /// Send the marker forever.
    Send,
    /// Send the marker forever, about two megabytes a second.
    Pace,
    /// Send one byte again and again, with a pause before each.
    Pulse,
}

pub(crate) fn run(args: Args) -> anyhow::Result<()> {
    let listener = listen(&args.bind)?;
    let chunk: Arc<[u8]> = args.marker.bytes().cycle().take(64 * 1024).collect();

    loop {
        let (stream, peer) = listener.accept().context("failed to accept a connection")?;
        event::print("accepted", json!({ "peer": peer.to_string() }));
        let chunk = chunk.clone();
        thread::spawn(move || {
            let mut sent = 0;
            let result = match args.mode {
                Mode::Echo => echo(&stream, &mut sent),
                Mode::Send => send(&stream, &chunk, &mut sent),
                Mode::Pace => pace(&stream, &chunk, &mut sent),
                Mode::Pulse => pulse(&stream, Duration::from_millis(args.pause_ms), &mut sent),
            };
            let how = result.map_or_else(|e| event::name_of(&e), |()| "eof".to_owned());
            event::print("closed", json!({ "peer": peer.to_string(), "sent": sent, "how": how }));
        });
    }
}

/// Listens and prints where.
pub(crate) fn listen(bind: &Bind) -> anyhow::Result<TcpListener> {
    let listener = TcpListener::bind((bind.bind, bind.port))
        .with_context(|| format!("failed to listen on {}", bind.bind))?;
    event::print_listening(listener.local_addr().context("failed to read the port")?);

    Ok(listener)
}

fn echo(mut stream: &TcpStream, sent: &mut u64) -> io::Result<()> {
    let mut buffer = vec![0; 64 * 1024];
    loop {
        let length = stream.read(&mut buffer)?;
        if length == 0 {
            return Ok(());
        }
        stream.write_all(&buffer[..length])?;
        *sent += length as u64;
    }
}

fn send(mut stream: &TcpStream, chunk: &[u8], sent: &mut u64) -> io::Result<()> {
    loop {
        stream.write_all(chunk)?;
        *sent += chunk.len() as u64;
    }
}

fn pace(mut stream: &TcpStream, chunk: &[u8], sent: &mut u64) -> io::Result<()> {
    let chunk = &chunk[..chunk.len().min(4096)];
    loop {
        stream.write_all(chunk)?;
        *sent += chunk.len() as u64;
        thread::sleep(Duration::from_millis(2));
    }
}

fn pulse(mut stream: &TcpStream, pause: Duration, sent: &mut u64) -> io::Result<()> {
    loop {
        thread::sleep(pause);
        event::print("pulse", json!({}));
        stream.write_all(b"p")?;
        *sent += 1;
    }
}
