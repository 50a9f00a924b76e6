//! Every operation of the description × everyone who may not call it.

use std::{
    collections::BTreeMap,
    time::{Duration, SystemTime},
};

use adit_proto::{
    Timestamp,
    api::{ApiToken, ApiTokenCreated, ProblemCode, Role, Scope, Secret, User},
};
use axum::http::{Method, header};
use serde_json::{Value, json};

use crate::{
    api,
    app::{random, roles},
    fixture::{Answer, Fixture, Peer},
    store::{ActorId, api_tokens},
};

/// What an operation demands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Needs {
    Nothing,
    Scope(Scope),
    Device,
    Connector,
}

#[derive(Debug, Clone)]
struct Operation {
    method: Method,
    path: String,
    needs: Needs,
    has_body: bool,
    /// The statuses that the description knows.
    statuses: Vec<u16>,
}

/// The operations of a description, or those of them that demand nothing that is known.
fn operations(openapi: &Value) -> Result<Vec<Operation>, Vec<String>> {
    let (mut found, mut lawless) = (Vec::new(), Vec::new());
    for (path, item) in openapi["paths"].as_object().unwrap() {
        for (method, operation) in item.as_object().unwrap() {
            let Ok(method) = method.to_uppercase().parse::<Method>() else { continue };
            let Some(needs) = needs(path, &operation["security"]) else {
                lawless.push(format!("{method} {path}"));
                continue;
            };
            let statuses = operation["responses"].as_object().unwrap().keys();
            found.push(Operation {
                method,
                path: path.replace("{user_id}", "{id}").replace("{id}", NO_SUCH_ID),
                needs,
                has_body: operation.get("requestBody").is_some(),
                statuses: statuses.map(|status| status.parse().unwrap()).collect(),
            });
        }
    }
    if lawless.is_empty() { Ok(found) } else { Err(lawless) }
}

fn needs(path: &str, security: &Value) -> Option<Needs> {
    let [requirement] = security.as_array()?.as_slice() else { return None };
    let members: Vec<_> = requirement.as_object()?.iter().collect();
    match members.as_slice() {
        [] => Some(Needs::Nothing),
        [(scheme, scopes)] if *scheme == "api_token" => match scopes.as_array()?.as_slice() {
            [scope] => Some(Needs::Scope(scope.as_str()?.parse().ok()?)),
            _ => None,
        },
        [(scheme, _)] if *scheme == "assertion" => {
            Some(if path.starts_with("/v1/client/") { Needs::Device } else { Needs::Connector })
        }
        _ => None,
    }
}

const NO_SUCH_ID: &str = "usr_0193f0a2b7c87d34a1e2c3d4e5f60718";

fn description() -> Value {
    serde_json::to_value(api::openapi()).unwrap()
}

fn all_operations() -> Vec<Operation> {
    operations(&description()).unwrap_or_else(|lawless| panic!("without a right: {lawless:?}"))
}

/// Those that ask for an API token, each with the scope it asks for.
fn scoped_operations() -> Vec<(Operation, Scope)> {
    let scoped = |operation: Operation| match operation.needs {
        Needs::Scope(scope) => Some((operation, scope)),
        Needs::Nothing | Needs::Device | Needs::Connector => None,
    };
    all_operations().into_iter().filter_map(scoped).collect()
}

async fn send(fixture: &Fixture, operation: &Operation, authorization: Option<&str>) -> Answer {
    let Operation { method, path, .. } = operation;
    match authorization {
        Some(value) => fixture.with_authorization(method.clone(), path, None, value).await,
        None => fixture.without_authorization(method.clone(), path).await,
    }
}

/// Sends the operation, which must be refused exactly so.
#[track_caller]
fn expect_refusal(operation: &Operation, case: &str, answer: &Answer, code: ProblemCode) {
    let Operation { method, path, .. } = operation;
    let status = api::problem::status(code).as_u16();
    let said = format!("{method} {path} with {case}: {answer:?}");
    assert_eq!(answer.status.as_u16(), status, "{said}");
    assert_eq!(answer.json::<adit_proto::api::Problem>().code, code, "{said}");
    assert!(operation.statuses.contains(&status), "not in the description: {said}");
}

/// The answer must be one that whoever may call the operation gets.
#[track_caller]
fn expect_let_in(operation: &Operation, case: &str, answer: &Answer) {
    let Operation { method, path, .. } = operation;
    let status = answer.status.as_u16();
    let said = format!("{method} {path} with {case}: {answer:?}");
    assert!(![401, 403, 429].contains(&status) && status < 500, "{said}");
    assert!(operation.statuses.contains(&status), "not in the description: {said}");
    // What is not there, or may not be known.
    if path.contains(NO_SUCH_ID) && !operation.has_body {
        assert_eq!((status, answer.code().as_str()), (404, "not-found"), "{said}");
    }
}

