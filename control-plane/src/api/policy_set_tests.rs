//! Policies under test, tried out, and as one document with a history.

use adit_proto::api::{
    Access, AuditEvent, Group, Page, Policy, PolicyDryRun, PolicyEntry, PolicySet, PolicySetChange,
    PolicyTest, PolicyTestRun, PolicyVersion, PolicyVersionContent, Problem, ProblemCode, Resource,
    User,
};
use axum::http::{Method, header};
use proptest::{prelude::*, test_runner::TestRunner};
use serde_json::{Value, json};

use crate::fixture::{Answer, Fixture};

/// Ada in the crew, Eve in no group, and two resources, of which the second bears the tag `db`.
struct Town {
    fixture: Fixture,
    ada: User,
    eve: User,
    crew: Group,
    web: Resource,
    db: Resource,
}

impl Town {
    async fn new() -> Self {
        let fixture = Fixture::new().await;
        let (ada, eve) = (fixture.user("ada").await, fixture.user("eve").await);
        let crew = json!({ "name": "crew" });
        let crew: Group = fixture.post("/v1/groups", crew).await.expect(201).json();
        let path = format!("/v1/groups/{}/members/{}", crew.id, ada.id);
        fixture.admin(Method::PUT, &path, None).await.expect(204);
        let site = fixture.site("home").await;
        let mut resources = Vec::new();
        for (name, address, tags) in
            [("web", "10.9.0.1/32", json!([])), ("db", "10.9.0.2/32", json!(["db"]))]
        {
            let body =
                json!({ "name": name, "site_id": site.id, "addresses": [address], "tags": tags });
            let created: Resource = fixture.post("/v1/resources", body).await.expect(201).json();
            resources.push(created);
        }
        let [web, db] = resources.try_into().unwrap();
        Self { fixture, ada, eve, crew, web, db }
    }

    fn crew_to_db(&self) -> Value {
        json!({
            "name": "crew to db", "effect": "permit",
            "subjects": { "groups": [self.crew.id] }, "resources": { "tags": ["db"] },
        })
    }

    async fn policy(&self, body: &Value) -> Policy {
        self.fixture.post("/v1/policies", body.clone()).await.expect(201).json()
    }

    async fn test(&self, name: &str, subject: Value, target: Value, expect: &str) -> Answer {
        let body = json!({ "name": name, "subject": subject, "target": target, "expect": expect });
        self.fixture.post("/v1/policy-tests", body).await
    }

    /// Ada reaches the database.
    async fn ada_reaches_db(&self) {
        let (subject, target) = (json!({ "user": self.ada.id }), json!({ "resource": self.db.id }));
        self.test("ada reaches db", subject, target, "allow").await.expect(201);
    }

    async fn set(&self) -> (PolicySet, String) {
        let answer = self.fixture.get("/v1/policy-set").await.expect(200);
        (answer.json(), answer.header(header::ETAG).to_owned())
    }

    async fn put(&self, set: &PolicySet, etag: &str, query: &str) -> Answer {
        let path = format!("/v1/policy-set{query}");
        self.fixture.admin_if_match(Method::PUT, &path, etag, Some(json!(set))).await
    }

    async fn history(&self) -> Vec<PolicyVersion> {
        self.fixture.get("/v1/policy-history").await.expect(200).json::<Page<_>>().items
    }
}

fn broken(answer: Answer) -> Problem {
    let problem: Problem = answer.expect(409).json();
    assert_eq!(problem.code, ProblemCode::PolicyTestsFailed);
    problem
}

fn entry(name: &str, subjects: Value) -> PolicyEntry {
    serde_json::from_value(json!({
        "name": name, "effect": "permit", "subjects": subjects, "resources": { "all": true },
    }))
    .unwrap()
}

