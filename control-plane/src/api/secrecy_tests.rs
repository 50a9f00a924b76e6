//! No secret is found again where it has no business, after every operation has succeeded once.

use std::{
    fs,
    io::{self, Write},
    sync::{Mutex, PoisonError},
};

use adit_proto::{
    EventId, JoinToken,
    api::{
        ApiTokenCreated, ClientEnroll, ClientEnrolled, ConnectorEnroll, ConnectorEnrolled,
        ConnectorTokenCreated, DeviceToken, EnrollmentKeyCreated, Secret,
    },
};
use axum::{
    body::Body,
    http::{Method, Request, header},
};
use serde::de::DeserializeOwned;
use serde_json::{Value, json};
use uuid::Uuid;

use super::sign_in_tests::{begin, find, poll};
use crate::{
    api,
    fixture::{Answer, Fixture, Peer, PeerKey},
    store::{Created, IdempotencyKey, audit},
};

/// What is logged by any thread while a test listens. The threads of the database log too, so that
/// only the subscriber of the whole process hears all.
static LOG: Mutex<Option<Vec<u8>>> = Mutex::new(None);

struct Log;

impl Write for Log {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        if let Some(log) = LOG.lock().unwrap_or_else(PoisonError::into_inner).as_mut() {
            log.extend_from_slice(bytes);
        }
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// Calls every operation, and remembers the secrets and whatever else was answered.
struct Caller {
    fixture: Fixture,
    secrets: Vec<String>,
    /// All but the answers that hand out a secret.
    answers: Vec<(String, Vec<u8>)>,
    /// Values of the program as `Debug` prints them.
    debugs: Vec<String>,
}

impl Caller {
    async fn new() -> Self {
        let fixture = Fixture::new().await;
        let admin_token = fixture.admin_authorization();
        let admin_token = admin_token.strip_prefix("Bearer ").unwrap().to_owned();
        let organisation_key = fs::read_to_string(fixture.organisation_key_file()).unwrap();
        let secrets = vec![admin_token, organisation_key];
        Self { fixture, secrets, answers: Vec::new(), debugs: Vec::new() }
    }

    fn keep(&mut self, name: String, answer: &Answer) {
        self.answers.push((name, answer.body.to_vec()));
    }

    #[track_caller]
    fn succeeded(&mut self, method: &Method, path: &str, answer: &Answer) -> Value {
        assert!(answer.status.is_success(), "{method} {path}: {answer:?}");
        self.keep(format!("{method} {path}"), answer);
        serde_json::from_slice(&answer.body).unwrap_or(Value::Null)
    }

    async fn call(&mut self, method: Method, path: &str, body: Option<Value>) -> Value {
        let answer = self.fixture.admin_if_match(method.clone(), path, "*", body).await;
        self.succeeded(&method, path, &answer)
    }

    async fn get(&mut self, path: &str) -> Value {
        self.call(Method::GET, path, None).await
    }

    async fn delete(&mut self, path: &str) {
        self.call(Method::DELETE, path, None).await;
    }

    async fn signed(&mut self, by: &Peer, method: Method, path: &str, body: Option<Value>) {
        let answer = self.fixture.signed(by, method.clone(), path, body).await;
        self.succeeded(&method, path, &answer);
    }

    /// Creates, lists, reads and replaces. Gives the path of the object.
    async fn object(&mut self, collection: &str, create: Value, replace: Option<Value>) -> String {
        let created = self.call(Method::POST, collection, Some(create)).await;
        let path = format!("{collection}/{}", created["id"].as_str().unwrap());
        self.get(collection).await;
        self.get(&path).await;
        if let Some(replace) = replace {
            self.call(Method::PUT, &path, Some(replace)).await;
        }
        path
    }

