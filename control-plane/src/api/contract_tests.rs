//! What holds for every object of the API.

use std::{
    future::{Future as _, poll_fn},
    task::Poll,
    time::Duration,
};

use adit_proto::{
    AuditChain,
    api::{AuditEvent, Page, Problem, ProblemCode, Site, User},
};
use axum::{
    body::Body,
    http::{Method, Request, StatusCode, header},
};
use serde_json::{Value, json};
use tokio::time::timeout;

use crate::{
    api::body::MAX_LEN,
    fixture::{Answer, Fixture},
    store::{ActorId, audit, organisation},
};

async fn send(
    fixture: &Fixture,
    method: Method,
    path: &str,
    headers: &[(&str, &str)],
    body: impl Into<Body>,
) -> Answer {
    let mut request = Request::builder().method(method).uri(path);
    for (name, value) in headers {
        request = request.header(*name, *value);
    }
    fixture.send(request.body(body.into()).unwrap()).await
}

async fn send_as_admin(
    fixture: &Fixture,
    method: Method,
    path: &str,
    header: (&str, &str),
    body: &Value,
) -> Answer {
    let authorization = fixture.admin_authorization();
    let headers =
        [("authorization", authorization.as_str()), ("content-type", "application/json"), header];
    send(fixture, method, path, &headers, body.to_string()).await
}

fn problem(answer: &Answer) -> Problem {
    assert_eq!(answer.header(header::CONTENT_TYPE), "application/problem+json");
    let problem: Problem = answer.json();
    assert_eq!(problem.status, answer.status.as_u16());
    problem
}

#[tokio::test]
async fn a_creation_says_where_the_object_is_and_its_version() {
    let fixture = Fixture::new().await;
    let created = fixture.post("/v1/users", json!({ "name": "ada" })).await.expect(201);
    let user: User = created.json();
    assert_eq!(created.header(header::LOCATION), format!("/v1/users/{}", user.id));
    let read = fixture.get(created.header(header::LOCATION)).await.expect(200);
    assert_eq!(read.header(header::ETAG), created.header(header::ETAG));
    assert_eq!(read.json::<User>(), user);
}

#[tokio::test]
async fn a_stale_etag_changes_nothing() {
    let fixture = Fixture::new().await;
    let path = format!("/v1/users/{}", fixture.user("ada").await.id);
    let first = fixture.get(&path).await.header(header::ETAG).to_owned();
    let replace = json!({ "name": "eve" });
    let replaced = send_as_admin(&fixture, Method::PUT, &path, ("if-match", &first), &replace)
        .await
        .expect(200);
    assert_ne!(replaced.header(header::ETAG), first);

    let stale = json!({ "name": "mallory" });
    let answer =
        send_as_admin(&fixture, Method::PUT, &path, ("if-match", &first), &stale).await.expect(412);
    assert_eq!(problem(&answer).code, ProblemCode::EtagMismatch);
    let answer =
        send_as_admin(&fixture, Method::DELETE, &path, ("if-match", &first), &json!(null)).await;
    answer.expect(412);
    assert_eq!(fixture.get(&path).await.json::<User>().name, "eve");
}

#[tokio::test]
async fn the_organisation_is_never_replaced_unseen() {
    let fixture = Fixture::new().await;
    let body = json!({
        "name": "Other", "approve_devices": true, "max_offline_s": 60, "credential_lifetime_s": 60,
    });
    let path = "/v1/organisation";
    let answer = fixture.admin(Method::PUT, path, Some(body.clone())).await.expect(428);
    assert_eq!(problem(&answer).code, ProblemCode::EtagRequired);
    let etag = fixture.get(path).await.header(header::ETAG).to_owned();
    send_as_admin(&fixture, Method::PUT, path, ("if-match", &etag), &body).await.expect(200);
    assert_eq!(fixture.get(path).await.json::<Value>()["name"], "Other");
}

#[tokio::test]
async fn pages_hold_every_object_once() {
    let fixture = Fixture::new().await;
    let mut expected = Vec::new();
    for number in 0..7 {
        expected.push(fixture.user(&format!("user {number}")).await.id);
    }
    expected.sort_unstable();

    let (mut found, mut path) = (Vec::new(), "/v1/users?limit=3".to_owned());
    loop {
        let page: Page<User> = fixture.get(&path).await.expect(200).json();
        assert!(page.items.len() <= 3);
        found.extend(page.items.iter().map(|user| user.id));
        let Some(cursor) = page.next_cursor else { break };
        path = format!("/v1/users?limit=3&cursor={cursor}");
    }
    assert_eq!(found, expected);
    let named: Page<User> = fixture.get("/v1/users?name=user%203").await.expect(200).json();
    assert_eq!(named.items.len(), 1);
}