#[tokio::test]
async fn a_dry_run_says_who_gains_and_changes_nothing() {
    let town = Town::new().await;
    let path = "/v1/policies?dry_run=true";
    let found: PolicyDryRun = town.fixture.post(path, town.crew_to_db()).await.expect(200).json();
    assert_eq!((found.difference.gained, found.difference.lost), (1, 0));
    let [change] = found.difference.changes.as_slice() else { panic!("{found:?}") };
    assert_eq!((change.user_id, change.resource_id), (town.ada.id, town.db.id));
    assert_eq!((change.before, change.after), (Access::None, Access::Always));
    let policies: Page<Policy> = town.fixture.get("/v1/policies").await.json();
    assert!(policies.items.is_empty());
    assert_eq!(town.history().await.len(), 1);

    let policy = town.policy(&town.crew_to_db()).await;
    let path = format!("/v1/policies/{}?dry_run=true", policy.id);
    let mut wider = town.crew_to_db();
    wider["subjects"] = json!({ "everyone": true });
    let replaced = town.fixture.admin_if_match(Method::PUT, &path, "*", Some(wider)).await;
    let found: PolicyDryRun = replaced.expect(200).json();
    assert_eq!(found.difference.changes[0].user_id, town.eve.id);
    let removed = town.fixture.admin(Method::DELETE, &path, None).await.expect(200);
    assert_eq!(removed.json::<PolicyDryRun>().difference.lost, 1);
    assert_eq!(town.fixture.get(&path.replace("?dry_run=true", "")).await.json::<Policy>(), policy);
}

#[tokio::test]
async fn a_dry_run_is_refused_as_the_write_would_be() {
    let town = Town::new().await;
    let mut wrong = town.crew_to_db();
    wrong["subjects"] = json!({});
    let problem: Problem =
        town.fixture.post("/v1/policies?dry_run=true", wrong).await.expect(422).json();
    assert_eq!(problem.field.as_deref(), Some("/subjects"));
    town.policy(&town.crew_to_db()).await;
    town.fixture.post("/v1/policies?dry_run=true", town.crew_to_db()).await.expect(409);
}

#[tokio::test]
async fn no_change_breaks_a_policy_test() {
    let town = Town::new().await;
    let policy = town.policy(&town.crew_to_db()).await;
    town.ada_reaches_db().await;
    let fixture = &town.fixture;

    let path = format!("/v1/policies/{}", policy.id);
    let problem = broken(fixture.admin(Method::DELETE, &path, None).await);
    assert_eq!(problem.failed_tests[0].name, "ada reaches db");
    assert_eq!(problem.failed_tests[0].explanation.reason.code(), "no-policy-permits");
    let mut disabled = town.crew_to_db();
    disabled["disabled"] = json!(true);
    broken(fixture.admin_if_match(Method::PUT, &path, "*", Some(disabled)).await);
    let forbid = json!({
        "name": "nobody", "effect": "forbid",
        "subjects": { "everyone": true }, "resources": { "all": true },
    });
    let problem = broken(fixture.post("/v1/policies", forbid.clone()).await);
    assert_eq!(problem.failed_tests[0].explanation.reason.code(), "policy-forbids");
    let found: PolicyDryRun =
        fixture.post("/v1/policies?dry_run=true", forbid).await.expect(200).json();
    assert_eq!((found.tests.run, found.tests.failed.len()), (1, 1));

    let member = format!("/v1/groups/{}/members/{}", town.crew.id, town.ada.id);
    broken(fixture.admin(Method::DELETE, &member, None).await);
    let resource = format!("/v1/resources/{}", town.db.id);
    let untagged = json!({
        "name": "db", "site_id": town.db.site_id, "addresses": ["10.9.0.2/32"],
    });
    broken(fixture.admin_if_match(Method::PUT, &resource, "*", Some(untagged)).await);

    assert_eq!(fixture.get(&path).await.json::<Policy>(), policy);
    let run = fixture.admin(Method::POST, "/v1/policy-tests/run", None).await.expect(200);
    assert_eq!(run.json::<PolicyTestRun>(), PolicyTestRun { run: 1, failed: vec![] });
}

#[tokio::test]
async fn a_more_specific_resource_breaks_a_test_of_the_flow() {
    let town = Town::new().await;
    town.policy(&town.crew_to_db()).await;
    let target = json!({ "flow": { "destination": "10.9.0.2", "port": 5432, "protocol": "tcp" } });
    let subject = json!({ "group": town.crew.id });
    town.test("crew to port", subject, target, "allow").await.expect(201);
    let narrow = json!({
        "name": "admin port", "site_id": town.db.site_id, "addresses": ["10.9.0.2/32"],
        "filters": [{ "protocol": "tcp", "ports": ["5432"] }],
    });
    broken(town.fixture.post("/v1/resources", narrow).await);
}

