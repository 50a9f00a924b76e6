//! What connectors and clients are told.

use std::time::{Duration, SystemTime};

use adit_proto::{
    AccessEvent, Bundle, ClientConfig, Credential, EventId, Signed, Timestamp, TokenType,
    api::{Connector, Page, SignedToken, User},
};
use axum::{
    body::{Body, Bytes},
    http::{Method, Request, header},
};
use futures_util::StreamExt as _;
use serde_json::{Value, json};
use tokio::time::timeout;
use uuid::Uuid;

use crate::fixture::{Fixture, Peer};

const BUNDLE: &str = "/v1/connector/bundle";
const STREAM: &str = "/v1/connector/stream";

#[tokio::test]
async fn what_is_revoked_is_void_and_what_is_approved_anew_is_not() {
    let fixture = Fixture::new().await;
    let (user, site) = (fixture.user("ada").await, fixture.site("home").await);
    let device = fixture.device(&user, 1).await;
    let connector = fixture.connector(&site, 2).await;
    let is_void = async |credential: &str, user: &User| {
        let bundle = fixture.bundle(&connector).await;
        let now: Timestamp = SystemTime::now().into();
        let pin = device.key.pin();
        let credential =
            Credential::verify(credential, &bundle.organisation_keys, &pin, now).unwrap();
        bundle.revocation(credential.device_id, user.id, credential.issued_at.0).is_some()
    };

    let first = fixture.credential(&device).await.credential;
    assert!(!is_void(&first, &user).await);

    let path = format!("/v1/devices/{}", device.device_id());
    fixture.admin(Method::POST, &format!("{path}/revoke"), None).await.expect(200);
    assert!(is_void(&first, &user).await);
    let answer = fixture.signed(&device, Method::POST, "/v1/client/credential", None).await;
    assert_eq!(answer.expect(403).code(), "device-revoked");

    fixture.admin(Method::POST, &format!("{path}/approve"), None).await.expect(200);
    let second = fixture.credential(&device).await.credential;
    assert!(!is_void(&second, &user).await);
    assert!(is_void(&first, &user).await);
}

#[tokio::test]
async fn a_user_who_is_disabled_and_enabled_again_needs_a_new_credential() {
    let fixture = Fixture::new().await;
    let (user, site) = (fixture.user("ada").await, fixture.site("home").await);
    let device = fixture.device(&user, 1).await;
    let connector = fixture.connector(&site, 2).await;
    let keys = [fixture.app.signer.organisation_key()];
    let issued_at = |token: &str| {
        let signed: Signed<Credential> =
            Signed::verify(token, TokenType::Credential, &keys).unwrap();
        signed.payload().issued_at.0
    };
    let first = issued_at(&fixture.credential(&device).await.credential);
    let path = format!("/v1/users/{}", user.id);
    for disabled in [true, false] {
        let body = json!({ "name": "ada", "disabled": disabled });
        fixture.admin(Method::PUT, &path, Some(body)).await.expect(200);
    }
    let second = issued_at(&fixture.credential(&device).await.credential);
    let bundle = fixture.bundle(&connector).await;
    assert!(bundle.revocation(device.device_id(), user.id, first).is_some());
    assert!(bundle.revocation(device.device_id(), user.id, second).is_none());
}

#[tokio::test]
async fn a_bundle_holds_what_concerns_its_site_alone() {
    let fixture = Fixture::new().await;
    let (home, office) = (fixture.site("home").await, fixture.site("office").await);
    let at_home = fixture.connector(&home, 1).await;
    let at_office = fixture.connector(&office, 2).await;
    let home_resource = resource(&fixture, "nas", &home.id.to_string(), "10.1.0.0/24").await;
    resource(&fixture, "wiki", &office.id.to_string(), "10.2.0.0/24").await;
    let policy = json!({
        "name": "nas", "effect": "permit", "subjects": { "everyone": true },
        "resources": { "ids": [home_resource] },
    });
    fixture.post("/v1/policies", policy).await.expect(201);

    let bundle = fixture.bundle(&at_home).await;
    assert_eq!(bundle.resources.len(), 1);
    assert_eq!(bundle.policies.len(), 1);
    assert_eq!(bundle.site_id, home.id);
    let bundle = fixture.bundle(&at_office).await;
    assert_eq!(bundle.resources[0].name, "wiki");
    assert_eq!(bundle.policies, []);
}

