//! Joining, and who may ask for what afterwards.

use adit_proto::api::{ClientEnrolled, Device, DeviceState, EnrollmentKey, User};
use axum::http::{Method, Request, StatusCode};
use serde_json::json;

use crate::fixture::{Fixture, Peer, PeerKey};

#[tokio::test]
async fn of_two_that_join_at_once_with_a_key_of_one_use_one_wins() {
    let fixture = Fixture::new().await;
    let user = fixture.user("ada").await;
    for round in 0..10_u8 {
        let key = fixture.enrollment_key(&user, 1).await.key;
        let (one, other) = (PeerKey::new(10 + 2 * round), PeerKey::new(11 + 2 * round));
        let (one, other) = tokio::join!(fixture.enroll(&key, &one), fixture.enroll(&key, &other));
        let mut statuses = [one.status.as_u16(), other.status.as_u16()];
        statuses.sort_unstable();
        assert_eq!(statuses, [201, 422]);
        let refused = if one.status == StatusCode::CREATED { other } else { one };
        assert_eq!(refused.code(), "join-refused");
    }
}

#[tokio::test]
async fn a_client_that_lost_the_answer_asks_again_and_gets_the_same_device() {
    let fixture = Fixture::new().await;
    let user = fixture.user("ada").await;
    let key = fixture.enrollment_key(&user, 1).await.key;
    let peer_key = PeerKey::new(1);
    let first: ClientEnrolled = fixture.enroll(&key, &peer_key).await.expect(201).json();
    let again: ClientEnrolled = fixture.enroll(&key, &peer_key).await.expect(201).json();
    assert_eq!(again, first);
    assert_eq!(fixture.enroll(&key, &PeerKey::new(2)).await.expect(422).code(), "join-refused");
}

#[tokio::test]
async fn the_same_client_that_asks_twice_at_once_becomes_one_device() {
    let fixture = Fixture::new().await;
    let user = fixture.user("ada").await;
    let key = fixture.enrollment_key(&user, 5).await;
    let peer_key = PeerKey::new(1);
    let (one, other) =
        tokio::join!(fixture.enroll(&key.key, &peer_key), fixture.enroll(&key.key, &peer_key));
    let one: ClientEnrolled = one.expect(201).json();
    assert_eq!(one, other.expect(201).json());
    let path = format!("/v1/enrollment-keys/{}", key.enrollment_key.id);
    let held: EnrollmentKey = fixture.get(&path).await.expect(200).json();
    assert_eq!(held.uses_left, 4);
}

#[tokio::test]
async fn unknown_used_expired_and_deleted_secrets_are_refused_alike() {
    let fixture = Fixture::new().await;
    let user = fixture.user("ada").await;
    let used = fixture.enrollment_key(&user, 1).await;
    fixture.enroll(&used.key, &PeerKey::new(1)).await.expect(201);
    let deleted = fixture.enrollment_key(&user, 1).await;
    let path = format!("/v1/enrollment-keys/{}", deleted.enrollment_key.id);
    fixture.admin(Method::DELETE, &path, None).await.expect(204);
    let disabled = fixture.user("bob").await;
    let of_disabled = fixture.enrollment_key(&disabled, 1).await;
    let body = json!({ "name": "bob", "disabled": true });
    let path = format!("/v1/users/{}", disabled.id);
    fixture.admin(Method::PUT, &path, Some(body)).await.expect(200);
    let unknown = adit_proto::JoinToken::new(
        adit_proto::JoinTokenKind::Enrollment,
        "https://control.example".to_owned(),
        fixture.app.pin,
        "never".to_owned(),
    );

    let mut answers = Vec::new();
    for key in [used.key, deleted.key, of_disabled.key, unknown.to_token().into()] {
        answers.push(fixture.enroll(&key, &PeerKey::new(9)).await.expect(422).body);
    }
    assert!(answers.windows(2).all(|pair| pair[0] == pair[1]));
}

#[tokio::test]
async fn a_wireguard_key_names_one_peer() {
    let fixture = Fixture::new().await;
    let (user, site) = (fixture.user("ada").await, fixture.site("home").await);
    fixture.connector(&site, 1).await;
    fixture.device(&user, 2).await;
    let body = |seed: u8| {
        let key = PeerKey::new(seed).wireguard_public_key;
        json!({ "name": "router", "user_id": user.id, "wireguard_public_key": key })
    };
    for taken in [1, 2] {
        let answer = fixture.post("/v1/devices", body(taken)).await.expect(409);
        assert_eq!(answer.code(), "conflict");
    }
    fixture.post("/v1/devices", body(3)).await.expect(201);
}

#[tokio::test]
async fn a_refused_join_consumes_nothing() {
    let fixture = Fixture::new().await;
    let user = fixture.user("ada").await;
    fixture.wireguard_device(&user, 1).await;
    let key = fixture.enrollment_key(&user, 1).await.key;
    fixture.enroll(&key, &PeerKey::new(1)).await.expect(409);
    fixture.enroll(&key, &PeerKey::new(2)).await.expect(201);
}

#[tokio::test]
async fn devices_have_addresses_of_their_own() {
    let fixture = Fixture::new().await;
    let user = fixture.user("ada").await;
    let one = fixture.wireguard_device(&user, 1).await;
    let other = fixture.device(&user, 2).await;
    let path = format!("/v1/devices/{}", other.device_id());
    let other: Device = fixture.get(&path).await.expect(200).json();
    let texts =
        |device: &Device| device.addresses.iter().map(ToString::to_string).collect::<Vec<_>>();
    assert_eq!(texts(&one), ["100.80.0.2", "fd12:3456:789a::2"]);
    assert_eq!(texts(&other), ["100.80.0.3", "fd12:3456:789a::3"]);
}