async fn token(fixture: &Fixture, role: Role, scopes: Option<Vec<Scope>>) -> ApiTokenCreated {
    let body = json!({ "name": "token", "role": role, "scopes": scopes });
    fixture.post("/v1/api-tokens", body).await.expect(201).json()
}

fn bearer(secret: &Secret) -> String {
    format!("Bearer {}", secret.expose())
}

/// A token that expired when it was made.
async fn expired_token(fixture: &Fixture) -> String {
    let secret = Secret::from("adit_pat_expired".to_owned());
    let mut change = fixture.app.store.begin_change(ActorId::ControlPlane).await.unwrap();
    let token = ApiToken {
        id: "tok_0193f0a2b7c87d34a1e2c3d4e5f60718".parse().unwrap(),
        name: "expired".to_owned(),
        description: None,
        role: Role::Owner,
        scopes: None,
        expires_at: Some(change.now()),
        last_used_at: None,
        created_at: change.now(),
    };
    let hash = random::secret_hash(secret.expose());
    api_tokens::insert(&mut change, &token, &hash).await.unwrap();
    change.commit_unaudited().await.unwrap();
    bearer(&secret)
}

async fn revoked_token(fixture: &Fixture) -> String {
    let created = token(fixture, Role::Owner, None).await;
    let path = format!("/v1/api-tokens/{}", created.api_token.id);
    fixture.admin(Method::DELETE, &path, None).await.expect(204);
    bearer(&created.token)
}

#[test]
fn every_operation_demands_something_explicit() {
    let described: usize = description()["paths"]
        .as_object()
        .unwrap()
        .values()
        .map(|item| item.as_object().unwrap().len())
        .sum();
    let operations = all_operations();
    assert_eq!(operations.len(), described);
    let mut count = BTreeMap::new();
    for operation in &operations {
        let kind = match operation.needs {
            Needs::Nothing => "nothing",
            Needs::Scope(_) => "scope",
            Needs::Device => "device",
            Needs::Connector => "connector",
        };
        *count.entry(kind).or_insert(0) += 1;
    }
    assert!(count["scope"] >= 56 && count["device"] >= 2 && count["connector"] >= 4, "{count:?}");
}

#[test]
fn an_operation_without_a_right_is_found() {
    for security in [
        Value::Null,
        json!([]),
        json!([{ "api_token": [] }]),
        json!([{ "api_token": ["everything"] }]),
        json!([{ "api_token": ["users:read"] }, {}]),
        json!([{ "unknown": [] }]),
    ] {
        let mut openapi = description();
        openapi["paths"]["/v1/forgotten"] =
            json!({ "get": { "responses": {}, "security": security } });
        let lawless = operations(&openapi).map(|operations| operations.len());
        assert_eq!(lawless, Err(vec!["GET /v1/forgotten".to_owned()]), "{security}");
    }
    let mut openapi = description();
    openapi["paths"]["/v1/users"]["get"].as_object_mut().unwrap().remove("security");
    let lawless = operations(&openapi).map(|operations| operations.len());
    assert_eq!(lawless, Err(vec!["GET /v1/users".to_owned()]));
}

#[tokio::test]
async fn only_these_operations_are_public() {
    let fixture = Fixture::new().await;
    let public = all_operations().into_iter().filter(|it| it.needs == Needs::Nothing);
    let mut paths = Vec::new();
    for operation in public {
        for authorization in [None, Some("Bearer adit_pat_x")] {
            let answer = send(&fixture, &operation, authorization).await;
            // A device that has enrolled signs it, and then has to be one.
            if operation.path == "/v1/device-authorization" && authorization.is_some() {
                expect_refusal(&operation, "a token", &answer, ProblemCode::NotAuthenticated);
                continue;
            }
            expect_let_in(&operation, "nothing", &answer);
        }
        paths.push(operation.path);
    }
    let expected = [
        "/healthz",
        "/metrics",
        "/readyz",
        "/v1/client/enroll",
        "/v1/connector/enroll",
        "/v1/device-authorization",
        "/v1/openapi.json",
        "/v1/token",
    ];
    paths.sort_unstable();
    assert_eq!(paths, expected);
}