#[tokio::test]
async fn impossible_parameters_are_named() {
    let fixture = Fixture::new().await;
    for (query, field) in
        [("limit=0", "limit"), ("limit=201", "limit"), ("limit=x", "limit"), ("cursor=!", "cursor")]
    {
        let answer = fixture.get(&format!("/v1/users?{query}")).await.expect(422);
        assert_eq!(problem(&answer).field.as_deref(), Some(field), "{query}");
    }
    let answer = fixture.get("/v1/users?nmae=ada").await.expect(422);
    assert!(problem(&answer).detail.contains("nmae"));
}

#[tokio::test]
async fn a_wrong_member_is_named_by_its_path() {
    let fixture = Fixture::new().await;
    let wrong = [
        (json!({ "name": "ada", "nmae": "x" }), "/nmae"),
        (json!({ "name": 1 }), "/name"),
        (json!({ "name": "" }), "/name"),
        (json!({ "name": "x".repeat(101) }), "/name"),
        (json!({ "name": "bell\u{7}" }), "/name"),
    ];
    for (body, field) in wrong {
        let answer = fixture.post("/v1/users", body).await.expect(422);
        let problem = problem(&answer);
        assert_eq!(problem.code, ProblemCode::Invalid);
        assert_eq!(problem.field.as_deref(), Some(field));
    }
    assert!(fixture.get("/v1/users").await.json::<Page<User>>().items.is_empty());
}

#[tokio::test]
async fn what_is_no_json_is_no_request() {
    let fixture = Fixture::new().await;
    let authorization = fixture.admin_authorization();
    let post = async |content_type: &str, body: &'static str| {
        let headers = [("authorization", authorization.as_str()), ("content-type", content_type)];
        send(&fixture, Method::POST, "/v1/users", &headers, body).await
    };
    for body in ["", "{", "{\"name\":\"ada\"} x", "\u{0}"] {
        let answer = post("application/json", body).await.expect(400);
        assert_eq!(problem(&answer).code, ProblemCode::MalformedRequest);
    }
    let answer = post("text/plain", "{\"name\":\"ada\"}").await.expect(415);
    assert_eq!(problem(&answer).code, ProblemCode::UnsupportedMediaType);
}

#[tokio::test]
async fn unknown_paths_methods_and_ids_are_problems_too() {
    let fixture = Fixture::new().await;
    let answer = fixture.get("/v1/nothing").await.expect(404);
    assert_eq!(problem(&answer).code, ProblemCode::NotFound);
    let answer = fixture.admin(Method::PATCH, "/v1/users", None).await.expect(405);
    assert_eq!(problem(&answer).code, ProblemCode::MethodNotAllowed);
    assert!(answer.header(header::ALLOW).contains("POST"));
    for id in
        ["usr_0193f0a2b7c87d34a1e2c3d4e5f60718", "usr_x", "grp_0193f0a2b7c87d34a1e2c3d4e5f60718"]
    {
        let answer = fixture.get(&format!("/v1/users/{id}")).await.expect(404);
        assert_eq!(problem(&answer).code, ProblemCode::NotFound);
    }
}

#[tokio::test]
async fn only_a_valid_token_is_let_in() {
    let fixture = Fixture::new().await;
    let created: Value = fixture
        .post("/v1/api-tokens", json!({ "name": "short", "role": "admin", "lifetime_s": 3600 }))
        .await
        .expect(201)
        .json();
    let token = created["token"].as_str().unwrap();
    let id = created["api_token"]["id"].as_str().unwrap();
    let bearer = format!("Bearer {token}");
    let read = async |authorization: &str| {
        send(&fixture, Method::GET, "/v1/users", &[("authorization", authorization)], "").await
    };
    read(&bearer).await.expect(200);
    for wrong in
        ["", "Bearer", "Bearer adit_pat_", token, &format!("Bearer {token}x"), "Basic eDp4"]
    {
        let answer = read(wrong).await.expect(401);
        assert_eq!(problem(&answer).code, ProblemCode::NotAuthenticated);
        assert_eq!(answer.header(header::WWW_AUTHENTICATE), "Bearer");
    }
    fixture.admin(Method::DELETE, &format!("/v1/api-tokens/{id}"), None).await.expect(204);
    read(&bearer).await.expect(401);
}