#[tokio::test]
async fn a_pending_device_learns_nothing_until_it_is_approved() {
    let fixture = Fixture::new().await;
    let user = fixture.user("ada").await;
    let body = json!({ "name": "key", "user_id": user.id, "approved": false });
    let created: adit_proto::api::EnrollmentKeyCreated =
        fixture.post("/v1/enrollment-keys", body).await.expect(201).json();
    let key = PeerKey::new(1);
    let enrolled: ClientEnrolled = fixture.enroll(&created.key, &key).await.expect(201).json();
    assert_eq!(enrolled.state, DeviceState::Pending);
    let device = Peer { subject: adit_proto::AssertionSubject::Device(enrolled.device_id), key };

    for (method, path) in
        [(Method::POST, "/v1/client/credential"), (Method::GET, "/v1/client/config")]
    {
        let answer = fixture.signed(&device, method, path, None).await.expect(403);
        assert_eq!(answer.code(), "device-pending");
    }
    let path = format!("/v1/devices/{}/approve", enrolled.device_id);
    fixture.admin(Method::POST, &path, None).await.expect(200);
    fixture.credential(&device).await;
    fixture.signed(&device, Method::GET, "/v1/client/config", None).await.expect(200);
}

#[tokio::test]
async fn an_assertion_for_another_request_is_refused() {
    let fixture = Fixture::new().await;
    let (user, site) = (fixture.user("ada").await, fixture.site("home").await);
    let device = fixture.device(&user, 1).await;
    let connector = fixture.connector(&site, 2).await;

    let other_path = device.authorization(&Method::GET, "/v1/client/credential", b"");
    let answer =
        fixture.with_authorization(Method::GET, "/v1/client/config", None, &other_path).await;
    assert_eq!(answer.expect(401).code(), "not-authenticated");

    let other_query = connector.authorization(&Method::GET, "/v1/connector/stream", b"");
    let path = "/v1/connector/stream?wait=true";
    fixture.with_authorization(Method::GET, path, None, &other_query).await.expect(401);

    let (path, body) = ("/v1/connector/report", json!({ "version": "1", "endpoints": [] }));
    let other_body = connector.authorization(&Method::PUT, path, b"{}");
    fixture.with_authorization(Method::PUT, path, Some(body), &other_body).await.expect(401);

    let other_kind = device.authorization(&Method::GET, "/v1/connector/bundle", b"");
    let path = "/v1/connector/bundle";
    fixture.with_authorization(Method::GET, path, None, &other_kind).await.expect(401);
}

#[tokio::test]
async fn an_assertion_that_changes_something_counts_once() {
    let fixture = Fixture::new().await;
    let user = fixture.user("ada").await;
    let device = fixture.device(&user, 1).await;
    let path = "/v1/client/credential";
    let authorization = device.authorization(&Method::POST, path, b"");
    fixture.with_authorization(Method::POST, path, None, &authorization).await.expect(200);
    fixture.with_authorization(Method::POST, path, None, &authorization).await.expect(401);
}

#[tokio::test]
async fn a_deleted_connector_or_device_is_a_stranger() {
    let fixture = Fixture::new().await;
    let (user, site) = (fixture.user("ada").await, fixture.site("home").await);
    let device = fixture.device(&user, 1).await;
    let connector = fixture.connector(&site, 2).await;
    fixture.bundle(&connector).await;
    let path = format!("/v1/connectors/{}", connector.connector_id());
    fixture.admin(Method::DELETE, &path, None).await.expect(204);
    let path = format!("/v1/devices/{}", device.device_id());
    fixture.admin(Method::DELETE, &path, None).await.expect(204);

    fixture.signed(&connector, Method::GET, "/v1/connector/bundle", None).await.expect(401);
    fixture.signed(&device, Method::POST, "/v1/client/credential", None).await.expect(401);
}

#[tokio::test]
async fn the_first_administrator_is_no_device() {
    let fixture = Fixture::new().await;
    fixture.get("/v1/client/config").await.expect(401);
    let request = Request::get("/v1/connector/bundle").body(axum::body::Body::empty()).unwrap();
    let answer = fixture.send(request).await.expect(401);
    assert_eq!(answer.code(), "not-authenticated");
}

#[tokio::test]
async fn a_user_who_is_disabled_gets_no_credential() {
    let fixture = Fixture::new().await;
    let user = fixture.user("ada").await;
    let device = fixture.device(&user, 1).await;
    let body = json!({ "name": "ada", "disabled": true });
    let path = format!("/v1/users/{}", user.id);
    let disabled: User = fixture.admin(Method::PUT, &path, Some(body)).await.expect(200).json();
    assert!(disabled.disabled);
    let answer = fixture.signed(&device, Method::POST, "/v1/client/credential", None).await;
    assert_eq!(answer.expect(403).code(), "device-revoked");
}

#[tokio::test]
async fn a_report_with_a_line_feed_in_an_endpoint_is_refused() {
    let fixture = Fixture::new().await;
    let site = fixture.site("home").await;
    let connector = fixture.connector(&site, 2).await;
    let body = json!({ "version": "1", "endpoints": ["192.0.2.1:443\nPostUp = reboot"] });
    let answer = fixture.signed(&connector, Method::PUT, "/v1/connector/report", Some(body)).await;
    assert_eq!(answer.expect(422).json::<serde_json::Value>()["field"], "/endpoints/0");
}