#[tokio::test]
async fn a_test_that_does_not_hold_is_not_stored() {
    let town = Town::new().await;
    let (subject, target) = (json!({ "user": town.eve.id }), json!({ "resource": town.db.id }));
    broken(town.test("eve reaches db", subject.clone(), target.clone(), "allow").await);
    let created = town.test("eve stays out", subject.clone(), target, "deny").await.expect(201);
    let test: PolicyTest = created.json();
    let path = created.header(header::LOCATION).to_owned();
    let turned = json!({
        "name": "eve stays out", "subject": subject, "target": { "resource": town.web.id },
        "expect": "allow",
    });
    broken(town.fixture.admin_if_match(Method::PUT, &path, "*", Some(turned)).await);
    assert_eq!(town.fixture.get(&path).await.json::<PolicyTest>(), test);
}

#[tokio::test]
async fn facts_of_a_test_meet_conditions() {
    let town = Town::new().await;
    let mut policy = town.crew_to_db();
    policy["conditions"] = json!({
        "posture": ["encrypted"], "source_networks": ["192.0.2.0/24"],
        "authenticated_within_s": 3600,
    });
    town.policy(&policy).await;
    let facts = json!({
        "posture": ["encrypted"], "source": "192.0.2.7", "authenticated_ago_s": 60,
        "time": "2026-03-01T12:00:00Z",
    });
    let body = |name: &str, without: &str, expect: &str| {
        let mut facts = facts.clone();
        facts.as_object_mut().unwrap().remove(without);
        json!({
            "name": name, "subject": { "group": town.crew.id },
            "target": { "resource": town.db.id }, "facts": facts, "expect": expect,
        })
    };
    for (name, without, expect) in [
        ("all", "", "allow"),
        ("no label", "posture", "deny"),
        ("from anywhere", "source", "deny"),
        ("never signed in", "authenticated_ago_s", "deny"),
        ("at any time", "time", "allow"),
    ] {
        let test = body(name, without, expect);
        town.fixture.post("/v1/policy-tests", test).await.expect(201);
    }
}

#[tokio::test]
async fn what_a_test_names_exists_and_is_not_deleted_from_under_it() {
    let town = Town::new().await;
    let fixture = &town.fixture;
    let device = fixture.wireguard_device(&town.eve, 1).await;
    let target = json!({ "resource": town.db.id });
    for (name, subject) in [
        ("a", json!({ "user": town.ada.id })),
        ("b", json!({ "group": town.crew.id })),
        ("c", json!({ "device": device.id })),
    ] {
        town.test(name, subject, target.clone(), "deny").await.expect(201);
    }
    for path in [
        format!("/v1/users/{}", town.ada.id),
        format!("/v1/users/{}", town.eve.id),
        format!("/v1/groups/{}", town.crew.id),
        format!("/v1/devices/{}", device.id),
        format!("/v1/resources/{}", town.db.id),
    ] {
        let problem: Problem = fixture.admin(Method::DELETE, &path, None).await.expect(409).json();
        assert!(problem.detail.contains("policy test"), "{path}: {}", problem.detail);
    }
    let unknown = "usr_0193f0a2b7c87d34a1e2c3d4e5f60718";
    let answer = town.test("d", json!({ "user": unknown }), target, "deny").await;
    assert_eq!(answer.expect(422).json::<Problem>().field.as_deref(), Some("/subject/user"));
}

#[tokio::test]
async fn a_policy_set_goes_by_names_and_comes_back_unchanged() {
    let town = Town::new().await;
    let device = town.fixture.wireguard_device(&town.eve, 1).await;
    town.policy(&town.crew_to_db()).await;
    town.policy(&json!({
        "name": "all of them", "effect": "forbid", "disabled": true,
        "subjects": { "users": [town.eve.id, town.ada.id], "devices": [device.id] },
        "resources": { "ids": [town.web.id, town.db.id] },
        "conditions": { "authenticated_within_s": 60 },
    }))
    .await;
    town.ada_reaches_db().await;
    let (set, etag) = town.set().await;
    let names: Vec<_> = set.policies.iter().map(|policy| policy.name.as_str()).collect();
    assert_eq!(names, ["all of them", "crew to db"]);
    assert_eq!(set.policies[0].subjects.users, ["ada", "eve"]);
    assert_eq!(set.policies[0].subjects.devices, ["router"]);
    assert_eq!(set.policies[0].resources.names, ["db", "web"]);
    assert_eq!(set.policies[1].subjects.groups, ["crew"]);

    let change: PolicySetChange = town.put(&set, &etag, "").await.expect(200).json();
    assert!(change.policies.is_empty() && change.tests.is_empty());
    assert_eq!(town.set().await, (set, etag));
}