#[tokio::test]
async fn the_last_administrator_cannot_be_locked_out() {
    let fixture = Fixture::new().await;
    let tokens: Value = fixture.get("/v1/api-tokens").await.json();
    let path = format!("/v1/api-tokens/{}", tokens["items"][0]["id"].as_str().unwrap());
    fixture.admin(Method::DELETE, &path, None).await.expect(409);
    fixture.get("/v1/users").await.expect(200);
}

#[tokio::test]
async fn secrets_of_tokens_are_neither_listed_nor_audited() {
    let fixture = Fixture::new().await;
    let created: Value = fixture
        .post("/v1/api-tokens", json!({ "name": "ci", "role": "admin" }))
        .await
        .expect(201)
        .json();
    let secret = created["token"].as_str().unwrap();
    for path in ["/v1/api-tokens", "/v1/audit-events"] {
        let text = String::from_utf8(fixture.get(path).await.expect(200).body.to_vec()).unwrap();
        assert!(!text.contains(secret), "{path}");
    }
}

#[tokio::test]
async fn a_body_that_is_too_large_is_refused_before_the_caller_is_asked_who_it_is() {
    let fixture = Fixture::new().await;
    let body = vec![b' '; MAX_LEN + 1];
    let answer = send(&fixture, Method::POST, "/v1/users", &[], body).await.expect(413);
    assert_eq!(problem(&answer).code, ProblemCode::BodyTooLarge);

    // Without a length, so that it is found out on the way.
    let chunks = (0..17).map(|_| Ok::<_, std::io::Error>(vec![b' '; 1 << 16]));
    let body = Body::from_stream(futures_util::stream::iter(chunks));
    send(&fixture, Method::POST, "/v1/users", &[], body).await.expect(413);
    let body = vec![b' '; MAX_LEN];
    send(&fixture, Method::POST, "/v1/users", &[], body).await.expect(401);
}

#[tokio::test]
async fn a_repeated_creation_is_answered_as_the_first_and_done_once() {
    let fixture = Fixture::new().await;
    let body = json!({ "name": "ci", "role": "auditor" });
    let path = "/v1/api-tokens";
    let post = async |key: &str, path: &str, body: &Value| {
        send_as_admin(&fixture, Method::POST, path, ("idempotency-key", key), body).await
    };
    let first = post("a", path, &body).await.expect(201);
    let again = post("a", path, &body).await.expect(201);
    assert_eq!(again.body, first.body);
    for name in [header::LOCATION, header::ETAG, header::CONTENT_TYPE] {
        assert_eq!(again.header(&name), first.header(&name));
    }
    assert_ne!(post("b", path, &body).await.expect(201).body, first.body);

    for (path, body) in [
        (path, json!({ "name": "other", "role": "auditor" })),
        ("/v1/users", json!({ "name": "x" })),
    ] {
        let answer = post("a", path, &body).await.expect(409);
        assert_eq!(problem(&answer).code, ProblemCode::IdempotencyConflict);
    }
    let tokens: Value = fixture.get("/v1/api-tokens?name=ci").await.json();
    assert_eq!(tokens["items"].as_array().unwrap().len(), 2);
}

#[tokio::test]
async fn of_two_equal_creations_at_once_one_is_done() {
    let fixture = Fixture::new().await;
    let body = json!({ "name": "twin" });
    let post =
        || send_as_admin(&fixture, Method::POST, "/v1/sites", ("idempotency-key", "k"), &body);
    let (one, other) = tokio::join!(post(), post());
    for answer in [&one, &other] {
        assert!(matches!(answer.status, StatusCode::CREATED | StatusCode::CONFLICT));
    }
    assert!(one.status == StatusCode::CREATED || other.status == StatusCode::CREATED);
    assert_eq!(post().await.expect(201).json::<Site>().name, "twin");
    assert_eq!(fixture.get("/v1/sites").await.json::<Page<Site>>().items.len(), 1);
}

#[tokio::test]
async fn a_failed_creation_is_not_remembered() {
    let fixture = Fixture::new().await;
    let site = fixture.site("taken").await;
    let body = json!({ "name": "taken" });
    let post =
        || send_as_admin(&fixture, Method::POST, "/v1/sites", ("idempotency-key", "k"), &body);
    assert_eq!(problem(&post().await.expect(409)).code, ProblemCode::Conflict);
    fixture.admin(Method::DELETE, &format!("/v1/sites/{}", site.id), None).await.expect(204);
    post().await.expect(201);
}

