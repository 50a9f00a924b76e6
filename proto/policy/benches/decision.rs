//! What a decision costs, uncached, with few and with many policies.

use std::{
    hint::black_box,
    net::Ipv4Addr,
    time::{Duration, Instant},
};

use adit_policy::{Authentication, Destination, Evaluator, Principal, Subject};
use adit_proto::{
    DeviceId, GroupId, PolicyId, Protocol, ResourceId, SiteId, Timestamp, UserId,
    api::{Conditions, Effect, Policy, Resource, ResourceSelector, SubjectSelector},
};
use criterion::{BenchmarkId, Criterion, criterion_group, criterion_main};
use uuid::Uuid;

criterion_group! {
    name = benches;
    config = Criterion::default()
        .sample_size(30)
        .warm_up_time(Duration::from_millis(200))
        .measurement_time(Duration::from_secs(1));
    targets = decision
}
criterion_main!(benches);

const COUNTS: [u32; 3] = [1, 100, 10_000];
const SUBJECTS: u32 = 1000;
const GROUPS: u32 = 200;
const GROUPS_OF_A_USER: u32 = 8;

/// Of a subject that was never seen, and of one whose policies are known; neither remembers an
/// earlier decision.
fn decision(criterion: &mut Criterion) {
    for (shape, policy) in [
        ("a resource each", a_resource_each as fn(u32) -> Policy),
        ("a tag each", a_tag_each),
        ("all resources", all_resources),
    ] {
        let mut group = criterion.benchmark_group(format!("decision, {shape}"));
        for count in COUNTS {
            let mut world = World::new(count, policy);
            world.report_quantiles(shape, count);
            group.bench_function(BenchmarkId::new("new subject", count), |bencher| {
                bencher.iter(|| world.decide_for_new_subject());
            });
            group.bench_function(BenchmarkId::new("known subject", count), |bencher| {
                bencher.iter(|| world.decide());
            });
        }
        group.finish();
    }
}

struct World {
    evaluator: Evaluator,
    principals: Vec<Principal>,
    resources: u32,
    next: u32,
    now: Timestamp,
}

impl World {
    fn new(count: u32, policy: fn(u32) -> Policy) -> Self {
        let policies: Vec<Policy> = (0..count).map(policy).collect();
        let resources: Vec<Resource> = (0..count).map(resource).collect();
        let evaluator = Evaluator::try_new(&policies, &resources).expect("the sample compiles");
        let principals = (0..SUBJECTS).map(|number| Principal::new(subject(number))).collect();
        Self { evaluator, principals, resources: count, next: 0, now: now() }
    }

    fn decide(&mut self) -> bool {
        let (principal, destination) = self.next_flow();
        let principal = self.principals.get_mut(principal).expect("there are a thousand");
        principal.decide(&self.evaluator, black_box(&destination), self.now).is_ok()
    }

    fn decide_for_new_subject(&mut self) -> bool {
        let (principal, destination) = self.next_flow();
        let subject = self.principals.get(principal).expect("there are a thousand").subject();
        self.evaluator.evaluate(subject, black_box(&destination), self.now).is_ok()
    }

    /// In a stride that meets every resource in no order that a cache would like, and so much later
    /// than the last that nothing is remembered. Three of four are of a group that is permitted.
    fn next_flow(&mut self) -> (usize, Destination) {
        self.next = self.next.wrapping_add(1);
        self.now = self.now.saturating_add(Duration::from_secs(2));
        let resource = self.next.wrapping_mul(7919) % self.resources;
        let stranger = u32::from(self.next.is_multiple_of(4));
        let principal = (resource + stranger) % GROUPS + GROUPS * (self.next % (SUBJECTS / GROUPS));
        let destination =
            Destination { address: address(resource).into(), port: 443, protocol: Protocol::Tcp };
        (usize::try_from(principal).unwrap_or_default(), destination)
    }