#[tokio::test]
async fn an_operation_that_asks_for_a_token_refuses_everything_else() {
    let fixture = Fixture::new().await;
    let user = fixture.user("ada").await;
    let site = fixture.site("office").await;
    let device = fixture.device(&user, 1).await;
    let connector = fixture.connector(&site, 2).await;
    let enrollment_key = bearer(&fixture.enrollment_key(&user, 1).await.key);
    let connector_token = bearer(&fixture.connector_token(&site).await.token);
    let (expired, revoked) = (expired_token(&fixture).await, revoked_token(&fixture).await);
    let unknown = format!("Bearer adit_pat_{}", random::new_secret().unwrap().as_str());
    let operations = scoped_operations();
    for (operation, _scope) in &operations {
        let Operation { method, path, .. } = operation;
        let by_device = device.authorization(method, path, b"");
        let by_connector = connector.authorization(method, path, b"");
        for (case, authorization) in [
            ("no token", None),
            ("an unknown token", Some(unknown.as_str())),
            ("an expired token", Some(expired.as_str())),
            ("a revoked token", Some(revoked.as_str())),
            ("a device's assertion", Some(by_device.as_str())),
            ("a connector's assertion", Some(by_connector.as_str())),
            ("an enrolment key", Some(enrollment_key.as_str())),
            ("a connector token", Some(connector_token.as_str())),
        ] {
            let answer = send(&fixture, operation, authorization).await;
            expect_refusal(operation, case, &answer, ProblemCode::NotAuthenticated);
            assert_eq!(answer.header(header::WWW_AUTHENTICATE), "Bearer");
            let detail = answer.json::<Value>()["detail"].to_string();
            assert_eq!(detail.contains("expired"), case == "an expired token", "{detail}");
        }
    }
    assert!(operations.len() >= 56, "only {} operations ask", operations.len());
}

#[tokio::test]
async fn the_scope_of_the_description_is_what_an_operation_demands() {
    let fixture = Fixture::new().await;
    let operations = scoped_operations();
    let mut tokens = BTreeMap::new();
    for (_operation, scope) in &operations {
        if !tokens.contains_key(scope) {
            let others = Scope::all().filter(|other| !other.includes(*scope)).collect();
            let only = token(&fixture, Role::Owner, Some(vec![*scope])).await;
            let others = token(&fixture, Role::Owner, Some(others)).await;
            tokens.insert(*scope, (bearer(&only.token), bearer(&others.token)));
        }
    }
    for (operation, scope) in &operations {
        let (only, others) = &tokens[scope];
        let answer = send(&fixture, operation, Some(only)).await;
        expect_let_in(operation, "only this scope", &answer);

        let answer = send(&fixture, operation, Some(others)).await;
        expect_refusal(operation, "all other scopes", &answer, ProblemCode::NotAllowed);
        let challenge = format!("Bearer error=\"insufficient_scope\", scope=\"{scope}\"");
        assert_eq!(answer.header(header::WWW_AUTHENTICATE), challenge);
        assert!(answer.json::<Value>()["detail"].as_str().unwrap().contains(&scope.to_string()));
    }
}

#[tokio::test]
async fn each_role_is_let_in_where_the_table_says_and_nowhere_else() {
    let fixture = Fixture::new().await;
    let operations = scoped_operations();
    for role in [Role::Owner, Role::Admin, Role::NetworkAdmin, Role::Approver, Role::Auditor] {
        let created = token(&fixture, role, None).await;
        let (case, bearer) = (format!("{role:?}"), bearer(&created.token));
        for (operation, scope) in &operations {
            let answer = send(&fixture, operation, Some(&bearer)).await;
            if roles::has_scope(role, *scope) {
                expect_let_in(operation, &case, &answer);
            } else {
                expect_refusal(operation, &case, &answer, ProblemCode::NotAllowed);
            }
        }
    }
}

#[tokio::test]
async fn an_operation_that_asks_for_an_assertion_refuses_everything_else() {
    let fixture = Fixture::new().await;
    let user = fixture.user("ada").await;
    let site = fixture.site("office").await;
    let (device, other_device) = (fixture.device(&user, 1).await, fixture.device(&user, 2).await);
    let connector = fixture.connector(&site, 3).await;
    let other_connector = fixture.connector(&site, 4).await;
    let deleted_device = fixture.device(&user, 5).await;
    let deleted_connector = fixture.connector(&site, 6).await;
    for path in [
        format!("/v1/devices/{}", deleted_device.device_id()),
        format!("/v1/connectors/{}", deleted_connector.connector_id()),
    ] {
        fixture.admin(Method::DELETE, &path, None).await.expect(204);
    }
    let token = fixture.admin_authorization();
    let long_ago: Timestamp = (SystemTime::now() - Duration::from_hours(1)).into();

    let mut driven = 0;
    for operation in all_operations() {
        let (one, other, deleted, foreign) = match operation.needs {
            Needs::Device => (&device, &other_device, &deleted_device, &connector),
            Needs::Connector => (&connector, &other_connector, &deleted_connector, &device),
            Needs::Nothing | Needs::Scope(_) => continue,
        };
        let Operation { method, path, .. } = &operation;
        // Says it is the one, and signs with the key of the other.
        let forger = Peer { subject: one.subject, key: other.key.clone() };
        for (case, authorization) in [
            ("nothing", None),
            ("an API token", Some(token.clone())),
            ("an old assertion", Some(one.authorization_at(method, path, b"", long_ago))),
            ("an assertion for another path", Some(one.authorization(method, "/v1/x", b""))),
            ("the assertion of who was deleted", Some(deleted.authorization(method, path, b""))),
            ("another's signature", Some(forger.authorization(method, path, b""))),
            ("the assertion of another kind", Some(foreign.authorization(method, path, b""))),
        ] {
            let answer = send(&fixture, &operation, authorization.as_deref()).await;
            expect_refusal(&operation, case, &answer, ProblemCode::NotAuthenticated);
        }
        driven += 1;
    }
    assert!(driven >= 6, "only {driven} operations ask");
}

