//! Signing in on a device (RFC 8628), and the sessions that come of it.

use adit_proto::{
    AssertionSubject, Credential, Timestamp,
    api::{
        ClientEnrolled, CredentialIssued, DEVICE_CODE_GRANT, DeviceAuthorization, DeviceState,
        DeviceToken, Page, SignIn, SignInState, User, UserSession,
    },
};
use axum::{
    body::Body,
    http::{Method, Request, header},
};
use serde_json::{Value, json};

use crate::{
    fixture::{Answer, Fixture, Peer, PeerKey},
    store::ActorId,
};

pub(super) async fn post_form(fixture: &Fixture, path: &str, form: &str) -> Answer {
    let request = Request::post(path)
        .header(header::CONTENT_TYPE, "application/x-www-form-urlencoded")
        .body(Body::from(form.to_owned()))
        .unwrap();
    fixture.send(request).await
}

pub(super) async fn begin(fixture: &Fixture) -> DeviceAuthorization {
    let form = "client_id=adit&device_name=laptop";
    post_form(fixture, "/v1/device-authorization", form).await.expect(200).json()
}

/// Begins a sign-in on a device that has enrolled.
pub(super) async fn begin_on(fixture: &Fixture, device: &Peer) -> DeviceAuthorization {
    let (path, form) = ("/v1/device-authorization", "client_id=adit");
    let request = Request::post(path)
        .header(header::CONTENT_TYPE, "application/x-www-form-urlencoded")
        .header(header::AUTHORIZATION, device.authorization(&Method::POST, path, form.as_bytes()))
        .body(Body::from(form))
        .unwrap();
    fixture.send(request).await.expect(200).json()
}

pub(super) async fn poll(fixture: &Fixture, device_code: &str) -> Answer {
    let form = format!("grant_type={DEVICE_CODE_GRANT}&client_id=adit&device_code={device_code}");
    post_form(fixture, "/v1/token", &form).await
}

pub(super) fn error(answer: &Answer) -> String {
    answer.json::<Value>()["error"].as_str().unwrap_or_default().to_owned()
}

pub(super) async fn find(fixture: &Fixture, begun: &DeviceAuthorization) -> SignIn {
    let page: Page<SignIn> = fixture.get("/v1/sign-ins?state=pending").await.expect(200).json();
    let mut found = page.items.into_iter().filter(|one| one.user_code == begun.user_code);
    found.next().expect("it is listed")
}

pub(super) async fn approve(fixture: &Fixture, begun: &DeviceAuthorization, user: &User) -> Answer {
    let path = format!("/v1/sign-ins/{}/approve", find(fixture, begun).await.id);
    fixture.post(&path, json!({ "user_id": user.id })).await
}

/// A device that its user has signed in on.
async fn signed_in_device(fixture: &Fixture, user: &User, seed: u8) -> Peer {
    let begun = begin(fixture).await;
    approve(fixture, &begun, user).await.expect(200);
    let key = PeerKey::new(seed);
    let enrolled: ClientEnrolled =
        fixture.enroll_with(&begun.device_code, &key).await.expect(201).json();
    Peer { subject: AssertionSubject::Device(enrolled.device_id), key }
}

async fn session_of(fixture: &Fixture, device: &Peer) -> UserSession {
    let path = format!("/v1/sessions?device_id={}", device.device_id());
    let page: Page<UserSession> = fixture.get(&path).await.expect(200).json();
    let [session] = page.items.try_into().expect("one session");
    session
}

async fn set_session_lifetime(fixture: &Fixture, lifetime_s: Option<u64>) {
    let etag = fixture.get("/v1/organisation").await.header(header::ETAG).to_owned();
    let body = json!({
        "name": "Mine", "approve_devices": false, "max_offline_s": 86_400,
        "credential_lifetime_s": 3600, "session_lifetime_s": lifetime_s,
    });
    let replaced = fixture.admin_if_match(Method::PUT, "/v1/organisation", &etag, Some(body)).await;
    assert_eq!(replaced.expect(200).json::<Value>()["session_lifetime_s"], json!(lifetime_s));
}