    /// Creates what has a secret, twice with the same idempotency key.
    async fn secret<T: DeserializeOwned + std::fmt::Debug>(
        &mut self,
        collection: &str,
        body: Value,
        secret: impl Fn(&T) -> &Secret,
    ) -> T {
        let request = || {
            Request::post(collection)
                .header(header::AUTHORIZATION, self.fixture.admin_authorization())
                .header(header::CONTENT_TYPE, "application/json")
                .header("idempotency-key", collection)
                .body(Body::from(body.to_string()))
                .unwrap()
        };
        let answer = self.fixture.send(request()).await.expect(201);
        assert_eq!(self.fixture.send(request()).await.expect(201).body, answer.body);
        let created: T = answer.json();
        let text = secret(&created).expose().to_owned();
        // The part that is random, and what it is wrapped in.
        if let Ok(token) = text.parse::<JoinToken>() {
            self.secrets.push(token.secret().to_owned());
            self.debugs.push(format!("{token:?}"));
        }
        self.secrets.push(text);
        self.debugs.push(format!("{created:?}"));
        let text = String::from_utf8(answer.body.to_vec()).unwrap();
        self.debugs.push(format!("{:?}", Created { path: String::new(), version: 1, body: text }));
        self.get(collection).await;
        created
    }

    async fn client(&mut self, enroll: ClientEnroll, key: PeerKey) -> Peer {
        self.debugs.push(format!("{enroll:?}"));
        let body = serde_json::to_value(enroll).unwrap();
        let answer = self.fixture.without_token("/v1/client/enroll", body).await.expect(201);
        self.keep("enrolment of a client".to_owned(), &answer);
        let enrolled: ClientEnrolled = answer.json();
        Peer { subject: adit_proto::AssertionSubject::Device(enrolled.device_id), key }
    }

    async fn connector(&mut self, enroll: ConnectorEnroll, key: PeerKey) -> Peer {
        self.debugs.push(format!("{enroll:?}"));
        let body = serde_json::to_value(enroll).unwrap();
        let answer = self.fixture.without_token("/v1/connector/enroll", body).await.expect(201);
        self.keep("enrolment of a connector".to_owned(), &answer);
        let enrolled: ConnectorEnrolled = answer.json();
        Peer { subject: adit_proto::AssertionSubject::Connector(enrolled.connector_id), key }
    }

