//! Signing in at an identity provider, and providers that lie.

use std::sync::{Arc, Mutex};

use adit_proto::{
    AssertionSubject, Credential,
    api::{ClientEnrolled, DeviceAuthorization, Group, IdentityProvider, Page, User, UserSession},
};
use axum::{
    body::Body,
    http::{Method, Request, header},
};
use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use p256::ecdsa::{Signature, SigningKey, signature::Signer as _};
use serde_json::{Value, json};
use sha2::{Digest as _, Sha256};

use super::sign_in_tests::{begin, begin_on, error, find, poll, post_form};
use crate::{
    fixture::{Answer, Fixture, Peer, PeerKey},
    open_id_connect::ProviderHttp,
};

const ISSUER: &str = "https://idp.example";

/// What the provider does at this moment.
#[derive(Default)]
struct Provider {
    /// Given for the next code.
    id_token: Option<String>,
    /// Of the authorization request; the verifier must fit to it.
    challenge: String,
}

struct World {
    fixture: Fixture,
    provider: Arc<Mutex<Provider>>,
    registered: IdentityProvider,
}

/// A user at the provider.
struct Visit {
    state: String,
    nonce: String,
    cookie: String,
}

fn key(seed: u8) -> SigningKey {
    SigningKey::from_slice(&[seed; 32]).unwrap()
}

fn answer(provider: &Mutex<Provider>, request: openidconnect::HttpRequest) -> (u16, Value) {
    let held = provider.lock().unwrap();
    match request.uri().path() {
        "/.well-known/openid-configuration" => (
            200,
            json!({
                "issuer": ISSUER,
                "authorization_endpoint": format!("{ISSUER}/authorize"),
                "token_endpoint": format!("{ISSUER}/token"),
                "jwks_uri": format!("{ISSUER}/jwks"),
                "response_types_supported": ["code"],
                "subject_types_supported": ["public"],
                // A provider may announce what nobody should take.
                "id_token_signing_alg_values_supported": ["ES256", "HS256", "none"],
            }),
        ),
        "/jwks" => {
            let point = key(1).verifying_key().to_encoded_point(false);
            let encode = |bytes: &[u8]| URL_SAFE_NO_PAD.encode(bytes);
            let (x, y) = (encode(point.x().unwrap()), encode(point.y().unwrap()));
            let jwk = json!({
                "kty": "EC", "crv": "P-256", "kid": "1", "use": "sig", "x": x, "y": y,
            });
            (200, json!({ "keys": [jwk] }))
        }
        "/token" => {
            let body = String::from_utf8(request.body().clone()).unwrap();
            let verifier = parameter(&body, "code_verifier");
            let challenge = URL_SAFE_NO_PAD.encode(Sha256::digest(verifier));
            if challenge != held.challenge || parameter(&body, "code") != "good" {
                return (400, json!({ "error": "invalid_grant" }));
            }
            let mut token = json!({ "access_token": "x", "token_type": "Bearer" });
            if let Some(id_token) = &held.id_token {
                token["id_token"] = json!(id_token);
            }
            (200, token)
        }
        other => panic!("{other}"),
    }
}

fn parameter(form: &str, name: &str) -> String {
    let pairs = form.split(['&', '?']).filter_map(|pair| pair.split_once('='));
    let mut found = pairs.filter(|(key, _)| *key == name).map(|(_, value)| value.to_owned());
    found.next().unwrap_or_default()
}

fn encode(value: &Value) -> String {
    URL_SAFE_NO_PAD.encode(value.to_string())
}

fn sign(header: &Value, claims: &Value, key: &SigningKey) -> String {
    let signed = format!("{}.{}", encode(header), encode(claims));
    let signature: Signature = key.sign(signed.as_bytes());
    format!("{signed}.{}", URL_SAFE_NO_PAD.encode(signature.to_bytes()))
}

fn now() -> u64 {
    std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap().as_secs()
}

