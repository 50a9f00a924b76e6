//! Signed tokens that are fetched only when they changed.

use adit_proto::api::SignedToken;
use axum::{
    http::{HeaderMap, HeaderValue, StatusCode, header},
    response::{IntoResponse as _, Response},
};
use utoipa::IntoParams;

use super::response::json;

/// Headers of a conditional read, for the description of the API.
#[derive(IntoParams)]
#[into_params(parameter_in = Header)]
#[expect(dead_code, reason = "describes the header that `is_current` reads")]
pub(super) struct IfNoneMatchHeader {
    /// ETag of what the caller holds; still current, it is not sent again.
    #[param(rename = "If-None-Match", max_length = 200)]
    if_none_match: Option<String>,
}

/// Whether the caller holds what `tag` names (RFC 9110 §13.1.2: weak comparison).
pub(super) fn is_current(headers: &HeaderMap, tag: &str) -> bool {
    headers
        .get_all(header::IF_NONE_MATCH)
        .iter()
        .filter_map(|value| value.to_str().ok())
        .flat_map(|value| value.split(','))
        .map(str::trim)
        .any(|held| held == "*" || held.strip_prefix("W/").unwrap_or(held) == tag)
}

/// 304 with the tag.
pub(super) fn not_modified(tag: &str) -> Response {
    with_tag(StatusCode::NOT_MODIFIED.into_response(), tag)
}

/// 200 with the token and its tag.
pub(super) fn signed_token(token: String, tag: &str) -> Response {
    with_tag(json(&SignedToken { token }), tag)
}

fn with_tag(mut response: Response, tag: &str) -> Response {
    if let Ok(value) = HeaderValue::try_from(tag) {
        response.headers_mut().insert(header::ETAG, value);
    }
    let revalidate = HeaderValue::from_static("private, no-cache");
    response.headers_mut().insert(header::CACHE_CONTROL, revalidate);
    response
}

#[cfg(test)]
mod tests {
    use super::*;

    fn holding(text: &'static str) -> HeaderMap {
        HeaderMap::from_iter([(header::IF_NONE_MATCH, HeaderValue::from_static(text))])
    }

    #[test]
    fn any_of_the_tags_that_are_held_may_be_current() {
        assert!(is_current(&holding("\"1\", W/\"2\""), "\"2\""));
        assert!(is_current(&holding("*"), "\"2\""));
        assert!(!is_current(&holding("\"1\""), "\"2\""));
        assert!(!is_current(&HeaderMap::new(), "\"2\""));
    }
}
