//! Reads every body before anything else is done: at most [`MAX_LEN`] or [`MAX_SET_LEN`], within
//! [`PATIENCE`].

use std::time::Duration;

use adit_proto::api::ProblemCode;
use axum::{
    body::{Body, HttpBody as _, to_bytes},
    extract::Request,
    middleware::Next,
    response::{IntoResponse as _, Response},
};
use sha2::{Digest as _, Sha256};
use tokio::time::timeout;

use crate::{api::request::IDEMPOTENCY_KEY, error::ApiError};

/// Longest body, in bytes.
pub(super) const MAX_LEN: usize = 1 << 20;

/// Longest document of all policies, in bytes: thousands of them.
const MAX_SET_LEN: usize = 8 << 20;

/// How long a body may take to arrive.
const PATIENCE: Duration = Duration::from_secs(30);

/// Stands for a request that bears an idempotency key: its method, path, query and body.
#[derive(Debug, Clone, Copy)]
pub(super) struct Fingerprint(pub(super) [u8; 32]);

/// Puts the whole body into memory. This comes before authentication, so the limit is low.
pub(super) async fn buffer(request: Request, next: Next) -> Response {
    let (mut parts, body) = request.into_parts();
    let max_len = if parts.uri.path() == "/v1/policy-set" { MAX_SET_LEN } else { MAX_LEN };
    if body.size_hint().lower() > max_len as u64 {
        return too_large(max_len).into_response();
    }
    let body = match timeout(PATIENCE, to_bytes(body, max_len)).await {
        Ok(Ok(body)) => body,
        Ok(Err(error)) if is_length_limit(&error) => return too_large(max_len).into_response(),
        Ok(Err(_)) => return incomplete().into_response(),
        Err(_) => return incomplete().into_response(),
    };
    if parts.headers.contains_key(IDEMPOTENCY_KEY) {
        let digest = Sha256::new()
            .chain_update(parts.method.as_str())
            .chain_update([0])
            .chain_update(parts.uri.path_and_query().map_or("", |path| path.as_str()))
            .chain_update([0])
            .chain_update(&body)
            .finalize();
        parts.extensions.insert(Fingerprint(digest.into()));
    }
    next.run(Request::from_parts(parts, Body::from(body))).await
}

fn is_length_limit(error: &axum::Error) -> bool {
    std::error::Error::source(error)
        .is_some_and(|source| source.is::<http_body_util::LengthLimitError>())
}

fn too_large(max_len: usize) -> ApiError {
    ApiError::new(ProblemCode::BodyTooLarge, format!("The body has at most {max_len} bytes."))
}

fn incomplete() -> ApiError {
    ApiError::new(ProblemCode::MalformedRequest, "The body did not arrive; send it again.")
}