/// Moves a column of times, as if they had been written earlier.
async fn turn_back(fixture: &Fixture, sql: &'static str) {
    let mut change = fixture.app.store.begin_change(ActorId::ControlPlane).await.unwrap();
    sqlx::query(sql).execute(change.connection()).await.unwrap();
    change.commit_unaudited().await.unwrap();
}

fn content(fixture: &Fixture, device: &Peer, issued: &CredentialIssued) -> Credential {
    let keys = [fixture.app.signer.organisation_key()];
    let now = std::time::SystemTime::now().into();
    Credential::verify(&issued.credential, &keys, &device.key.pin(), now).unwrap()
}

#[tokio::test]
async fn a_new_device_enrols_with_the_code_that_an_administrator_approved() {
    let fixture = Fixture::new().await;
    let user = fixture.user("ada").await;
    let begun = begin(&fixture).await;
    assert_eq!(begun.verification_uri, "https://control.example:8443/sign-in");
    let complete = format!("{}?user_code={}", begun.verification_uri, begun.user_code);
    assert_eq!(begun.verification_uri_complete, complete);
    assert_eq!(find(&fixture, &begun).await.device_name.as_deref(), Some("laptop"));

    let waiting = poll(&fixture, &begun.device_code).await.expect(400);
    assert_eq!(error(&waiting), "authorization_pending");
    assert_eq!(waiting.header(header::CACHE_CONTROL), "no-store");
    let key = PeerKey::new(1);
    fixture.enroll_with(&begun.device_code, &key).await.expect(422);

    approve(&fixture, &begun, &user).await.expect(200);
    let token: DeviceToken = poll(&fixture, &begun.device_code).await.expect(200).json();
    let enrolled: ClientEnrolled =
        fixture.enroll_with(&token.access_token, &key).await.expect(201).json();
    assert_eq!(enrolled.state, DeviceState::Approved);

    let device = Peer { subject: AssertionSubject::Device(enrolled.device_id), key };
    let session = session_of(&fixture, &device).await;
    assert_eq!((session.user_id, session.ends_at), (user.id, None));
    let issued = fixture.credential(&device).await;
    let credential = content(&fixture, &device, &issued);
    assert_eq!(credential.auth_time.0, session.authenticated_at);
    assert_eq!(issued.session_ends_at, None);
}

#[tokio::test]
async fn a_device_waits_for_approval_if_the_organisation_says_so() {
    let fixture = Fixture::new().await;
    let user = fixture.user("ada").await;
    let etag = fixture.get("/v1/organisation").await.header(header::ETAG).to_owned();
    let body = json!({
        "name": "Mine", "approve_devices": true, "max_offline_s": 86_400,
        "credential_lifetime_s": 3600,
    });
    fixture.admin_if_match(Method::PUT, "/v1/organisation", &etag, Some(body)).await.expect(200);
    let begun = begin(&fixture).await;
    approve(&fixture, &begun, &user).await.expect(200);
    let answer = fixture.enroll_with(&begun.device_code, &PeerKey::new(1)).await.expect(201);
    assert_eq!(answer.json::<ClientEnrolled>().state, DeviceState::Pending);
}

#[tokio::test]
async fn a_code_is_used_once_but_a_lost_answer_is_given_again() {
    let fixture = Fixture::new().await;
    let user = fixture.user("ada").await;
    let begun = begin(&fixture).await;
    approve(&fixture, &begun, &user).await.expect(200);
    let key = PeerKey::new(1);
    let first: ClientEnrolled =
        fixture.enroll_with(&begun.device_code, &key).await.expect(201).json();
    let again: ClientEnrolled =
        fixture.enroll_with(&begun.device_code, &key).await.expect(201).json();
    assert_eq!(first, again);

    let other = fixture.enroll_with(&begun.device_code, &PeerKey::new(2)).await.expect(422);
    assert_eq!(other.code(), "join-refused");
    assert_eq!(error(&poll(&fixture, &begun.device_code).await.expect(400)), "invalid_grant");
}

