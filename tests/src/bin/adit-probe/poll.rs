use std::{net::SocketAddr, sync::Arc, thread, time::Duration};

use adit_tests::monotonic_ns;
use serde_json::json;

use crate::{download, event};

#[derive(clap::Args)]
pub(crate) struct Args {
    /// Server to ask.
    to: SocketAddr,
    /// Time between two connections, whatever has become of the earlier ones.
    #[arg(long)]
    every_ms: u64,
    /// How long to wait for a connection, and for the answer.
    #[arg(long, default_value_t = 10_000)]
    timeout_ms: u64,
}

/// Asks again and again, each time by a connection of its own, until it is killed.
pub(crate) fn run(args: &Args) -> anyhow::Result<()> {
    let ask = Arc::new(download::AskArgs {
        to: args.to,
        text: "hello".to_owned(),
        timeout_ms: args.timeout_ms,
    });
    loop {
        let ask = Arc::clone(&ask);
        thread::spawn(move || {
            let started = monotonic_ns();
            let how = match download::ask_once(&ask) {
                Ok(answer) if answer == ask.text => "answered".to_owned(),
                Ok(answer) => format!("answered {answer:?}"),
                Err(error) => event::name_of(&error),
            };
            event::print("polled", json!({ "started_t": started, "how": how }));
        });
        thread::sleep(Duration::from_millis(args.every_ms));
    }
}
