//! `/healthz`, `/readyz` and `/metrics`: for load balancers and Prometheus, without authentication.

use axum::{
    extract::State,
    http::header,
    response::{IntoResponse, Response},
};
use serde::Serialize;
use utoipa::ToSchema;
use utoipa_axum::{router::OpenApiRouter, routes};

use super::{
    problem::{PublicRefusals, ReadinessRefusals},
    response::json,
};
use crate::{app::App, error::ApiError, store::organisation};

pub(super) fn router() -> OpenApiRouter<App> {
    OpenApiRouter::new()
        .routes(routes!(read_health))
        .routes(routes!(read_readiness))
        .routes(routes!(read_metrics))
}

/// How the control plane is.
#[derive(Debug, Serialize, ToSchema)]
struct Health {
    /// The version that runs.
    version: &'static str,
    /// For how long, in seconds.
    uptime_s: u64,
}

fn health(app: &App) -> Response {
    let uptime_s = app.started_at.elapsed().as_secs();
    json(&Health { version: env!("CARGO_PKG_VERSION"), uptime_s })
}

/// Says that the process runs.
#[utoipa::path(get, path = "/healthz", tag = "health", security(()),
    responses((status = 200, description = "It runs.", body = Health), PublicRefusals))]
async fn read_health(State(app): State<App>) -> Response {
    health(&app)
}

/// Says whether requests can be answered: the database is read, and its last write succeeded.
#[utoipa::path(get, path = "/readyz", tag = "health", security(()),
    responses((status = 200, description = "It is ready.", body = Health), ReadinessRefusals))]
async fn read_readiness(State(app): State<App>) -> Result<Response, ApiError> {
    let mut snapshot = app.store.snapshot().await?;
    organisation::read(&mut snapshot).await?;
    drop(snapshot);
    app.store.check_writable().await?;
    Ok(health(&app))
}

/// Metrics for Prometheus.
#[utoipa::path(get, path = "/metrics", tag = "health", security(()),
    responses((status = 200, description = "Metrics in the text format.", body = String,
        content_type = "text/plain"), PublicRefusals))]
async fn read_metrics(State(app): State<App>) -> Response {
    let text = app.metrics.render(&app);
    ([(header::CONTENT_TYPE, "text/plain; version=0.0.4")], text).into_response()
}