#[tokio::test]
async fn a_client_that_asks_too_fast_is_told_to_slow_down() {
    let fixture = Fixture::new().await;
    let begun = begin(&fixture).await;
    let first = poll(&fixture, &begun.device_code).await.expect(400);
    assert_eq!(error(&first), "authorization_pending");
    assert_eq!(error(&poll(&fixture, &begun.device_code).await.expect(400)), "slow_down");
}

#[tokio::test]
async fn a_denied_sign_in_is_over() {
    let fixture = Fixture::new().await;
    let user = fixture.user("ada").await;
    let begun = begin(&fixture).await;
    let id = find(&fixture, &begun).await.id;
    let denied: SignIn =
        fixture.post(&format!("/v1/sign-ins/{id}/deny"), json!(null)).await.expect(200).json();
    assert_eq!(denied.state, SignInState::Denied);
    assert_eq!(error(&poll(&fixture, &begun.device_code).await.expect(400)), "access_denied");
    let body = json!({ "user_id": user.id });
    fixture.post(&format!("/v1/sign-ins/{id}/approve"), body).await.expect(409);
    fixture.enroll_with(&begun.device_code, &PeerKey::new(1)).await.expect(422);
}

#[tokio::test]
async fn codes_expire() {
    let fixture = Fixture::new().await;
    let user = fixture.user("ada").await;
    let (waiting, approved) = (begin(&fixture).await, begin(&fixture).await);
    let id = find(&fixture, &waiting).await.id;
    approve(&fixture, &approved, &user).await.expect(200);
    turn_back(&fixture, "UPDATE sign_ins SET expires_at = created_at").await;

    assert_eq!(error(&poll(&fixture, &waiting.device_code).await.expect(400)), "expired_token");
    assert_eq!(error(&poll(&fixture, &approved.device_code).await.expect(400)), "expired_token");
    fixture.enroll_with(&approved.device_code, &PeerKey::new(1)).await.expect(422);
    let body = json!({ "user_id": user.id });
    fixture.post(&format!("/v1/sign-ins/{id}/approve"), body).await.expect(409);
    let listed: Page<SignIn> = fixture.get("/v1/sign-ins").await.expect(200).json();
    assert!(listed.items.is_empty());

    turn_back(&fixture, "UPDATE sign_ins SET expires_at = 0").await;
    begin(&fixture).await;
    assert_eq!(error(&poll(&fixture, &waiting.device_code).await.expect(400)), "invalid_grant");
}

#[tokio::test]
async fn parameters_that_are_missing_repeated_or_wrong_are_refused_as_oauth_has_it() {
    let fixture = Fixture::new().await;
    let grant = DEVICE_CODE_GRANT;
    for (path, form, expected) in [
        ("/v1/device-authorization", "", "invalid_request"),
        ("/v1/device-authorization", "client_id=other", "invalid_client"),
        ("/v1/device-authorization", "client_id=adit&client_id=adit", "invalid_request"),
        ("/v1/device-authorization", "client_id=adit&device_name=", "invalid_request"),
        ("/v1/device-authorization", "client_id=adit&device_name=a%0Ab", "invalid_request"),
        ("/v1/token", "client_id=adit", "invalid_request"),
        ("/v1/token", "client_id=adit&device_code=x&grant_type=x", "unsupported_grant_type"),
        ("/v1/token", &format!("client_id=x&device_code=x&grant_type={grant}"), "invalid_client"),
        ("/v1/token", &format!("client_id=adit&device_code=x&grant_type={grant}"), "invalid_grant"),
    ] {
        let answer = post_form(&fixture, path, form).await.expect(400);
        assert_eq!(error(&answer), expected, "{path} {form}");
    }
    let json = fixture.post("/v1/token", json!({ "client_id": "adit" })).await.expect(400);
    assert_eq!(error(&json), "invalid_request");
    // RFC 6749 §3.2: others are ignored.
    post_form(&fixture, "/v1/device-authorization", "client_id=adit&scope=openid")
        .await
        .expect(200);
}