impl World {
    async fn new() -> Self {
        let provider = Arc::new(Mutex::new(Provider::default()));
        let held = provider.clone();
        let http = ProviderHttp::fake(move |request| {
            let (status, body) = answer(&held, request);
            openidconnect::http::Response::builder()
                .status(status)
                .header("content-type", "application/json")
                .body(body.to_string().into_bytes())
                .unwrap()
        });
        let fixture = Fixture::with_provider(http).await;
        let body = json!({
            "name": "Staff", "issuer": ISSUER, "client_id": "adit-1", "client_secret": "s3cret",
            "groups_claim": "groups", "scopes": ["profile"],
        });
        let created = fixture.post("/v1/identity-providers", body).await.expect(201);
        assert!(!String::from_utf8_lossy(&created.body).contains("s3cret"));
        let registered = created.json();
        Self { fixture, provider, registered }
    }

    async fn choose(&self, begun: &DeviceAuthorization, origin: &str) -> Answer {
        let id = self.registered.id;
        let form = format!("user_code={}&identity_provider_id={id}", begun.user_code);
        let request = Request::post("/sign-in")
            .header(header::CONTENT_TYPE, "application/x-www-form-urlencoded")
            .header(header::ORIGIN, origin)
            .body(Body::from(form))
            .unwrap();
        self.fixture.send(request).await
    }

    /// Sends a browser to the provider.
    async fn visit(&self, begun: &DeviceAuthorization) -> Visit {
        let page = self.choose(begun, "https://control.example:8443").await.expect(200);
        let cookie = page.header(header::SET_COOKIE).to_owned();
        for word in ["; Secure", "; HttpOnly", "; SameSite=Lax", "; Path=/;"] {
            assert!(cookie.contains(word), "{cookie}");
        }
        let html = String::from_utf8(page.body.to_vec()).unwrap();
        let url = html.split("href=\"").nth(1).unwrap().split('"').next().unwrap();
        let url = url.replace("&amp;", "&");
        assert!(url.starts_with("https://idp.example/authorize?"), "{url}");
        assert_eq!(parameter(&url, "code_challenge_method"), "S256");
        self.provider.lock().unwrap().challenge = parameter(&url, "code_challenge");
        Visit {
            state: parameter(&url, "state"),
            nonce: parameter(&url, "nonce"),
            cookie: cookie.split(';').next().unwrap().to_owned(),
        }
    }

    async fn come_back(&self, visit: &Visit, query: &str, cookie: &str) -> Answer {
        let request = Request::get(format!("/sign-in/callback?state={}&{query}", visit.state))
            .header(header::COOKIE, cookie)
            .body(Body::empty())
            .unwrap();
        self.fixture.send(request).await
    }

    /// What a provider that does not lie says.
    fn claims(&self, visit: &Visit, subject: &str) -> Value {
        json!({
            "iss": ISSUER, "sub": subject, "aud": "adit-1", "nonce": visit.nonce,
            "iat": now(), "exp": now() + 300, "auth_time": now(), "amr": ["pwd", "otp"],
            "preferred_username": "ada", "email": "ada@example.com", "email_verified": true,
            "groups": ["engineers"],
        })
    }

    /// Signs in with these claims; the answer is the page that the user sees at the end.
    async fn sign_in(
        &self,
        begun: &DeviceAuthorization,
        subject: &str,
        change: impl FnOnce(&mut Value),
    ) -> Answer {
        let visit = self.visit(begun).await;
        let mut claims = self.claims(&visit, subject);
        change(&mut claims);
        let token = sign(&json!({ "alg": "ES256", "kid": "1" }), &claims, &key(1));
        self.provider.lock().unwrap().id_token = Some(token);
        self.come_back(&visit, "code=good", &visit.cookie).await
    }

    async fn device(&self, subject: &str, seed: u8) -> Peer {
        let begun = begin(&self.fixture).await;
        self.sign_in(&begun, subject, |_claims| {}).await.expect(200);
        let key = PeerKey::new(seed);
        let enrolled: ClientEnrolled =
            self.fixture.enroll_with(&begun.device_code, &key).await.expect(201).json();
        Peer { subject: AssertionSubject::Device(enrolled.device_id), key }
    }

    async fn session(&self, device: &Peer) -> UserSession {
        let path = format!("/v1/sessions?device_id={}", device.device_id());
        let page: Page<UserSession> = self.fixture.get(&path).await.expect(200).json();
        page.items.into_iter().next().unwrap()
    }

    async fn credential(&self, device: &Peer) -> Credential {
        let issued = self.fixture.credential(device).await;
        let keys = [self.fixture.app.signer.organisation_key()];
        let now = std::time::SystemTime::now().into();
        Credential::verify(&issued.credential, &keys, &device.key.pin(), now).unwrap()
    }

