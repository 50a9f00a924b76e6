use std::collections::BTreeMap;
use std::slice::from_ref;

use adit_proto::{
    UserId,
    api::{Access, AccessDifference, Conditions, Policy, Resource, SubjectSelector},
};
use proptest::{collection::vec, prelude::*};

use super::{AccessSide, Reacher, access_difference};
use crate::{
    Destination, Evaluator, Subject,
    tests::sample::{
        device_id, device_only, forbid, group_id, now, permit, resource, resource_id, user_id,
    },
};

type Users = BTreeMap<UserId, Reacher>;

fn users(groups: &[&[u128]]) -> Users {
    let user = |(number, groups): (u128, &&[u128])| {
        let reacher = Reacher {
            name: format!("user {number}"),
            groups: groups.iter().copied().map(group_id).collect(),
            devices: vec![device_id(number * 10), device_id(number * 10 + 1)],
        };
        (user_id(number), reacher)
    };
    (1..).zip(groups).map(user).collect()
}

fn compare(
    before: (&[Policy], &[Resource], &Users),
    after: (&[Policy], &[Resource], &Users),
) -> AccessDifference {
    let [one, other] = [before, after]
        .map(|(policies, resources, _)| Evaluator::try_new(policies, resources).unwrap());
    access_difference(
        AccessSide { evaluator: &one, users: before.2 },
        AccessSide { evaluator: &other, users: after.2 },
        1000,
    )
}

/// Of policies alone: three users, the first in group 1, the second in groups 1 and 2, and two
/// resources, the second of which is tagged.
fn difference(before: &[Policy], after: &[Policy]) -> AccessDifference {
    let users = users(&[&[1], &[1, 2], &[]]);
    let resources = resources();
    compare((before, &resources, &users), (after, &resources, &users))
}

fn resources() -> Vec<Resource> {
    let mut tagged = resource(2, "10.2.0.0/16");
    tagged.tags = vec!["db".to_owned()];
    vec![resource(1, "10.1.0.0/16"), tagged]
}

fn steps(difference: &AccessDifference) -> Vec<(UserId, Access, Access)> {
    difference.changes.iter().map(|it| (it.user_id, it.before, it.after)).collect()
}

fn of_group(mut policy: Policy, group: u128) -> Policy {
    policy.subjects =
        SubjectSelector { groups: vec![group_id(group)], ..SubjectSelector::default() };
    policy
}

fn of_resource(mut policy: Policy, number: u128) -> Policy {
    policy.resources.all = false;
    policy.resources.ids = vec![resource_id(number)];
    policy
}

fn with_posture(mut policy: Policy, label: &str) -> Policy {
    policy.conditions = Conditions { posture: vec![label.to_owned()], ..Conditions::default() };
    policy
}

#[test]
fn the_same_policies_make_no_difference() {
    let policies = [permit(1), with_posture(forbid(2), "stolen")];
    assert!(difference(&policies, &policies).is_empty());
}

#[test]
fn a_permit_gives_access_to_those_it_speaks_of() {
    let found = difference(&[], &[of_resource(of_group(permit(1), 1), 2)]);
    let gained = (Access::None, Access::Always);
    assert_eq!(steps(&found), [(user_id(1), gained.0, gained.1), (user_id(2), gained.0, gained.1)]);
    assert_eq!((found.gained, found.users, found.resources), (2, 2, 1));
    assert_eq!(found.changes[0].user_name, "user 1");
    assert_eq!(found.changes[0].resource_name, "resource 2");
}

#[test]
fn a_second_permit_for_the_same_makes_no_difference() {
    let first = of_group(permit(1), 1);
    assert!(difference(from_ref(&first), &[first.clone(), of_group(permit(2), 1)]).is_empty());
}

#[test]
fn a_policy_that_is_only_renamed_or_has_another_id_makes_no_difference() {
    let mut renamed = permit(1);
    renamed.name = "other".to_owned();
    assert!(difference(&[permit(1)], &[renamed]).is_empty());
    assert!(difference(&[permit(1)], &[permit(2)]).is_empty());
}

#[test]
fn a_forbid_takes_what_a_permit_gives() {
    let found = difference(&[permit(1)], &[permit(1), of_resource(of_group(forbid(2), 2), 1)]);
    assert_eq!(steps(&found), [(user_id(2), Access::Always, Access::None)]);
    assert_eq!((found.gained, found.lost), (0, 1));
    assert!(difference(&[], &[forbid(2)]).is_empty());
}