#[tokio::test]
async fn strangers_cannot_begin_sign_ins_without_end() {
    let fixture = Fixture::new().await;
    for _ in 0..50 {
        begin(&fixture).await;
    }
    let full = post_form(&fixture, "/v1/device-authorization", "client_id=adit").await.expect(503);
    assert_eq!(error(&full), "temporarily_unavailable");
    // Nobody who has enrolled is kept out by them.
    let device = fixture.device(&fixture.user("ada").await, 1).await;
    begin_on(&fixture, &device).await;
}

#[tokio::test]
async fn a_disabled_user_is_not_signed_in() {
    let fixture = Fixture::new().await;
    let user = fixture.user("ada").await;
    let (before, after) = (begin(&fixture).await, begin(&fixture).await);
    approve(&fixture, &before, &user).await.expect(200);
    let body = json!({ "name": "ada", "disabled": true });
    fixture.admin(Method::PUT, &format!("/v1/users/{}", user.id), Some(body)).await.expect(200);
    fixture.enroll_with(&before.device_code, &PeerKey::new(1)).await.expect(422);
    assert_eq!(approve(&fixture, &after, &user).await.expect(409).code(), "conflict");
}

#[tokio::test]
async fn an_enrolled_device_begins_another_session_and_keeps_its_credentials() {
    let fixture = Fixture::new().await;
    let user = fixture.user("ada").await;
    let device = signed_in_device(&fixture, &user, 1).await;
    turn_back(&fixture, "UPDATE user_sessions SET authenticated_at = 1000").await;
    let old = content(&fixture, &device, &fixture.credential(&device).await);
    assert_eq!(old.auth_time.0, Timestamp::from_millis(1000));

    let begun = begin_on(&fixture, &device).await;
    let sign_in = find(&fixture, &begun).await;
    assert_eq!(sign_in.device_id, Some(device.device_id()));
    approve(&fixture, &begun, &user).await.expect(200);
    poll(&fixture, &begun.device_code).await.expect(200);

    let fresh = content(&fixture, &device, &fixture.credential(&device).await);
    assert_eq!(fresh.auth_time.0, session_of(&fixture, &device).await.authenticated_at);
    assert!(fresh.auth_time > old.auth_time);
    let site = fixture.site("home").await;
    let connector = fixture.connector(&site, 9).await;
    assert!(fixture.bundle(&connector).await.revocations.is_empty(), "nothing was cut");
    // Such a code makes no second device.
    fixture.enroll_with(&begun.device_code, &PeerKey::new(2)).await.expect(422);
}

#[tokio::test]
async fn another_user_does_not_sign_in_on_a_device_that_has_an_owner() {
    let fixture = Fixture::new().await;
    let (ada, eve) = (fixture.user("ada").await, fixture.user("eve").await);
    let device = signed_in_device(&fixture, &ada, 1).await;
    let begun = begin_on(&fixture, &device).await;
    approve(&fixture, &begun, &eve).await.expect(409);
    assert_eq!(session_of(&fixture, &device).await.user_id, ada.id);
    approve(&fixture, &begun, &ada).await.expect(200);
}

#[tokio::test]
async fn a_device_has_one_sign_in_at_a_time() {
    let fixture = Fixture::new().await;
    let device = fixture.device(&fixture.user("ada").await, 1).await;
    let (first, second) = (begin_on(&fixture, &device).await, begin_on(&fixture, &device).await);
    assert_eq!(error(&poll(&fixture, &first.device_code).await.expect(400)), "invalid_grant");
    let waiting = poll(&fixture, &second.device_code).await.expect(400);
    assert_eq!(error(&waiting), "authorization_pending");
}