#[tokio::test]
async fn a_connector_gets_no_bundle_but_its_own() {
    let fixture = Fixture::new().await;
    let site = fixture.site("home").await;
    let one = fixture.connector(&site, 1).await;
    let other = fixture.connector(&site, 2).await;
    // Names the one, signed by the other.
    let forger = Peer { subject: one.subject, key: other.key.clone() };
    fixture.signed(&forger, Method::GET, BUNDLE, None).await.expect(401);
    assert_eq!(fixture.bundle(&one).await.connector_id, one.connector_id());
    assert_eq!(fixture.bundle(&other).await.connector_id, other.connector_id());
}

#[tokio::test]
async fn a_bundle_is_sent_again_only_when_something_changed() {
    let fixture = Fixture::new().await;
    let site = fixture.site("home").await;
    let connector = fixture.connector(&site, 1).await;
    let first = fixture.signed(&connector, Method::GET, BUNDLE, None).await.expect(200);
    let tag = first.header(header::ETAG).to_owned();
    let fetch = async || {
        let authorization = connector.authorization(&Method::GET, BUNDLE, b"");
        let request = Request::get(BUNDLE)
            .header(header::AUTHORIZATION, authorization)
            .header(header::IF_NONE_MATCH, &tag)
            .body(Body::empty())
            .unwrap();
        fixture.send(request).await
    };
    assert!(fetch().await.expect(304).body.is_empty());
    resource(&fixture, "nas", &site.id.to_string(), "10.1.0.0/24").await;
    let second: SignedToken = fetch().await.expect(200).json();
    let keys = [fixture.app.signer.organisation_key()];
    let bundle: Signed<Bundle> = Signed::verify(&second.token, TokenType::Bundle, &keys).unwrap();
    assert_eq!(bundle.payload().resources.len(), 1);
}

#[tokio::test]
async fn a_stream_tells_of_each_change_at_once_and_resumes() {
    let fixture = Fixture::new().await;
    let site = fixture.site("home").await;
    let connector = fixture.connector(&site, 1).await;
    let current = fixture.bundle(&connector).await.sequence;

    let mut stream = open_stream(&fixture, &connector, None).await;
    assert_eq!(sequence_of(&next(&mut stream).await), current);
    resource(&fixture, "nas", &site.id.to_string(), "10.1.0.0/24").await;
    let told = sequence_of(&next(&mut stream).await);
    assert_eq!(told, current + 1);
    assert!(is_connected(&fixture, &connector).await);
    drop(stream);
    assert!(!is_connected(&fixture, &connector).await);

    // Nothing to tell: the next event is of the next change.
    let mut stream = open_stream(&fixture, &connector, Some(told)).await;
    resource(&fixture, "wiki", &site.id.to_string(), "10.2.0.0/24").await;
    assert_eq!(sequence_of(&next(&mut stream).await), told + 1);
    // Missed something: told at once.
    let mut stream = open_stream(&fixture, &connector, Some(told)).await;
    assert_eq!(sequence_of(&next(&mut stream).await), told + 1);
}

#[tokio::test]
async fn the_stream_of_a_deleted_connector_ends() {
    let fixture = Fixture::new().await;
    let site = fixture.site("home").await;
    let connector = fixture.connector(&site, 1).await;
    let mut stream = open_stream(&fixture, &connector, None).await;
    next(&mut stream).await;
    let path = format!("/v1/connectors/{}", connector.connector_id());
    fixture.admin(Method::DELETE, &path, None).await.expect(204);
    assert!(timeout(Duration::from_secs(5), stream.next()).await.unwrap().is_none());
}

#[tokio::test]
async fn streams_end_when_the_program_is_about_to_stop() {
    let fixture = Fixture::new().await;
    let site = fixture.site("home").await;
    let connector = fixture.connector(&site, 1).await;
    let mut stream = open_stream(&fixture, &connector, None).await;
    next(&mut stream).await;
    fixture.draining.send(true).unwrap();
    assert!(timeout(Duration::from_secs(5), stream.next()).await.unwrap().is_none());
}