#[tokio::test]
async fn a_device_that_may_not_connect_is_told_why() {
    let fixture = Fixture::new().await;
    let user = fixture.user("ada").await;
    let revoked = fixture.device(&user, 1).await;
    let path = format!("/v1/devices/{}/revoke", revoked.device_id());
    fixture.admin(Method::POST, &path, None).await.expect(200);
    let eve: User = fixture.user("eve").await;
    let of_disabled = fixture.device(&eve, 2).await;
    let body = json!({ "name": "eve", "disabled": true });
    fixture.admin(Method::PUT, &format!("/v1/users/{}", eve.id), Some(body)).await.expect(200);

    for operation in all_operations() {
        if operation.needs != Needs::Device {
            continue;
        }
        for device in [&revoked, &of_disabled] {
            let authorization = device.authorization(&operation.method, &operation.path, b"");
            let answer = send(&fixture, &operation, Some(&authorization)).await;
            expect_refusal(&operation, "a revoked device", &answer, ProblemCode::DeviceRevoked);
        }
    }
}

#[tokio::test]
async fn nobody_creates_or_deletes_a_token_that_may_do_more() {
    let fixture = Fixture::new().await;
    let owner = token(&fixture, Role::Owner, None).await;
    let admin = token(&fixture, Role::Admin, None).await;
    let narrow: Scope = "api-tokens:write".parse().unwrap();
    let narrowed = token(&fixture, Role::Admin, Some(vec![narrow])).await;
    let post = async |by: &ApiTokenCreated, body: Value| {
        let path = "/v1/api-tokens";
        fixture.with_authorization(Method::POST, path, Some(body), &bearer(&by.token)).await
    };
    let wish = |role: &str| json!({ "name": "wish", "role": role });
    for (by, role, status) in [
        (&admin, "owner", 403),
        (&admin, "admin", 201),
        (&admin, "auditor", 201),
        (&narrowed, "admin", 403),
        (&narrowed, "auditor", 403),
    ] {
        post(by, wish(role)).await.expect(status);
    }
    let same = json!({ "name": "same", "role": "admin", "scopes": ["api-tokens:write"] });
    post(&narrowed, same).await.expect(201);

    let delete = async |by: &ApiTokenCreated, of: &ApiTokenCreated| {
        let path = format!("/v1/api-tokens/{}", of.api_token.id);
        fixture.with_authorization(Method::DELETE, &path, None, &bearer(&by.token)).await
    };
    assert_eq!(delete(&admin, &owner).await.expect(403).code(), "not-allowed");
    delete(&narrowed, &admin).await.expect(403);
    delete(&admin, &narrowed).await.expect(204);
    delete(&owner, &admin).await.expect(204);
}

#[tokio::test]
async fn scopes_that_grant_nothing_are_refused() {
    let fixture = Fixture::new().await;
    for scopes in [json!([]), json!(["users:write"]), json!(["users"]), json!("users:read")] {
        let body = json!({ "name": "x", "role": "auditor", "scopes": scopes });
        let answer = fixture.post("/v1/api-tokens", body).await.expect(422);
        assert!(answer.json::<Value>()["field"].as_str().unwrap().starts_with("/scopes"));
    }
}

#[tokio::test]
async fn the_last_use_of_a_token_is_written_down() {
    let fixture = Fixture::new().await;
    let created = token(&fixture, Role::Auditor, None).await;
    let path = format!("/v1/api-tokens/{}", created.api_token.id);
    assert_eq!(fixture.get(&path).await.json::<ApiToken>().last_used_at, None);
    let answer = fixture
        .with_authorization(Method::GET, "/v1/users", None, &bearer(&created.token))
        .await
        .expect(200);
    drop(answer);
    let written = async {
        loop {
            if fixture.get(&path).await.json::<ApiToken>().last_used_at.is_some() {
                break;
            }
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(Duration::from_secs(10), written).await.unwrap();
}
