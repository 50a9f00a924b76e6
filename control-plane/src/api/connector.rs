//! `/v1/connector`: what connectors ask for and report.

use adit_proto::api::{
    AccessEventBatch, ConnectorEnroll, ConnectorEnrolled, ConnectorReport, SignedToken,
};
use axum::{
    extract::State,
    http::{HeaderMap, StatusCode},
    response::Response,
};
use utoipa_axum::{router::OpenApiRouter, routes};

use super::{
    assertion::{ByConnector, ByConnectorJson},
    conditional::{IfNoneMatchHeader, is_current, not_modified, signed_token},
    problem::{ConnectorReadRefusals, ConnectorWriteRefusals, EnrollRefusals},
    request::Json,
    response::{etag, json},
    stream,
};
use crate::{
    app::{self, App},
    error::ApiError,
};

pub(super) fn router() -> OpenApiRouter<App> {
    OpenApiRouter::new()
        .routes(routes!(enroll_connector))
        .routes(routes!(report))
        .routes(routes!(read_bundle))
        .routes(routes!(add_access_events))
        .merge(stream::router())
}

/// Joins with a connector token. The same connector may repeat it with the same token.
#[utoipa::path(post, path = "/v1/connector/enroll", tag = "connector",
    request_body = ConnectorEnroll,
    responses(
        (status = 201, description = "Created.", body = ConnectorEnrolled),
        EnrollRefusals,
    ), security(()))]
async fn enroll_connector(
    State(app): State<App>,
    Json(enroll): Json<ConnectorEnroll>,
) -> Result<Response, ApiError> {
    let enrolled = app::enroll::enroll_connector(&app, &enroll).await?;
    let mut response = json(&enrolled);
    *response.status_mut() = StatusCode::CREATED;
    Ok(response)
}

/// Takes in what a connector says of itself at its start.
#[utoipa::path(put, path = "/v1/connector/report", tag = "connector",
    request_body = ConnectorReport,
    responses((status = 204, description = "Taken in."), ConnectorWriteRefusals),
    security(("assertion" = [])))]
async fn report(
    State(app): State<App>,
    ByConnectorJson(record, report): ByConnectorJson<ConnectorReport>,
) -> Result<StatusCode, ApiError> {
    app::connectors::report(&app, record.connector.id, &report).await?;
    Ok(StatusCode::NO_CONTENT)
}

/// Reads the connector's signed bundle. Its ETag is the sequence.
#[utoipa::path(get, path = "/v1/connector/bundle", tag = "connector", params(IfNoneMatchHeader),
    responses(
        (status = 200, description = "Found.", body = SignedToken),
        (status = 304, description = "The caller holds it."),
        ConnectorReadRefusals,
    ), security(("assertion" = [])))]
async fn read_bundle(
    State(app): State<App>,
    headers: HeaderMap,
    ByConnector(record): ByConnector,
) -> Result<Response, ApiError> {
    let bundle = app::bundle::current(&app, record.connector.id).await?;
    let tag = etag(bundle.sequence);
    if is_current(&headers, &tag) {
        return Ok(not_modified(&tag));
    }
    Ok(signed_token(bundle.token.to_string(), &tag))
}

/// Adds to the access log. Events that are known already count once.
#[utoipa::path(post, path = "/v1/connector/access-events", tag = "connector",
    request_body = AccessEventBatch,
    responses((status = 204, description = "Taken in."), ConnectorWriteRefusals),
    security(("assertion" = [])))]
async fn add_access_events(
    State(app): State<App>,
    ByConnectorJson(record, batch): ByConnectorJson<AccessEventBatch>,
) -> Result<StatusCode, ApiError> {
    app::access_events::record(&app, record.connector.id, &batch).await?;
    Ok(StatusCode::NO_CONTENT)
}
