//! Refusals as problem details (RFC 9457), and which of them an operation can give.

use std::collections::BTreeMap;

use adit_proto::api::{Problem, ProblemCode};
use axum::{
    http::{HeaderValue, StatusCode, header},
    response::{IntoResponse, Response},
};
use tracing::error;
use utoipa::{
    IntoResponses,
    openapi::{ContentBuilder, Ref, RefOr, ResponseBuilder, response},
};

use crate::error::ApiError;

const MEDIA_TYPE: &str = "application/problem+json";

/// The HTTP status of a code.
pub(super) const fn status(code: ProblemCode) -> StatusCode {
    match code {
        ProblemCode::MalformedRequest => StatusCode::BAD_REQUEST,
        ProblemCode::NotAuthenticated => StatusCode::UNAUTHORIZED,
        ProblemCode::NotAllowed
        | ProblemCode::DevicePending
        | ProblemCode::DeviceRevoked
        | ProblemCode::SessionExpired => StatusCode::FORBIDDEN,
        ProblemCode::NotFound => StatusCode::NOT_FOUND,
        ProblemCode::MethodNotAllowed => StatusCode::METHOD_NOT_ALLOWED,
        ProblemCode::Conflict
        | ProblemCode::IdempotencyConflict
        | ProblemCode::PolicyTestsFailed => StatusCode::CONFLICT,
        ProblemCode::EtagMismatch => StatusCode::PRECONDITION_FAILED,
        ProblemCode::BodyTooLarge => StatusCode::PAYLOAD_TOO_LARGE,
        ProblemCode::UnsupportedMediaType => StatusCode::UNSUPPORTED_MEDIA_TYPE,
        ProblemCode::Invalid | ProblemCode::JoinRefused => StatusCode::UNPROCESSABLE_ENTITY,
        ProblemCode::EtagRequired => StatusCode::PRECONDITION_REQUIRED,
        ProblemCode::RateLimited => StatusCode::TOO_MANY_REQUESTS,
        ProblemCode::Internal => StatusCode::INTERNAL_SERVER_ERROR,
        ProblemCode::Unavailable => StatusCode::SERVICE_UNAVAILABLE,
        ProblemCode::StorageFull => StatusCode::INSUFFICIENT_STORAGE,
    }
}