#[tokio::test]
async fn a_long_poll_is_answered_by_the_next_change() {
    let fixture = Fixture::new().await;
    let site = fixture.site("home").await;
    let connector = fixture.connector(&site, 1).await;
    let current = fixture.bundle(&connector).await.sequence;
    let path = format!("{STREAM}?wait=true");
    let authorization = connector.authorization(&Method::GET, &path, b"");
    let request = Request::get(&path)
        .header(header::AUTHORIZATION, authorization)
        .header("last-event-id", current)
        .body(Body::empty())
        .unwrap();
    let site_id = site.id.to_string();
    let (answer, _id) = tokio::join!(
        timeout(Duration::from_secs(5), fixture.send(request)),
        resource(&fixture, "nas", &site_id, "10.1.0.0/24"),
    );
    assert_eq!(answer.unwrap().expect(200).json::<Value>(), json!({ "sequence": current + 1 }));
}

#[tokio::test]
async fn a_plain_wireguard_device_is_in_the_bundle_while_it_may_connect() {
    let fixture = Fixture::new().await;
    let (user, site) = (fixture.user("ada").await, fixture.site("home").await);
    let connector = fixture.connector(&site, 1).await;
    let group: Value = fixture.post("/v1/groups", json!({ "name": "ops" })).await.json();
    let group_id = group["id"].as_str().unwrap();
    let path = format!("/v1/groups/{group_id}/members/{}", user.id);
    fixture.admin(Method::PUT, &path, None).await.expect(204);
    let device = fixture.wireguard_device(&user, 2).await;

    let listed = fixture.bundle(&connector).await.wireguard_devices;
    assert_eq!(listed.len(), 1);
    assert_eq!(listed[0].device_id, device.id);
    assert_eq!(listed[0].addresses, device.addresses);
    assert_eq!(listed[0].groups[0].to_string(), group_id);

    let path = format!("/v1/devices/{}", device.id);
    fixture.admin(Method::POST, &format!("{path}/revoke"), None).await.expect(200);
    assert_eq!(fixture.bundle(&connector).await.wireguard_devices, []);
    fixture.admin(Method::POST, &format!("{path}/approve"), None).await.expect(200);
    assert_eq!(fixture.bundle(&connector).await.wireguard_devices.len(), 1);
    let body = json!({ "name": "ada", "disabled": true });
    fixture.admin(Method::PUT, &format!("/v1/users/{}", user.id), Some(body)).await.expect(200);
    assert_eq!(fixture.bundle(&connector).await.wireguard_devices, []);
}

#[tokio::test]
async fn a_wireguard_config_holds_the_prefixes_that_policy_lets_the_device_reach() {
    let fixture = Fixture::new().await;
    let (user, site) = (fixture.user("ada").await, fixture.site("home").await);
    let connector = fixture.connector(&site, 1).await;
    let report = json!({ "version": "1", "endpoints": ["192.0.2.1:443"] });
    let path = "/v1/connector/report";
    fixture.signed(&connector, Method::PUT, path, Some(report)).await.expect(204);
    let nas = resource(&fixture, "nas", &site.id.to_string(), "10.1.0.0/24").await;
    resource(&fixture, "secret", &site.id.to_string(), "10.9.0.0/24").await;
    permit(&fixture, &user, &nas).await;
    let device = fixture.wireguard_device(&user, 2).await;

    let path = format!("/v1/devices/{}/wireguard-config", device.id);
    let answer = fixture.get(&path).await.expect(200);
    assert!(answer.header(header::CONTENT_TYPE).starts_with("text/plain"));
    let text = String::from_utf8(answer.body.to_vec()).unwrap();
    let key = connector.key.wireguard_public_key;
    let lines: Vec<&str> = text.lines().collect();
    for expected in [
        "[Interface]",
        "# PrivateKey = ",
        "Address = 100.80.0.2/32, fd12:3456:789a::2/128",
        "MTU = 1280",
        "[Peer]",
        &format!("PublicKey = {key}"),
        "Endpoint = 192.0.2.1:443",
        "AllowedIPs = 10.1.0.0/24",
        "PersistentKeepalive = 25",
    ] {
        assert!(lines.contains(&expected), "{expected} is missing in\n{text}");
    }

    let client = fixture.device(&user, 3).await;
    let path = format!("/v1/devices/{}/wireguard-config", client.device_id());
    fixture.get(&path).await.expect(409);
}

