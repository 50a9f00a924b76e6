//! What it costs to find out whose access a change of policies changes, with 10,000 users, 1,000
//! groups, 5,000 resources and 2,000 policies.

use std::{
    collections::{BTreeMap, BTreeSet},
    hint::black_box,
    net::Ipv4Addr,
    time::Duration,
};

use adit_policy::{AccessSide, Evaluator, Reacher, access_difference};
use adit_proto::{
    GroupId, PolicyId, ResourceId, SiteId, Timestamp, UserId,
    api::{Conditions, Effect, Policy, Resource, ResourceSelector, SubjectSelector},
};
use criterion::{Criterion, criterion_group, criterion_main};
use ipnet::{IpNet, Ipv4Net};
use uuid::Uuid;

criterion_group! {
    name = benches;
    config = Criterion::default()
        .sample_size(10)
        .warm_up_time(Duration::from_millis(200))
        .measurement_time(Duration::from_secs(5));
    targets = difference
}
criterion_main!(benches);

const USERS: u32 = 10_000;
const GROUPS: u32 = 1_000;
const RESOURCES: u32 = 5_000;
const POLICIES: u32 = 2_000;

/// How many changes are named one by one.
const NAMED: usize = 1_000;

fn difference(criterion: &mut Criterion) {
    let resources: Vec<Resource> = (0..RESOURCES).map(resource).collect();
    let policies: Vec<Policy> = (0..POLICIES).map(policy).collect();
    let users: BTreeMap<UserId, Reacher> = (0..USERS).map(user).collect();
    let for_all = everyone_to_everything(POLICIES);
    let conditional = Policy {
        conditions: Conditions { posture: vec!["new".to_owned()], ..Conditions::default() },
        ..for_all.clone()
    };
    let one_less = policies.get(1..).unwrap_or_default().to_vec();
    let evaluator =
        |policies: &[Policy]| Evaluator::try_new(policies, &resources).expect("it compiles");
    let now = evaluator(&policies);
    let mut group = criterion.benchmark_group("difference of access");
    for (change, before, after) in [
        ("one policy less", &now, evaluator(&one_less)),
        ("all policies at once", &evaluator(&[]), evaluator(&policies)),
        (
            "one for everyone and everything",
            &now,
            evaluator(&[policies.as_slice(), &[for_all]].concat()),
        ),
        (
            "a conditional one for everyone and everything",
            &now,
            evaluator(&[policies.as_slice(), &[conditional]].concat()),
        ),
    ] {
        group.bench_function(change, |bencher| {
            bencher.iter(|| {
                let before = AccessSide { evaluator: before, users: &users };
                let after = AccessSide { evaluator: &after, users: &users };
                black_box(access_difference(before, after, NAMED))
            });
        });
    }
    group.finish();
}

fn user(number: u32) -> (UserId, Reacher) {
    let groups: BTreeSet<u32> = (0..8).map(|it| (number * 13 + it * 127) % GROUPS).collect();
    let reacher = Reacher {
        name: format!("user {number}"),
        groups: groups.into_iter().map(group_id).collect(),
        devices: Vec::new(),
    };
    (UserId::from_uuid(uuid(number)), reacher)
}

fn policy(number: u32) -> Policy {
    let all = everyone_to_everything(number);
    let posture = match number % 4 {
        0 => vec![format!("label-{}", number % 200)],
        _ => Vec::new(),
    };
    Policy {
        effect: if number.is_multiple_of(10) { Effect::Forbid } else { Effect::Permit },
        subjects: SubjectSelector {
            groups: vec![group_id(number % GROUPS), group_id(number * 7 % GROUPS)],
            ..SubjectSelector::default()
        },
        resources: match number % 3 {
            0 => ResourceSelector {
                ids: (0..20).map(|it| resource_id((number * 31 + it) % RESOURCES)).collect(),
                ..ResourceSelector::default()
            },
            _ => ResourceSelector {
                tags: vec![format!("tag-{}", number % 100)],
                ..ResourceSelector::default()
            },
        },
        conditions: Conditions { posture, ..Conditions::default() },
        ..all
    }
}

fn everyone_to_everything(number: u32) -> Policy {
    Policy {
        id: PolicyId::from_uuid(uuid(number)),
        name: format!("policy {number}"),
        effect: Effect::Permit,
        subjects: SubjectSelector { everyone: true, ..SubjectSelector::default() },
        resources: ResourceSelector { all: true, ..ResourceSelector::default() },
        conditions: Conditions::default(),
        disabled: false,
        created_at: Timestamp::default(),
        updated_at: Timestamp::default(),
    }
}

fn resource(number: u32) -> Resource {
    let address = Ipv4Addr::from_bits(Ipv4Addr::new(10, 0, 0, 0).to_bits() + number * 256);
    Resource {
        id: resource_id(number),
        name: format!("resource {number}"),
        site_id: SiteId::from_uuid(Uuid::nil()),
        addresses: vec![IpNet::V4(Ipv4Net::new(address, 24).expect("24 is a length"))],
        filters: Vec::new(),
        tags: vec![format!("tag-{}", number % 100), format!("env-{}", number % 3)],
        created_at: Timestamp::default(),
        updated_at: Timestamp::default(),
    }
}

fn group_id(number: u32) -> GroupId {
    GroupId::from_uuid(uuid(number))
}

fn resource_id(number: u32) -> ResourceId {
    ResourceId::from_uuid(uuid(number))
}

fn uuid(number: u32) -> Uuid {
    Uuid::from_u128(0x0193_f0a2_b7c8_7d34_a1e2_c3d4_0000_0000 + u128::from(number))
}