    async fn group(&self, name: &str) -> Option<Group> {
        let path = format!("/v1/groups?name={name}");
        let page: Page<Group> = self.fixture.get(&path).await.expect(200).json();
        page.items.into_iter().next()
    }

    async fn refusals(&self) -> usize {
        let log = self.fixture.get("/v1/audit-events?limit=200").await.expect(200).body;
        String::from_utf8_lossy(&log).matches("sign-in.refuse").count()
    }
}

#[tokio::test]
async fn a_user_of_a_provider_signs_in_with_groups_and_methods() {
    let world = World::new().await;
    let device = world.device("subject-1", 1).await;
    let credential = world.credential(&device).await;
    assert_eq!(credential.authentication_methods, ["pwd", "otp"]);
    let group = world.group("engineers").await.unwrap();
    assert_eq!(group.identity_provider_id, Some(world.registered.id));
    assert_eq!(credential.groups, [group.id]);
    assert_eq!(world.session(&device).await.identity_provider_id, Some(world.registered.id));
    let path = format!("/v1/users/{}", credential.user_id);
    let user: User = world.fixture.get(&path).await.expect(200).json();
    assert_eq!((user.name.as_str(), user.email.as_deref()), ("ada", Some("ada@example.com")));
    assert_eq!(world.refusals().await, 0);
}

#[tokio::test]
async fn a_group_that_was_left_at_the_provider_voids_credentials() {
    let world = World::new().await;
    let device = world.device("subject-1", 1).await;
    let before = world.credential(&device).await;
    let site = world.fixture.site("home").await;
    let connector = world.fixture.connector(&site, 9).await;
    assert!(world.fixture.bundle(&connector).await.revocations.is_empty());

    let begun = begin_on(&world.fixture, &device).await;
    world.sign_in(&begun, "subject-1", |it| it["groups"] = json!(["others"])).await.expect(200);

    let revocations = world.fixture.bundle(&connector).await.revocations;
    assert!(revocations[0].not_before >= before.issued_at.0);
    let after = world.credential(&device).await;
    assert_eq!(after.groups, [world.group("others").await.unwrap().id]);
    assert!(after.issued_at.0 > revocations[0].not_before);
}

#[tokio::test]
async fn a_provider_lets_nobody_into_groups_that_are_not_its_own() {
    let world = World::new().await;
    let fixture = &world.fixture;
    fixture.post("/v1/groups", json!({ "name": "engineers" })).await.expect(201);
    let device = world.device("subject-1", 1).await;
    assert!(world.credential(&device).await.groups.is_empty());

    let begun = begin_on(fixture, &device).await;
    world.sign_in(&begun, "subject-1", |it| it["groups"] = json!("others")).await.expect(200);
    let owned = world.group("others").await.unwrap();
    let user_id = world.session(&device).await.user_id;
    let path = format!("/v1/groups/{}/members/{user_id}", owned.id);
    fixture.admin(Method::DELETE, &path, None).await.expect(409);
}

#[tokio::test]
async fn the_same_name_and_address_with_another_subject_is_another_user() {
    let world = World::new().await;
    let local = world.fixture.user("ada").await;
    let one = world.device("subject-1", 1).await;
    let other = world.device("subject-2", 2).await;
    let again = world.device("subject-1", 3).await;
    let mut users = Vec::new();
    for device in [&one, &other, &again] {
        users.push(world.credential(device).await.user_id);
    }
    assert_ne!(users[0], users[1]);
    assert_eq!(users[0], users[2]);
    assert!(!users.contains(&local.id));
}

