//! The control plane: identities, resources and policies by a REST API, signed for those who
//! enforce them.
//!
//! A request is received, validated, committed to the store, and then announced to the connectors.
//! `api` speaks HTTP and nothing else, `app` holds the rules, `store` the only SQL.

mod api;
mod app;
mod config;
mod data_dir;
mod error;
mod first_run;
#[cfg(test)]
mod fixture;
mod metrics;
mod server;
mod signing;
mod store;

use std::{
    env,
    io::{self, IsTerminal as _, Write as _},
    path::Path,
    process::ExitCode,
    time::Instant,
};

use anyhow::{Context as _, bail};
use clap::Parser as _;
use tokio::{
    runtime::Runtime,
    signal::unix::{SignalKind, signal},
    sync::watch,
};
use tracing::info;
use tracing_subscriber::EnvFilter;

use crate::{
    app::{App, Parts, live::Live},
    config::{Arguments, Command, ServeConfig},
    data_dir::DataDir,
    metrics::Metrics,
    server::{Listener, Server},
    store::{
        Store,
        audit::{self, Chain},
    },
};

fn main() -> ExitCode {
    let result = match Arguments::parse().command {
        Command::Serve(config) => serve(config),
        Command::Openapi => print_openapi(),
        Command::VerifyAudit { data_dir } => verify_audit(&data_dir),
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("adit-control: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn print_openapi() -> anyhow::Result<()> {
    let json = api::openapi().to_pretty_json().context("failed to write the description")?;
    writeln!(io::stdout(), "{json}").context("failed to print the description")
}

fn verify_audit(data_dir: &Path) -> anyhow::Result<()> {
    let verify = async {
        let store = Store::open_read_only(&data_dir::database(data_dir)).await?;
        let mut snapshot = store.snapshot().await.context("failed to read the database")?;
        anyhow::Ok(audit::verify(&mut snapshot).await.context("failed to read the database")?)
    };
    match runtime()?.block_on(verify)? {
        Chain::Whole { events } => {
            writeln!(io::stdout(), "The audit log is whole: {events} events")
                .context("failed to print the result")
        }
        Chain::Broken { sequence } => {
            bail!("the audit log was tampered with at event {sequence}; compare it with a backup")
        }
    }
}

fn serve(config: ServeConfig) -> anyhow::Result<()> {
    init_tracing();
    runtime()?.block_on(try_serve(config))
}

fn runtime() -> anyhow::Result<Runtime> {
    let mut builder = tokio::runtime::Builder::new_multi_thread();
    builder.enable_all().build().context("failed to start the runtime")
}

async fn try_serve(config: ServeConfig) -> anyhow::Result<()> {
    info!(
        version = env!("CARGO_PKG_VERSION"),
        os = env::consts::OS,
        arch = env::consts::ARCH,
        "Starting"
    );
    let mut terminate = signal(SignalKind::terminate()).context("failed to handle signals")?;
    let mut interrupt = signal(SignalKind::interrupt()).context("failed to handle signals")?;

    let data_dir = DataDir::open(&config.data_dir)?;
    let listener = Listener::bind(config.listen)?;
    let address = listener.local_address();
    let public_url = config.public_url.unwrap_or_else(|| first_run::default_url(address));
    let certificate = data_dir.certificate(&public_url)?;
    let store = Store::open(&data_dir.database()).await?;
    let identity =
        first_run::identity(&data_dir, &store, &config.organisation, &public_url).await?;

    let (draining, is_draining) = watch::channel(false);
    let app = App::new(Parts {
        store: store.clone(),
        signer: identity.signer,
        live: Live::default(),
        metrics: Metrics::default(),
        public_url,
        pin: certificate.pin,
        started_at: Instant::now(),
        draining: is_draining,
    });
    let pruning = tokio::spawn(app::access_events::prune_forever(app.clone()));
    let server = Server::start(listener, &certificate, app)?;
    info!(%address, organisation_id = %identity.organisation_id, "Listening");

    tokio::select! {
        _ = terminate.recv() => {}
        _ = interrupt.recv() => {}
    }
    info!("Draining");
    draining.send_replace(true);
    server.drain().await;
    pruning.abort();
    store.close().await;
    info!("Stopped");
    Ok(())
}

fn init_tracing() {
    let filter = EnvFilter::try_from_env("ADIT_LOG").unwrap_or_else(|_error| "info".into());
    tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(io::stderr)
        .with_ansi(io::stderr().is_terminal())
        .init();
}
