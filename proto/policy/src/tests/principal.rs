//! What a principal remembers, and when it asks again.

use std::time::Duration;

use adit_proto::Reason;

use super::sample::{
    forbid, now, permit, policy_id, resource, resource_id, signed_in, subject, tcp,
};
use crate::{Evaluator, Principal};

#[test]
fn a_principal_follows_from_one_evaluator_to_the_next() {
    let resources = [resource(1, "10.0.0.0/8")];
    let permitting = Evaluator::try_new(&[permit(1)], &resources).unwrap();
    let forbidding = Evaluator::try_new(&[forbid(1)], &resources).unwrap();
    let mut principal = Principal::new(subject());
    let destination = tcp("10.0.0.1", 443);
    for _ in 0..2 {
        assert!(principal.decide(&permitting, &destination, now()).is_ok());
        let denial = principal.decide(&forbidding, &destination, now()).unwrap_err();
        assert_eq!(denial.reason, Reason::PolicyForbids);
    }
}

#[test]
fn resources_in_one_seat_are_not_taken_for_each_other() {
    let resources: Vec<_> =
        (0..64_u8).map(|number| resource(number.into(), &format!("10.{number}.0.0/16"))).collect();
    let mut odd = permit(1);
    odd.resources.all = false;
    odd.resources.ids = (0..64).filter(|number| number % 2 == 1).map(resource_id).collect();
    let evaluator = Evaluator::try_new(&[odd], &resources).unwrap();
    let mut principal = Principal::new(subject());
    for number in (0..64_u8).chain((0..64).rev()) {
        let destination = tcp(&format!("10.{number}.0.1"), 443);
        let decided = principal.decide(&evaluator, &destination, now());
        assert_eq!(decided, evaluator.evaluate(&subject(), &destination, now()));
        assert_eq!(decided.is_ok(), number % 2 == 1);
    }
}

#[test]
fn a_remembered_permit_ends_when_its_authorization_does() {
    let mut window = permit(1);
    window.conditions.authenticated_within_s = Some(3600);
    let evaluator = Evaluator::try_new(&[window], &[resource(1, "10.0.0.0/8")]).unwrap();
    let end = now();
    let mut recent = subject();
    recent.authentication = Some(signed_in(3600));
    let mut principal = Principal::new(recent);
    let destination = tcp("10.0.0.1", 443);
    let just_before = end.saturating_sub(Duration::from_millis(1));
    assert!(principal.decide(&evaluator, &destination, just_before).is_ok());
    assert!(principal.decide(&evaluator, &destination, end).is_err());
}

#[test]
fn a_remembered_denial_is_decided_anew_after_a_second() {
    let mut fresh_sign_ins = forbid(1);
    fresh_sign_ins.conditions.authenticated_within_s = Some(3601);
    let evaluator =
        Evaluator::try_new(&[fresh_sign_ins, permit(2)], &[resource(1, "10.0.0.0/8")]).unwrap();
    let mut principal = Principal::new(subject());
    let destination = tcp("10.0.0.1", 443);
    let denial = principal.decide(&evaluator, &destination, now()).unwrap_err();
    assert_eq!(denial.policy_id, Some(policy_id(1)));
    let later = now().saturating_add(Duration::from_secs(1));
    assert!(principal.decide(&evaluator, &destination, later).is_ok());
}
