//! `/v1/client`: what clients ask for.

use adit_proto::api::{ClientEnroll, ClientEnrolled, CredentialIssued, SignedToken};
use axum::{
    extract::State,
    http::{HeaderMap, StatusCode},
    response::{IntoResponse as _, Response},
};
use utoipa_axum::{router::OpenApiRouter, routes};

use super::{
    assertion::ByDevice,
    conditional::{IfNoneMatchHeader, is_current, not_modified, signed_token},
    problem::{ClientActionRefusals, ClientReadRefusals, ClientWriteRefusals, EnrollRefusals},
    request::Json,
    response::json,
};
use crate::{
    app::{self, App},
    error::ApiError,
};

pub(super) fn router() -> OpenApiRouter<App> {
    OpenApiRouter::new()
        .routes(routes!(enroll_client))
        .routes(routes!(read_client_config))
        .routes(routes!(issue_credential))
        .routes(routes!(log_out))
}

/// Joins with an enrolment key, or with the device code of an approved sign-in. The same client may
/// repeat it with the same one.
#[utoipa::path(post, path = "/v1/client/enroll", tag = "client", request_body = ClientEnroll,
    responses(
        (status = 201, description = "Created.", body = ClientEnrolled),
        EnrollRefusals,
    ), security(()))]
async fn enroll_client(
    State(app): State<App>,
    Json(enroll): Json<ClientEnroll>,
) -> Result<Response, ApiError> {
    let enrolled = app::enroll::enroll_client(&app, &enroll).await?;
    let mut response = json(&enrolled);
    *response.status_mut() = StatusCode::CREATED;
    Ok(response)
}

/// Reads the device's signed configuration.
#[utoipa::path(get, path = "/v1/client/config", tag = "client", params(IfNoneMatchHeader),
    responses(
        (status = 200, description = "Found.", body = SignedToken),
        (status = 304, description = "The caller holds it."),
        ClientReadRefusals,
    ), security(("assertion" = [])))]
async fn read_client_config(
    State(app): State<App>,
    headers: HeaderMap,
    ByDevice(device): ByDevice,
) -> Result<Response, ApiError> {
    let mut snapshot = app.store.snapshot().await?;
    let config = app::client_config::current(&app, &mut snapshot, &device).await?;
    drop(snapshot);
    let tag = format!("\"{}\"", app::client_config::content_digest(&config));
    if is_current(&headers, &tag) {
        return Ok(not_modified(&tag));
    }
    let signed = app.signer.sign_client_config(config);
    Ok(signed_token(signed.token().to_owned(), &tag))
}

/// Issues a credential.
#[utoipa::path(post, path = "/v1/client/credential", tag = "client",
    responses(
        (status = 200, description = "Issued.", body = CredentialIssued),
        ClientWriteRefusals,
    ),
    security(("assertion" = [])))]
async fn issue_credential(
    State(app): State<App>,
    ByDevice(device): ByDevice,
) -> Result<Response, ApiError> {
    let issued = app::credential::issue(&app, device.id).await?;
    Ok(json(&issued).into_response())
}

/// Ends the user's session and cuts what the device does. It stays enrolled.
#[utoipa::path(post, path = "/v1/client/log-out", tag = "client",
    responses((status = 204, description = "It has ended."), ClientActionRefusals),
    security(("assertion" = [])))]
async fn log_out(
    State(app): State<App>,
    ByDevice(device): ByDevice,
) -> Result<StatusCode, ApiError> {
    app::user_sessions::log_out(&app, device.id).await?;
    Ok(StatusCode::NO_CONTENT)
}
