//! Users, groups, resources and policies: what refers to what, and who is cut.

use adit_proto::{
    RevokedSubject,
    api::{Group, Page, Policy, Problem, Resource, Site, User},
};
use axum::http::{Method, header};
use serde_json::{Value, json};

use crate::fixture::{Answer, Fixture};

async fn group(fixture: &Fixture, name: &str) -> Group {
    fixture.post("/v1/groups", json!({ "name": name })).await.expect(201).json()
}

async fn resource(fixture: &Fixture, site: &Site, name: &str) -> Resource {
    let body = json!({ "name": name, "site_id": site.id, "addresses": ["10.9.0.0/24"] });
    fixture.post("/v1/resources", body).await.expect(201).json()
}

fn policy(subjects: &Value, resources: &Value) -> Value {
    json!({ "name": "rule", "effect": "permit", "subjects": subjects, "resources": resources })
}

async fn delete(fixture: &Fixture, path: &str) -> Answer {
    fixture.admin(Method::DELETE, path, None).await
}

#[tokio::test]
async fn a_policy_names_only_what_exists() {
    let fixture = Fixture::new().await;
    let user = fixture.user("ada").await;
    let all = json!({ "all": true });
    let unknown = "0193f0a2b7c87d34a1e2c3d4e5f60718";
    let wrong = [
        (
            policy(&json!({ "users": [user.id, format!("usr_{unknown}")] }), &all),
            "/subjects/users/1",
        ),
        (policy(&json!({ "groups": [format!("grp_{unknown}")] }), &all), "/subjects/groups/0"),
        (policy(&json!({ "devices": [format!("dev_{unknown}")] }), &all), "/subjects/devices/0"),
        (
            policy(&json!({ "everyone": true }), &json!({ "ids": [format!("res_{unknown}")] })),
            "/resources/ids/0",
        ),
    ];
    for (body, field) in wrong {
        let problem: Problem = fixture.post("/v1/policies", body).await.expect(422).json();
        assert_eq!(problem.field.as_deref(), Some(field));
    }
    fixture.post("/v1/policies", policy(&json!({ "users": [user.id] }), &all)).await.expect(201);
}

#[tokio::test]
async fn what_a_policy_names_is_not_deleted_from_under_it() {
    let fixture = Fixture::new().await;
    let (user, group) = (fixture.user("ada").await, group(&fixture, "crew").await);
    let site = fixture.site("home").await;
    let resource = resource(&fixture, &site, "web").await;
    let subjects = json!({ "users": [user.id], "groups": [group.id] });
    let body = policy(&subjects, &json!({ "ids": [resource.id] }));
    let policy: Policy = fixture.post("/v1/policies", body).await.expect(201).json();

    let paths = [
        format!("/v1/users/{}", user.id),
        format!("/v1/groups/{}", group.id),
        format!("/v1/resources/{}", resource.id),
    ];
    for path in &paths {
        let problem: Problem = delete(&fixture, path).await.expect(409).json();
        assert!(problem.detail.contains(&policy.id.to_string()), "{}", problem.detail);
    }
    delete(&fixture, &format!("/v1/sites/{}", site.id)).await.expect(409);

    delete(&fixture, &format!("/v1/policies/{}", policy.id)).await.expect(204);
    for path in &paths {
        delete(&fixture, path).await.expect(204);
    }
    delete(&fixture, &format!("/v1/sites/{}", site.id)).await.expect(204);
}

#[tokio::test]
async fn a_user_whose_device_a_policy_names_is_not_deleted() {
    let fixture = Fixture::new().await;
    let user = fixture.user("ada").await;
    let device = fixture.wireguard_device(&user, 1).await;
    let body = policy(&json!({ "devices": [device.id] }), &json!({ "all": true }));
    fixture.post("/v1/policies", body).await.expect(201);
    delete(&fixture, &format!("/v1/users/{}", user.id)).await.expect(409);
}

#[tokio::test]
async fn a_policy_is_found_by_what_it_names() {
    let fixture = Fixture::new().await;
    let user = fixture.user("ada").await;
    let body = policy(&json!({ "users": [user.id] }), &json!({ "tags": ["web"] }));
    let created: Policy = fixture.post("/v1/policies", body).await.expect(201).json();
    let query = format!("/v1/policies?object_id={}&effect=permit", user.id);
    let found: Page<Policy> = fixture.get(&query).await.expect(200).json();
    assert_eq!(found.items, [created]);
    let found: Page<Policy> = fixture.get("/v1/policies?effect=forbid").await.expect(200).json();
    assert!(found.items.is_empty());
}