    /// Criterion knows means and medians, but the promise is about the slowest of a hundred.
    #[expect(clippy::disallowed_methods, reason = "a bench reads the clock")]
    fn report_quantiles(&mut self, shape: &str, count: u32) {
        const DECISIONS: usize = 20_000;

        for (name, decide) in [
            ("new subject", Self::decide_for_new_subject as fn(&mut Self) -> bool),
            ("known subject", Self::decide),
        ] {
            let mut permitted = 0;
            let mut took: Vec<Duration> = (0..DECISIONS)
                .map(|_decision| {
                    let started = Instant::now();
                    permitted += u32::from(decide(self));
                    started.elapsed()
                })
                .collect();
            took.sort_unstable();
            let quantile = |permille: usize| took.get(DECISIONS * permille / 1000).copied();
            let [p50, p99] = [500, 990].map(|permille| quantile(permille).unwrap_or_default());
            eprintln!(
                "{shape}, {count} policies, {name}: p50 {p50:?}, p99 {p99:?}, \
                 {permitted} of {DECISIONS} permitted",
            );
        }
    }
}

/// One group may reach one resource.
fn a_resource_each(number: u32) -> Policy {
    let ids = vec![resource_id(number)];
    policy(number, ResourceSelector { ids, ..ResourceSelector::default() })
}

/// One group may reach what has a tag, which a hundredth of all resources have.
fn a_tag_each(number: u32) -> Policy {
    policy(number, ResourceSelector { tags: vec![tag(number)], ..ResourceSelector::default() })
}

/// One group may reach everything.
fn all_resources(number: u32) -> Policy {
    policy(number, ResourceSelector { all: true, ..ResourceSelector::default() })
}

/// Every tenth has a condition on posture, every tenth one on the sign-in, and every twentieth
/// forbids what comes from a foreign network.
fn policy(number: u32, resources: ResourceSelector) -> Policy {
    let mut conditions = Conditions::default();
    let mut effect = Effect::Permit;
    match number % 20 {
        3 | 13 => conditions.posture = vec!["disk-encrypted".to_owned()],
        7 | 17 => conditions.authenticated_within_s = Some(u32::MAX.into()),
        19 => {
            effect = Effect::Forbid;
            conditions.source_networks = vec!["198.51.100.0/24".parse().expect("a prefix")];
        }
        _ => {}
    }
    Policy {
        id: PolicyId::from_uuid(uuid(number)),
        name: format!("policy {number}"),
        effect,
        subjects: SubjectSelector {
            groups: vec![group_id(number % GROUPS)],
            ..SubjectSelector::default()
        },
        resources,
        conditions,
        disabled: false,
        created_at: now(),
        updated_at: now(),
    }
}

fn resource(number: u32) -> Resource {
    Resource {
        id: resource_id(number),
        name: format!("resource {number}"),
        site_id: SiteId::from_uuid(Uuid::nil()),
        addresses: vec![std::net::IpAddr::V4(address(number)).into()],
        filters: Vec::new(),
        tags: vec![tag(number), "env:prod".to_owned()],
        created_at: now(),
        updated_at: now(),
    }
}

fn subject(number: u32) -> Subject {
    Subject {
        device_id: DeviceId::from_uuid(uuid(number)),
        user_id: UserId::from_uuid(uuid(number)),
        groups: (0..GROUPS_OF_A_USER)
            .map(|group| group_id((number + group * (GROUPS / GROUPS_OF_A_USER)) % GROUPS))
            .collect(),
        posture: vec!["disk-encrypted".to_owned(), "os:patched".to_owned()],
        source: Some(Ipv4Addr::new(192, 0, 2, 1).into()),
        authentication: Some(Authentication { at: now(), methods: vec!["pwd".to_owned()] }),
        expires_at: None,
    }
}

fn tag(number: u32) -> String {
    format!("team:{}", number % 100)
}

fn address(number: u32) -> Ipv4Addr {
    Ipv4Addr::from_bits(Ipv4Addr::new(10, 0, 0, 0).to_bits() + number)
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

fn now() -> Timestamp {
    Timestamp::from_millis(1_767_225_600_000)
}
