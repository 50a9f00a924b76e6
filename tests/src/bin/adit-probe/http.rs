use std::{
    io::{self, BufRead as _, BufReader, Write as _},
    net::TcpStream,
    sync::Arc,
    thread,
};

use anyhow::Context as _;
use serde_json::json;

use crate::{Bind, event, serve};

#[derive(clap::Args)]
pub(crate) struct Args {
    #[command(flatten)]
    bind: Bind,
    /// The page.
    #[arg(long)]
    body: String,
}

pub(crate) fn run(args: Args) -> anyhow::Result<()> {
    let listener = serve::listen(&args.bind)?;
    let body: Arc<str> = args.body.into();

    loop {
        let (stream, peer) = listener.accept().context("failed to accept a connection")?;
        let body = body.clone();
        thread::spawn(move || {
            let result = answer(&stream, &body);
            let request = result.unwrap_or_else(|e| event::name_of(&e));
            event::print("request", json!({ "peer": peer.to_string(), "request": request }));
        });
    }
}

/// Answers one request and closes the connection.
fn answer(mut stream: &TcpStream, body: &str) -> io::Result<String> {
    let mut lines = BufReader::new(stream).lines();
    let request = lines.next().transpose()?.unwrap_or_default();
    for line in lines {
        if line?.is_empty() {
            break;
        }
    }
    write!(
        stream,
        "HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\nContent-Length: {}\r\n\
         Connection: close\r\n\r\n{body}",
        body.len()
    )?;

    Ok(request)
}
