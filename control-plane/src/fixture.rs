//! A control plane in memory and a temporary folder, for tests: requests go through the whole
//! router, without sockets.

use std::{
    num::NonZeroU32,
    path::{Path, PathBuf},
    time::{Instant, SystemTime},
};

use adit_proto::{
    ApiTokenId, Assertion, AssertionSubject, ConnectorId, DeviceId, OrganisationId, Pin, Timestamp,
    WireguardPublicKey,
    api::{
        ApiToken, ClientEnroll, ClientEnrolled, ConnectorEnroll, ConnectorEnrolled,
        ConnectorTokenCreated, CredentialIssued, Device, EnrollmentKeyCreated, Role, Secret,
        SignedToken, Site, User,
    },
    sha256_base64url,
};
use axum::{
    Router,
    body::{Body, Bytes, to_bytes},
    http::{HeaderMap, Method, Request, StatusCode, header},
    response::Response,
};
use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use p256::{ecdsa::SigningKey, pkcs8::EncodePublicKey as _};
use serde::de::DeserializeOwned;
use serde_json::{Value, json};
use tokio::sync::watch;
use tower::ServiceExt as _;

use crate::{
    api,
    app::{App, Parts, live::Live, random},
    metrics::Metrics,
    open_id_connect::ProviderHttp,
    rate_limits::{Limits, RateLimits},
    sealing::Sealer,
    signing::Signer,
    store::{ActorId, Store, api_tokens, organisation},
};

pub(crate) struct Fixture {
    pub(crate) app: App,
    pub(crate) draining: watch::Sender<bool>,
    router: Router,
    admin_token: String,
    folder: tempfile::TempDir,
}

/// A device or connector with its key.
pub(crate) struct Peer {
    pub(crate) subject: AssertionSubject,
    pub(crate) key: PeerKey,
}

#[derive(Clone)]
pub(crate) struct PeerKey {
    signing_key: SigningKey,
    pub(crate) wireguard_public_key: WireguardPublicKey,
}

#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) status: StatusCode,
    pub(crate) headers: HeaderMap,
    pub(crate) body: Bytes,
}

impl PeerKey {
    pub(crate) fn new(seed: u8) -> Self {
        Self {
            signing_key: SigningKey::from_slice(&[seed; 32]).unwrap(),
            wireguard_public_key: WireguardPublicKey::try_from_bytes([seed; 32]).unwrap(),
        }
    }

    fn spki(&self) -> Vec<u8> {
        let key = p256::PublicKey::from(self.signing_key.verifying_key());
        key.to_public_key_der().unwrap().into_vec()
    }

    pub(crate) fn pin(&self) -> Pin {
        Pin::from_spki(&self.spki())
    }

    pub(crate) fn spki_base64url(&self) -> String {
        URL_SAFE_NO_PAD.encode(self.spki())
    }
}

impl Peer {
    pub(crate) fn device_id(&self) -> DeviceId {
        match self.subject {
            AssertionSubject::Device(id) => id,
            AssertionSubject::Connector(id) => panic!("{id} is no device"),
        }
    }

    pub(crate) fn connector_id(&self) -> ConnectorId {
        match self.subject {
            AssertionSubject::Connector(id) => id,
            AssertionSubject::Device(id) => panic!("{id} is no connector"),
        }
    }

    /// The value of `Authorization` for a request.
    pub(crate) fn authorization(&self, method: &Method, path: &str, body: &[u8]) -> String {
        self.authorization_at(method, path, body, SystemTime::now().into())
    }

    /// As [`Self::authorization`], signed at another time.
    pub(crate) fn authorization_at(
        &self,
        method: &Method,
        path: &str,
        body: &[u8],
        issued_at: Timestamp,
    ) -> String {
        let assertion = Assertion {
            subject: self.subject,
            method: method.to_string(),
            path: path.to_owned(),
            body_sha256: sha256_base64url(body),
            issued_at,
        };
        format!("{} {}", Assertion::SCHEME, assertion.sign(&self.key.signing_key))
    }
}

