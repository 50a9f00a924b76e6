//! Refuses whoever asks too often, and tells everyone how much is left.

use std::{
    collections::BTreeSet,
    convert::Infallible,
    fmt::Write as _,
    net::{IpAddr, Ipv4Addr},
    sync::Arc,
    time::Duration,
};

use adit_proto::api::ProblemCode;
use axum::{
    extract::{FromRequestParts, MatchedPath, Request, State},
    http::{HeaderMap, HeaderName, HeaderValue, Method, header, request::Parts},
    middleware::Next,
    response::{IntoResponse as _, Response},
};
use tracing::debug;

use crate::{app::App, error::ApiError, rate_limits::Allowance};

const RATE_LIMIT_POLICY: HeaderName = HeaderName::from_static("ratelimit-policy");
const RATE_LIMIT: HeaderName = HeaderName::from_static("ratelimit");
const X_FORWARDED_FOR: HeaderName = HeaderName::from_static("x-forwarded-for");

/// Who opened the connection. The server adds it to each request.
#[derive(Debug, Clone, Copy)]
pub(crate) struct PeerAddress(pub(crate) IpAddr);

/// From where a request comes, behind proxies that are trusted. [`limit`] adds it to each request.
#[derive(Debug, Clone, Copy)]
pub(super) struct ClientAddress(pub(super) IpAddr);

/// Where requests come from that come from nowhere.
const NOWHERE: IpAddr = IpAddr::V4(Ipv4Addr::UNSPECIFIED);

impl<S: Send + Sync> FromRequestParts<S> for ClientAddress {
    type Rejection = Infallible;

    async fn from_request_parts(parts: &mut Parts, _state: &S) -> Result<Self, Infallible> {
        Ok(parts.extensions.get().copied().unwrap_or(Self(NOWHERE)))
    }
}

/// What the limits look at.
#[derive(Debug, Clone)]
pub(super) struct Limited {
    pub(super) app: App,
    /// The routes that ask for an assertion.
    pub(super) signed_routes: Arc<BTreeSet<String>>,
}

pub(super) async fn limit(
    State(Limited { app, signed_routes }): State<Limited>,
    mut request: Request,
    next: Next,
) -> Response {
    let limits = &app.rate_limits;
    let peer = request.extensions().get().map_or(NOWHERE, |PeerAddress(address)| *address);
    let address = limits.client_address(peer, &forwarded_for(request.headers()));
    request.extensions_mut().insert(ClientAddress(address));
    let proof = Proof::of(&request, &signed_routes);

    let mut allowances = vec![limits.count_address(address)];
    if let (Proof::Token(token), [Allowance { refused: false, .. }]) = (proof, &*allowances) {
        allowances.push(limits.count_token(token));
    }
    let can_guess = proof.can_be_guessed();
    let refused = allowances.iter().find(|allowance| allowance.refused);
    let blocked = if can_guess { limits.blocked_for(address) } else { None };
    let mut response = if let Some(Allowance { policy, reset, .. }) = refused {
        too_many(format!("There are too many requests of this {policy}"), *reset)
    } else if let Some(wait) = blocked {
        debug!(%address, ?wait, "Refused to look at a secret");
        too_many("There were too many wrong secrets from this address".to_owned(), wait)
    } else {
        let response = next.run(request).await;
        if can_guess && guessed_wrong(&response) {
            limits.count_failure(address);
        }
        response
    };
    insert_headers(response.headers_mut(), &allowances);
    response
}

/// By what a request says who asks.
#[derive(Debug, Clone, Copy)]
enum Proof<'a> {
    /// An API token: the value of `Authorization`.
    Token(&'a [u8]),
    /// An assertion, whatever is sent in its place: it is signed, so there is nothing to guess, and
    /// the laptops of an office that share an address must not pay for one that was deleted.
    Assertion,
    /// A secret in the body, perhaps.
    Body,
    None,
}

impl<'a> Proof<'a> {
    fn of(request: &'a Request, signed_routes: &BTreeSet<String>) -> Self {
        let route = request.extensions().get::<MatchedPath>();
        if route.is_some_and(|route| signed_routes.contains(route.as_str())) {
            return Self::Assertion;
        }
        match request.headers().get(header::AUTHORIZATION) {
            Some(value) => Self::Token(value.as_bytes()),
            None if request.method() == Method::POST => Self::Body,
            None => Self::None,
        }
    }

    const fn can_be_guessed(self) -> bool {
        match self {
            Self::Token(_) | Self::Body => true,
            Self::Assertion | Self::None => false,
        }
    }
}

/// All of the header's values as one list; what is no text is no address either.
fn forwarded_for(headers: &HeaderMap) -> String {
    let values = headers.get_all(X_FORWARDED_FOR).iter();
    values.map(|value| value.to_str().unwrap_or("unknown")).collect::<Vec<_>>().join(",")
}

fn guessed_wrong(response: &Response) -> bool {
    match response.extensions().get() {
        Some(code) => [ProblemCode::NotAuthenticated, ProblemCode::JoinRefused].contains(code),
        None => false,
    }
}

fn too_many(what: String, wait: Duration) -> Response {
    let seconds = whole_seconds(wait).max(1);
    let detail = format!("{what}; wait {seconds} s.");
    let mut response = ApiError::new(ProblemCode::RateLimited, detail).into_response();
    response.headers_mut().insert(header::RETRY_AFTER, seconds.into());
    response
}