#[tokio::test]
async fn an_ambiguous_or_misleading_name_gives_way_to_the_id() {
    let town = Town::new().await;
    let devices = [
        town.fixture.wireguard_device(&town.eve, 1).await,
        town.fixture.wireguard_device(&town.ada, 2).await,
    ];
    let impostor = town.fixture.user(&town.eve.id.to_string()).await;
    let subjects = json!({ "devices": [devices[0].id], "users": [impostor.id] });
    town.policy(&json!({
        "name": "some", "effect": "permit", "subjects": subjects, "resources": { "all": true },
    }))
    .await;
    let (mut set, etag) = town.set().await;
    assert_eq!(set.policies[0].subjects.devices, [devices[0].id.to_string()]);
    assert_eq!(set.policies[0].subjects.users, [impostor.id.to_string()]);
    set.policies[0].subjects.devices = vec!["router".to_owned()];
    let problem: Problem = town.put(&set, &etag, "").await.expect(422).json();
    assert_eq!(problem.field.as_deref(), Some("/policies/0/subjects/devices/0"));
    assert!(problem.detail.contains("write the id"), "{}", problem.detail);
}

#[tokio::test]
async fn a_policy_set_is_written_as_one_change() {
    let town = Town::new().await;
    let kept = town.policy(&town.crew_to_db()).await;
    town.policy(&json!({
        "name": "gone", "effect": "permit",
        "subjects": { "users": [town.eve.id] }, "resources": { "all": true },
    }))
    .await;
    let (mut set, etag) = town.set().await;
    set.policies.retain(|policy| policy.name != "gone");
    set.policies[0].subjects.users = vec!["eve".to_owned()];
    set.policies.push(entry("new", json!({ "users": ["ada"] })));
    let planned: PolicySetChange = town.put(&set, &etag, "?dry_run=true").await.expect(200).json();
    let difference = planned.dry_run.unwrap().difference;
    assert_eq!((difference.gained, difference.lost), (1, 1), "{difference:?}");

    let answer = town.put(&set, &etag, "?reason=spring").await.expect(200);
    let change: PolicySetChange = answer.json();
    assert_eq!(change.policies.created, ["new"]);
    assert_eq!(change.policies.changed, ["crew to db"]);
    assert_eq!(change.policies.deleted, ["gone"]);
    let (written, new_etag) = town.set().await;
    assert_eq!(written, set);
    assert_eq!(answer.header(header::ETAG), new_etag);
    let same: Policy =
        town.fixture.get(&format!("/v1/policies/{}", kept.id)).await.expect(200).json();
    assert_eq!(same.created_at, kept.created_at);

    let newest = town.history().await.remove(0);
    assert_eq!(newest.reason.as_deref(), Some("spring"));
    assert_eq!(format!("\"{}\"", newest.version), new_etag);
    let log: Page<AuditEvent> = town.fixture.get("/v1/audit-events").await.json();
    assert_eq!(log.items[0].operation, "policy-set.replace");
    assert_eq!(log.items[0].object_id, format!("policy-set/{}", newest.version));
    assert!(!log.items[1].operation.starts_with("policy-set"));
}

#[tokio::test]
async fn a_policy_set_is_never_replaced_unseen() {
    let town = Town::new().await;
    let (set, etag) = town.set().await;
    let unseen = town.fixture.admin(Method::PUT, "/v1/policy-set", Some(json!(set))).await;
    unseen.expect(428);
    town.policy(&town.crew_to_db()).await;
    town.put(&set, &etag, "").await.expect(412);
    assert_eq!(town.set().await.0.policies.len(), 1);
}

#[tokio::test]
async fn tests_may_change_together_with_what_they_are_about() {
    let town = Town::new().await;
    town.policy(&town.crew_to_db()).await;
    town.ada_reaches_db().await;
    let (mut set, etag) = town.set().await;
    set.policies.clear();
    let problem = broken(town.put(&set, &etag, "").await);
    assert_eq!(problem.failed_tests[0].name, "ada reaches db");
    set.tests.clear();
    town.put(&set, &etag, "").await.expect(200);
}

