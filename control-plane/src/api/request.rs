//! What is read from a request, with refusals as problem details.

use adit_proto::api::ProblemCode;
use axum::{
    body::Bytes,
    extract::{FromRequest, FromRequestParts, Request},
    http::{HeaderMap, HeaderName, header, request::Parts},
};
use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use serde::{Deserialize, de::DeserializeOwned};
use std::str::FromStr;
use utoipa::IntoParams;

use crate::{app::policies::Intent, error::ApiError};

pub(super) const IDEMPOTENCY_KEY: HeaderName = HeaderName::from_static("idempotency-key");

/// A body of JSON. Unknown members are refused by the types themselves.
#[derive(Debug)]
pub(super) struct Json<T>(pub(super) T);

impl<T: DeserializeOwned, S: Send + Sync> FromRequest<S> for Json<T> {
    type Rejection = ApiError;

    async fn from_request(request: Request, state: &S) -> Result<Self, ApiError> {
        if !is_of_type(request.headers(), "application/json") {
            return Err(ApiError::new(
                ProblemCode::UnsupportedMediaType,
                "Send the body as `Content-Type: application/json`.",
            ));
        }
        let body = Bytes::from_request(request, state).await.map_err(|_error| {
            ApiError::new(ProblemCode::MalformedRequest, "The body did not arrive; send it again.")
        })?;
        parse_json(&body).map(Self)
    }
}

fn parse_json<T: DeserializeOwned>(body: &[u8]) -> Result<T, ApiError> {
    let mut deserializer = serde_json::Deserializer::from_slice(body);
    let value = serde_path_to_error::deserialize(&mut deserializer).map_err(|error| {
        if error.inner().is_data() {
            ApiError::invalid(json_pointer(error.path()), format!("{}.", error.inner()))
        } else {
            not_json(error.inner())
        }
    })?;
    deserializer.end().map_err(|error| not_json(&error))?;
    Ok(value)
}

fn not_json(error: &serde_json::Error) -> ApiError {
    ApiError::new(ProblemCode::MalformedRequest, format!("The body is not JSON: {error}."))
}

fn json_pointer(path: &serde_path_to_error::Path) -> String {
    use serde_path_to_error::Segment;
    path.iter()
        .map(|segment| match segment {
            Segment::Seq { index } => format!("/{index}"),
            Segment::Map { key } => format!("/{}", key.replace('~', "~0").replace('/', "~1")),
            Segment::Enum { variant } => format!("/{variant}"),
            Segment::Unknown => String::new(),
        })
        .collect()
}

/// Whether a body is of a media type, parameters aside.
pub(super) fn is_of_type(headers: &HeaderMap, expected: &str) -> bool {
    headers
        .get(header::CONTENT_TYPE)
        .and_then(|value| value.to_str().ok())
        .and_then(|value| value.split(';').next())
        .is_some_and(|media_type| media_type.trim().eq_ignore_ascii_case(expected))
}

/// Parameters in the path; ids that are none name nothing.
#[derive(Debug)]
pub(super) struct Path<T>(pub(super) T);

impl<T: DeserializeOwned + Send, S: Send + Sync> FromRequestParts<S> for Path<T> {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, ApiError> {
        let path = axum::extract::Path::<T>::from_request_parts(parts, state).await;
        path.map(|axum::extract::Path(path)| Self(path)).map_err(|_error| ApiError::not_found())
    }
}

/// Parameters in the query.
#[derive(Debug)]
pub(super) struct Query<T>(pub(super) T);

impl<T: DeserializeOwned, S: Send + Sync> FromRequestParts<S> for Query<T> {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, _state: &S) -> Result<Self, ApiError> {
        let query = axum::extract::Query::<T>::try_from_uri(&parts.uri);
        query.map(|axum::extract::Query(query)| Self(query)).map_err(|rejection| {
            let text = rejection.body_text();
            // "…query string: <parameter>: <what is wrong>", or without the parameter.
            let mut words = text.splitn(3, ": ").skip(1);
            match (words.next(), words.next()) {
                (Some(parameter), Some(wrong)) => ApiError::invalid(parameter, format!("{wrong}.")),
                (Some(wrong), None) => ApiError::invalid("", format!("{wrong}.")),
                (None, _) => ApiError::invalid("", text),
            }
        })
    }
}

/// Parameters of every list.
#[derive(Debug, Clone, Default, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(super) struct ListQuery {
    /// How many objects a page holds at most; 50 unless said.
    #[param(minimum = 1, maximum = 200)]
    limit: Option<u32>,
    /// `next_cursor` of the page before.
    #[param(min_length = 1, max_length = 200)]
    cursor: Option<String>,
    /// Only objects with exactly this name.
    pub(super) name: Option<String>,
}

impl ListQuery {
    /// How many objects to give.
    pub(super) fn limit(&self) -> Result<u32, ApiError> {
        limit(self.limit)
    }