/// draft-ietf-httpapi-ratelimit-headers-10 §3 and §4: lists with an item for each limit.
fn insert_headers(headers: &mut HeaderMap, allowances: &[Allowance]) {
    let (mut policies, mut limits) = (String::new(), String::new());
    for Allowance { policy, quota, remaining, reset, refused: _ } in allowances {
        let comma = if policies.is_empty() { "" } else { ", " };
        let _ = write!(policies, "{comma}\"{policy}\";q={quota};w=60");
        let reset = whole_seconds(*reset);
        let _ = write!(limits, "{comma}\"{policy}\";r={remaining};t={reset}");
    }
    for (name, value) in [(RATE_LIMIT_POLICY, policies), (RATE_LIMIT, limits)] {
        let value = HeaderValue::try_from(value).expect("words and numbers are visible ASCII");
        headers.insert(name, value);
    }
}

/// Rounded up: whoever waits that long has waited long enough.
fn whole_seconds(duration: Duration) -> u64 {
    duration.as_secs() + u64::from(duration.subsec_nanos() > 0)
}

#[cfg(test)]
mod tests {
    use axum::{body::Body, http::StatusCode};
    use serde_json::json;

    use super::*;
    use crate::fixture::{Answer, Fixture, PeerKey, limits};

    async fn read_from(fixture: &Fixture, address: [u8; 4], authorization: &str) -> Answer {
        let request = axum::http::Request::get("/v1/users")
            .header(header::AUTHORIZATION, authorization)
            .extension(PeerAddress(address.into()));
        fixture.send(request.body(Body::empty()).unwrap()).await
    }

    #[track_caller]
    fn expect_limited(answer: &Answer) {
        assert_eq!(answer.status, StatusCode::TOO_MANY_REQUESTS, "{answer:?}");
        assert_eq!(answer.code(), "rate-limited");
        assert!(answer.header(header::RETRY_AFTER).parse::<u64>().unwrap() >= 1);
    }

    #[tokio::test]
    async fn every_answer_says_how_much_is_left() {
        let fixture = Fixture::with_limits(limits(60, 30, 10)).await;
        let answer = fixture.get("/v1/users").await.expect(200);
        assert_eq!(answer.header(RATE_LIMIT_POLICY), "\"address\";q=60;w=60, \"token\";q=30;w=60");
        assert_eq!(answer.header(RATE_LIMIT), "\"address\";r=59;t=1, \"token\";r=29;t=2");
        let answer = fixture.without_authorization(Method::GET, "/healthz").await.expect(200);
        assert_eq!(answer.header(RATE_LIMIT_POLICY), "\"address\";q=60;w=60");
    }

    #[tokio::test]
    async fn a_token_that_asks_too_often_is_told_when_to_come_back() {
        let fixture = Fixture::with_limits(limits(1000, 2, 10)).await;
        let token = fixture.admin_authorization();
        for last in 1..=2 {
            read_from(&fixture, [192, 0, 2, last], &token).await.expect(200);
        }
        let answer = read_from(&fixture, [192, 0, 2, 3], &token).await;
        expect_limited(&answer);
        assert!(answer.header(RATE_LIMIT).contains("\"token\";r=0;t="));
        assert!(answer.json::<serde_json::Value>()["detail"].as_str().unwrap().contains("token"));
    }

    #[tokio::test]
    async fn an_address_that_asks_too_often_does_not_hurt_others() {
        let fixture = Fixture::with_limits(limits(2, 1000, 10)).await;
        let token = fixture.admin_authorization();
        for _ in 0..2 {
            read_from(&fixture, [192, 0, 2, 1], &token).await.expect(200);
        }
        expect_limited(&read_from(&fixture, [192, 0, 2, 1], &token).await);
        read_from(&fixture, [192, 0, 2, 2], &token).await.expect(200);
    }

    #[tokio::test]
    async fn whoever_guesses_tokens_is_refused_unseen() {
        let fixture = Fixture::with_limits(limits(1000, 1000, 3)).await;
        let guesser = [192, 0, 2, 1];
        for number in 0..3 {
            let guess = format!("Bearer adit_pat_{number}");
            read_from(&fixture, guesser, &guess).await.expect(401);
        }
        let token = fixture.admin_authorization();
        for authorization in ["Bearer adit_pat_x", "Basic eDp5", &token] {
            expect_limited(&read_from(&fixture, guesser, authorization).await);
        }
        read_from(&fixture, [192, 0, 2, 2], &token).await.expect(200);
        fixture.without_authorization(Method::GET, "/healthz").await.expect(200);
    }

    #[tokio::test]
    async fn whoever_guesses_secrets_to_join_with_is_refused_while_devices_are_not() {
        let fixture = Fixture::with_limits(limits(1000, 1000, 3)).await;
        let user = fixture.user("ada").await;
        let device = fixture.device(&user, 1).await;
        let body = json!({
            "secret": "guess",
            "name": "laptop",
            "device_key": PeerKey::new(2).spki_base64url(),
            "wireguard_public_key": PeerKey::new(2).wireguard_public_key,
        });
        let path = "/v1/client/enroll";
        let answer = fixture.without_token(path, body.clone()).await;
        assert_eq!(answer.expect(422).code(), "join-refused");
        for authorization in ["Adit a.b.c", "Bearer x"] {
            let body = Some(body.clone());
            fixture.with_authorization(Method::POST, path, body, authorization).await.expect(422);
        }
        expect_limited(&fixture.without_token(path, body).await);
        fixture.credential(&device).await;
        // An assertion is no guess, however wrong.
        for _ in 0..5 {
            let (method, path) = (Method::GET, "/v1/client/config");
            fixture.with_authorization(method, path, None, "Adit a.b.c").await.expect(401);
        }
        fixture.credential(&device).await;
    }
}