impl Answer {
    pub(crate) fn json<T: DeserializeOwned>(&self) -> T {
        serde_json::from_slice(&self.body).unwrap_or_else(|error| panic!("{error}: {self:?}"))
    }

    pub(crate) fn code(&self) -> String {
        self.json::<Value>()["code"].as_str().unwrap_or_default().to_owned()
    }

    pub(crate) fn header(&self, name: impl header::AsHeaderName) -> &str {
        self.headers.get(name).map_or("", |value| value.to_str().unwrap())
    }

    #[track_caller]
    pub(crate) fn expect(self, status: u16) -> Self {
        assert_eq!(self.status.as_u16(), status, "{}", String::from_utf8_lossy(&self.body));
        self
    }
}

impl Fixture {
    /// With limits that no test reaches.
    pub(crate) async fn new() -> Self {
        Self::with_limits(limits(u32::MAX, u32::MAX, u32::MAX)).await
    }

    pub(crate) async fn with_limits(limits: Limits) -> Self {
        Self::with(limits, ProviderHttp::fake(|_request| panic!("there is no provider"))).await
    }

    /// As [`Self::new`]; identity providers are what answers here.
    pub(crate) async fn with_provider(provider_http: ProviderHttp) -> Self {
        Self::with(limits(u32::MAX, u32::MAX, u32::MAX), provider_http).await
    }

    async fn with(limits: Limits, provider_http: ProviderHttp) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let store = Store::open(&folder.path().join("adit.db")).await.unwrap();
        let signer = Signer::create(&organisation_key_file(folder.path())).unwrap();
        let now: Timestamp = SystemTime::now().into();
        let organisation_id = OrganisationId::from_uuid(random::new_uuid(now).unwrap());
        let admin_token = format!("adit_pat_{}", random::new_secret().unwrap().as_str());

        let mut change = store.begin_change(ActorId::ControlPlane).await.unwrap();
        let origin = organisation::Origin {
            id: organisation_id,
            ipv4_range: "100.80.0.0/12".parse().unwrap(),
            ipv6_range: "fd12:3456:789a::/48".parse().unwrap(),
            signing_key: signer.organisation_key(),
        };
        let settings = organisation::Settings {
            name: "Mine".to_owned(),
            approve_devices: false,
            max_offline_s: 86_400,
            credential_lifetime_s: 3600,
            session_lifetime_s: None,
        };
        organisation::insert(&mut change, &origin, &settings).await.unwrap();
        let token = ApiToken {
            id: ApiTokenId::from_uuid(random::new_uuid(now).unwrap()),
            name: "first".to_owned(),
            description: None,
            role: Role::Owner,
            scopes: None,
            expires_at: None,
            last_used_at: None,
            created_at: now,
        };
        let hash = random::secret_hash(&admin_token);
        api_tokens::insert(&mut change, &token, &hash).await.unwrap();
        change.commit("organisation.create", organisation_id, None::<&()>).await.unwrap();

