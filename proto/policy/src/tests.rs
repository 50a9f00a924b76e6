//! Behaviour of the evaluator as its users see it.

mod differential;
mod principal;
pub(crate) mod sample;
mod scale;

use std::time::Duration;

use adit_proto::{
    Reason, Timestamp,
    api::{Check, Effect, Policy, SubjectSelector, TraceOutcome},
};

use serde_json::json;

use self::sample::{
    denied, device_id, device_only, forbid, group_id, icmp, now, permit, policy_id, resource,
    resource_id, signed_in, subject, tcp, udp, user_id,
};
use crate::{
    CompileError, Denial, Evaluator, Subject,
    compile::{CompiledPolicy, compile},
};

#[test]
fn without_a_policy_nothing_is_permitted() {
    let evaluator = Evaluator::try_new(&[], &[resource(1, "10.0.0.0/8")]).unwrap();
    let denial = denied(&evaluator, &subject(), "10.0.0.1");
    assert_eq!(denial.reason, Reason::NoPolicyPermits);
    assert_eq!(denial.resource_id, Some(resource_id(1)));
    assert_eq!(denial.policy_id, None);
}

#[test]
fn without_a_resource_nothing_is_permitted() {
    let evaluator = Evaluator::try_new(&[permit(1)], &[resource(1, "10.0.0.0/8")]).unwrap();
    assert_eq!(
        denied(&evaluator, &subject(), "11.0.0.1"),
        Denial { reason: Reason::ResourceUnknown, resource_id: None, policy_id: None }
    );
}

#[test]
fn a_permit_makes_an_authorization() {
    let evaluator = Evaluator::try_new(&[permit(1)], &[resource(2, "10.0.0.0/8")]).unwrap();
    let authorization = evaluator.evaluate(&subject(), &tcp("10.0.0.1", 443), now()).unwrap();
    assert_eq!(authorization.policy_id(), policy_id(1));
    assert_eq!(authorization.resource_id(), resource_id(2));
}

#[test]
fn a_forbid_beats_a_permit() {
    let mut by_tag = forbid(9);
    by_tag.resources.all = false;
    by_tag.resources.tags = vec!["prod".to_owned()];
    let mut tagged = resource(2, "10.0.0.0/8");
    tagged.tags = vec!["prod".to_owned()];
    let evaluator = Evaluator::try_new(&[permit(1), by_tag], &[tagged]).unwrap();
    let denial = denied(&evaluator, &subject(), "10.0.0.1");
    assert_eq!(denial.reason, Reason::PolicyForbids);
    assert_eq!(denial.policy_id, Some(policy_id(9)));
}

#[test]
fn a_long_list_of_names_names_nobody_else() {
    let mut long = permit(1);
    long.subjects = device_only(1000);
    long.subjects.users = (1..1000).map(user_id).collect();
    long.resources.all = false;
    long.resources.ids = (1..1000).map(resource_id).collect();
    long.conditions.posture = vec!["disk-encrypted".to_owned()];
    let resources = [resource(1, "10.0.0.0/8"), resource(1000, "11.0.0.0/8")];
    let evaluator = Evaluator::try_new(&[long], &resources).unwrap();
    let mut listed = subject();
    listed.posture = vec!["disk-encrypted".to_owned()];
    let unlisted = Subject { user_id: user_id(1000), ..listed.clone() };

    assert!(evaluator.evaluate(&listed, &tcp("10.0.0.1", 1), now()).is_ok());
    let no_policy = Reason::NoPolicyPermits;
    assert_eq!(denied(&evaluator, &subject(), "10.0.0.1").reason, Reason::PostureFailed);
    assert_eq!(denied(&evaluator, &listed, "11.0.0.1").reason, no_policy);
    assert_eq!(denied(&evaluator, &unlisted, "10.0.0.1").reason, no_policy);
    let outcome = |subject| {
        evaluator.explain(subject, &tcp("10.0.0.1", 1), now()).trace.first().unwrap().outcome
    };
    assert_eq!(outcome(&listed), TraceOutcome::Matched);
    assert_eq!(outcome(&unlisted), TraceOutcome::Unmet);
}

