//! The control plane: identities, resources and policies by a REST API, signed for those who
//! enforce them.
//!
//! A request is received, validated, committed to the store, and then announced to the connectors.
//! `api` speaks HTTP and nothing else, `app` holds the rules, `store` the only SQL.

mod api;
mod app;
mod audit_command;
mod config;
mod data_dir;
mod error;
mod first_run;
#[cfg(test)]
mod fixture;
mod head_file;
mod metrics;
mod open_id_connect;
mod policy_command;
mod rate_limits;
mod sealing;
mod server;
mod signing;
mod store;

use std::{
    env,
    io::{self, IsTerminal as _, Write as _},
    process::ExitCode,
    sync::Arc,
    time::Instant,
};

use anyhow::Context as _;
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
    open_id_connect::ProviderHttp,
    policy_command::PolicyCommand,
    rate_limits::RateLimits,
    sealing::Sealer,
    server::{Listener, Server},
    store::Store,
};

fn main() -> ExitCode {
    let result = match Arguments::parse().command {
        Command::Serve(config) => serve(config).map(|()| ExitCode::SUCCESS),
        Command::Openapi => print_openapi().map(|()| ExitCode::SUCCESS),
        Command::Policy(command) => policy(command),
        Command::Audit(command) => runtime()
            .and_then(|runtime| runtime.block_on(audit_command::run(command)))
            .map(|()| ExitCode::SUCCESS),
    };
    match result {
        Ok(code) => code,
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

fn policy(command: PolicyCommand) -> anyhow::Result<ExitCode> {
    runtime()?.block_on(policy_command::run(command))
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

    let data_dir = Arc::new(DataDir::open(&config.data_dir)?);
    let listener = Listener::bind(config.listen)?;
    let address = listener.local_address();
    let public_url = config.public_url.unwrap_or_else(|| first_run::default_url(address));
    let certificate = data_dir.certificate(&public_url)?;
    let store = Store::open(&data_dir.database()).await?;
    let identity =
        first_run::identity(&data_dir, &store, &config.organisation, &public_url).await?;

    // With the pin, so that it is of use whoever signed the certificate.
    let login_url = format!("{public_url}#{}", certificate.pin);

    let (draining, is_draining) = watch::channel(false);
    let app = App::new(Parts {
        store: store.clone(),
        signer: identity.signer,
        sealer: Sealer::load_or_create(&data_dir).context("failed to read the sealing key")?,
        provider_http: ProviderHttp::new(),
        live: Live::default(),
        metrics: Metrics::default(),
        rate_limits: RateLimits::new(&config.limits),
        public_url,
        pin: certificate.pin,
        started_at: Instant::now(),
        draining: is_draining,
    });
    let pruning = tokio::spawn(app::access_events::prune_forever(app.clone()));
    data_dir.write_local_url(address)?;
    let keeping_head = tokio::spawn(head_file::keep(app.clone(), data_dir));
    let server = Server::start(listener, &certificate, app)?;
    let organisation_id = identity.organisation_id;
    info!(%address, %organisation_id, %login_url, "Listening");

    tokio::select! {
        _ = terminate.recv() => {}
        _ = interrupt.recv() => {}
    }
    info!("Draining");
    draining.send_replace(true);
    server.drain().await;
    pruning.abort();
    keeping_head.abort();
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
