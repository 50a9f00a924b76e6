//! Answers: objects with their ETag, pages, creations.

use adit_proto::api::Page;
use axum::{
    http::{HeaderValue, StatusCode, header},
    response::{IntoResponse, Response},
};
use serde::Serialize;

use crate::{
    api::request::write_cursor,
    app::policies::Written,
    store::{Created, Versioned},
};

/// The ETag of a version.
pub(super) fn etag(version: u64) -> String {
    format!("\"{version}\"")
}

/// 200 with a body of JSON.
pub(super) fn json(body: &impl Serialize) -> Response {
    let body = serde_json::to_vec(body).expect("types of the contract are representable in JSON");
    raw_json(StatusCode::OK, body)
}

fn raw_json(status: StatusCode, body: Vec<u8>) -> Response {
    let content_type = (header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
    (status, [content_type], body).into_response()
}

/// A page that holds all but the last of `items`, when there are more than `limit`: ask the store
/// for one more than the caller wants. `position` is what the cursor holds.
pub(super) fn page<T: Serialize, P: ToString>(
    mut items: Vec<T>,
    limit: u32,
    position: impl Fn(&T) -> P,
) -> Response {
    let limit = usize::try_from(limit).unwrap_or(usize::MAX);
    let more = items.len() > limit;
    items.truncate(limit);
    let next_cursor = items.last().filter(|_| more).map(|last| write_cursor(&position(last)));
    json(&Page { items, next_cursor })
}

impl<T: Serialize> IntoResponse for Versioned<T> {
    fn into_response(self) -> Response {
        let mut response = json(&self.object);
        insert_etag(&mut response, self.version);
        response
    }
}

impl<T: IntoResponse> IntoResponse for Written<T> {
    fn into_response(self) -> Response {
        match self {
            Self::Done(done) => done.into_response(),
            Self::Foreseen(foreseen) => json(&foreseen),
        }
    }
}

impl IntoResponse for Created {
    fn into_response(self) -> Response {
        let mut response = raw_json(StatusCode::CREATED, self.body.into_bytes());
        if let Ok(location) = HeaderValue::try_from(self.path) {
            response.headers_mut().insert(header::LOCATION, location);
        }
        insert_etag(&mut response, self.version);
        response
    }
}

fn insert_etag(response: &mut Response, version: u64) {
    let etag = HeaderValue::try_from(etag(version)).expect("digits and quotes are visible ASCII");
    response.headers_mut().insert(header::ETAG, etag);
}
