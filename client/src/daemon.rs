//! `adit daemon`: owns interface, routes, keys and sessions.

mod backoff;
mod clock;
mod data_plane;
mod denials;
mod echo;
mod enrollment;
mod event_loop;
mod identity;
mod ipc_server;
mod journal;
mod known_networks;
mod login;
mod material;
mod netcheck;
mod obstacle;
mod packet_carrier;
mod reachability;
mod refresh;
mod resolver;
mod router;
mod session;
mod sites;
mod state;
mod store;
mod view;

pub(crate) mod event;
pub(crate) mod routing;
pub(crate) mod task;

use std::{
    io::{self, IsTerminal as _, Write as _},
    path::PathBuf,
    process::ExitCode,
};

use adit_tunnel::{Offloads, TunDevice, tun_mtu};
use anyhow::Context as _;
use clap::Args;
use tokio::{
    signal::unix::{SignalKind, signal},
    sync::{mpsc, watch},
};
use tracing_subscriber::EnvFilter;

use crate::platform::watch_network;

use self::{
    backoff::Jitter,
    event::Event,
    event_loop::{EVENT_QUEUE_LEN, EventLoop, Parts},
    identity::Enrolled,
    ipc_server::IpcServer,
    router::Router,
    store::Store,
    task::Task,
    view::Summary,
};

#[derive(Debug, Args)]
pub(crate) struct DaemonArguments {
    /// Where keys, identity and the last good configuration are kept.
    #[arg(long, value_name = "DIR", default_value = "/var/lib/adit")]
    state_dir: PathBuf,
    /// The name of the tunnel's interface.
    #[arg(long, value_name = "NAME", default_value = "adit0")]
    interface: String,

    /// Offloads of the kernel that may be used: all, none, or some of tso,uso,gso,gro.
    #[arg(long, value_name = "LIST", env = "ADIT_OFFLOADS", default_value = "all")]
    offloads: Offloads,
}

/// Runs the daemon until it is told to stop.
pub(crate) fn run(arguments: DaemonArguments, socket: PathBuf) -> ExitCode {
    // boringtun logs what is routine as an error.
    let filter = EnvFilter::try_from_default_env()
        .unwrap_or_else(|_unset| EnvFilter::new("info,boringtun=off"));
    tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_ansi(io::stderr().is_terminal())
        .with_writer(io::stderr)
        .init();
    let runtime =
        tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build();
    let outcome = runtime
        .context("failed to start the runtime")
        .and_then(|runtime| runtime.block_on(try_run(arguments, socket)));
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            let _ = writeln!(io::stderr().lock(), "adit: {error:#}");
            ExitCode::FAILURE
        }
    }
}

async fn try_run(arguments: DaemonArguments, socket: PathBuf) -> anyhow::Result<()> {
    let DaemonArguments { state_dir, interface, offloads } = arguments;
    tracing::info!(
        version = env!("CARGO_PKG_VERSION"),
        os = std::env::consts::OS,
        arch = std::env::consts::ARCH,
        "Starting"
    );
    let store = Store::try_open(&state_dir)?;
    let enrolled = Enrolled::load(&store)?;
    // Whoever starts the daemon learns at once that it cannot work, rather than at `adit up`.
    drop(TunDevice::try_open(&interface, tun_mtu().await, offloads)?);
    let (router, _router_task) = Router::start(&store.journal_path()).await?;
    let jitter = Jitter::from_seed(getrandom::u64().context("failed to draw randomness")?);

    let (sender, receiver) = mpsc::channel(EVENT_QUEUE_LEN);
    let (summary, watched) = watch::channel(Summary::default());
    let _server = IpcServer::try_start(&socket, sender.clone(), watched)?;
    let _signals = watch_signals(sender.clone())?;
    let _network = watch_network(sender.clone())?;
    let device_id = enrolled.as_ref().map(|enrolled| enrolled.identity.device_id);
    tracing::info!(socket = %socket.display(), ?device_id, interface, "Listening");

    let events = (sender, receiver);
    let parts = Parts { store, interface, offloads, enrolled, router, jitter, events, summary };
    EventLoop::new(parts).run().await;
    tracing::info!("Stopped");
    Ok(())
}

fn watch_signals(events: mpsc::Sender<Event>) -> anyhow::Result<Task> {
    let watch = |kind| signal(kind).context("failed to watch for signals");
    let mut terminate = watch(SignalKind::terminate())?;
    let mut interrupt = watch(SignalKind::interrupt())?;
    Ok(Task::spawn(async move {
        tokio::select! {
            _ = terminate.recv() => {}
            _ = interrupt.recv() => {}
        }
        let _ = events.send(Event::Shutdown).await;
    }))
}
