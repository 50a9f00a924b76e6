//! `/healthz`, `/readyz` and `/metrics`.

mod exposition;

use adit_proto::Timestamp;
use axum::{Router, extract::State, http::StatusCode, routing::get};
use tokio::{net::TcpListener, sync::watch};

use crate::{data_plane::DataPlaneMetrics, enforced::Standing, events::EventCounters};

/// What is known of the connector's health.
#[derive(Clone)]
pub(crate) struct Health {
    pub(crate) standing: watch::Receiver<Standing>,
    pub(crate) last_contact: watch::Receiver<Timestamp>,
    pub(crate) data_plane: watch::Receiver<DataPlaneMetrics>,
    pub(crate) sessions: watch::Receiver<usize>,
    pub(crate) events: watch::Receiver<EventCounters>,
    /// Whether the kernel forwards for us.
    pub(crate) forwarding: watch::Receiver<bool>,
    /// Whether the connector is about to stop.
    pub(crate) draining: watch::Receiver<bool>,
}

/// Serves until it is dropped.
pub(crate) async fn serve(listener: TcpListener, health: Health) -> std::io::Result<()> {
    let routes = Router::new()
        .route("/healthz", get(async || "ok\n"))
        .route("/readyz", get(ready))
        .route("/metrics", get(metrics))
        .with_state(health);
    axum::serve(listener, routes).await
}

async fn ready(State(health): State<Health>) -> (StatusCode, &'static str) {
    let unready = |why| (StatusCode::SERVICE_UNAVAILABLE, why);
    if *health.draining.borrow() {
        return unready("draining\n");
    }
    match &*health.standing.borrow() {
        Standing::Waiting => unready("no bundle yet\n"),
        Standing::Stale(_) => unready("bundle is stale, the control plane is silent\n"),
        Standing::Live(_) if !*health.forwarding.borrow() => unready("not forwarding yet\n"),
        Standing::Live(_) => (StatusCode::OK, "ready\n"),
    }
}

async fn metrics(State(health): State<Health>) -> ([(&'static str, &'static str); 1], String) {
    let text = exposition::render(&health, std::time::SystemTime::now().into());
    ([("content-type", "text/plain; version=0.0.4; charset=utf-8")], text)
}
