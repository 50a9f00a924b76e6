//! What a user's programs do all day, and how long they can go on.

use std::{
    io::{self, ErrorKind, Read as _, Write as _},
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpStream, UdpSocket},
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    thread,
    time::{Duration, Instant},
};

use adit_tests::monotonic_ns;
use anyhow::{Context as _, bail};
use serde_json::json;

use crate::event;

#[derive(clap::Args)]
pub(crate) struct Args {
    /// A server that sends forever.
    #[arg(long)]
    download: SocketAddr,
    /// A UDP server that sends back what it gets.
    #[arg(long)]
    udp: SocketAddr,
    /// A TCP server that sends back what it gets: the connection to it stays idle.
    #[arg(long)]
    idle: SocketAddr,
    /// How long to try to connect.
    #[arg(long, default_value_t = 30_000)]
    connect_ms: u64,
    /// How long nothing may come until all is taken to be cut.
    #[arg(long, default_value_t = 1_000)]
    quiet_ms: u64,
}

/// Time between two attempts to connect, and between two datagrams.
const INTERVAL: Duration = Duration::from_millis(10);

/// Least time between two lines that say that it goes on.
const ALIVE_INTERVAL_NS: u64 = 20_000_000;

/// How long a server may be silent before an attempt is given up.
const PATIENCE: Duration = Duration::from_millis(300);

/// Connects and prints `flowing`; while both bytes and datagrams come `alive`, with the time up to
/// which they did; and when nothing has come for a while `quiet`: when the last byte and datagram
/// came, and whether the idle connection still works.
pub(crate) fn run(args: &Args) -> anyhow::Result<()> {
    let started = monotonic_ns();
    let deadline = Instant::now() + Duration::from_millis(args.connect_ms);
    let download = until(deadline, || first_byte(args.download)).context("no download")?;
    let mut idle = until(deadline, || answered(args.idle)).context("no idle connection")?;
    let last_byte = Arc::new(AtomicU64::new(monotonic_ns()));
    let last_answer = Arc::new(AtomicU64::new(0));
    let reading = {
        let last_byte = last_byte.clone();
        thread::spawn(move || read(download, &last_byte))
    };
    let udp = udp_socket(args.udp)?;
    {
        let last_answer = last_answer.clone();
        thread::spawn(move || exchange(&udp, &last_answer));
    }
    while last_answer.load(Ordering::Relaxed) == 0 {
        if Instant::now() > deadline {
            bail!("no answer by UDP");
        }
        thread::sleep(INTERVAL);
    }
    event::print("flowing", json!({ "started_t": started }));

    let quiet_ns = args.quiet_ms * 1_000_000;
    let mut alive = 0;
    let (byte, answer) = loop {
        let (byte, answer) =
            (last_byte.load(Ordering::Relaxed), last_answer.load(Ordering::Relaxed));
        if byte.min(answer) > alive + ALIVE_INTERVAL_NS {
            alive = byte.min(answer);
            event::print_at(alive, "alive", json!({}));
        }
        if monotonic_ns().saturating_sub(byte.max(answer)) > quiet_ns {
            break (byte, answer);
        }
        thread::sleep(INTERVAL);
    };
    let how = if reading.is_finished() {
        reading.join().unwrap_or_else(|_| "panicked".to_owned())
    } else {
        "silent".to_owned()
    };
    let survived = idle.write_all(b"x").is_ok() && matches!(idle.read(&mut [0; 8]), Ok(1..));
    event::print(
        "quiet",
        json!({ "last_byte_t": byte, "last_answer_t": answer, "how": how, "idle_works": survived }),
    );

    Ok(())
}

fn until<T>(deadline: Instant, attempt: impl Fn() -> io::Result<T>) -> anyhow::Result<T> {
    loop {
        match attempt() {
            Ok(value) => return Ok(value),
            Err(error) if Instant::now() > deadline => return Err(error.into()),
            Err(_) => thread::sleep(INTERVAL),
        }
    }
}

fn connect(to: SocketAddr) -> io::Result<TcpStream> {
    let stream = TcpStream::connect_timeout(&to, PATIENCE)?;
    stream.set_read_timeout(Some(PATIENCE))?;

    Ok(stream)
}

fn first_byte(from: SocketAddr) -> io::Result<TcpStream> {
    let mut stream = connect(from)?;
    match stream.read(&mut [0; 1])? {
        0 => Err(ErrorKind::UnexpectedEof.into()),
        _ => Ok(stream),
    }
}

fn answered(by: SocketAddr) -> io::Result<TcpStream> {
    let mut stream = connect(by)?;
    stream.write_all(b"x")?;
    stream.read_exact(&mut [0; 1])?;

    Ok(stream)
}

/// Reads to the end and returns how it ended.
fn read(mut stream: TcpStream, last_byte: &AtomicU64) -> String {
    let mut buffer = vec![0; 64 * 1024];
    loop {
        match stream.read(&mut buffer) {
            Ok(0) => return "eof".to_owned(),
            Ok(_) => last_byte.store(monotonic_ns(), Ordering::Relaxed),
            Err(error) if error.kind() == ErrorKind::WouldBlock => {}
            Err(error) => return event::name_of(&error),
        }
    }
}

fn udp_socket(to: SocketAddr) -> anyhow::Result<UdpSocket> {
    let any: IpAddr = match to {
        SocketAddr::V4(_) => Ipv4Addr::UNSPECIFIED.into(),
        SocketAddr::V6(_) => Ipv6Addr::UNSPECIFIED.into(),
    };
    let socket = UdpSocket::bind((any, 0)).context("failed to bind")?;
    socket.connect(to).context("failed to connect")?;
    socket.set_read_timeout(Some(INTERVAL)).context("failed to set a timeout")?;

    Ok(socket)
}

/// Sends a datagram and waits for its answer, again and again, whatever the network says.
fn exchange(socket: &UdpSocket, last_answer: &AtomicU64) {
    let mut buffer = [0; 64];
    loop {
        // Refusals are what the test is about.
        let _ = socket.send(b"x");
        let sent = Instant::now();
        if socket.recv(&mut buffer).is_ok() {
            last_answer.store(monotonic_ns(), Ordering::Relaxed);
        }
        thread::sleep(INTERVAL.saturating_sub(sent.elapsed()));
    }
}
