use std::{
    io::{self, ErrorKind, Read as _, Write as _},
    net::{Shutdown, SocketAddr, TcpStream},
    time::Duration,
};

use adit_tests::monotonic_ns;
use serde_json::json;

use crate::event;

#[derive(clap::Args)]
pub(crate) struct Args {
    /// Server to read from.
    from: SocketAddr,
    /// Least time between two lines of progress.
    #[arg(long, default_value_t = 50)]
    every_ms: u64,
    /// How long to wait for a connection.
    #[arg(long, default_value_t = 5_000)]
    connect_ms: u64,
    /// How long to wait for the next byte.
    #[arg(long, default_value_t = 20_000)]
    idle_ms: u64,
}

#[derive(clap::Args)]
pub(crate) struct AskArgs {
    /// Server to ask.
    pub(crate) to: SocketAddr,
    /// What to send.
    #[arg(long)]
    pub(crate) text: String,
    /// How long to wait for a connection, and for the answer.
    #[arg(long, default_value_t = 5_000)]
    pub(crate) timeout_ms: u64,
}

/// What is known of a connection that has not ended.
#[derive(Default)]
struct Progress {
    started: u64,
    bytes: u64,
    last_byte: Option<u64>,
}

impl Progress {
    fn end(&self, how: &str) {
        event::print(
            "end",
            json!({
                "how": how,
                "bytes": self.bytes,
                "last_byte_t": self.last_byte,
                "started_t": self.started,
            }),
        );
    }
}

pub(crate) fn run(args: &Args) -> anyhow::Result<()> {
    let mut progress = Progress { started: monotonic_ns(), ..Progress::default() };
    let how = match read_all(args, &mut progress) {
        Ok(()) => "eof".to_owned(),
        Err(error) if error.kind() == ErrorKind::WouldBlock => "idle".to_owned(),
        Err(error) => event::name_of(&error),
    };
    progress.end(&how);

    Ok(())
}

fn read_all(args: &Args, progress: &mut Progress) -> io::Result<()> {
    let mut stream =
        TcpStream::connect_timeout(&args.from, Duration::from_millis(args.connect_ms))?;
    stream.set_read_timeout(Some(Duration::from_millis(args.idle_ms)))?;
    event::print("connected", json!({ "local": stream.local_addr()?.to_string() }));

    let mut buffer = vec![0; 256 * 1024];
    let mut printed = 0;
    loop {
        let length = stream.read(&mut buffer)?;
        if length == 0 {
            return Ok(());
        }
        let now = monotonic_ns();
        progress.bytes += length as u64;
        progress.last_byte = Some(now);
        if now - printed >= args.every_ms * 1_000_000 {
            event::print_at(now, "progress", json!({ "bytes": progress.bytes }));
            printed = now;
        }
    }
}

pub(crate) fn ask(args: &AskArgs) -> anyhow::Result<()> {
    let progress = Progress { started: monotonic_ns(), ..Progress::default() };
    match ask_once(args) {
        Ok(answer) => event::print("answer", json!({ "text": answer })),
        Err(error) => progress.end(&event::name_of(&error)),
    }

    Ok(())
}

pub(crate) fn ask_once(args: &AskArgs) -> io::Result<String> {
    let timeout = Duration::from_millis(args.timeout_ms);
    let mut stream = TcpStream::connect_timeout(&args.to, timeout)?;
    stream.set_read_timeout(Some(timeout))?;
    stream.write_all(args.text.as_bytes())?;
    stream.shutdown(Shutdown::Write)?;
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer)?;

    Ok(String::from_utf8_lossy(&answer).into_owned())
}