    /// After which object to begin.
    pub(super) fn after<T: FromStr>(&self) -> Result<Option<T>, ApiError> {
        self.cursor.as_deref().map(read_cursor).transpose()
    }
}

/// How many objects to give, for lists with parameters of their own.
pub(super) fn limit(limit: Option<u32>) -> Result<u32, ApiError> {
    match limit.unwrap_or(50) {
        limit @ 1..=200 => Ok(limit),
        _ => Err(ApiError::invalid("limit", "It is from 1 to 200.")),
    }
}

/// What a cursor stands for.
pub(super) fn read_cursor<T: FromStr>(cursor: &str) -> Result<T, ApiError> {
    URL_SAFE_NO_PAD
        .decode(cursor)
        .ok()
        .and_then(|bytes| String::from_utf8(bytes).ok()?.parse().ok())
        .ok_or_else(|| {
            ApiError::invalid("cursor", "Pass `next_cursor` of the page before, unchanged.")
        })
}

/// A cursor that stands for `position`. Opaque to callers.
pub(super) fn write_cursor(position: &impl ToString) -> String {
    URL_SAFE_NO_PAD.encode(position.to_string())
}

/// Parameters of a change of policies.
#[derive(Debug, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(super) struct IntentQuery {
    /// Whether nothing is to be changed, and the answer is to say what the change would bring.
    #[serde(default)]
    #[param(required = false)]
    dry_run: bool,
    /// Why, for the history.
    #[param(max_length = 200)]
    reason: Option<String>,
}

impl From<IntentQuery> for Intent {
    fn from(IntentQuery { dry_run, reason }: IntentQuery) -> Self {
        Self { dry_run, reason }
    }
}

/// Parameters of a change of policy tests.
#[derive(Debug, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(super) struct ReasonQuery {
    /// Why, for the history.
    #[param(max_length = 200)]
    pub(super) reason: Option<String>,
}

/// `If-Match`: which versions of the object the caller would have changed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct IfMatch(Option<Expected>);

#[derive(Debug, Clone, PartialEq, Eq)]
enum Expected {
    Any,
    Tags(String),
}

impl IfMatch {
    /// Judges the version that is there; without the header any will do.
    pub(super) fn check(&self, version: u64) -> Result<(), ApiError> {
        let tag = super::response::etag(version);
        let matches = match &self.0 {
            None | Some(Expected::Any) => true,
            Some(Expected::Tags(tags)) => tags.split(',').any(|one| one.trim() == tag),
        };
        if matches {
            Ok(())
        } else {
            Err(ApiError::new(
                ProblemCode::EtagMismatch,
                format!("The object was changed, its ETag is {tag}; read it again, then repeat."),
            ))
        }
    }

    /// As [`Self::check`], for objects that are never changed unseen.
    pub(super) fn require(&self, version: u64) -> Result<(), ApiError> {
        if self.0.is_none() {
            return Err(ApiError::new(
                ProblemCode::EtagRequired,
                "Send the ETag of the object you read as If-Match, so that no change is lost.",
            ));
        }
        self.check(version)
    }
}

impl<S: Send + Sync> FromRequestParts<S> for IfMatch {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, _state: &S) -> Result<Self, ApiError> {
        let values = parts.headers.get_all(header::IF_MATCH);
        let values: Vec<_> =
            values.iter().map(|value| String::from_utf8_lossy(value.as_bytes())).collect();
        if values.is_empty() {
            return Ok(Self(None));
        }
        let joined = values.join(",");
        // RFC 9110 §13.1.1: a star, or a list of entity tags.
        let is_tag =
            |one: &str| one.len() >= 2 && one.starts_with(['"', 'W']) && one.ends_with('"');
        if joined.trim() == "*" {
            Ok(Self(Some(Expected::Any)))
        } else if joined.split(',').all(|one| is_tag(one.trim())) {
            Ok(Self(Some(Expected::Tags(joined))))
        } else {
            Err(ApiError::invalid("If-Match", "Send an ETag as it came, quotes included, or `*`."))
        }
    }
}

/// Headers of a replacement or deletion, for the description of the API.
#[derive(IntoParams)]
#[into_params(parameter_in = Header)]
#[expect(dead_code, reason = "describes the header that `IfMatch` reads")]
pub(super) struct IfMatchHeader {
    /// ETag of the object as it was read; with another there now, nothing is done.
    #[param(rename = "If-Match", pattern = r#"^(\*|"[0-9]+")$"#)]
    if_match: Option<String>,
}

/// Headers of a creation, for the description of the API.
#[derive(IntoParams)]
#[into_params(parameter_in = Header)]
#[expect(dead_code, reason = "describes the header that `WriteActor` reads")]
pub(super) struct IdempotencyHeader {
    /// Repeated within a day with the same body, the first answer is given again.
    #[param(rename = "Idempotency-Key", min_length = 1, max_length = 255)]
    idempotency_key: Option<String>,
}