#[tokio::test]
async fn id_tokens_that_were_not_asked_for_are_refused_and_written_down() {
    let world = World::new().await;
    type Forgery = Box<dyn Fn(&Value) -> String>;
    let honest = json!({ "alg": "ES256", "kid": "1" });
    let with = |member: &'static str, value: Value| {
        let honest = honest.clone();
        move |claims: &Value| {
            let mut claims = claims.clone();
            claims[member] = value.clone();
            sign(&honest, &claims, &key(1))
        }
    };
    let without_signature =
        |claims: &Value| format!("{}.{}.", encode(&json!({ "alg": "none" })), encode(claims));
    let by_public_key = |claims: &Value| {
        let signed = format!("{}.{}", encode(&json!({ "alg": "HS256" })), encode(claims));
        let public = key(1).verifying_key().to_encoded_point(false);
        let mac = aws_lc_rs::hmac::Key::new(aws_lc_rs::hmac::HMAC_SHA256, public.as_bytes());
        let tag = aws_lc_rs::hmac::sign(&mac, signed.as_bytes());
        format!("{signed}.{}", URL_SAFE_NO_PAD.encode(tag))
    };
    let by_secret = |claims: &Value| {
        let signed = format!("{}.{}", encode(&json!({ "alg": "HS256" })), encode(claims));
        let mac = aws_lc_rs::hmac::Key::new(aws_lc_rs::hmac::HMAC_SHA256, b"s3cret");
        let tag = aws_lc_rs::hmac::sign(&mac, signed.as_bytes());
        format!("{signed}.{}", URL_SAFE_NO_PAD.encode(tag))
    };
    let by_other_key =
        |claims: &Value| sign(&json!({ "alg": "ES256", "kid": "1" }), claims, &key(2));
    let by_unknown_kid =
        |claims: &Value| sign(&json!({ "alg": "ES256", "kid": "../../1" }), claims, &key(2));
    let forgeries: Vec<(&str, Forgery)> = vec![
        ("nonce", Box::new(with("nonce", json!("other")))),
        ("no nonce", Box::new(with("nonce", Value::Null))),
        ("issuer", Box::new(with("iss", json!("https://evil.example")))),
        ("audience", Box::new(with("aud", json!("other")))),
        ("further audience", Box::new(with("aud", json!(["adit-1", "other"])))),
        ("expired", Box::new(with("exp", json!(now() - 600)))),
        ("old sign-in", Box::new(with("auth_time", json!(now() - 3600)))),
        ("alg none", Box::new(without_signature)),
        ("HS256 with the public key", Box::new(by_public_key)),
        ("HS256 with the client secret", Box::new(by_secret)),
        ("another key", Box::new(by_other_key)),
        ("injected kid", Box::new(by_unknown_kid)),
        ("no JWT", Box::new(|_claims: &Value| "x.y.z".to_owned())),
    ];
    for (number, (name, forge)) in forgeries.iter().enumerate() {
        let begun = begin(&world.fixture).await;
        let visit = world.visit(&begun).await;
        let token = forge(&world.claims(&visit, "subject-1"));
        world.provider.lock().unwrap().id_token = Some(token);
        let page = world.come_back(&visit, "code=good", &visit.cookie).await;
        assert!(page.status.is_client_error(), "{name}: {page:?}");
        let polled = poll(&world.fixture, &begun.device_code).await.expect(400);
        assert_eq!(error(&polled), "access_denied", "{name}");
        assert_eq!(world.refusals().await, number + 1, "{name}");
    }
    let users: Page<User> = world.fixture.get("/v1/users").await.expect(200).json();
    assert!(users.items.is_empty());
}

#[tokio::test]
async fn codes_states_and_answers_of_others_are_refused() {
    let world = World::new().await;
    let begun = begin(&world.fixture).await;
    for query in ["code=bad", "error=access_denied", "iss=https%3A%2F%2Fevil.example&code=good"] {
        let begun = begin(&world.fixture).await;
        let visit = world.visit(&begun).await;
        world.come_back(&visit, query, &visit.cookie).await.expect(403);
        // Used once, whatever came of it.
        world.come_back(&visit, "code=good", &visit.cookie).await.expect(403);
        let polled = poll(&world.fixture, &begun.device_code).await.expect(400);
        assert_eq!(error(&polled), "access_denied", "{query}");
    }
    assert_eq!(world.refusals().await, 3);

    // Another browser, and none.
    for cookie in ["__Host-adit-sign-in=other", ""] {
        let visit = world.visit(&begun).await;
        world.come_back(&visit, "code=good", cookie).await.expect(403);
    }
    let visit = Visit { state: "x".to_owned(), nonce: String::new(), cookie: String::new() };
    world.come_back(&visit, "code=good", "").await.expect(403);
    // The verifier of one is of no use for the code of another.
    let one = world.visit(&begun).await;
    world.visit(&begun).await;
    world.come_back(&one, "code=good", &one.cookie).await.expect(403);
}

