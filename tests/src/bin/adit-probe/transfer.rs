use std::{
    io::{self, BufRead as _, BufReader, Read as _, Write as _},
    net::{Shutdown, SocketAddr, TcpStream},
    thread,
    time::Instant,
};

use anyhow::{Context as _, bail};
use serde_json::json;
use sha2::{Digest as _, Sha256};

use crate::{Bind, event, serve};

#[derive(clap::Args)]
pub(crate) struct ServeArgs {
    #[command(flatten)]
    bind: Bind,
}

#[derive(clap::Args)]
pub(crate) struct Args {
    /// The transfer server.
    peer: SocketAddr,
    /// How many bytes to carry.
    #[arg(long)]
    bytes: u64,
}

const CHUNK: usize = 256 * 1024;

/// Answers `get BYTES` with that many bytes and their checksum, and `put BYTES`, followed by that
/// many bytes, with the checksum of what came.
pub(crate) fn serve(args: &ServeArgs) -> anyhow::Result<()> {
    let listener = serve::listen(&args.bind)?;

    loop {
        let (stream, _) = listener.accept().context("failed to accept a connection")?;
        thread::spawn(move || {
            if let Err(error) = answer(&stream) {
                event::print("failed", json!({ "error": format!("{error:#}") }));
            }
        });
    }
}

fn answer(mut stream: &TcpStream) -> anyhow::Result<()> {
    let mut reader = BufReader::with_capacity(CHUNK, stream);
    let mut request = String::new();
    reader.read_line(&mut request).context("failed to read the request")?;
    let (verb, bytes) = request.trim_end().split_once(' ').context("malformed request")?;
    let bytes = bytes.parse().context("malformed request")?;
    let checksum = match verb {
        "get" => send(stream, bytes).context("failed to send")?,
        "put" => receive(&mut reader, bytes).context("failed to receive")?.0,
        _ => bail!("malformed request"),
    };
    writeln!(stream, "{checksum}").context("failed to send the checksum")?;

    Ok(())
}

pub(crate) fn download(args: &Args) -> anyhow::Result<()> {
    let started = Instant::now();
    let mut stream = TcpStream::connect(args.peer).context("failed to connect")?;
    writeln!(stream, "get {}", args.bytes).context("failed to ask")?;
    let mut reader = BufReader::with_capacity(CHUNK, &stream);
    let (checksum, bytes) = receive(&mut reader, args.bytes).context("failed to receive")?;
    let expected = read_checksum(&mut reader)?;
    print_transferred(bytes, &checksum, &expected, started);

    Ok(())
}

pub(crate) fn upload(args: &Args) -> anyhow::Result<()> {
    let started = Instant::now();
    let mut stream = TcpStream::connect(args.peer).context("failed to connect")?;
    writeln!(stream, "put {}", args.bytes).context("failed to ask")?;
    let expected = send(&stream, args.bytes).context("failed to send")?;
    stream.shutdown(Shutdown::Write).context("failed to finish")?;
    let checksum = read_checksum(&mut BufReader::new(&stream))?;
    print_transferred(args.bytes, &checksum, &expected, started);

    Ok(())
}

fn print_transferred(bytes: u64, checksum: &str, expected: &str, started: Instant) {
    event::print(
        "transferred",
        json!({
            "bytes": bytes,
            "sha256": checksum,
            "expected": expected,
            "seconds": started.elapsed().as_secs_f64(),
        }),
    );
}

fn read_checksum(reader: &mut impl io::BufRead) -> anyhow::Result<String> {
    let mut line = String::new();
    reader.read_line(&mut line).context("failed to read the checksum")?;

    Ok(line.trim_end().to_owned())
}

/// Sends pseudo-random bytes and returns their checksum.
fn send(mut stream: &TcpStream, bytes: u64) -> io::Result<String> {
    let mut hash = Sha256::new();
    let mut random = XorShift(0x9e37_79b9_7f4a_7c15);
    let mut chunk = vec![0; CHUNK];
    let mut left = bytes;
    while left > 0 {
        random.fill(&mut chunk);
        let length = usize::try_from(left).map_or(CHUNK, |left| left.min(CHUNK));
        stream.write_all(&chunk[..length])?;
        hash.update(&chunk[..length]);
        left -= length as u64;
    }

    Ok(hex(&hash.finalize()))
}

/// Receives up to `bytes` and returns their checksum and number.
fn receive(reader: &mut impl io::Read, bytes: u64) -> io::Result<(String, u64)> {
    let mut hash = Sha256::new();
    let mut reader = reader.take(bytes);
    let mut chunk = vec![0; CHUNK];
    let mut received = 0;
    loop {
        let length = reader.read(&mut chunk)?;
        if length == 0 {
            return Ok((hex(&hash.finalize()), received));
        }
        hash.update(&chunk[..length]);
        received += length as u64;
    }
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// Fast bytes that do not compress and never repeat within a transfer.
struct XorShift(u64);

impl XorShift {
    fn fill(&mut self, buffer: &mut [u8]) {
        for word in buffer.chunks_exact_mut(8) {
            self.0 ^= self.0 << 13;
            self.0 ^= self.0 >> 7;
            self.0 ^= self.0 << 17;
            word.copy_from_slice(&self.0.to_le_bytes());
        }
    }
}