#[tokio::test]
async fn a_client_sees_what_policy_lets_it_reach_and_its_tag_stays_while_that_stays() {
    let fixture = Fixture::new().await;
    let (user, site) = (fixture.user("ada").await, fixture.site("home").await);
    let connector = fixture.connector(&site, 1).await;
    let device = fixture.device(&user, 2).await;
    let nas = resource(&fixture, "nas", &site.id.to_string(), "10.1.0.0/24").await;
    resource(&fixture, "secret", &site.id.to_string(), "10.9.0.0/24").await;
    permit(&fixture, &user, &nas).await;
    let path = "/v1/client/config";

    let answer = fixture.signed(&device, Method::GET, path, None).await.expect(200);
    let tag = answer.header(header::ETAG).to_owned();
    let token: SignedToken = answer.json();
    let keys = [fixture.app.signer.organisation_key()];
    let config: Signed<ClientConfig> =
        Signed::verify(&token.token, TokenType::ClientConfig, &keys).unwrap();
    let config = config.into_payload();
    assert_eq!(config.device_id, device.device_id());
    assert_eq!(config.resources.len(), 1);
    assert_eq!(config.resources[0].name, "nas");
    assert_eq!(config.sites[0].connectors[0].id, connector.connector_id());
    assert_eq!(config.sites[0].connectors[0].pin, connector.key.pin());

    fixture.user("bob").await;
    resource(&fixture, "other", &site.id.to_string(), "10.8.0.0/24").await;
    let unchanged = fixture.signed(&device, Method::GET, path, None).await.expect(200);
    assert_eq!(unchanged.header(header::ETAG), tag);
    let report = json!({ "version": "1", "endpoints": ["192.0.2.1:443"] });
    let report_path = "/v1/connector/report";
    fixture.signed(&connector, Method::PUT, report_path, Some(report)).await.expect(204);
    let changed = fixture.signed(&device, Method::GET, path, None).await.expect(200);
    assert_ne!(changed.header(header::ETAG), tag);
}

#[tokio::test]
async fn the_administrators_endpoints_come_before_those_reported() {
    let fixture = Fixture::new().await;
    let site = fixture.site("home").await;
    let connector = fixture.connector(&site, 1).await;
    let path = format!("/v1/connectors/{}", connector.connector_id());
    let report = json!({ "version": "1.2", "endpoints": ["192.0.2.1:443"] });
    let report_path = "/v1/connector/report";
    fixture.signed(&connector, Method::PUT, report_path, Some(report)).await.expect(204);
    let reported: Connector = fixture.get(&path).await.expect(200).json();
    assert_eq!(reported.endpoints, ["192.0.2.1:443"]);
    assert_eq!(reported.version.as_deref(), Some("1.2"));

    let write = json!({ "name": "edge", "endpoints": ["edge.example:443"] });
    let replaced: Connector =
        fixture.admin(Method::PUT, &path, Some(write)).await.expect(200).json();
    assert_eq!(replaced.endpoints, ["edge.example:443"]);
    let write = json!({ "name": "edge", "endpoints": [] });
    let replaced: Connector =
        fixture.admin(Method::PUT, &path, Some(write)).await.expect(200).json();
    assert_eq!(replaced.endpoints, ["192.0.2.1:443"]);
}