#[tokio::test]
async fn a_wrong_policy_in_a_set_is_named_by_its_path() {
    let town = Town::new().await;
    let (mut set, etag) = town.set().await;
    set.policies = vec![
        entry("fine", json!({ "everyone": true })),
        entry("wrong", json!({ "everyone": true, "users": ["ada"] })),
    ];
    let problem: Problem = town.put(&set, &etag, "").await.expect(422).json();
    assert_eq!(problem.field.as_deref(), Some("/policies/1/subjects"));
    set.policies = vec![entry("twice", json!({ "everyone": true })); 2];
    let problem: Problem = town.put(&set, &etag, "").await.expect(422).json();
    assert_eq!(problem.field.as_deref(), Some("/policies/1/name"));
    set.policies = vec![entry("stranger", json!({ "users": ["mallory"] }))];
    let problem: Problem = town.put(&set, &etag, "").await.expect(422).json();
    assert_eq!(problem.field.as_deref(), Some("/policies/0/subjects/users/0"));
    assert!(town.set().await.0.policies.is_empty());
}

#[tokio::test]
async fn names_of_policies_may_change_hands() {
    let town = Town::new().await;
    for name in ["one", "two"] {
        let subjects = json!({ "users": [if name == "one" { town.ada.id } else { town.eve.id }] });
        town.policy(&json!({
            "name": name, "effect": "permit", "subjects": subjects, "resources": { "all": true },
        }))
        .await;
    }
    let before = town.history().await[0].version;
    let (set, etag) = town.set().await;
    let mut swapped = set.clone();
    swapped.policies[0].name = "two".to_owned();
    swapped.policies[1].name = "one".to_owned();
    town.put(&swapped, &etag, "").await.expect(200);
    let path = format!("/v1/policy-history/{before}/rollback");
    town.fixture.admin(Method::POST, &path, None).await.expect(200);
    assert_eq!(town.set().await.0, set);
}

#[tokio::test]
async fn history_says_who_when_and_why_and_a_version_comes_back_whole() {
    let town = Town::new().await;
    let fixture = &town.fixture;
    let created = fixture
        .post("/v1/policies?reason=ticket%207", town.crew_to_db())
        .await
        .expect(201)
        .json::<Policy>();
    town.ada_reaches_db().await;
    let wanted = town.set().await.0;
    let version = town.history().await[0].version;
    let (mut other, etag) = town.set().await;
    other.policies = vec![entry("everyone", json!({ "everyone": true }))];
    town.put(&other, &etag, "").await.expect(200);

    let history = town.history().await;
    let operations: Vec<_> = history.iter().map(|it| it.operation.as_str()).collect();
    assert_eq!(
        operations,
        ["policy-set.replace", "policy-test.create", "policy.create", "policy-history.begin"]
    );
    assert_eq!(history[2].reason.as_deref(), Some("ticket 7"));
    assert!(history[2].actor.starts_with("tok_"));
    assert_eq!(history[2].created_at, created.created_at);
    let path = format!("/v1/policy-history/{version}");
    let content: PolicyVersionContent = fixture.get(&path).await.expect(200).json();
    assert_eq!((content.version.version, &content.policy_set), (version, &wanted));

    let rollback = format!("{path}/rollback");
    let tried = fixture.admin(Method::POST, &format!("{rollback}?dry_run=true"), None).await;
    let tried: PolicySetChange = tried.expect(200).json();
    assert!(tried.dry_run.unwrap().difference.lost > 0);
    assert_eq!(town.set().await.0, other);
    fixture.admin_if_match(Method::POST, &rollback, &etag, None).await.expect(412);
    let done = fixture.admin(Method::POST, &format!("{rollback}?reason=oops"), None).await;
    let done: PolicySetChange = done.expect(200).json();
    assert_eq!(done.policies.created, ["crew to db"]);
    assert_eq!(town.set().await.0, wanted);
    // It is the same policy, by its id.
    fixture.get(&format!("/v1/policies/{}", created.id)).await.expect(200);
    assert_eq!(town.history().await[0].operation, "policy-set.rollback");
    fixture.admin(Method::POST, "/v1/policy-history/99/rollback", None).await.expect(404);
}

#[tokio::test]
async fn a_version_that_names_what_is_gone_does_not_come_back() {
    let town = Town::new().await;
    let policy = town.policy(&town.crew_to_db()).await;
    let version = town.history().await[0].version;
    let path = format!("/v1/policies/{}", policy.id);
    town.fixture.admin(Method::DELETE, &path, None).await.expect(204);
    let group = format!("/v1/groups/{}", town.crew.id);
    town.fixture.admin(Method::DELETE, &group, None).await.expect(204);
    let path = format!("/v1/policy-history/{version}/rollback");
    let problem: Problem = town.fixture.admin(Method::POST, &path, None).await.expect(409).json();
    let gone = town.crew.id.to_string();
    assert!(problem.detail.contains(&gone) && problem.detail.contains("crew to db"), "{problem:?}");
    assert!(town.set().await.0.policies.is_empty());
}