#[tokio::test]
async fn a_policy_is_never_replaced_unseen() {
    let fixture = Fixture::new().await;
    let body = policy(&json!({ "everyone": true }), &json!({ "all": true }));
    let created = fixture.post("/v1/policies", body.clone()).await.expect(201);
    let path = created.header(header::LOCATION).to_owned();
    fixture.admin(Method::PUT, &path, Some(body)).await.expect(428);
}

#[tokio::test]
async fn a_resource_stays_at_its_site_and_keeps_its_rules() {
    let fixture = Fixture::new().await;
    let (home, away) = (fixture.site("home").await, fixture.site("away").await);
    let created = resource(&fixture, &home, "web").await;
    let path = format!("/v1/resources/{}", created.id);
    let replace =
        async |body: Value| fixture.admin_if_match(Method::PUT, &path, "*", Some(body)).await;
    let moved = json!({ "name": "web", "site_id": away.id, "addresses": ["10.9.0.0/24"] });
    let problem: Problem = replace(moved).await.expect(422).json();
    assert_eq!(problem.field.as_deref(), Some("/site_id"));
    let host_bits = json!({ "name": "web", "site_id": home.id, "addresses": ["10.9.0.1/24"] });
    let problem: Problem = replace(host_bits).await.expect(422).json();
    assert_eq!(problem.field.as_deref(), Some("/addresses/0"));
    assert_eq!(fixture.get(&path).await.json::<Resource>(), created);

    let at_home = format!("/v1/resources?site_id={}", home.id);
    assert_eq!(fixture.get(&at_home).await.json::<Page<Resource>>().items, [created]);
    let at_away = format!("/v1/resources?site_id={}", away.id);
    assert!(fixture.get(&at_away).await.json::<Page<Resource>>().items.is_empty());
}

#[tokio::test]
async fn membership_is_a_set_and_each_change_of_it_voids_credentials() {
    let fixture = Fixture::new().await;
    let (user, crew) = (fixture.user("ada").await, group(&fixture, "crew").await);
    let site = fixture.site("home").await;
    let connector = fixture.connector(&site, 1).await;
    let device = fixture.device(&user, 2).await;
    let path = format!("/v1/groups/{}/members/{}", crew.id, user.id);
    let members = format!("/v1/groups/{}/members", crew.id);
    let revoked_at = async || {
        let bundle = fixture.bundle(&connector).await;
        bundle
            .revocations
            .iter()
            .find(|revocation| revocation.subject == RevokedSubject::User(user.id))
            .map(|revocation| revocation.not_before)
    };

    fixture.credential(&device).await;
    assert_eq!(revoked_at().await, None);
    fixture.admin(Method::PUT, &path, None).await.expect(204);
    let joined = revoked_at().await.expect("joining voids credentials without the group");
    let sequence = *fixture.app.store.changes().borrow();
    fixture.admin(Method::PUT, &path, None).await.expect(204);
    assert_eq!(*fixture.app.store.changes().borrow(), sequence, "nothing changed");
    let found: Page<User> = fixture.get(&members).await.expect(200).json();
    assert_eq!(found.items, std::slice::from_ref(&user));

    let credential = fixture.credential(&device).await;
    assert!(!credential.credential.is_empty());
    delete(&fixture, &path).await.expect(204);
    assert!(revoked_at().await.expect("leaving voids credentials with the group") > joined);
    delete(&fixture, &path).await.expect(404);
}

#[tokio::test]
async fn a_disabled_user_is_revoked_and_announced() {
    let fixture = Fixture::new().await;
    let user = fixture.user("ada").await;
    let connector = fixture.connector(&fixture.site("home").await, 1).await;
    let before = fixture.bundle(&connector).await;
    let body = json!({ "name": "ada", "disabled": true });
    fixture.admin(Method::PUT, &format!("/v1/users/{}", user.id), Some(body)).await.expect(200);
    let after = fixture.bundle(&connector).await;
    assert!(after.sequence > before.sequence);
    let revoked = |bundle: &adit_proto::Bundle| {
        bundle
            .revocations
            .iter()
            .any(|revocation| revocation.subject == RevokedSubject::User(user.id))
    };
    assert!(!revoked(&before) && revoked(&after));
}

#[tokio::test]
async fn a_deleted_user_takes_devices_along_and_stays_revoked() {
    let fixture = Fixture::new().await;
    let user = fixture.user("ada").await;
    let connector = fixture.connector(&fixture.site("home").await, 1).await;
    let device = fixture.device(&user, 2).await;
    delete(&fixture, &format!("/v1/users/{}", user.id)).await.expect(204);
    fixture.get(&format!("/v1/devices/{}", device.device_id())).await.expect(404);
    let bundle = fixture.bundle(&connector).await;
    assert!(
        bundle
            .revocations
            .iter()
            .any(|revocation| { revocation.subject == RevokedSubject::User(user.id) })
    );
}