#[test]
fn a_condition_that_comes_or_goes_or_becomes_another_is_a_change() {
    let permit = of_resource(of_group(permit(1), 2), 1);
    let [encrypted, patched] =
        ["encrypted", "patched"].map(|label| with_posture(permit.clone(), label));
    let step = |before: &Policy, after: &Policy| {
        let found = difference(from_ref(before), from_ref(after));
        assert_eq!((found.gained, found.lost, found.conditions_changed), (0, 0, 1));
        (found.changes[0].before, found.changes[0].after)
    };
    assert_eq!(step(&permit, &encrypted), (Access::Always, Access::Conditional));
    assert_eq!(step(&encrypted, &permit), (Access::Conditional, Access::Always));
    assert_eq!(step(&encrypted, &patched), (Access::Conditional, Access::Conditional));
}

#[test]
fn a_condition_beside_an_unconditional_permit_is_of_no_account() {
    let conditional = with_posture(permit(2), "encrypted");
    assert!(difference(&[permit(1)], &[permit(1), conditional]).is_empty());
}

#[test]
fn a_conditional_forbid_makes_access_conditional() {
    let found = difference(&[permit(1)], &[permit(1), with_posture(forbid(2), "stolen")]);
    assert_eq!(found.conditions_changed, 6);
    assert_eq!(found.changes[0].after, Access::Conditional);
}

#[test]
fn a_named_device_is_reported_where_it_differs_from_the_others() {
    let mut named = of_resource(permit(1), 1);
    named.subjects = device_only(10);
    let found = difference(&[], from_ref(&named));
    assert_eq!(found.gained, 1);
    assert_eq!(found.changes[0].device_id, Some(device_id(10)));
    assert_eq!(found.changes[0].user_id, user_id(1));

    // When all devices of the user gain the same, the one has no line of its own.
    let found = difference(&[], &[named, of_resource(of_group(permit(2), 1), 1)]);
    assert!(found.changes.iter().all(|change| change.device_id.is_none()), "{found:?}");
    assert_eq!(found.gained, 2);
}

#[test]
fn a_membership_that_comes_or_goes_is_a_change() {
    let policies = [of_group(permit(1), 2)];
    let (without, with) = (users(&[&[1]]), users(&[&[1, 2]]));
    let resources = resources();
    let joined = compare((&policies, &resources, &without), (&policies, &resources, &with));
    assert_eq!((joined.gained, joined.lost), (2, 0));
    let left = compare((&policies, &resources, &with), (&policies, &resources, &without));
    assert_eq!((left.gained, left.lost), (0, 2));
    let gone = compare((&policies, &resources, &with), (&policies, &resources, &Users::new()));
    assert_eq!(gone.lost, 2);
    assert_eq!(gone.changes[0].user_name, "user 1");
}

#[test]
fn a_resource_that_gets_a_tag_or_comes_or_goes_is_a_change() {
    let mut by_tag = permit(1);
    by_tag.resources.all = false;
    by_tag.resources.tags = vec!["db".to_owned()];
    let users = users(&[&[]]);
    let tagged = resources();
    let mut bare = tagged.clone();
    bare[1].tags.clear();
    let policies = [by_tag];
    let got_it = compare((&policies, &bare, &users), (&policies, &tagged, &users));
    assert_eq!((got_it.gained, got_it.lost), (1, 0));
    let gone = compare((&policies, &tagged, &users), (&policies, &tagged[..1], &users));
    assert_eq!((gone.gained, gone.lost), (0, 1));
    assert_eq!(gone.changes[0].resource_id, resource_id(2));
}

#[test]
fn counts_are_whole_although_the_list_is_cut() {
    let users = users(&[&[], &[], &[]]);
    let resources = resources();
    let before = Evaluator::try_new(&[], &resources).unwrap();
    let after = Evaluator::try_new(&[permit(1)], &resources).unwrap();
    let side = |evaluator| AccessSide { evaluator, users: &users };
    let found = access_difference(side(&before), side(&after), 4);
    assert_eq!((found.gained, found.changes.len(), found.truncated), (6, 4, true));
    let found = access_difference(side(&before), side(&after), 6);
    assert!(!found.truncated);
}