#[tokio::test]
async fn history_keeps_the_last_thousand_versions_and_what_they_need() {
    let town = Town::new().await;
    let old = town.policy(&town.crew_to_db()).await;
    let mut change =
        town.fixture.app.store.begin_change(crate::store::ActorId::ControlPlane).await.unwrap();
    let id = adit_proto::PolicyId::from_uuid(uuid::Uuid::from_u128(1));
    for number in 0..1200 {
        let version = crate::store::policy_history::begin(&mut change, "policy.replace", None);
        let version = version.await.unwrap();
        let mut write = town.crew_to_db();
        write["name"] = json!(format!("rule {number}"));
        let write = (number % 3 != 2).then_some(&write);
        crate::store::policy_history::record(&mut change, version, id, write).await.unwrap();
    }
    change.commit_unaudited().await.unwrap();

    let newest = town.history().await[0].version;
    let mut snapshot = town.fixture.app.store.snapshot().await.unwrap();
    let mut oldest = newest;
    while crate::store::policy_history::find(&mut snapshot, oldest - 1).await.unwrap().is_some() {
        oldest -= 1;
    }
    assert!((1000..=1101).contains(&(newest - oldest)), "{newest} {oldest}");
    let content = crate::store::policy_history::content(&mut snapshot, oldest).await.unwrap();
    assert!(content.policies.iter().any(|(id, write)| *id == old.id && write.name == old.name));
    // Version 3 was the first of the rule.
    let number = oldest - 3;
    let rule = content.policies.iter().find(|(found, _)| *found == id);
    let expected = (number % 3 != 2).then(|| format!("rule {number}"));
    assert_eq!(rule.map(|(_id, write)| write.name.clone()), expected);
    let rows: i64 = sqlx::query_scalar("SELECT count(*) FROM policy_version_objects")
        .fetch_one(&mut *snapshot)
        .await
        .unwrap();
    assert!(u64::try_from(rows).unwrap() <= newest - oldest + 3, "{rows} rows");
}

fn sets() -> impl Strategy<Value = PolicySet> {
    let some = |names: &'static [&'static str]| {
        proptest::sample::subsequence(names.to_vec(), 0..=names.len())
    };
    let policy = (
        any::<(bool, bool, bool)>(),
        some(&["ada", "eve"]),
        some(&["crew"]),
        some(&["db", "web"]),
        some(&["db", "x"]),
        proptest::option::of(1..1000_u64),
    );
    proptest::collection::vec(policy, 0..5).prop_map(|policies| {
        let policies = policies.into_iter().enumerate().map(|(number, policy)| {
            let ((forbids, disabled, whole), users, groups, names, tags, age) = policy;
            let everyone = users.is_empty() && groups.is_empty();
            let all = names.is_empty() && tags.is_empty();
            serde_json::from_value(json!({
                "name": format!("{number}: yes, \"no\" # {whole}"),
                "effect": if forbids { "forbid" } else { "permit" },
                "subjects": { "everyone": everyone, "users": users, "groups": groups },
                "resources": { "all": all, "names": names, "tags": tags },
                "conditions": { "authenticated_within_s": age },
                "disabled": disabled,
            }))
            .unwrap()
        });
        PolicySet { policies: policies.collect(), tests: vec![] }
    })
}

#[test]
fn whatever_set_was_written_its_export_makes_an_empty_plan() {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let town = runtime.block_on(Town::new());
    let mut runner = TestRunner::new(ProptestConfig::with_cases(30));
    runner
        .run(&sets(), |set| {
            runtime.block_on(async {
                town.put(&set, "*", "").await.expect(200);
                let (exported, etag) = town.set().await;
                assert_eq!(exported, set);
                let planned = town.put(&exported, &etag, "?dry_run=true").await.expect(200);
                let planned: PolicySetChange = planned.json();
                assert!(planned.policies.is_empty() && planned.tests.is_empty(), "{planned:?}");
                assert!(planned.dry_run.unwrap().difference.is_empty());
                Ok(())
            })
        })
        .unwrap();
}
