//! `/v1/device-authorization` and `/v1/token`: signing in on a device (RFC 8628). Refusals are as
//! RFC 6749 §5.2 has them.

use std::time::SystemTime;

use adit_proto::api::{
    DEVICE_CODE_GRANT, DeviceAuthorization, DeviceAuthorizationRequest, DeviceToken,
    DeviceTokenRequest, OAUTH_CLIENT_ID, OauthError, OauthErrorCode, ProblemCode,
};
use axum::{
    Form,
    body::{Body, Bytes},
    extract::{FromRequest as _, Request, State},
    http::{HeaderMap, HeaderValue, StatusCode, header},
    response::{IntoResponse, Response},
};
use serde::{Serialize, de::DeserializeOwned};
use tracing::error;
use utoipa_axum::{router::OpenApiRouter, routes};

use super::{
    assertion::ByDeviceOrAnyone, rate_limit::ClientAddress, request::is_of_type, response::json,
};
use crate::{
    app::{
        self, App,
        sign_ins::{Asker, Polled},
    },
    error::ApiError,
};

const FORM: &str = "application/x-www-form-urlencoded";

pub(super) fn router() -> OpenApiRouter<App> {
    OpenApiRouter::new().routes(routes!(begin_sign_in)).routes(routes!(poll_sign_in))
}

/// Begins to sign in on a device (RFC 8628 §3.1). One that has enrolled signs the request, as it
/// does all others; a new one cannot.
#[utoipa::path(post, path = "/v1/device-authorization", tag = "client",
    request_body(content = DeviceAuthorizationRequest,
        content_type = "application/x-www-form-urlencoded"),
    responses(
        (status = 200, description = "Begun.", body = DeviceAuthorization),
        (status = 400, description = "A parameter is of no use.", body = OauthError),
        (status = 401, description = "The device is unknown.", body = adit_proto::api::Problem,
            content_type = "application/problem+json"),
        (status = 403, description = "The device may not connect.",
            body = adit_proto::api::Problem, content_type = "application/problem+json"),
        (status = 413, description = "The body is too large.", body = adit_proto::api::Problem,
            content_type = "application/problem+json"),
        (status = 503, description = "Try again later.", body = OauthError),
    ), security(()))]
async fn begin_sign_in(
    State(app): State<App>,
    ClientAddress(address): ClientAddress,
    headers: HeaderMap,
    ByDeviceOrAnyone(device, body): ByDeviceOrAnyone,
) -> Result<Response, Refusal> {
    let request: DeviceAuthorizationRequest = form(&headers, body).await?;
    check_client(&request.client_id)?;
    let asker = match device {
        Some(device) => Asker::Device(device),
        None => Asker::Stranger(request.device_name),
    };
    let begun = app::sign_ins::begin(&app, asker, address).await?;
    Ok(not_stored(&begun))
}

/// Asks how far a sign-in is (RFC 8628 §3.4).
#[utoipa::path(post, path = "/v1/token", tag = "client",
    request_body(content = DeviceTokenRequest,
        content_type = "application/x-www-form-urlencoded"),
    responses(
        (status = 200, description = "Approved.", body = DeviceToken),
        (status = 400, description = "Not approved, or not yet.", body = OauthError),
        (status = 413, description = "The body is too large.", body = adit_proto::api::Problem,
            content_type = "application/problem+json"),
        (status = 503, description = "Try again later.", body = OauthError),
    ), security(()))]
async fn poll_sign_in(
    State(app): State<App>,
    headers: HeaderMap,
    body: Bytes,
) -> Result<Response, Refusal> {
    let request: DeviceTokenRequest = form(&headers, body).await?;
    check_client(&request.client_id)?;
    if request.grant_type != DEVICE_CODE_GRANT {
        let detail = format!("The grant type is {DEVICE_CODE_GRANT}.");
        return Err(Refusal::new(OauthErrorCode::UnsupportedGrantType, &detail));
    }
    let now = SystemTime::now().into();
    let polled = app::sign_ins::poll(&app, &request.device_code, now).await?;
    let (code, detail) = match polled {
        Polled::Approved(token) => return Ok(not_stored(&token)),
        Polled::Pending => (
            OauthErrorCode::AuthorizationPending,
            "Nobody has decided yet; ask again after the interval.",
        ),
        Polled::TooFast => (
            OauthErrorCode::SlowDown,
            "You ask too fast; the interval is five seconds longer from here on.",
        ),
        Polled::Expired => {
            (OauthErrorCode::ExpiredToken, "The code has expired; run `adit login` again.")
        }
        Polled::Denied => (OauthErrorCode::AccessDenied, "The sign-in was denied."),
        Polled::Unknown => (
            OauthErrorCode::InvalidGrant,
            "The device code is unknown or was used; run `adit login` again.",
        ),
    };
    Err(Refusal::new(code, detail))
}

/// Reads a form. Parameters that nobody knows are ignored (RFC 6749 §3.2), those that come twice
/// are refused.
async fn form<T: DeserializeOwned>(headers: &HeaderMap, body: Bytes) -> Result<T, Refusal> {
    if !is_of_type(headers, FORM) {
        let detail = format!("Send the parameters as `Content-Type: {FORM}`.");
        return Err(Refusal::new(OauthErrorCode::InvalidRequest, &detail));
    }
    let request = Request::post("/").header(header::CONTENT_TYPE, FORM).body(Body::from(body));
    let request = request.map_err(ApiError::internal)?;
    let form: Result<Form<T>, _> = Form::from_request(request, &()).await;
    form.map(|Form(parameters)| parameters)
        .map_err(|error| Refusal::new(OauthErrorCode::InvalidRequest, &error.body_text()))
}

fn check_client(client_id: &str) -> Result<(), Refusal> {
    if client_id == OAUTH_CLIENT_ID {
        return Ok(());
    }
    let detail = format!("The client is `{OAUTH_CLIENT_ID}`.");
    Err(Refusal::new(OauthErrorCode::InvalidClient, &detail))
}

/// As RFC 6749 §5.2 has it.
#[derive(Debug)]
struct Refusal(OauthError);

impl Refusal {
    fn new(error: OauthErrorCode, detail: &str) -> Self {
        Self(OauthError { error, error_description: detail.to_owned() })
    }
}

impl From<ApiError> for Refusal {
    fn from(failed: ApiError) -> Self {
        if failed.code == ProblemCode::Invalid {
            return Self::new(OauthErrorCode::InvalidRequest, &failed.detail);
        }
        if let Some(source) = &failed.source {
            error!(error = format!("{source:#}"), "Request failed");
        }
        Self::new(OauthErrorCode::TemporarilyUnavailable, &failed.detail)
    }
}

impl IntoResponse for Refusal {
    fn into_response(self) -> Response {
        let mut response = not_stored(&self.0);
        *response.status_mut() = match self.0.error {
            OauthErrorCode::TemporarilyUnavailable => StatusCode::SERVICE_UNAVAILABLE,
            OauthErrorCode::AuthorizationPending
            | OauthErrorCode::SlowDown
            | OauthErrorCode::ExpiredToken
            | OauthErrorCode::AccessDenied
            | OauthErrorCode::InvalidRequest
            | OauthErrorCode::InvalidClient
            | OauthErrorCode::InvalidGrant
            | OauthErrorCode::UnsupportedGrantType => StatusCode::BAD_REQUEST,
        };
        response
    }
}

/// RFC 6749 §5.1: what may hold a secret is kept by nobody on the way.
fn not_stored(body: &impl Serialize) -> Response {
    let no_store = (header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    ([no_store], json(body)).into_response()
}