#[tokio::test]
async fn a_batch_of_events_sent_twice_counts_once_and_pages_newest_first() {
    let fixture = Fixture::new().await;
    let (user, site) = (fixture.user("ada").await, fixture.site("home").await);
    let connector = fixture.connector(&site, 1).await;
    let device = fixture.device(&user, 2).await;
    let events: Vec<Value> = (0..5_u32)
        .map(|index| {
            json!({
                "id": EventId::from_uuid(Uuid::from_u128(index.into())),
                "at": Timestamp::from_millis(1_767_225_600_000 + i64::from(index) / 2),
                "connector_id": connector.connector_id(),
                "device_id": device.device_id(),
                "user_id": user.id,
                "resource_id": null,
                "policy_id": null,
                "flow": {
                    "protocol": "tcp", "source": "100.80.0.2", "source_port": 40_000,
                    "destination": "10.1.0.1", "destination_port": 443,
                },
                "verdict": if index == 3 { "allow" } else { "deny" },
                "reason": "no-policy-permits",
                "bytes_from_device": 0, "bytes_to_device": u64::MAX,
                "packets_from_device": 0, "packets_to_device": 0, "duration_ms": 0,
            })
        })
        .collect();
    let path = "/v1/connector/access-events";
    for _ in 0..2 {
        let body = json!({ "events": events });
        fixture.signed(&connector, Method::POST, path, Some(body)).await.expect(204);
    }

    let mut seen: Vec<AccessEvent> = Vec::new();
    let mut next = Some(String::new());
    while let Some(cursor) = next {
        let cursor = if cursor.is_empty() { cursor } else { format!("&cursor={cursor}") };
        let page: Page<AccessEvent> =
            fixture.get(&format!("/v1/access-events?limit=2{cursor}")).await.expect(200).json();
        seen.extend(page.items);
        next = page.next_cursor;
    }
    assert_eq!(seen.len(), 5);
    assert!(seen.is_sorted_by(|newer, older| (newer.at, newer.id) > (older.at, older.id)));

    let page: Page<AccessEvent> =
        fixture.get("/v1/access-events?verdict=allow").await.expect(200).json();
    assert_eq!(page.items.len(), 1);
    let since = "/v1/access-events?since=2026-01-01T00:00:00.002Z";
    let page: Page<AccessEvent> = fixture.get(since).await.expect(200).json();
    assert_eq!(page.items.len(), 1);

    let mut foreign = events[0].clone();
    foreign["connector_id"] = json!("conn_0193f0a2b7c87d34a1e2c3d4e5f60718");
    let body = json!({ "events": [foreign] });
    let answer = fixture.signed(&connector, Method::POST, path, Some(body)).await.expect(422);
    assert_eq!(answer.json::<Value>()["field"], "/events/0/connector_id");
}

async fn resource(fixture: &Fixture, name: &str, site_id: &str, prefix: &str) -> String {
    let body = json!({ "name": name, "site_id": site_id, "addresses": [prefix] });
    let created: Value = fixture.post("/v1/resources", body).await.expect(201).json();
    created["id"].as_str().unwrap().to_owned()
}

async fn permit(fixture: &Fixture, user: &User, resource_id: &str) {
    let policy = json!({
        "name": format!("permit {resource_id}"), "effect": "permit",
        "subjects": { "users": [user.id] }, "resources": { "ids": [resource_id] },
    });
    fixture.post("/v1/policies", policy).await.expect(201);
}

async fn is_connected(fixture: &Fixture, connector: &Peer) -> bool {
    let path = format!("/v1/connectors/{}", connector.connector_id());
    fixture.get(&path).await.expect(200).json::<Connector>().connected
}

async fn open_stream(
    fixture: &Fixture,
    connector: &Peer,
    last_event_id: Option<u64>,
) -> axum::body::BodyDataStream {
    let authorization = connector.authorization(&Method::GET, STREAM, b"");
    let mut request = Request::get(STREAM).header(header::AUTHORIZATION, authorization);
    if let Some(id) = last_event_id {
        request = request.header("last-event-id", id);
    }
    let answer = fixture.open(request.body(Body::empty()).unwrap()).await;
    assert_eq!(answer.status(), 200);
    assert_eq!(answer.headers()[header::CONTENT_TYPE], "text/event-stream");
    answer.into_body().into_data_stream()
}

async fn next(stream: &mut axum::body::BodyDataStream) -> Bytes {
    let next = timeout(Duration::from_secs(5), stream.next()).await;
    next.expect("an event within five seconds").expect("a stream that goes on").unwrap()
}

fn sequence_of(event: &Bytes) -> u64 {
    let text = std::str::from_utf8(event).unwrap();
    let id = text.lines().find_map(|line| line.strip_prefix("id: ")).unwrap();
    assert_eq!(text, format!("id: {id}\nevent: bundle\ndata: {{\"sequence\":{id}}}\n\n"));
    id.parse().unwrap()
}