        let (draining, receiver) = watch::channel(false);
        let app = App::new(Parts {
            store,
            signer,
            sealer: Sealer::new(&[7; 32]),
            provider_http,
            live: Live::default(),
            metrics: Metrics::default(),
            rate_limits: RateLimits::new(&limits),
            public_url: "https://control.example:8443".to_owned(),
            pin: Pin::from_spki(b"certificate"),
            started_at: Instant::now(),
            draining: receiver,
        });
        let router = api::router(app.clone());
        Self { app, draining, router, admin_token, folder }
    }

    /// Where the database is.
    pub(crate) fn folder(&self) -> &Path {
        self.folder.path()
    }

    /// Where the private half of the organisation key is.
    pub(crate) fn organisation_key_file(&self) -> PathBuf {
        organisation_key_file(self.folder())
    }

    /// Sends a request as the first administrator.
    pub(crate) async fn admin(&self, method: Method, path: &str, body: Option<Value>) -> Answer {
        let mut request = Request::builder()
            .method(method)
            .uri(path)
            .header(header::AUTHORIZATION, format!("Bearer {}", self.admin_token));
        if body.is_some() {
            request = request.header(header::CONTENT_TYPE, "application/json");
        }
        let body = body.map_or_else(Body::empty, |body| body.to_string().into());
        self.send(request.body(body).unwrap()).await
    }

    /// The value of `Authorization` of the first administrator.
    pub(crate) fn admin_authorization(&self) -> String {
        format!("Bearer {}", self.admin_token)
    }

    /// As [`Self::admin`], with `If-Match`.
    pub(crate) async fn admin_if_match(
        &self,
        method: Method,
        path: &str,
        etag: &str,
        body: Option<Value>,
    ) -> Answer {
        let request = Request::builder()
            .method(method)
            .uri(path)
            .header(header::AUTHORIZATION, self.admin_authorization())
            .header(header::CONTENT_TYPE, "application/json")
            .header(header::IF_MATCH, etag);
        let body = body.map_or_else(Body::empty, |body| body.to_string().into());
        self.send(request.body(body).unwrap()).await
    }

    pub(crate) async fn get(&self, path: &str) -> Answer {
        self.admin(Method::GET, path, None).await
    }

    pub(crate) async fn post(&self, path: &str, body: Value) -> Answer {
        self.admin(Method::POST, path, Some(body)).await
    }

    /// Sends a request that the peer signs.
    pub(crate) async fn signed(
        &self,
        peer: &Peer,
        method: Method,
        path: &str,
        body: Option<Value>,
    ) -> Answer {
        let text = body.as_ref().map(Value::to_string).unwrap_or_default();
        let authorization = peer.authorization(&method, path, text.as_bytes());
        self.with_authorization(method, path, body, &authorization).await
    }

    pub(crate) async fn with_authorization(
        &self,
        method: Method,
        path: &str,
        body: Option<Value>,
        authorization: &str,
    ) -> Answer {
        let mut request = Request::builder()
            .method(method)
            .uri(path)
            .header(header::AUTHORIZATION, authorization);
        if body.is_some() {
            request = request.header(header::CONTENT_TYPE, "application/json");
        }
        let text = body.map(|body| body.to_string()).unwrap_or_default();
        self.send(request.body(text.into()).unwrap()).await
    }

    pub(crate) async fn without_authorization(&self, method: Method, path: &str) -> Answer {
        self.send(Request::builder().method(method).uri(path).body(Body::empty()).unwrap()).await
    }

    /// Sends a request whose answer may never end.
    pub(crate) async fn open(&self, request: Request<Body>) -> Response {
        self.router.clone().oneshot(request).await.unwrap()
    }

    pub(crate) async fn send(&self, request: Request<Body>) -> Answer {
        let (parts, body) = self.open(request).await.into_parts();
        let body = to_bytes(body, usize::MAX).await.unwrap();
        Answer { status: parts.status, headers: parts.headers, body }
    }

    pub(crate) async fn user(&self, name: &str) -> User {
        self.post("/v1/users", json!({ "name": name })).await.expect(201).json()
    }

    pub(crate) async fn site(&self, name: &str) -> Site {
        self.post("/v1/sites", json!({ "name": name })).await.expect(201).json()
    }

    pub(crate) async fn enrollment_key(&self, user: &User, uses: u32) -> EnrollmentKeyCreated {
        let body = json!({ "name": "key", "user_id": user.id, "uses": uses });
        self.post("/v1/enrollment-keys", body).await.expect(201).json()
    }

    pub(crate) async fn connector_token(&self, site: &Site) -> ConnectorTokenCreated {
        let path = format!("/v1/sites/{}/connector-tokens", site.id);
        self.post(&path, json!({ "name": "edge" })).await.expect(201).json()
    }

    /// Asks to join with the secret of an enrolment key.
    pub(crate) async fn enroll(&self, key: &Secret, peer_key: &PeerKey) -> Answer {
        self.enroll_with(&secret_of(key), peer_key).await
    }

    /// Asks to join with this secret.
    pub(crate) async fn enroll_with(&self, secret: &str, peer_key: &PeerKey) -> Answer {
        let enroll = ClientEnroll {
            secret: secret.to_owned().into(),
            name: "laptop".to_owned(),
            device_key: peer_key.spki_base64url(),
            wireguard_public_key: peer_key.wireguard_public_key,
        };
        self.without_token("/v1/client/enroll", serde_json::to_value(enroll).unwrap()).await
    }

    /// Asks to join with the secret of a connector token.
    pub(crate) async fn enroll_connector(&self, token: &Secret, peer_key: &PeerKey) -> Answer {
        let enroll = ConnectorEnroll {
            secret: secret_of(token).into(),
            connector_key: peer_key.spki_base64url(),
            wireguard_public_key: peer_key.wireguard_public_key,
        };
        self.without_token("/v1/connector/enroll", serde_json::to_value(enroll).unwrap()).await
    }

    /// A device that has joined and may connect.
    pub(crate) async fn device(&self, user: &User, seed: u8) -> Peer {
        let created = self.enrollment_key(user, 1).await;
        let key = PeerKey::new(seed);
        let enrolled: ClientEnrolled = self.enroll(&created.key, &key).await.expect(201).json();
        Peer { subject: AssertionSubject::Device(enrolled.device_id), key }
    }

    /// A connector that has joined.
    pub(crate) async fn connector(&self, site: &Site, seed: u8) -> Peer {
        let created = self.connector_token(site).await;
        let key = PeerKey::new(seed);
        let enrolled: ConnectorEnrolled =
            self.enroll_connector(&created.token, &key).await.expect(201).json();
        Peer { subject: AssertionSubject::Connector(enrolled.connector_id), key }
    }

    pub(crate) async fn wireguard_device(&self, user: &User, seed: u8) -> Device {
        let body = json!({
            "name": "router",
            "user_id": user.id,
            "wireguard_public_key": PeerKey::new(seed).wireguard_public_key,
        });
        self.post("/v1/devices", body).await.expect(201).json()
    }

    pub(crate) async fn credential(&self, device: &Peer) -> CredentialIssued {
        let answer = self.signed(device, Method::POST, "/v1/client/credential", None).await;
        answer.expect(200).json()
    }

    pub(crate) async fn bundle(&self, connector: &Peer) -> adit_proto::Bundle {
        let answer = self.signed(connector, Method::GET, "/v1/connector/bundle", None).await;
        let signed: SignedToken = answer.expect(200).json();
        let keys = [self.app.signer.organisation_key()];
        adit_proto::Bundle::verify(&signed.token, &keys, connector.connector_id(), None).unwrap()
    }

    pub(crate) async fn without_token(&self, path: &str, body: Value) -> Answer {
        let request = Request::post(path).header(header::CONTENT_TYPE, "application/json");
        self.send(request.body(body.to_string().into()).unwrap()).await
    }
}

/// Limits of an address, of a token, and of wrong secrets.
pub(crate) fn limits(address: u32, token: u32, failures: u32) -> Limits {
    let number = |number| NonZeroU32::new(number).unwrap();
    Limits {
        requests_per_address: number(address),
        requests_per_token: number(token),
        failures_per_address: number(failures),
        trusted_proxies: Vec::new(),
    }
}

fn organisation_key_file(folder: &Path) -> PathBuf {
    folder.join("organisation-key")
}

fn secret_of(token: &Secret) -> String {
    token.expose().parse::<adit_proto::JoinToken>().unwrap().secret().to_owned()
}