impl IntoResponse for ApiError {
    fn into_response(self) -> Response {
        if let Some(source) = &self.source {
            error!(error = format!("{source:#}"), "Request failed");
        }
        let status = status(self.code);
        let problem = Problem {
            kind: "about:blank".to_owned(),
            title: status.canonical_reason().unwrap_or("Error").to_owned(),
            status: status.as_u16(),
            code: self.code,
            detail: self.detail,
            field: self.field,
            failed_tests: self.failed_tests.into(),
        };
        let body = serde_json::to_vec(&problem).expect("a problem is representable in JSON");
        let mut response = (status, body).into_response();
        response.extensions_mut().insert(self.code);
        let headers = response.headers_mut();
        headers.insert(header::CONTENT_TYPE, HeaderValue::from_static(MEDIA_TYPE));
        if status == StatusCode::UNAUTHORIZED {
            headers.insert(header::WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"));
        }
        if let Some(needed) = self.needed {
            // RFC 6750 §3.
            let challenge = format!("Bearer error=\"insufficient_scope\", scope=\"{needed}\"");
            let challenge = HeaderValue::try_from(challenge).expect("a scope is visible ASCII");
            headers.insert(header::WWW_AUTHENTICATE, challenge);
        }
        if status == StatusCode::SERVICE_UNAVAILABLE {
            headers.insert(header::RETRY_AFTER, HeaderValue::from_static("1"));
        }
        response
    }
}

pub(super) async fn no_such_path() -> ApiError {
    ApiError::new(
        ProblemCode::NotFound,
        "There is no such path; /v1/openapi.json lists those there are.",
    )
}

pub(super) async fn no_such_method() -> ApiError {
    ApiError::new(
        ProblemCode::MethodNotAllowed,
        "This path has other methods; see the header Allow and /v1/openapi.json.",
    )
}

/// Declares a type for `responses(…)` of [`utoipa::path`] that stands for a set of refusals.
macro_rules! refusals {
    ($($(#[$doc:meta])* $name:ident = [$($status:literal),+ $(,)?];)+) => { $(
        $(#[$doc])*
        pub(super) struct $name;

        impl IntoResponses for $name {
            fn responses() -> BTreeMap<String, RefOr<response::Response>> {
                describe(&[$($status),+])
            }
        }
    )+ };
}

refusals! {
    /// Of a read that needs no authentication.
    PublicRefusals = [400, 413, 429, 500, 503];
    /// Of the question whether requests can be answered.
    ReadinessRefusals = [400, 413, 429, 500, 503, 507];
    /// Of a read of a list.
    ListRefusals = [400, 401, 403, 413, 422, 429, 500, 503];
    /// Of a read of one object.
    ReadRefusals = [400, 401, 403, 404, 413, 429, 500, 503];
    /// Of a read of a list inside an object.
    SublistRefusals = [400, 401, 403, 404, 413, 422, 429, 500, 503];
    /// Of a creation.
    CreateRefusals = [400, 401, 403, 409, 413, 415, 422, 429, 500, 503, 507];
    /// Of a creation inside an object.
    SubcreateRefusals = [400, 401, 403, 404, 409, 413, 415, 422, 429, 500, 503, 507];
    /// Of a replacement.
    ReplaceRefusals = [400, 401, 403, 404, 409, 412, 413, 415, 422, 429, 500, 503, 507];
    /// Of a replacement that demands If-Match.
    GuardedReplaceRefusals = [400, 401, 403, 404, 409, 412, 413, 415, 422, 428, 429, 500, 503, 507];
    /// Of a deletion, and of an action without a body.
    RemoveRefusals = [400, 401, 403, 404, 409, 412, 413, 422, 429, 500, 503, 507];
    /// Of an action on an object, without a body.
    ActionRefusals = [400, 401, 403, 404, 409, 412, 413, 422, 429, 500, 503, 507];
    /// Of an action on an object, with a body.
    DecideRefusals = [400, 401, 403, 404, 409, 413, 415, 422, 429, 500, 503, 507];
    /// Of a simulation.
    SimulateRefusals = [400, 401, 403, 413, 415, 422, 429, 500, 503];
    /// Of a file made from an object.
    FileRefusals = [400, 401, 403, 404, 409, 413, 429, 500, 503];
    /// Of joining.
    EnrollRefusals = [400, 409, 413, 415, 422, 429, 500, 503, 507];
    /// Of what a client reads.
    ClientReadRefusals = [400, 401, 403, 413, 429, 500, 503];
    /// Of what a client asks for.
    ClientWriteRefusals = [400, 401, 403, 413, 429, 500, 503, 507];
    /// Of what a client asks for and may not be possible.
    ClientActionRefusals = [400, 401, 403, 409, 413, 429, 500, 503, 507];
    /// Of what a connector reads.
    ConnectorReadRefusals = [400, 401, 413, 422, 429, 500, 503];
    /// Of what a connector says.
    ConnectorWriteRefusals = [400, 401, 413, 415, 422, 429, 500, 503, 507];
}

fn describe(statuses: &[u16]) -> BTreeMap<String, RefOr<response::Response>> {
    let describe = |status: &u16| {
        let description = match status {
            400 => "Not HTTP or JSON as expected.",
            401 => "No credentials, or wrong ones.",
            403 => "Authenticated, but not allowed to do this.",
            404 => "There is none, or none that may be known.",
            409 => "It contradicts what exists, or the Idempotency-Key was used otherwise.",
            412 => "The object was changed since it was read.",
            413 => "The body is too large.",
            415 => "The body is not application/json.",
            422 => "A member or parameter has a value that cannot be.",
            428 => "If-Match is missing.",
            429 => "Too many requests, or too many wrong secrets; Retry-After says when to repeat.",
            503 => "Try again.",
            507 => "The disk is full.",
            _ => "The control plane's fault.",
        };
        let schema = Ref::from_schema_name("Problem");
        let content = ContentBuilder::new().schema(Some(schema)).build();
        let response =
            ResponseBuilder::new().description(description).content(MEDIA_TYPE, content).build();
        (status.to_string(), RefOr::T(response))
    };
    statuses.iter().map(describe).collect()
}