    async fn every_operation(&mut self) {
        for path in ["/healthz", "/readyz", "/metrics", "/v1/openapi.json", "/v1/organisation"] {
            self.get(path).await;
        }
        let organisation = json!({
            "name": "Mine", "approve_devices": false, "max_offline_s": 86_400,
            "credential_lifetime_s": 3600,
        });
        self.call(Method::PUT, "/v1/organisation", Some(organisation)).await;

        let named = |name: &str| json!({ "name": name });
        let user = self.object("/v1/users", named("ada"), Some(named("ada"))).await;
        let group = self.object("/v1/groups", named("crew"), Some(named("crew"))).await;
        let site = self.object("/v1/sites", named("home"), Some(named("home"))).await;
        let id = |path: &str| path.rsplit('/').next().unwrap().to_owned();
        let member = format!("{group}/members/{}", id(&user));
        self.call(Method::PUT, &member, None).await;
        self.get(&format!("{group}/members")).await;
        let resource = json!({ "name": "nas", "site_id": id(&site), "addresses": ["10.9.0.0/24"] });
        let resource = self.object("/v1/resources", resource.clone(), Some(resource)).await;
        let policy = json!({
            "name": "rule", "effect": "permit", "subjects": { "users": [id(&user)] },
            "resources": { "ids": [id(&resource)] },
        });
        let policy = self.object("/v1/policies", policy.clone(), Some(policy)).await;
        let policy_test = self.policy_set(&id(&user), &id(&resource)).await;
        let provider = self.identity_provider().await;
        self.sign_ins(&id(&user)).await;

        let body = json!({ "name": "ci", "role": "admin" });
        let api_token: ApiTokenCreated =
            self.secret("/v1/api-tokens", body, |created: &ApiTokenCreated| &created.token).await;
        let body = json!({ "name": "key", "user_id": id(&user), "uses": 2 });
        let key: EnrollmentKeyCreated = self
            .secret("/v1/enrollment-keys", body, |created: &EnrollmentKeyCreated| &created.key)
            .await;
        let collection = format!("{site}/connector-tokens");
        let connector_token: ConnectorTokenCreated = self
            .secret(&collection, named("edge"), |created: &ConnectorTokenCreated| &created.token)
            .await;
        let paths = [
            format!("/v1/api-tokens/{}", api_token.api_token.id),
            format!("/v1/enrollment-keys/{}", key.enrollment_key.id),
            format!("/v1/connector-tokens/{}", connector_token.connector_token.id),
        ];
        for path in &paths {
            self.get(path).await;
        }

        let secret_of = |token: &Secret| -> Secret {
            token.expose().parse::<JoinToken>().unwrap().secret().to_owned().into()
        };
        let peer_key = PeerKey::new(1);
        let enroll = ClientEnroll {
            secret: secret_of(&key.key),
            name: "laptop".to_owned(),
            device_key: peer_key.spki_base64url(),
            wireguard_public_key: peer_key.wireguard_public_key,
        };
        let device = self.client(enroll, peer_key).await;
        let peer_key = PeerKey::new(2);
        let enroll = ConnectorEnroll {
            secret: secret_of(&connector_token.token),
            connector_key: peer_key.spki_base64url(),
            wireguard_public_key: peer_key.wireguard_public_key,
        };
        let connector = self.connector(enroll, peer_key).await;
        // Used up when the connector joined, and so made anew to be deleted.
        let again = self.call(Method::POST, &collection, Some(named("again"))).await;
        let (_collection, answer) = self.answers.pop().unwrap();
        let answer: ConnectorTokenCreated = serde_json::from_slice(&answer).unwrap();
        self.secrets.push(answer.token.expose().to_owned());
        let again = again["connector_token"]["id"].as_str().unwrap().to_owned();

        self.signed(&device, Method::GET, "/v1/client/config", None).await;
        self.signed(&device, Method::POST, "/v1/client/credential", None).await;
        let report = json!({ "version": "1", "endpoints": ["192.0.2.1:443"] });
        self.signed(&connector, Method::PUT, "/v1/connector/report", Some(report)).await;
        self.signed(&connector, Method::GET, "/v1/connector/bundle", None).await;
        self.signed(&connector, Method::GET, "/v1/connector/stream?wait=true", None).await;
        let event = json!({
            "id": EventId::from_uuid(Uuid::from_u128(1)), "at": "2026-01-01T00:00:00Z",
            "connector_id": connector.connector_id(), "device_id": device.device_id(),
            "user_id": id(&user), "resource_id": null, "policy_id": null,
            "flow": {
                "protocol": "tcp", "source": "100.80.0.2", "source_port": 40_000,
                "destination": "10.1.0.1", "destination_port": 443,
            },
            "verdict": "deny", "reason": "no-policy-permits",
            "bytes_from_device": 0, "bytes_to_device": 0,
            "packets_from_device": 0, "packets_to_device": 0, "duration_ms": 0,
        });
        let events = json!({ "events": [event] });
        self.signed(&connector, Method::POST, "/v1/connector/access-events", Some(events)).await;
        self.get("/v1/access-events").await;
        let question = json!({
            "device_id": device.device_id(), "destination": "10.9.0.1", "port": 443,
            "protocol": "tcp",
        });
        self.call(Method::POST, "/v1/policy/explain", Some(question)).await;

        let router = json!({
            "name": "router", "user_id": id(&user),
            "wireguard_public_key": PeerKey::new(3).wireguard_public_key,
        });
        let router = self.object("/v1/devices", router, None).await;
        self.get(&format!("{router}/wireguard-config")).await;
        self.call(Method::POST, &format!("{router}/revoke"), None).await;
        self.call(Method::POST, &format!("{router}/approve"), None).await;
        let edge = format!("/v1/connectors/{}", connector.connector_id());
        self.get("/v1/connectors").await;
        self.get(&edge).await;
        let write = json!({ "name": "edge", "endpoints": ["edge.example:443"] });
        self.call(Method::PUT, &edge, Some(write)).await;

        self.get("/v1/audit-events").await;
        self.get("/v1/audit-events/head").await;
        let [api_token, key, _used_up] = paths;
        let again = format!("/v1/connector-tokens/{again}");
        for path in
            [router, edge, again, key, api_token, provider, policy_test, policy, resource, member]
        {
            self.delete(&path).await;
        }
        for path in [site, group, user] {
            self.delete(&path).await;
        }
    }

