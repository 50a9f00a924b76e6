//! Many policies and many prefixes.

use std::net::Ipv4Addr;

use super::sample::{denied, now, permit, policy_id, resource, resource_id, subject, tcp};
use crate::Evaluator;
use adit_proto::Reason;

const MANY: u32 = 10_000;

#[test]
fn ten_thousand_policies_for_as_many_resources_stay_apart() {
    let resources: Vec<_> = (0..MANY)
        .map(|number| resource(number.into(), &format!("{}/32", address(number))))
        .collect();
    let policies: Vec<_> = (0..MANY)
        .map(|number| {
            let mut policy = permit(number.into());
            policy.resources.all = false;
            policy.resources.ids = vec![resource_id((number ^ 1).into())];
            policy
        })
        .collect();
    let evaluator = Evaluator::try_new(&policies, &resources).unwrap();
    for number in (0..MANY).step_by(97) {
        let destination = tcp(&address(number).to_string(), 443);
        let authorization = evaluator.evaluate(&subject(), &destination, now()).unwrap();
        assert_eq!(authorization.resource_id(), resource_id(number.into()));
        assert_eq!(authorization.policy_id(), policy_id((number ^ 1).into()));
    }
    assert_eq!(denied(&evaluator, &subject(), "10.255.0.1").reason, Reason::ResourceUnknown);
}

#[test]
fn a_policy_for_all_resources_is_held_once() {
    let resources: Vec<_> = (0..100).map(|number| resource(number, "10.0.0.0/8")).collect();
    let policies: Vec<_> = (0..100).map(permit).collect();
    let evaluator = Evaluator::try_new(&policies, &resources).unwrap();
    assert_eq!(evaluator.held_policies(), 100);
}

fn address(number: u32) -> Ipv4Addr {
    Ipv4Addr::from_bits(Ipv4Addr::new(10, 0, 0, 0).to_bits() + number * 3)
}