#[test]
fn a_disabled_policy_has_no_effect() {
    let mut disabled_permit = permit(1);
    disabled_permit.disabled = true;
    let mut disabled_forbid = forbid(2);
    disabled_forbid.disabled = true;
    let resources = [resource(1, "10.0.0.0/8")];
    let evaluator = Evaluator::try_new(&[disabled_permit], &resources).unwrap();
    assert_eq!(denied(&evaluator, &subject(), "10.0.0.1").reason, Reason::NoPolicyPermits);
    let evaluator = Evaluator::try_new(&[permit(3), disabled_forbid], &resources).unwrap();
    assert!(evaluator.evaluate(&subject(), &tcp("10.0.0.1", 1), now()).is_ok());
}

#[test]
fn of_several_permits_the_smallest_id_is_named() {
    let mut later = permit(1);
    later.subjects = device_only(99);
    let evaluator =
        Evaluator::try_new(&[permit(3), permit(2), later], &[resource(1, "10.0.0.0/8")]).unwrap();
    let authorization = evaluator.evaluate(&subject(), &tcp("10.0.0.1", 443), now()).unwrap();
    assert_eq!(authorization.policy_id(), policy_id(2));
}

#[test]
fn user_group_and_device_are_each_enough() {
    type Name = fn(&mut SubjectSelector);
    let names: [Name; 3] = [
        |subjects| subjects.users.push(user_id(1)),
        |subjects| subjects.groups.push(group_id(1)),
        |subjects| subjects.devices.push(device_id(1)),
    ];
    for name in names {
        let mut named = permit(1);
        named.subjects = device_only(99);
        name(&mut named.subjects);
        let evaluator = Evaluator::try_new(&[named], &[resource(1, "10.0.0.0/8")]).unwrap();
        assert!(evaluator.evaluate(&subject(), &tcp("10.0.0.1", 1), now()).is_ok());
    }
}

#[test]
fn a_selector_that_names_nothing_selects_nothing() {
    let resources = [resource(1, "10.0.0.0/8")];
    let mut nobody = permit(1);
    nobody.subjects.everyone = false;
    let evaluator = Evaluator::try_new(&[nobody], &resources).unwrap();
    assert_eq!(denied(&evaluator, &subject(), "10.0.0.1").reason, Reason::NoPolicyPermits);
    let mut nothing = permit(1);
    nothing.resources.all = false;
    let evaluator = Evaluator::try_new(&[nothing], &resources).unwrap();
    assert_eq!(denied(&evaluator, &subject(), "10.0.0.1").reason, Reason::NoPolicyPermits);
}

#[test]
fn the_most_specific_resource_decides() {
    let mut only_wide = permit(1);
    only_wide.resources.all = false;
    only_wide.resources.ids = vec![resource_id(1)];
    let resources = [resource(1, "10.0.0.0/8"), resource(2, "10.9.0.0/16")];
    let evaluator = Evaluator::try_new(&[only_wide], &resources).unwrap();
    assert!(evaluator.evaluate(&subject(), &tcp("10.1.0.1", 1), now()).is_ok());
    let denial = denied(&evaluator, &subject(), "10.9.0.1");
    assert_eq!(denial.reason, Reason::NoPolicyPermits);
    assert_eq!(denial.resource_id, Some(resource_id(2)));
}

#[test]
fn ports_outside_every_range_belong_to_no_resource() {
    let mut web = resource(1, "10.0.0.0/8");
    web.filters = serde_json::from_str(
        r#"[{"protocol": "tcp", "ports": ["80", "8000-8100"]}, {"protocol": "icmp"}]"#,
    )
    .unwrap();
    let evaluator = Evaluator::try_new(&[permit(1)], &[web]).unwrap();
    for destination in
        [tcp("10.0.0.1", 80), tcp("10.0.0.1", 8000), tcp("10.0.0.1", 8100), icmp("10.0.0.1")]
    {
        assert!(evaluator.evaluate(&subject(), &destination, now()).is_ok(), "{destination:?}");
    }
    for destination in [tcp("10.0.0.1", 81), tcp("10.0.0.1", 8101), udp("10.0.0.1", 80)] {
        let denial = evaluator.evaluate(&subject(), &destination, now()).unwrap_err();
        assert_eq!(denial.reason, Reason::ResourceUnknown, "{destination:?}");
    }
}