#[test]
fn more_conditions_than_a_word_has_bits_stay_apart() {
    let permits = |first: u128| -> Vec<Policy> {
        (first..first + 100)
            .map(|number| with_posture(permit(number), &format!("label-{number}")))
            .collect()
    };
    assert!(difference(&permits(1), &permits(1)).is_empty());
    let found = difference(&permits(1), &permits(2));
    assert_eq!(found.conditions_changed, 6);
}

/// Policies over two groups, two users, two devices, two resources, a tag and two labels.
fn policies() -> impl Strategy<Value = Vec<Policy>> {
    let shape = (any::<[bool; 9]>(), 0..4_u8);
    vec(shape, 0..5).prop_map(|shapes| {
        let one = |(number, (bits, conditions)): (u128, ([bool; 9], u8))| {
            let [forbids, everyone, group, other_group, user, device, all, by_id, by_tag] = bits;
            let mut policy = if forbids { forbid(number) } else { permit(number) };
            policy.subjects = SubjectSelector { everyone, ..SubjectSelector::default() };
            if !everyone {
                policy.subjects.groups.extend(group.then(|| group_id(1)));
                policy.subjects.groups.extend(other_group.then(|| group_id(2)));
                policy.subjects.users.extend(user.then(|| user_id(1)));
                policy.subjects.devices.extend(device.then(|| device_id(20)));
            }
            policy.resources.all = all;
            if !all {
                policy.resources.ids.extend(by_id.then(|| resource_id(1)));
                policy.resources.tags.extend(by_tag.then(|| "db".to_owned()));
            }
            match conditions {
                0 => with_posture(policy, "a"),
                1 => with_posture(policy, "b"),
                _ => policy,
            }
        };
        (1..).zip(shapes).map(one).collect()
    })
}

proptest! {
    /// Whatever the labels of a device, a pair that is not reported is decided alike.
    #[test]
    fn what_is_not_reported_is_decided_alike(before in policies(), after in policies()) {
        let users = users(&[&[1], &[1, 2], &[]]);
        let resources = resources();
        let evaluators =
            [&before, &after].map(|it| Evaluator::try_new(it, &resources).unwrap());
        let [one, other] = &evaluators;
        let found = access_difference(
            AccessSide { evaluator: one, users: &users },
            AccessSide { evaluator: other, users: &users },
            1000,
        );
        for (id, user) in &users {
            for device in &user.devices {
                for (number, address) in [(1, "10.1.0.1"), (2, "10.2.0.1")] {
                    let is_reported = |device| found.changes.iter().find(|change| {
                        change.user_id == *id
                            && change.device_id == device
                            && change.resource_id == resource_id(number)
                    });
                    let named = [one, other].iter().any(|it| it.subjects().names_device(*device));
                    let change = is_reported(Some(*device)).or(is_reported(None));
                    let decided = |evaluator: &Evaluator, labels: &[&str]| {
                        let subject = Subject {
                            device_id: *device,
                            user_id: *id,
                            groups: user.groups.clone(),
                            posture: labels.iter().copied().map(str::to_owned).collect(),
                            source: None,
                            authentication: None,
                            expires_at: None,
                        };
                        let destination = Destination {
                            address: address.parse().unwrap(),
                            port: 1,
                            protocol: adit_proto::Protocol::Tcp,
                        };
                        evaluator.evaluate(&subject, &destination, now()).is_ok()
                    };
                    let labels: [&[&str]; 4] = [&[], &["a"], &["b"], &["a", "b"]];
                    let verdicts = labels.map(|it| [decided(one, it), decided(other, it)]);
                    match change {
                        None => prop_assert!(verdicts.iter().all(|[was, is]| was == is)),
                        Some(change) if !named || change.device_id.is_some() => {
                            for (place, access) in [change.before, change.after].iter().enumerate() {
                                let allowed = verdicts.iter().filter(|it| it[place]).count();
                                match access {
                                    Access::None => prop_assert_eq!(allowed, 0),
                                    Access::Always => prop_assert_eq!(allowed, labels.len()),
                                    Access::Conditional => {}
                                }
                            }
                        }
                        Some(_of_the_others) => {}
                    }
                }
            }
        }
    }
}