    /// Tests, the set and the history of policies. Gives the path of the test.
    async fn policy_set(&mut self, user_id: &str, resource_id: &str) -> String {
        let test = json!({
            "name": "ada has the nas", "subject": { "user": user_id },
            "target": { "resource": resource_id }, "expect": "allow",
        });
        let test = self.object("/v1/policy-tests", test.clone(), Some(test)).await;
        self.call(Method::POST, "/v1/policy-tests/run", None).await;
        let set = self.get("/v1/policy-set").await;
        self.call(Method::PUT, "/v1/policy-set", Some(set)).await;
        let history = self.get("/v1/policy-history").await;
        let version = format!("/v1/policy-history/{}", history["items"][0]["version"]);
        self.get(&version).await;
        self.call(Method::POST, &format!("{version}/rollback"), None).await;
        test
    }

    async fn identity_provider(&mut self) -> String {
        let client_secret = "what the provider knows us by";
        self.secrets.push(client_secret.to_owned());
        let provider = json!({
            "name": "provider", "issuer": "https://id.example", "client_id": "adit",
            "client_secret": client_secret,
        });
        self.object("/v1/identity-providers", provider.clone(), Some(provider)).await
    }

    /// One that is denied, one whose session an administrator ends, and one that logs out.
    async fn sign_ins(&mut self, user_id: &str) {
        let denied = self.begin_sign_in().await;
        self.call(Method::POST, &format!("{denied}/deny"), None).await;

        let ended = self.signed_in_device(user_id, 4).await;
        let sessions = self.get("/v1/sessions").await;
        let session = format!("/v1/sessions/{}", sessions["items"][0]["id"].as_str().unwrap());
        self.get(&session).await;
        self.call(Method::POST, &format!("{session}/end"), None).await;
        self.delete(&format!("/v1/devices/{}", ended.device_id())).await;

        let logged_out = self.signed_in_device(user_id, 5).await;
        self.signed(&logged_out, Method::POST, "/v1/client/log-out", None).await;
    }

    /// The path of a sign-in that waits.
    async fn begin_sign_in(&mut self) -> String {
        let begun = begin(&self.fixture).await;
        self.debugs.push(format!("{begun:?}"));
        self.secrets.push(begun.device_code.clone());
        self.get("/v1/sign-ins").await;
        let sign_in = format!("/v1/sign-ins/{}", find(&self.fixture, &begun).await.id);
        self.get(&sign_in).await;
        sign_in
    }

    async fn signed_in_device(&mut self, user_id: &str, seed: u8) -> Peer {
        let sign_in = self.begin_sign_in().await;
        let device_code = self.secrets.last().unwrap().clone();
        let approval = json!({ "user_id": user_id });
        self.call(Method::POST, &format!("{sign_in}/approve"), Some(approval)).await;
        let token: DeviceToken = poll(&self.fixture, &device_code).await.expect(200).json();
        self.debugs.push(format!("{token:?}"));
        let key = PeerKey::new(seed);
        let enroll = ClientEnroll {
            secret: token.access_token.into(),
            name: "laptop".to_owned(),
            device_key: key.spki_base64url(),
            wireguard_public_key: key.wireguard_public_key,
        };
        self.client(enroll, key).await
    }

