//! Puts the parts together, and takes them apart in order.

use std::time::{Duration, SystemTime};

use adit_proto::{AssertionSubject, Timestamp, api::ConnectorReport};
use adit_tunnel::{ControlPlane, KeyPair, load_or_create_wireguard_secret, tun_mtu};
use anyhow::{Context as _, anyhow};
use tokio::{
    signal::unix::{Signal, SignalKind, signal},
    sync::{mpsc, oneshot, watch},
    task::JoinSet,
};
use tracing::{info, warn};

use crate::{
    bundle_store::BundleStore,
    config::Config,
    control::{self, Control},
    credentials::Verifier,
    data_plane::{self, DataPlaneParts, RecordSinks},
    enforced::Standing,
    events::{self, EventCounters, EventUploader},
    forward::{KernelForwarding, KernelPath},
    freshness::{Freshness, judge},
    health::{self, Health},
    listen,
    own_addresses::{self, OwnAddresses},
    requests::{self, RequestServer, Streams},
    sessions::{self, SessionsParts},
    state_dir::StateDir,
};

/// Runs the connector until it is told to stop.
///
/// # Errors
///
/// What the connector cannot go on without.
pub async fn run(config: Config) -> anyhow::Result<()> {
    /// Messages about denied flows; more at once help no one.
    const DENIALS: usize = 1024;
    /// Devices that are to be asked to speak; others are named again with their next packet.
    const SILENT: usize = 1024;

    let mut shutdown = Shutdown::try_new()?;
    let drain_grace = config.drain_grace();

    // What can fail on this host fails before the token is used up.
    let state = StateDir::try_open(&config.state_dir)?;
    let key = KeyPair::load_or_create(&state.connector_key())?;
    let secret = load_or_create_wireguard_secret(&state.wireguard_key())?;
    let wireguard_public_key = secret.public_key();
    let (listener, udp) = listen::bind(config.listen, &key, config.offloads, config.lanes())?;
    let metrics_listener = listen::bind_metrics(config.metrics_listen).await?;
    let path = KernelPath::try_open(&config.interface, tun_mtu().await, config.offloads)?;
    KernelForwarding::check().await?;
    let mut forwarding = KernelForwarding::new(config.interface, &path, config.source_nat);
    // Keeps the interface's name, and with it the table, from another process until the end.
    let interface = path.clone();
    let address = listener.local_address();
    info!(%address, pin = %key.pin(), "Listening");
    info!(address = %metrics_listener.local_addr()?, "Serving metrics");

    let membership = match state.read_membership()? {
        Some(membership) => membership,
        None => {
            // A full disk is better found before the token is used up.
            state.write_last_contact(SystemTime::now().into())?;
            let token_file = config.token_file.as_deref();
            tokio::select! {
                joined = control::join(token_file, &key, wireguard_public_key, &state) => joined?,
                _stop = shutdown.wait() => return Ok(()),
            }
        }
    };
    let connector_id = membership.connector_id;
    let organisation_keys = membership.organisation_keys.clone();
    let control_plane = ControlPlane::try_new(&membership.url, membership.pin)?
        .with_identity(AssertionSubject::Connector(connector_id), key.clone());
    info!(%connector_id, url = %membership.url, "Serving for this control plane");

    let store = BundleStore::open(state.clone(), membership);
    let now: Timestamp = SystemTime::now().into();
    let last_contact = state
        .read_last_contact()
        .or_else(|| store.held().map(|held| held.bundle().issued_at))
        .unwrap_or(now);
    let (held, held_seen) = watch::channel(store.held().cloned());
    let (contact, contact_seen) = watch::channel(last_contact);
    let (standing, mut standing_seen) = watch::channel(judge(store.held(), last_contact, now));
    if let Standing::Stale(_) = &*standing_seen.borrow() {
        warn!(%last_contact, "Control plane was silent for too long; every flow is denied until it \
            is heard");
    }
    let addresses = OwnAddresses::read().context("failed to list this host's addresses")?;
    let endpoints = match config.advertise.is_empty() {
        true => listen::endpoints(address, &addresses),
        false => config.advertise,
    };
    let (own, own_seen) = watch::channel(addresses);

    let (access, records) = mpsc::channel(events::QUEUE);
    let (denials_in, denials) = mpsc::channel(DENIALS);
    let sinks = RecordSinks { access, denials: denials_in };
    let (silent_in, silent) = mpsc::channel(SILENT);
    let (requests_in, requests) = mpsc::channel(requests::QUEUE);
    let (sessions_in, from_lanes) = mpsc::channel(sessions::INCOMING);
    let (registry, registry_requests) = mpsc::channel(sessions::REQUESTS);
    let (data_plane, data_plane_metrics, mut data_plane_end) = data_plane::start(DataPlaneParts {
        secret,
        identity: key,
        requests: requests_in.clone(),
        udp,
        path,
        sinks: sinks.clone(),
        silent: silent_in,
    })
    .context("failed to start the data plane")?;

    let streams = Streams::default();
    let (draining_now, draining_seen) = watch::channel(false);
    let (forwards, forwards_seen) = watch::channel(false);
    let (session_count, session_count_seen) = watch::channel(0);
    let (event_counters, event_counters_seen) = watch::channel(EventCounters::default());
    let (drain, draining) = oneshot::channel();

    let report = ConnectorReport { version: env!("CARGO_PKG_VERSION").to_owned(), endpoints };
    let control = Control {
        control_plane: control_plane.clone(),
        store,
        report,
        held,
        last_contact: contact,
        etag: None,
    };
    let freshness = Freshness {
        state: state.clone(),
        held: held_seen,
        last_contact: contact_seen.clone(),
        standing,
    };
    let health = Health {
        standing: standing_seen.clone(),
        last_contact: contact_seen.clone(),
        data_plane: data_plane_metrics.clone(),
        sessions: session_count_seen,
        events: event_counters_seen,
        forwarding: forwards_seen,
        draining: draining_seen,
    };
    let uploader = EventUploader { control_plane, connector_id, records, counters: event_counters };
    let verifier = Verifier { standing: standing_seen.clone(), organisation_keys };
    let request_server = RequestServer {
        verifier: verifier.clone(),
        sessions: sessions_in,
        registry: registry.clone(),
        data_plane: data_plane.clone(),
        own_addresses: own_seen.clone(),
        sinks,
        streams: streams.clone(),
    };
    let sessions = SessionsParts {
        listener,
        from_lanes,
        other_requests: requests_in,
        data_plane: data_plane.clone(),
        wireguard_public_key,
        verifier: verifier.clone(),
        requests: (registry.clone(), registry_requests),
        standing: standing_seen.clone(),
        own_addresses: own_seen.clone(),
        denials,
        silent,
        count: session_count,
        metrics: data_plane_metrics.clone(),
        streams,
        drain: draining,
    };

    let mut background = JoinSet::new();
    background.spawn(control.run());
    background.spawn(freshness.run());
    background.spawn(own_addresses::follow(own));
    background.spawn(request_server.run(requests));
    background.spawn(events::warn_of_losses(data_plane_metrics));
    background.spawn(async {
        if let Err(error) = health::serve(metrics_listener, health).await {
            warn!(%error, "Failed to serve metrics");
        }
    });
    let mut uploading = tokio::spawn(uploader.run());
    let mut serving = tokio::spawn(sessions::run(sessions));

    let running = async {
        loop {
            let live = standing_seen.borrow_and_update().live().cloned();
            if let Some(enforced) = live {
                forwarding.configure(&enforced.bundle().device_ranges).await?;
                forwards.send_replace(true);
            }
            tokio::select! {
                stop = shutdown.wait() => return Ok(stop),
                changed = standing_seen.changed() => changed.context("lost sight of the bundle")?,
                end = data_plane_end.recv() => {
                    end.context("the data plane broke off")?.context("the data plane failed")?;
                    return Err(anyhow!("the data plane ended before its time"));
                }
                Some(ended) = background.join_next() => {
                    ended.context("a task broke off")?;
                    return Err(anyhow!("a task ended before its time"));
                }
            }
        }
    };
    let result: anyhow::Result<Stop> = running.await;

    /// For the last packets and access events.
    const STOP_TIME: Duration = Duration::from_secs(3);
    let grace = if result.is_ok() { drain_grace } else { Duration::ZERO };
    info!(grace_s = grace.as_secs(), "Draining; told to stop once more, it stops at once");
    draining_now.send_replace(true);
    // Whoever has ended already needs no telling.
    let _ = drain.send(grace);
    tokio::select! {
        _ended = &mut serving => {}
        _stop = shutdown.wait() => serving.abort(),
    }
    let stopped = async {
        data_plane.stop().await;
        while data_plane_end.recv().await.is_some() {}
    };
    let _ = tokio::time::timeout(STOP_TIME, stopped).await;
    if let Ok(Stop::ForGood) = result {
        forwarding.remove().await;
    }
    drop(interface);
    if let Err(error) = state.write_last_contact(*contact_seen.borrow()) {
        let error: &dyn std::error::Error = &error;
        warn!(error, "Failed to note when the control plane was last heard");
    }
    if tokio::time::timeout(STOP_TIME, &mut uploading).await.is_err() {
        warn!("Some access events could not be delivered before the end");
    }
    info!("Stopped");
    result.map(|_stop| ())
}

/// Why the connector is told to stop.
enum Stop {
    /// SIGTERM: by a service manager, which perhaps starts it again. The rules stay in the kernel,
    /// so that connections go on.
    Restart,
    /// SIGINT: by a person. Nothing stays behind.
    ForGood,
}

/// SIGTERM and SIGINT.
struct Shutdown {
    terminate: Signal,
    interrupt: Signal,
}

impl Shutdown {
    fn try_new() -> anyhow::Result<Self> {
        let handler = |kind| signal(kind).context("failed to handle signals");
        Ok(Self {
            terminate: handler(SignalKind::terminate())?,
            interrupt: handler(SignalKind::interrupt())?,
        })
    }

    async fn wait(&mut self) -> Stop {
        tokio::select! {
            _ = self.terminate.recv() => Stop::Restart,
            _ = self.interrupt.recv() => Stop::ForGood,
        }
    }
}