#[test]
fn a_reserved_address_is_refused_unless_a_resource_names_it_alone() {
    let wide = [resource(1, "0.0.0.0/0"), resource(2, "::/0")];
    let evaluator = Evaluator::try_new(&[permit(1)], &wide).unwrap();
    for address in ["127.0.0.1", "169.254.169.254", "::1", "::ffff:127.0.0.1", "255.255.255.255"] {
        assert_eq!(denied(&evaluator, &subject(), address).reason, Reason::AddressReserved);
    }
    let alone = [resource(1, "169.254.169.254/32"), resource(2, "fe80::1/128")];
    let evaluator = Evaluator::try_new(&[permit(1)], &alone).unwrap();
    for address in ["169.254.169.254", "fe80::1"] {
        assert!(evaluator.evaluate(&subject(), &tcp(address, 80), now()).is_ok(), "{address}");
    }
    assert_eq!(denied(&evaluator, &subject(), "169.254.1.1").reason, Reason::AddressReserved);
}

#[test]
fn a_lone_address_on_another_port_leaves_it_reserved() {
    let mut alone = resource(1, "169.254.169.254/32");
    alone.filters = serde_json::from_str(r#"[{"protocol": "tcp", "ports": ["80"]}]"#).unwrap();
    let evaluator = Evaluator::try_new(&[permit(1)], &[alone, resource(2, "0.0.0.0/0")]).unwrap();
    assert_eq!(denied(&evaluator, &subject(), "169.254.169.254").reason, Reason::AddressReserved);
}

#[test]
fn an_expired_credential_is_refused() {
    let evaluator = Evaluator::try_new(&[permit(1)], &[resource(1, "10.0.0.0/8")]).unwrap();
    let mut expired = subject();
    expired.expires_at = Some(now());
    assert_eq!(denied(&evaluator, &expired, "10.0.0.1").reason, Reason::CredentialExpired);
}

#[test]
fn an_authorization_ends_with_the_credential_or_the_sign_in_window() {
    let mut window = permit(1);
    window.conditions.authenticated_within_s = Some(600);
    let evaluator = Evaluator::try_new(&[window], &[resource(1, "10.0.0.0/8")]).unwrap();
    let mut subject = subject();
    let credential_end = now().saturating_add(Duration::from_secs(300));
    subject.expires_at = Some(credential_end);
    let end_when_signed_in = |ago_s: u64, subject: &mut Subject| {
        subject.authentication = Some(signed_in(ago_s));
        evaluator.evaluate(subject, &tcp("10.0.0.1", 1), now())
    };

    let authorization = end_when_signed_in(0, &mut subject).unwrap();
    assert_eq!(authorization.expires_at(), Some(credential_end));
    let authorization = end_when_signed_in(500, &mut subject).unwrap();
    let window_end = now().saturating_add(Duration::from_secs(100));
    assert_eq!(authorization.expires_at(), Some(window_end));
    assert!(authorization.is_live(now()));
    assert!(!authorization.is_live(window_end));
    let denial = end_when_signed_in(600, &mut subject).unwrap_err();
    assert_eq!(denial.reason, Reason::SignInTooOld);
}

#[test]
fn a_plain_wireguard_device_has_an_authorization_without_end() {
    let evaluator = Evaluator::try_new(&[permit(1)], &[resource(1, "10.0.0.0/8")]).unwrap();
    let mut plain = subject();
    plain.expires_at = None;
    plain.authentication = None;
    let authorization = evaluator.evaluate(&plain, &tcp("10.0.0.1", 1), now()).unwrap();
    assert_eq!(authorization.expires_at(), None);
    assert!(authorization.is_live(now().saturating_add(Duration::MAX)));
}

#[test]
fn what_is_unknown_is_held_against_the_subject() {
    let mut unknown = subject();
    unknown.source = None;
    unknown.authentication = None;
    for (conditions, reason) in [
        (json!({ "source_networks": ["0.0.0.0/0"] }), Reason::SourceNetworkOther),
        (json!({ "authenticated_within_s": 3600 }), Reason::SignInTooOld),
        (json!({ "authentication_methods": ["pwd"] }), Reason::AuthenticationMethodsMissing),
        (json!({ "time_windows": [{ "time_zone": "Europe/Atlantis" }] }), Reason::TimeWindowClosed),
    ] {
        let condition = |mut policy: Policy| {
            policy.conditions = serde_json::from_value(conditions.clone()).unwrap();
            policy
        };
        let resources = [resource(1, "10.0.0.0/8")];
        let evaluator = Evaluator::try_new(&[condition(permit(1))], &resources).unwrap();
        assert_eq!(denied(&evaluator, &unknown, "10.0.0.1").reason, reason);
        let evaluator = Evaluator::try_new(&[permit(1), condition(forbid(2))], &resources).unwrap();
        assert_eq!(denied(&evaluator, &unknown, "10.0.0.1").reason, Reason::PolicyForbids);
    }
}

#[test]
fn every_posture_label_is_needed() {
    let mut postured = permit(1);
    postured.conditions.posture = vec!["disk-encrypted".to_owned(), "os:patched".to_owned()];
    let evaluator = Evaluator::try_new(&[postured], &[resource(1, "10.0.0.0/8")]).unwrap();
    let mut subject = subject();
    subject.posture = vec!["disk-encrypted".to_owned()];
    assert_eq!(denied(&evaluator, &subject, "10.0.0.1").reason, Reason::PostureFailed);
    subject.posture.push("os:patched".to_owned());
    assert!(evaluator.evaluate(&subject, &tcp("10.0.0.1", 1), now()).is_ok());
}

#[test]
fn a_source_reported_as_ipv4_inside_ipv6_is_in_the_ipv4_network() {
    let mut office = permit(1);
    office.conditions.source_networks = vec!["192.0.2.0/24".parse().unwrap()];
    let evaluator = Evaluator::try_new(&[office], &[resource(1, "10.0.0.0/8")]).unwrap();
    let mut subject = subject();
    subject.source = Some("::ffff:192.0.2.9".parse().unwrap());
    assert!(evaluator.evaluate(&subject, &tcp("10.0.0.1", 1), now()).is_ok());
}

#[test]
fn a_policy_that_fails_denies_even_beside_a_permit() {
    for effect in [Effect::Forbid, Effect::Permit] {
        let evaluator = with_cedar(effect, FAILING);
        let destination = tcp("10.0.0.1", 1);
        assert_eq!(
            evaluator.evaluate(&subject(), &destination, now()),
            Err(Denial {
                reason: Reason::PolicyError,
                resource_id: Some(resource_id(1)),
                policy_id: Some(policy_id(7)),
            })
        );
        let explanation = evaluator.explain(&subject(), &destination, now());
        let outcomes: Vec<_> = explanation.trace.iter().map(|trace| trace.outcome).collect();
        assert_eq!(outcomes, [TraceOutcome::Failed, TraceOutcome::Matched]);
        assert!(!explanation.allowed);
    }
}

#[test]
fn nothing_passes_by_a_policy_that_cedar_does_not_agree_to() {
    for effect in [Effect::Forbid, Effect::Permit] {
        let evaluator = with_cedar(effect, "context.posture.contains(\"never\")");
        let denial = denied(&evaluator, &subject(), "10.0.0.1");
        assert_eq!((denial.reason, denial.policy_id), (Reason::PolicyError, Some(policy_id(7))));
    }
}

#[test]
fn a_policy_that_fails_elsewhere_does_no_harm() {
    let evaluator = with_cedar(Effect::Forbid, FAILING);
    assert!(evaluator.evaluate(&subject(), &tcp("11.0.0.1", 1), now()).is_ok());
}

#[test]
fn an_explanation_says_of_each_policy_what_it_asks_and_what_is_missing() {
    let mut stranger = permit(1);
    stranger.subjects = device_only(99);
    let mut postured = permit(2);
    postured.conditions.posture = vec!["disk-encrypted".to_owned()];
    postured.conditions.source_networks = vec!["198.51.100.0/24".parse().unwrap()];
    let mut office = permit(3);
    office.conditions.source_networks = vec!["198.51.100.0/24".parse().unwrap()];
    office.conditions.authenticated_within_s = Some(1);
    let mut recent = permit(4);
    recent.conditions.authenticated_within_s = Some(1);
    recent.subjects = SubjectSelector { groups: vec![group_id(1)], ..SubjectSelector::default() };
    let mut unconcerned = permit(5);
    unconcerned.resources.all = false;
    unconcerned.resources.ids = vec![resource_id(9)];
    let policies = [forbid(6), recent, office, postured, stranger, unconcerned];
    let evaluator = Evaluator::try_new(&policies, &[resource(1, "10.0.0.0/8")]).unwrap();

    let explanation = evaluator.explain(&subject(), &tcp("10.0.0.1", 1), now());
    assert_eq!(explanation.reason, Reason::PolicyForbids);
    assert_eq!(explanation.policy_id, Some(policy_id(6)));
    assert_eq!(explanation.resource_name.as_deref(), Some("resource 1"));
    let lines: Vec<_> = explanation
        .trace
        .iter()
        .map(|trace| (trace.policy_id, trace.outcome, trace.checks.as_slice()))
        .collect();
    let (unmet, matched) = (TraceOutcome::Unmet, TraceOutcome::Matched);
    assert_eq!(
        lines,
        [
            (policy_id(1), unmet, &[Check::SubjectOther][..]),
            (
                policy_id(2),
                unmet,
                &[Check::SubjectOk, Check::PostureFailed, Check::SourceNetworkOther],
            ),
            (
                policy_id(3),
                unmet,
                &[Check::SubjectOk, Check::SourceNetworkOther, Check::SignInTooOld],
            ),
            (policy_id(4), unmet, &[Check::GroupsOk, Check::SignInTooOld]),
            (policy_id(6), matched, &[Check::SubjectOk]),
        ]
    );
}

#[test]
fn a_denial_names_what_the_nearest_permit_misses() {
    let resources = [resource(1, "10.0.0.0/8")];
    let mut stranger = permit(1);
    stranger.subjects = device_only(99);
    let mut far = permit(2);
    far.conditions.posture = vec!["disk-encrypted".to_owned()];
    far.conditions.authentication_methods = vec!["mfa".to_owned()];
    let mut near = permit(3);
    near.conditions.authentication_methods = vec!["mfa".to_owned()];
    let mut as_near = permit(4);
    as_near.conditions.expires_at = Some(now());
    let evaluator =
        Evaluator::try_new(&[as_near.clone(), near, far.clone(), stranger.clone()], &resources)
            .unwrap();
    let denial = denied(&evaluator, &subject(), "10.0.0.1");
    assert_eq!(denial.reason, Reason::AuthenticationMethodsMissing);
    assert_eq!(denial.policy_id, Some(policy_id(3)));

    let evaluator = Evaluator::try_new(&[as_near, far, stranger.clone()], &resources).unwrap();
    let denial = denied(&evaluator, &subject(), "10.0.0.1");
    assert_eq!((denial.reason, denial.policy_id), (Reason::PolicyExpired, Some(policy_id(4))));

    let evaluator = Evaluator::try_new(&[stranger], &resources).unwrap();
    let denial = denied(&evaluator, &subject(), "10.0.0.1");
    assert_eq!((denial.reason, denial.policy_id), (Reason::NoPolicyPermits, None));
}

#[test]
fn a_policy_holds_until_it_expires() {
    let mut granted = permit(1);
    let end = now().saturating_add(Duration::from_secs(60));
    granted.conditions.expires_at = Some(end);
    let evaluator = Evaluator::try_new(&[granted], &[resource(1, "10.0.0.0/8")]).unwrap();
    let destination = tcp("10.0.0.1", 1);
    let authorization = evaluator.evaluate(&subject(), &destination, now()).unwrap();
    assert_eq!(authorization.expires_at(), Some(end));
    let denial = evaluator.evaluate(&subject(), &destination, end).unwrap_err();
    assert_eq!(denial.reason, Reason::PolicyExpired);
}

#[test]
fn a_permit_ends_when_the_hours_of_a_forbid_begin() {
    // It is Thursday, 00:00 UTC.
    let mut night = forbid(2);
    night.conditions.time_windows =
        serde_json::from_value(json!([{ "from": "00:05", "to": "06:00", "time_zone": "UTC" }]))
            .unwrap();
    let evaluator = Evaluator::try_new(&[permit(1), night], &[resource(1, "10.0.0.0/8")]).unwrap();
    let destination = tcp("10.0.0.1", 1);
    let authorization = evaluator.evaluate(&subject(), &destination, now()).unwrap();
    let begins: Timestamp = "2026-01-01T00:05:00Z".parse().unwrap();
    assert_eq!(authorization.expires_at(), Some(begins));
    let denial = evaluator.evaluate(&subject(), &destination, begins).unwrap_err();
    assert_eq!(denial.reason, Reason::PolicyForbids);
}

#[test]
fn a_subject_sees_what_some_permit_names_whatever_its_conditions() {
    let mut by_group = permit(1);
    by_group.subjects = device_only(99);
    by_group.subjects.groups = vec![group_id(1)];
    by_group.resources.all = false;
    by_group.resources.tags = vec!["web".to_owned()];
    by_group.conditions.authenticated_within_s = Some(1);
    let mut web = resource(1, "10.1.0.0/16");
    web.tags = vec!["web".to_owned()];
    let resources = [resource(2, "10.2.0.0/16"), web];
    let evaluator = Evaluator::try_new(&[by_group, forbid(2)], &resources).unwrap();

    let visible = |groups: &[_]| -> Vec<_> {
        let visible = evaluator.visible_resources(user_id(1), groups, device_id(1));
        visible.into_iter().map(|resource| resource.id).collect()
    };
    assert_eq!(visible(&[group_id(1)]), [resource_id(1)]);
    assert!(visible(&[group_id(2)]).is_empty());
}

#[test]
fn two_policies_or_resources_with_one_id_are_refused() {
    let error = Evaluator::try_new(&[permit(1), forbid(1)], &[]).unwrap_err();
    assert!(matches!(error, CompileError::DuplicatePolicy { .. }), "{error}");
    let twins = [resource(1, "10.0.0.0/8"), resource(1, "11.0.0.0/8")];
    let error = Evaluator::try_new(&[], &twins).unwrap_err();
    assert!(matches!(error, CompileError::DuplicateResource { .. }), "{error}");
}

#[test]
fn an_evaluator_is_shared_between_threads() {
    fn shared<T: Send + Sync>() {}
    shared::<Evaluator>();
}

const FAILING: &str =
    "context has authenticated_age && context.authenticated_age * 9223372036854775807 > 0";

/// A permit for everything, and before it a policy for `10.0.0.0/8` that is something else to Cedar.
fn with_cedar(effect: Effect, condition: &str) -> Evaluator {
    let (mut policy, keyword) = match effect {
        Effect::Permit => (permit(7), "permit"),
        Effect::Forbid => (forbid(7), "forbid"),
    };
    policy.resources.all = false;
    policy.resources.ids = vec![resource_id(1)];
    policy.conditions.authenticated_within_s = Some(86_400);
    let text = format!("{keyword} (principal, action, resource) when {{ {condition} }};");
    let id = cedar_policy::PolicyId::new(policy_id(7).to_string());
    let cedar = cedar_policy::Policy::parse(Some(id), text).unwrap();
    let mut policies = compile(&[permit(9)]).unwrap();
    let cedar = cedar_policy::PolicySet::from_policies([cedar]).unwrap();
    policies.push(CompiledPolicy::with_cedar(policy, cedar));
    let resources = [resource(1, "10.0.0.0/8"), resource(2, "11.0.0.0/8")];
    Evaluator::try_from_compiled(policies, &resources).unwrap()
}