    /// Refusals, each of a request that holds a secret.
    async fn refusals(&mut self) {
        for secret in self.secrets.clone() {
            for (method, path, body) in [
                (Method::GET, "/v1/users", None),
                (Method::POST, "/v1/client/enroll", Some(json!({ "secret": secret }))),
                (Method::POST, "/v1/connector/enroll", Some(json!({ "secret": secret, "x": 1 }))),
            ] {
                let wrong = format!("Bearer {secret}x");
                let answer = self.fixture.with_authorization(method, path, body, &wrong).await;
                assert!(answer.status.is_client_error());
                self.keep(format!("refusal by {path}"), &answer);
            }
        }
    }

    /// Which of the operations that the description knows never succeeded.
    fn missed_operations(&self) -> Vec<String> {
        let metrics = self.fixture.app.metrics.render(&self.fixture.app);
        let openapi = serde_json::to_value(api::openapi()).unwrap();
        let paths = openapi["paths"].as_object().unwrap();
        let operations = paths.iter().flat_map(|(path, item)| {
            let methods = item.as_object().unwrap().keys();
            methods.map(move |method| (method.to_uppercase(), path))
        });
        let succeeded = |method: &str, path: &str| {
            metrics.contains(&format!("method=\"{method}\",route=\"{path}\",status=\"2"))
        };
        operations
            .filter(|(method, path)| !succeeded(method, path))
            .map(|(method, path)| format!("{method} {path}"))
            .collect()
    }

    #[track_caller]
    fn expect_no_secret(&self, place: &str, content: &[u8]) {
        for secret in &self.secrets {
            let found = content.windows(secret.len()).any(|window| window == secret.as_bytes());
            assert!(!found, "{place} holds {secret}");
        }
    }
}

#[tokio::test]
async fn secrets_are_told_once_and_found_nowhere_else() {
    let subscriber = tracing_subscriber::fmt()
        .with_max_level(tracing::Level::TRACE)
        .with_writer(|| Log)
        .finish();
    tracing::subscriber::set_global_default(subscriber).unwrap();
    *LOG.lock().unwrap() = Some(Vec::new());
    tracing::trace!("Listening");

    let mut caller = Caller::new().await;
    caller.every_operation().await;
    caller.refusals().await;
    let missed = caller.missed_operations();
    assert!(missed.is_empty(), "call these too: {missed:?}");
    assert_eq!(caller.secrets.len(), 12);

    let log = LOG.lock().unwrap().take().unwrap();
    let text = String::from_utf8_lossy(&log);
    for line in ["Listening", "Answered request", "Enrolled device"] {
        assert!(text.contains(line), "{} bytes of log without `{line}`", log.len());
    }
    caller.expect_no_secret("the log", &log);

    for (name, answer) in &caller.answers {
        caller.expect_no_secret(name, answer);
    }

    let app = &caller.fixture.app;
    let mut snapshot = app.store.snapshot().await.unwrap();
    let events = audit::read_after(&mut snapshot, 0, 1000).await.unwrap();
    assert!(events.len() > 30, "only {} events", events.len());
    drop(snapshot);
    for event in &events {
        let place = format!("audit event {}", event.sequence);
        caller.expect_no_secret(&place, &serde_json::to_vec(event).unwrap());
    }

    let token = caller.secrets.first().unwrap();
    let id = "tok_0193f0a2b7c87d34a1e2c3d4e5f60718".parse().unwrap();
    let idempotency = IdempotencyKey::new(id, token, "once".to_owned(), [0; 32]);
    for debug in caller.debugs.iter().chain([&format!("{app:?}"), &format!("{idempotency:?}")]) {
        caller.expect_no_secret(&format!("`Debug`: {debug}"), debug.as_bytes());
    }

    // At rest there are hashes only, and answers that are sealed.
    let folder = caller.fixture.folder();
    for name in ["adit.db", "adit.db-wal"] {
        caller.expect_no_secret(name, &fs::read(folder.join(name)).unwrap());
    }
}