#[tokio::test]
async fn every_change_is_in_the_audit_log_and_the_chain_is_whole() {
    let fixture = Fixture::new().await;
    let user = fixture.user("ada").await;
    let path = format!("/v1/users/{}", user.id);
    let disabled = json!({ "name": "ada", "disabled": true });
    fixture.admin(Method::PUT, &path, Some(disabled)).await.expect(200);
    fixture.admin(Method::DELETE, &path, None).await.expect(204);

    let query = format!("/v1/audit-events?object_id={}", user.id);
    let log: Page<AuditEvent> = fixture.get(&query).await.expect(200).json();
    let operations: Vec<_> = log.items.iter().map(|event| event.operation.as_str()).collect();
    assert_eq!(operations, ["user.delete", "user.replace", "user.create"]);
    assert_eq!(log.items[0].object, None);
    assert_eq!(log.items[1].object.as_ref().unwrap()["disabled"], true);

    let mut snapshot = fixture.app.store.snapshot().await.unwrap();
    let found = audit::verify(&mut snapshot, AuditChain::from_first([])).await.unwrap();
    assert_eq!(found.map(|span| span.last), Ok(4));
}

#[tokio::test]
async fn health_is_public_and_true() {
    let fixture = Fixture::new().await;
    for path in ["/healthz", "/readyz", "/metrics", "/v1/openapi.json"] {
        send(&fixture, Method::GET, path, &[], "").await.expect(200);
    }
    let metrics = send(&fixture, Method::GET, "/metrics", &[], "").await;
    let text = String::from_utf8(metrics.body.to_vec()).unwrap();
    assert!(text.contains("method=\"GET\",route=\"/healthz\",status=\"200\""));
    fixture.app.store.close().await;
    send(&fixture, Method::GET, "/healthz", &[], "").await.expect(200);
    let answer = send(&fixture, Method::GET, "/readyz", &[], "").await.expect(503);
    assert_eq!(problem(&answer).code, ProblemCode::Unavailable);
}

#[tokio::test]
async fn a_full_disk_loses_nothing_and_is_over_when_there_is_room() {
    let fixture = Fixture::new().await;
    let limit_pages = async |statement: &'static str| {
        let mut change = fixture.app.store.begin_change(ActorId::ControlPlane).await.unwrap();
        sqlx::query(statement).execute(change.connection()).await.unwrap();
    };
    limit_pages("PRAGMA max_page_count = 1").await;
    let mut created = 0;
    let refused = loop {
        let name = format!("{created} {}", "x".repeat(90));
        let answer = fixture.post("/v1/users", json!({ "name": name })).await;
        if answer.status != StatusCode::CREATED {
            break answer.expect(507);
        }
        created += 1;
    };
    assert_eq!(problem(&refused).code, ProblemCode::StorageFull);
    let users: Page<User> = fixture.get("/v1/users?limit=200").await.expect(200).json();
    assert_eq!(users.items.len(), created);

    limit_pages("PRAGMA max_page_count = 1000000").await;
    fixture.post("/v1/users", json!({ "name": "later" })).await.expect(201);
    send(&fixture, Method::GET, "/readyz", &[], "").await.expect(200);
}

#[tokio::test]
async fn a_change_is_announced_although_the_caller_hangs_up() {
    let fixture = Fixture::new().await;
    let path = format!("/v1/users/{}", fixture.user("ada").await.id);
    let mut changes = fixture.app.store.changes();
    for polls in 0..60 {
        let body = json!({ "name": format!("ada {polls}") });
        let mut request = Box::pin(fixture.admin(Method::PUT, &path, Some(body)));
        for _ in 0..polls {
            if poll_fn(|context| Poll::Ready(request.as_mut().poll(context).is_ready())).await {
                break;
            }
            tokio::task::yield_now().await;
        }
        drop(request);
        // Waits for whatever holds the right to write.
        let mut change = fixture.app.store.begin_change(ActorId::ControlPlane).await.unwrap();
        let committed = organisation::sequence(change.connection()).await.unwrap().unwrap();
        drop(change);
        let announced = changes.wait_for(|announced| *announced == committed);
        let announced = timeout(Duration::from_secs(10), announced).await;
        assert!(announced.is_ok(), "dropped after {polls} polls");
    }
}
