//! What would be decided: of whom, to where, when, and why.

use adit_proto::api::{Check, Explanation, Problem, TraceOutcome};
use axum::http::Method;
use serde_json::{Value, json};

use crate::fixture::Fixture;

/// A fixture, and what all questions of a test have in common.
struct Question {
    fixture: Fixture,
    common: Value,
}

impl Question {
    async fn explain(&self, more: Value) -> Explanation {
        self.fixture.post("/v1/policy/explain", merged(&self.common, more)).await.expect(200).json()
    }
}

fn merged(common: &Value, more: Value) -> Value {
    let mut all = common.as_object().unwrap().clone();
    all.extend(more.as_object().unwrap().clone());
    Value::Object(all)
}

async fn resource(fixture: &Fixture, more: Value) -> String {
    let site = fixture.site("home").await;
    let body = json!({ "name": "nas", "site_id": site.id, "addresses": ["10.1.0.0/24"] });
    let created: Value =
        fixture.post("/v1/resources", merged(&body, more)).await.expect(201).json();
    created["id"].as_str().unwrap().to_owned()
}

async fn permit(fixture: &Fixture, more: Value) {
    let policy = json!({
        "name": "rule", "effect": "permit", "subjects": { "everyone": true },
        "resources": { "all": true },
    });
    fixture.post("/v1/policies", merged(&policy, more)).await.expect(201);
}

#[tokio::test]
async fn a_device_is_told_what_the_connector_would_decide() {
    let fixture = Fixture::new().await;
    let user = fixture.user("ada").await;
    let device = fixture.device(&user, 2).await;
    let nas = resource(&fixture, json!({})).await;
    let common = json!({
        "device_id": device.device_id(), "destination": "10.1.0.1", "port": 443,
        "protocol": "tcp",
    });
    let question = Question { fixture, common };
    let fixture = &question.fixture;
    assert_eq!(question.explain(json!({})).await.reason.code(), "no-policy-permits");
    let by_name = json!({ "subjects": { "users": [user.id] }, "resources": { "ids": [nas] } });
    permit(fixture, by_name).await;
    assert!(question.explain(json!({})).await.allowed);
    let path = format!("/v1/devices/{}/revoke", device.device_id());
    fixture.admin(Method::POST, &path, None).await.expect(200);
    let explanation = question.explain(json!({})).await;
    assert!(!explanation.allowed);
    assert_eq!(explanation.reason.code(), "device-revoked");
}

#[tokio::test]
async fn any_user_resource_time_and_facts_can_be_asked_about() {
    let fixture = Fixture::new().await;
    let user = fixture.user("ada").await;
    let filters = json!([{ "protocol": "udp" }, { "protocol": "tcp", "ports": ["22", "443"] }]);
    let nas = resource(&fixture, json!({ "filters": filters })).await;
    let conditions = json!({
        "posture": ["disk-encrypted"],
        "source_networks": ["192.0.2.0/24"],
        "authenticated_within_s": 3600,
        "authentication_methods": ["mfa"],
        "time_windows": [{ "days": ["mon"], "from": "08:00", "to": "18:00", "time_zone": "UTC" }],
        "expires_at": "2026-07-01T00:00:00Z",
    });
    permit(&fixture, json!({ "conditions": conditions })).await;
    let common = json!({
        "user_id": user.id, "resource_id": nas, "protocol": "tcp", "source": "192.0.2.7",
        "posture": ["disk-encrypted"], "authentication_methods": ["pwd", "mfa"],
        "at": "2026-06-01T09:00:00Z",
    });
    let question = Question { fixture, common };
    assert!(question.explain(json!({})).await.allowed);
    for (more, reason, check) in [
        (json!({ "posture": [] }), "posture-failed", Check::PostureFailed),
        (json!({ "source": "192.0.3.7" }), "source-network-other", Check::SourceNetworkOther),
        (
            json!({ "authenticated_at": "2026-06-01T08:00:00Z" }),
            "sign-in-too-old",
            Check::SignInTooOld,
        ),
        (
            json!({ "authentication_methods": ["pwd"] }),
            "authentication-methods-missing",
            Check::AuthenticationMethodsMissing,
        ),
        (json!({ "at": "2026-06-02T09:00:00Z" }), "time-window-closed", Check::TimeWindowClosed),
        (json!({ "at": "2026-07-06T09:00:00Z" }), "policy-expired", Check::PolicyExpired),
    ] {
        let explanation = question.explain(more).await;
        assert_eq!((explanation.allowed, explanation.reason.code()), (false, reason));
        let [trace] = explanation.trace.as_slice() else { panic!("{explanation:?}") };
        assert_eq!(trace.outcome, TraceOutcome::Unmet);
        let unmet: Vec<_> = trace.checks.iter().filter(|check| !check.is_met()).collect();
        assert_eq!(unmet, [&check]);
    }
    let explanation = question.explain(json!({ "port": 80 })).await;
    assert_eq!(explanation.reason.code(), "resource-unknown");
}

#[tokio::test]
async fn a_question_names_one_subject_and_one_destination_that_exist() {
    let fixture = Fixture::new().await;
    let user = fixture.user("ada").await;
    let unknown = "0193f0a2b7c87d34a1e2c3d4e5f60718";
    let device = json!({ "device_id": format!("dev_{unknown}") });
    let there = json!({ "destination": "10.1.0.1", "protocol": "icmp" });
    let ada = json!({ "user_id": user.id, "protocol": "icmp" });
    for (body, field) in [
        (there.clone(), "/device_id"),
        (merged(&merged(&there, device.clone()), ada.clone()), "/device_id"),
        (merged(&there, device), "/device_id"),
        (merged(&there, json!({ "user_id": format!("usr_{unknown}") })), "/user_id"),
        (ada.clone(), "/destination"),
        (merged(&ada, json!({ "resource_id": format!("res_{unknown}") })), "/resource_id"),
        (
            merged(&merged(&ada, there), json!({ "resource_id": format!("res_{unknown}") })),
            "/destination",
        ),
    ] {
        let problem: Problem =
            fixture.post("/v1/policy/explain", body.clone()).await.expect(422).json();
        assert_eq!(problem.field.as_deref(), Some(field), "{body}");
    }
}