#[tokio::test]
async fn a_credential_ends_with_its_session() {
    let fixture = Fixture::new().await;
    set_session_lifetime(&fixture, Some(600)).await;
    let user = fixture.user("ada").await;
    let device = signed_in_device(&fixture, &user, 1).await;
    let session = session_of(&fixture, &device).await;
    let ends_at = session.ends_at.unwrap();
    assert_eq!(ends_at.saturating_duration_since(session.authenticated_at).as_secs(), 600);
    let issued = fixture.credential(&device).await;
    assert_eq!((issued.expires_at, issued.session_ends_at), (ends_at, Some(ends_at)));

    turn_back(&fixture, "UPDATE user_sessions SET ends_at = authenticated_at").await;
    let answer = fixture.signed(&device, Method::POST, "/v1/client/credential", None).await;
    assert_eq!(answer.expect(403).code(), "session-expired");

    let begun = begin_on(&fixture, &device).await;
    approve(&fixture, &begun, &user).await.expect(200);
    fixture.credential(&device).await;
}

#[tokio::test]
async fn machines_that_joined_with_a_key_stay_signed_in() {
    let fixture = Fixture::new().await;
    set_session_lifetime(&fixture, Some(600)).await;
    let device = fixture.device(&fixture.user("robot").await, 1).await;
    let issued = fixture.credential(&device).await;
    assert_eq!(issued.session_ends_at, None);
    let sessions: Page<UserSession> = fixture.get("/v1/sessions").await.expect(200).json();
    assert!(sessions.items.is_empty());
    fixture.signed(&device, Method::POST, "/v1/client/log-out", None).await.expect(409);
}

#[tokio::test]
async fn a_session_that_is_ended_cuts_its_device_until_the_user_signs_in_again() {
    let fixture = Fixture::new().await;
    let user = fixture.user("ada").await;
    let site = fixture.site("home").await;
    let connector = fixture.connector(&site, 9).await;
    let device = signed_in_device(&fixture, &user, 1).await;
    for by_device in [false, true] {
        let issued = content(&fixture, &device, &fixture.credential(&device).await);
        if by_device {
            fixture.signed(&device, Method::POST, "/v1/client/log-out", None).await.expect(204);
        } else {
            let path = format!("/v1/sessions/{}/end", session_of(&fixture, &device).await.id);
            let ended: UserSession =
                fixture.admin(Method::POST, &path, None).await.expect(200).json();
            assert!(ended.ended_at.is_some());
            let again = fixture.admin(Method::POST, &path, None).await.expect(200);
            assert_eq!(again.json::<UserSession>(), ended);
        }
        let revocations = fixture.bundle(&connector).await.revocations;
        assert!(revocations[0].not_before >= issued.issued_at.0);
        let refused = fixture.signed(&device, Method::POST, "/v1/client/credential", None).await;
        assert_eq!(refused.expect(403).code(), "session-expired");

        let begun = begin_on(&fixture, &device).await;
        approve(&fixture, &begun, &user).await.expect(200);
        let fresh = content(&fixture, &device, &fixture.credential(&device).await);
        assert!(fresh.issued_at.0 > revocations[0].not_before);
    }
}

#[tokio::test]
async fn every_decision_is_in_the_audit_log_without_the_device_code() {
    let fixture = Fixture::new().await;
    let user = fixture.user("ada").await;
    let begun = begin(&fixture).await;
    approve(&fixture, &begun, &user).await.expect(200);
    let log = fixture.get("/v1/audit-events").await.expect(200).body;
    let log = String::from_utf8_lossy(&log).into_owned();
    assert!(log.contains("sign-in.approve"), "{log}");
    assert!(!log.contains(&begun.device_code));
}
