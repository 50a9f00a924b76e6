//! `GET /v1/connector/stream`: tells a connector that there is a new bundle.

use std::time::Duration;

use adit_proto::api::StreamEvent;
use axum::{
    extract::State,
    http::{HeaderMap, StatusCode},
    response::{
        IntoResponse as _, Response,
        sse::{Event, KeepAlive, Sse},
    },
};
use futures_util::stream;
use serde::Deserialize;
use tokio::time::timeout;
use utoipa::IntoParams;
use utoipa_axum::{router::OpenApiRouter, routes};

use super::{
    assertion::ByConnector, problem::ConnectorReadRefusals, request::Query, response::json,
};
use crate::{
    app::{App, connectors, follower::Follower},
    error::ApiError,
};

/// A connector takes 25 s of silence for a dead stream.
const KEEPALIVE_INTERVAL: Duration = Duration::from_secs(10);

/// How long an answer to `wait=true` is held back.
const WAIT: Duration = Duration::from_secs(30);

pub(super) fn router() -> OpenApiRouter<App> {
    OpenApiRouter::new().routes(routes!(follow_bundles))
}

#[derive(Debug, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
struct StreamQuery {
    /// Answer once, as JSON, as soon as there is something new, or 204 after 30 seconds.
    #[serde(default)]
    #[param(required = false)]
    wait: bool,
}

/// Headers of the stream, for the description of the API.
#[derive(IntoParams)]
#[into_params(parameter_in = Header)]
#[expect(dead_code, reason = "describes the header that the handler reads")]
struct LastEventIdHeader {
    /// The sequence last heard of; while it is the newest, nothing is told.
    #[param(rename = "Last-Event-ID")]
    last_event_id: Option<u64>,
}

/// Follows the sequence of the connector's bundle.
///
/// Server-sent events: `id` is the sequence, `event` is `bundle`, `data` is a StreamEvent. The
/// first tells the current sequence unless Last-Event-ID is that. Comments every 10 s keep it alive.
#[utoipa::path(get, path = "/v1/connector/stream", tag = "connector",
    params(StreamQuery, LastEventIdHeader),
    responses(
        (status = 200, description = "The stream, or with wait=true one event.",
            content((String = "text/event-stream"), (StreamEvent = "application/json"))),
        (status = 204, description = "Nothing new within 30 seconds (wait=true)."),
        ConnectorReadRefusals,
    ), security(("assertion" = [])))]
async fn follow_bundles(
    State(app): State<App>,
    headers: HeaderMap,
    query: Result<Query<StreamQuery>, ApiError>,
    ByConnector(record): ByConnector,
) -> Result<Response, ApiError> {
    let Query(query) = query?;
    let connector_id = record.connector.id;
    let mut follower = Follower::new(app.clone(), connector_id, last_event_id(&headers)?);
    // A disk that is full must not keep connectors from their bundles.
    if let Err(error) = connectors::mark_seen(&app, connector_id).await {
        tracing::warn!(%connector_id, error = error.detail, "Failed to remember the connector");
    }
    if query.wait {
        return Ok(match timeout(WAIT, follower.next()).await {
            Ok(next) => match next? {
                Some(sequence) => json(&StreamEvent { sequence }),
                None => StatusCode::NO_CONTENT.into_response(),
            },
            Err(_elapsed) => StatusCode::NO_CONTENT.into_response(),
        });
    }
    tracing::debug!(%connector_id, "Opened stream");
    let events = stream::unfold(follower, move |mut follower| async move {
        match follower.next().await {
            Ok(Some(sequence)) => Some((bundle_event(sequence), follower)),
            Ok(None) => None,
            // The connector opens the stream anew.
            Err(error) => {
                let error = format!("{:#}", anyhow::Error::from(error));
                tracing::warn!(%connector_id, error, "Closed stream");
                None
            }
        }
    });
    let keepalive = KeepAlive::new().interval(KEEPALIVE_INTERVAL).text("keepalive");
    Ok(Sse::new(events).keep_alive(keepalive).into_response())
}

fn bundle_event(sequence: u64) -> Result<Event, axum::Error> {
    Event::default().id(sequence.to_string()).event("bundle").json_data(StreamEvent { sequence })
}

fn last_event_id(headers: &HeaderMap) -> Result<Option<u64>, ApiError> {
    let Some(value) = headers.get("last-event-id") else { return Ok(None) };
    let sequence = value.to_str().ok().and_then(|text| text.trim().parse().ok());
    sequence.map(Some).ok_or_else(|| {
        ApiError::invalid("Last-Event-ID", "It is the id of an event of this stream: a number.")
    })
}