#[tokio::test]
async fn another_site_cannot_send_a_user_to_the_provider() {
    let world = World::new().await;
    let begun = begin(&world.fixture).await;
    for origin in ["https://evil.example", "null", "https://control.example"] {
        world.choose(&begun, origin).await.expect(403);
    }
    let form = format!("user_code={}&identity_provider_id=x", begun.user_code);
    post_form(&world.fixture, "/sign-in", &form).await.expect(403);
}

#[tokio::test]
async fn a_disabled_user_stays_out_although_the_provider_lets_it_in() {
    let world = World::new().await;
    let device = world.device("subject-1", 1).await;
    let user_id = world.session(&device).await.user_id;
    let body = json!({ "name": "ada", "disabled": true });
    let path = format!("/v1/users/{user_id}");
    world.fixture.admin(Method::PUT, &path, Some(body)).await.expect(200);
    let begun = begin(&world.fixture).await;
    world.sign_in(&begun, "subject-1", |_claims| {}).await.expect(409);
    assert_eq!(world.refusals().await, 1);
}

#[tokio::test]
async fn another_user_of_the_provider_does_not_take_a_device_over() {
    let world = World::new().await;
    let device = world.device("subject-1", 1).await;
    let owner = world.session(&device).await;
    let begun = begin_on(&world.fixture, &device).await;
    world.sign_in(&begun, "subject-2", |_claims| {}).await.expect(409);
    assert_eq!(world.session(&device).await, owner);
}

#[tokio::test]
async fn user_codes_cannot_be_guessed() {
    let world = World::new().await;
    let begun = begin(&world.fixture).await;
    let open = async |code: &str| {
        let request = Request::get(format!("/sign-in?user_code={code}"));
        world.fixture.send(request.body(Body::empty()).unwrap()).await
    };
    open(&begun.user_code.to_lowercase()).await.expect(200);
    for _ in 0..10 {
        open("BBBB-BBBB").await.expect(404);
    }
    open("BBBB-BBBB").await.expect(429);
    open(&begun.user_code).await.expect(429);
}

#[tokio::test]
async fn the_page_shows_which_device_asks_and_runs_nothing() {
    let world = World::new().await;
    let form = "client_id=adit&device_name=%3Cscript%3Ealert(1)%3C%2Fscript%3E";
    let begun: DeviceAuthorization =
        post_form(&world.fixture, "/v1/device-authorization", form).await.expect(200).json();
    assert!(find(&world.fixture, &begun).await.device_name.unwrap().starts_with("<script>"));
    let path = begun.verification_uri_complete.split(":8443").nth(1).unwrap();
    let request = Request::get(path).body(Body::empty()).unwrap();
    let page = world.fixture.send(request).await.expect(200);
    let html = String::from_utf8(page.body.to_vec()).unwrap();
    assert!(html.contains("&lt;script&gt;alert(1)"), "{html}");
    assert!(!html.contains("<script"), "{html}");
    assert!(html.contains("Sign in with Staff"), "{html}");
    let policy = page.header(header::CONTENT_SECURITY_POLICY);
    assert!(policy.starts_with("default-src 'none'; style-src 'sha256-"), "{policy}");
    assert!(!policy.contains("script-src") && !policy.contains("unsafe"), "{policy}");
}

#[tokio::test]
async fn the_secret_of_a_provider_is_written_and_never_read() {
    let world = World::new().await;
    let fixture = &world.fixture;
    let path = format!("/v1/identity-providers/{}", world.registered.id);
    let body = json!({ "name": "Others", "issuer": ISSUER, "client_id": "adit-1" });
    fixture.admin(Method::PUT, &path, Some(body)).await.expect(200);
    for path in [path.as_str(), "/v1/identity-providers", "/v1/audit-events"] {
        let answer = fixture.get(path).await.expect(200);
        assert!(!String::from_utf8_lossy(&answer.body).contains("s3cret"), "{path}");
    }
    for issuer in ["http://idp.example", "https://", "idp.example", "https://i.example/?x=1"] {
        let body = json!({ "name": "x", "issuer": issuer, "client_id": "x" });
        let refused = fixture.post("/v1/identity-providers", body).await.expect(422);
        assert_eq!(refused.json::<Value>()["field"], "/issuer", "{issuer}");
    }
    fixture.admin(Method::DELETE, &path, None).await.expect(204);
}
