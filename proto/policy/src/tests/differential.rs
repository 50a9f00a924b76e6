//! The evaluator against one that is slow, obvious and knows nothing of Cedar.

use std::net::IpAddr;

use adit_proto::{
    PolicyId, PortRange, Protocol, Reason, ResourceId, Timestamp,
    api::{
        Check, Conditions, Effect, Policy, PortFilter, Resource, ResourceSelector, SubjectSelector,
        TimeWindow, TraceOutcome, Weekday,
    },
};
use ipnet::IpNet;
use proptest::{collection::vec, option, prelude::*, sample::select};

use super::sample::{device_id, forbid, group_id, now, permit, resource, resource_id, user_id};
use crate::{Authentication, Destination, Evaluator, Principal, Subject};

proptest! {
    // 500 bundles with 200 flows each.
    #![proptest_config(ProptestConfig { cases: 500, ..ProptestConfig::default() })]

    #[test]
    fn a_naive_evaluator_agrees_and_so_does_the_explanation(
        policies in policies(),
        resources in resources(),
        flows in vec((subject(), destination()), 200),
    ) {
        let evaluator = Evaluator::try_new(&policies, &resources).unwrap();
        for (subject, destination) in &flows {
            let naive = Naive { policies: &policies, resources: &resources, subject, destination };
            let expected = naive.decide();

            let found = match evaluator.evaluate(subject, destination, now()) {
                Ok(authorization) => {
                    prop_assert!(authorization.is_live(now()));
                    Outcome {
                        reason: Reason::PolicyPermits,
                        resource_id: Some(authorization.resource_id()),
                        policy_id: Some(authorization.policy_id()),
                        expires_at: authorization.expires_at(),
                    }
                }
                Err(denial) => Outcome {
                    reason: denial.reason,
                    resource_id: denial.resource_id,
                    policy_id: denial.policy_id,
                    expires_at: None,
                },
            };
            prop_assert_eq!(&found, &expected);

            let mut principal = Principal::new(subject.clone());
            for _ in 0..2 {
                let again = principal.decide(&evaluator, destination, now());
                prop_assert_eq!(again.map_err(|it| it.reason).err(), found.denied());
            }

            let explanation = evaluator.explain(subject, destination, now());
            prop_assert_eq!(explanation.allowed, found.reason == Reason::PolicyPermits);
            prop_assert_eq!(explanation.reason, found.reason);
            prop_assert_eq!(explanation.resource_id, found.resource_id);
            prop_assert_eq!(explanation.policy_id, found.policy_id);
            let trace: Vec<_> = explanation
                .trace
                .into_iter()
                .map(|line| (line.policy_id, line.outcome, line.checks))
                .collect();
            prop_assert_eq!(trace, naive.trace());

            let at = evaluator.resource_at(destination).map(|resource| resource.id);
            prop_assert_eq!(at, found.resource_id);
        }
    }

    #[test]
    fn what_a_subject_may_reach_is_visible_to_it(
        policies in policies(),
        resources in resources(),
        flows in vec((subject(), destination()), 50),
    ) {
        let evaluator = Evaluator::try_new(&policies, &resources).unwrap();
        for (subject, destination) in &flows {
            let visible =
                evaluator.visible_resources(subject.user_id, &subject.groups, subject.device_id);
            if let Ok(authorization) = evaluator.evaluate(subject, destination, now()) {
                let reached = authorization.resource_id();
                prop_assert!(visible.iter().any(|resource| resource.id == reached));
            }
            let mut permitted: Vec<_> = resources
                .iter()
                .filter(|resource| {
                    policies.iter().any(|policy| {
                        !policy.disabled
                            && policy.effect == Effect::Permit
                            && speaks_of(policy, resource)
                            && is_subject(policy, subject)
                    })
                })
                .collect();
            permitted.sort_by_key(|resource| resource.id);
            prop_assert_eq!(visible, permitted);
        }
    }
}

#[derive(Debug, PartialEq, Eq)]
struct Outcome {
    reason: Reason,
    resource_id: Option<ResourceId>,
    policy_id: Option<PolicyId>,
    expires_at: Option<Timestamp>,
}

impl Outcome {
    fn denied(&self) -> Option<Reason> {
        (self.reason != Reason::PolicyPermits).then_some(self.reason)
    }
}

struct Naive<'a> {
    policies: &'a [Policy],
    resources: &'a [Resource],
    subject: &'a Subject,
    destination: &'a Destination,
}

impl Naive<'_> {
    fn decide(&self) -> Outcome {
        let best = self.best();
        let resource_id = best.map(|(_prefix_len, resource)| resource.id);
        let deny = |reason, policy_id| Outcome { reason, resource_id, policy_id, expires_at: None };
        if let Some(expires_at) = self.subject.expires_at
            && now() >= expires_at
        {
            return deny(Reason::CredentialExpired, None);
        }
        let is_alone = best.is_some_and(|(prefix_len, _resource)| {
            prefix_len == if self.destination.address.is_ipv4() { 32 } else { 128 }
        });
        if !is_alone && is_reserved(self.destination.address) {
            return deny(Reason::AddressReserved, None);
        }
        if best.is_none() {
            return deny(Reason::ResourceUnknown, None);
        }
        let matched = |effect| {
            self.trace()
                .into_iter()
                .filter(|(_id, outcome, _checks)| *outcome == TraceOutcome::Matched)
                .map(|(id, _outcome, _checks)| self.policy(id))
                .find(|policy| policy.effect == effect)
        };
        if let Some(policy) = matched(Effect::Forbid) {
            return deny(Reason::PolicyForbids, Some(policy.id));
        }
        let Some(policy) = matched(Effect::Permit) else {
            return match self.nearest() {
                Some((id, reason)) => deny(reason, Some(id)),
                None => deny(Reason::NoPolicyPermits, None),
            };
        };
        let mut ends: Vec<Timestamp> = self.subject.expires_at.into_iter().collect();
        if let Some(limit) = policy.conditions.authenticated_within_s {
            let signed_in = self.subject.authentication.as_ref().unwrap().at.as_millis();
            ends.push(Timestamp::from_millis(signed_in + i64::try_from(limit).unwrap() * 1000));
        }
        ends.extend(policy.conditions.expires_at);
        ends.extend(turn(&policy.conditions.time_windows));
        for (id, _outcome, checks) in self.trace() {
            let policy = self.policy(id);
            let unmet: Vec<_> = checks.into_iter().filter(|check| !check.is_met()).collect();
            if policy.effect == Effect::Forbid && unmet == [Check::TimeWindowClosed] {
                ends.extend(turn(&policy.conditions.time_windows));
            }
        }
        Outcome {
            reason: Reason::PolicyPermits,
            resource_id,
            policy_id: Some(policy.id),
            expires_at: ends.into_iter().min(),
        }
    }

    fn best(&self) -> Option<(u8, &Resource)> {
        let mut best: Option<((u8, i64), &Resource)> = None;
        for resource in self.resources {
            let Some(ports) = ports(resource, self.destination) else { continue };
            for network in &resource.addresses {
                if !contains(network, self.destination.address) {
                    continue;
                }
                let rank = (network.prefix_len(), -ports);
                let is_better = best.is_none_or(|(best_rank, best)| {
                    rank > best_rank || (rank == best_rank && resource.id < best.id)
                });
                if is_better {
                    best = Some((rank, resource));
                }
            }
        }
        best.map(|((prefix_len, _ports), resource)| (prefix_len, resource))
    }

    fn policy(&self, id: PolicyId) -> &Policy {
        self.policies.iter().find(|policy| policy.id == id).unwrap()
    }

    /// The permit with the fewest unmet checks, all of them of conditions.
    fn nearest(&self) -> Option<(PolicyId, Reason)> {
        let missing = self.trace().into_iter().filter_map(|(id, _outcome, checks)| {
            let unmet: Vec<_> = checks.into_iter().filter(|check| !check.is_met()).collect();
            let reasons: Option<Vec<Reason>> = unmet.into_iter().map(reason).collect();
            let is_permit = self.policy(id).effect == Effect::Permit;
            reasons.filter(|_reasons| is_permit).map(|reasons| (id, reasons))
        });
        let nearest = missing.min_by_key(|(_id, reasons)| reasons.len());
        nearest.and_then(|(id, reasons)| Some((id, *reasons.first()?)))
    }

    fn trace(&self) -> Vec<(PolicyId, TraceOutcome, Vec<Check>)> {
        let Some((_prefix_len, resource)) = self.best() else { return vec![] };
        let mut trace: Vec<_> = self
            .policies
            .iter()
            .filter(|policy| !policy.disabled && speaks_of(policy, resource))
            .map(|policy| {
                let checks = checks(policy, self.subject);
                let is_met = checks.iter().all(|check| check.is_met());
                let outcome = if is_met { TraceOutcome::Matched } else { TraceOutcome::Unmet };
                (policy.id, outcome, checks)
            })
            .collect();
        trace.sort_by_key(|(id, ..)| *id);
        trace
    }
}

/// Of the subject, and of each condition that a policy has.
fn checks(policy: &Policy, subject: &Subject) -> Vec<Check> {
    let Conditions {
        posture,
        source_networks,
        authenticated_within_s,
        authentication_methods,
        time_windows,
        expires_at,
    } = &policy.conditions;
    let is_forbid = policy.effect == Effect::Forbid;
    let choose = |is_met: bool, met, unmet| if is_met { met } else { unmet };
    let SubjectSelector { everyone, users, groups, devices } = &policy.subjects;
    let named =
        *everyone || users.contains(&subject.user_id) || devices.contains(&subject.device_id);
    let mut checks = vec![if named {
        Check::SubjectOk
    } else if is_subject(policy, subject) {
        Check::GroupsOk
    } else {
        choose(groups.is_empty(), Check::SubjectOther, Check::GroupsMissing)
    }];
    if let Some(expires_at) = expires_at {
        let is_met = now().as_millis() < expires_at.as_millis();
        checks.push(choose(is_met, Check::ExpiryOk, Check::PolicyExpired));
    }
    if !posture.is_empty() {
        let missing = posture.iter().filter(|label| !subject.posture.contains(label)).count();
        checks.push(choose(missing == 0, Check::PostureOk, Check::PostureFailed));
    }
    if !source_networks.is_empty() {
        let is_there = match subject.source {
            None => is_forbid,
            Some(source) => source_networks.iter().any(|network| contains(network, source)),
        };
        checks.push(choose(is_there, Check::SourceNetworkOk, Check::SourceNetworkOther));
    }
    if let Some(limit) = authenticated_within_s {
        let is_recent = match &subject.authentication {
            None => is_forbid,
            Some(Authentication { at, .. }) => {
                now().as_millis() - at.as_millis() < i64::try_from(*limit).unwrap() * 1000
            }
        };
        checks.push(choose(is_recent, Check::SignInAgeOk, Check::SignInTooOld));
    }
    if !authentication_methods.is_empty() {
        let is_met = match &subject.authentication {
            None => is_forbid,
            Some(Authentication { methods, .. }) => {
                !authentication_methods.iter().any(|method| !methods.contains(method))
            }
        };
        let (met, unmet) = (Check::AuthenticationMethodsOk, Check::AuthenticationMethodsMissing);
        checks.push(choose(is_met, met, unmet));
    }
    if !time_windows.is_empty() {
        let is_open = time_windows.iter().any(|window| match minute(&window.time_zone) {
            None => is_forbid,
            Some(minute) => {
                let now = minute.rem_euclid(7 * 1440);
                hours(window).iter().any(|(from, to)| (*from..*to).contains(&now))
            }
        });
        checks.push(choose(is_open, Check::TimeWindowOk, Check::TimeWindowClosed));
    }
    checks
}

/// Why nothing passes where this is not met; none: the policy is about somebody else.
fn reason(unmet: Check) -> Option<Reason> {
    [
        (Check::PostureFailed, Reason::PostureFailed),
        (Check::SourceNetworkOther, Reason::SourceNetworkOther),
        (Check::SignInTooOld, Reason::SignInTooOld),
        (Check::AuthenticationMethodsMissing, Reason::AuthenticationMethodsMissing),
        (Check::TimeWindowClosed, Reason::TimeWindowClosed),
        (Check::PolicyExpired, Reason::PolicyExpired),
    ]
    .into_iter()
    .find_map(|(check, reason)| (check == unmet).then_some(reason))
}

fn is_subject(policy: &Policy, subject: &Subject) -> bool {
    let SubjectSelector { everyone, users, groups, devices } = &policy.subjects;
    *everyone
        || users.contains(&subject.user_id)
        || groups.iter().any(|group| subject.groups.contains(group))
        || devices.contains(&subject.device_id)
}

fn speaks_of(policy: &Policy, resource: &Resource) -> bool {
    let ResourceSelector { all, ids, tags } = &policy.resources;
    *all || ids.contains(&resource.id) || tags.iter().any(|tag| resource.tags.contains(tag))
}

/// How many ports the narrowest matching filter lets through.
fn ports(resource: &Resource, destination: &Destination) -> Option<i64> {
    if resource.filters.is_empty() {
        return Some(1_000_000);
    }
    let mut narrowest = None;
    for filter in &resource.filters {
        if filter.protocol != destination.protocol {
            continue;
        }
        let mut counts = vec![];
        if filter.ports.is_empty() {
            counts.push(100_000);
        }
        for range in &filter.ports {
            if (0..=u16::MAX).any(|port| port == destination.port && range.contains(port)) {
                counts.push(i64::from(range.count()));
            }
        }
        for count in counts {
            narrowest = Some(narrowest.map_or(count, |narrowest: i64| narrowest.min(count)));
        }
    }
    narrowest
}

/// Bit by bit. An IPv4 address is the same inside IPv6, for sources at least.
fn contains(network: &IpNet, address: IpAddr) -> bool {
    let (prefix, len, bits, width) = match (network, address) {
        (IpNet::V4(network), IpAddr::V4(address)) => {
            (network.addr().to_bits().into(), network.prefix_len(), address.to_bits().into(), 32)
        }
        (IpNet::V6(network), IpAddr::V6(address)) => {
            (network.addr().to_bits(), network.prefix_len(), address.to_bits(), 128)
        }
        (IpNet::V4(_), IpAddr::V6(_)) | (IpNet::V6(_), IpAddr::V4(_)) => return false,
    };
    (width - u32::from(len)..width).all(|bit| (prefix ^ bits) >> bit & 1 == 0)
}

fn is_reserved(address: IpAddr) -> bool {
    [
        "0.0.0.0/8",
        "127.0.0.0/8",
        "169.254.0.0/16",
        "224.0.0.0/4",
        "255.255.255.255/32",
        "::/104",
        "::ffff:127.0.0.0/104",
        "64:ff9b::169.254.0.0/112",
        "fe80::/10",
        "ff00::/8",
    ]
    .iter()
    .any(|network| contains(&network.parse().unwrap(), address))
}

fn policies() -> impl Strategy<Value = Vec<Policy>> {
    vec((any::<[bool; 2]>(), subjects(), resource_selector(), conditions()), 0..10).prop_map(
        |parts| {
            let numbers = (1..100_u128).rev();
            let policies =
                parts.into_iter().zip(numbers).map(|((flags, who, what, when), number)| {
                    let [is_forbid, is_disabled] = flags;
                    let from = if is_forbid { forbid(number) } else { permit(number) };
                    Policy {
                        subjects: who,
                        resources: what,
                        conditions: when,
                        disabled: is_disabled && number % 3 == 0,
                        ..from
                    }
                });
            policies.collect()
        },
    )
}

fn subjects() -> impl Strategy<Value = SubjectSelector> {
    let listed = (vec(0..4_u128, 0..3), vec(0..4_u128, 0..3), vec(0..4_u128, 0..3)).prop_map(
        |(users, groups, devices)| SubjectSelector {
            everyone: false,
            users: users.into_iter().map(user_id).collect(),
            groups: groups.into_iter().map(group_id).collect(),
            devices: devices.into_iter().map(device_id).collect(),
        },
    );
    let everyone = SubjectSelector { everyone: true, ..SubjectSelector::default() };
    prop_oneof![Just(everyone), listed]
}

fn resource_selector() -> impl Strategy<Value = ResourceSelector> {
    let listed = (vec(0..10_u128, 0..4), tags()).prop_map(|(ids, tags)| ResourceSelector {
        all: false,
        ids: ids.into_iter().map(resource_id).collect(),
        tags,
    });
    let all = ResourceSelector { all: true, ..ResourceSelector::default() };
    prop_oneof![Just(all), listed]
}

fn tags() -> impl Strategy<Value = Vec<String>> {
    vec(select(vec!["db", "web", "env:prod"]).prop_map(str::to_owned), 0..3)
}

fn posture() -> impl Strategy<Value = Vec<String>> {
    vec(select(vec!["encrypted", "patched", "managed"]).prop_map(str::to_owned), 0..3)
}

fn conditions() -> impl Strategy<Value = Conditions> {
    let networks = ["192.0.2.0/24", "192.0.0.0/16", "2001:db8::/32", "0.0.0.0/0", "::/0"];
    let networks = networks.map(|network| network.parse().unwrap()).to_vec();
    let usually_none =
        |strategy: BoxedStrategy<Vec<_>>| prop_oneof![3 => Just(vec![]), 1 => strategy];
    let usually_none_of_methods = prop_oneof![3 => Just(vec![]), 1 => methods()];
    let usually_none_of_windows = prop_oneof![3 => Just(vec![]), 1 => vec(time_window(), 0..3)];
    (
        prop_oneof![2 => Just(vec![]), 1 => posture()],
        usually_none(vec(select(networks), 0..3).boxed()),
        option::weighted(0.3, select(vec![1, 60, 3600, 31_536_000])),
        usually_none_of_methods,
        usually_none_of_windows,
        option::weighted(0.2, select(vec![-1_i64, 0, 1, 30_000, 3_600_000])),
    )
        .prop_map(
            |(posture, source_networks, authenticated_within_s, methods, windows, ends)| {
                Conditions {
                    posture,
                    source_networks,
                    authenticated_within_s,
                    authentication_methods: methods,
                    time_windows: windows,
                    expires_at: ends.map(|millis| before_now(-millis)),
                }
            },
        )
}

fn methods() -> impl Strategy<Value = Vec<String>> {
    vec(select(vec!["pwd", "mfa", "hwk"]).prop_map(str::to_owned), 0..3)
}

/// The zones that [`minute`] knows.
const ZONES: [&str; 5] =
    ["UTC", "Europe/Berlin", "America/New_York", "Asia/Kathmandu", "Europe/Atlantis"];

fn time_window() -> impl Strategy<Value = TimeWindow> {
    let times = ["00:00", "00:01", "00:05", "01:00", "01:10", "05:45", "18:00", "19:03", "23:59"];
    let times = times.map(|time| time.parse().unwrap()).to_vec();
    (
        vec(select(Weekday::ALL.to_vec()), 0..4),
        [select(times.clone()), select(times)],
        select(ZONES.to_vec()),
    )
        .prop_map(|(days, [from, to], zone)| TimeWindow {
            days,
            from,
            to,
            time_zone: zone.to_owned(),
        })
}

/// The minute of the week at the beginning of 2026, a Thursday, by the clocks of a zone.
fn minute(zone: &str) -> Option<i64> {
    let ahead = match zone {
        "UTC" => 0,
        "Europe/Berlin" => 60,
        "America/New_York" => -300,
        "Asia/Kathmandu" => 345,
        _ => return None,
    };
    Some(3 * 1440 + ahead)
}

/// When a window begins and ends, in minutes of one week and the next.
fn hours(window: &TimeWindow) -> Vec<(i64, i64)> {
    let [from, to] = [window.from, window.to].map(|time| i64::from(time.minutes()));
    let to = if to <= from { to + 1440 } else { to };
    let is_day = |day: &Weekday| window.days.is_empty() || window.days.contains(day);
    let days = (0..7).zip(Weekday::ALL).filter(|(_number, day)| is_day(day));
    days.flat_map(|(number, _day)| {
        [-7, 0].map(|week| ((week + number) * 1440 + from, (week + number) * 1440 + to))
    })
    .collect()
}

/// The next minute at which a window begins or ends, or a quarter of an hour does.
fn turn(windows: &[TimeWindow]) -> Option<Timestamp> {
    let is_turn = |later: i64| {
        windows.iter().any(|window| {
            minute(&window.time_zone).is_some_and(|minute| {
                let now = (minute + later).rem_euclid(7 * 1440);
                hours(window).iter().any(|(from, to)| {
                    from.rem_euclid(7 * 1440) == now || to.rem_euclid(7 * 1440) == now
                })
            })
        })
    };
    let first = (1..=15).find(|later| *later == 15 || is_turn(*later))?;
    let midnight = now().as_millis() / 60_000 * 60_000;
    (!windows.is_empty()).then(|| Timestamp::from_millis(midnight + first * 60_000))
}

fn resources() -> impl Strategy<Value = Vec<Resource>> {
    let prefixes = [
        "0.0.0.0/0",
        "10.0.0.0/8",
        "10.0.0.0/9",
        "10.1.0.0/16",
        "10.1.2.0/24",
        "10.1.2.3/32",
        "127.0.0.0/8",
        "127.0.0.1/32",
        "169.254.0.0/16",
        "::/0",
        "fd00::/8",
        "fd00::1/128",
        "fe80::1/128",
        "64:ff9b::/96",
    ];
    let prefixes = prefixes.map(|prefix| prefix.parse().unwrap()).to_vec();
    vec((vec(select(prefixes), 1..4), filters(), tags()), 0..8).prop_map(|parts| {
        let of = |((addresses, filters, tags), number)| Resource {
            addresses,
            filters,
            tags,
            ..resource(number, "::/0")
        };
        parts.into_iter().zip((1..9).rev()).map(of).collect()
    })
}

fn filters() -> impl Strategy<Value = Vec<PortFilter>> {
    let ranges = [(22, 22), (80, 80), (1, 1023), (80, 90), (8000, 8100), (1, 65535)];
    let ranges = ranges.map(|(first, last)| PortRange::try_new(first, last).unwrap()).to_vec();
    let filter = (protocol(), vec(select(ranges), 0..3)).prop_map(|(protocol, ports)| PortFilter {
        ports: if protocol == Protocol::Icmp { vec![] } else { ports },
        protocol,
    });
    vec(filter, 0..3)
}

fn protocol() -> impl Strategy<Value = Protocol> {
    select(vec![Protocol::Tcp, Protocol::Tcp, Protocol::Udp, Protocol::Icmp])
}

fn destination() -> impl Strategy<Value = Destination> {
    let addresses = [
        "10.1.2.3",
        "10.1.2.4",
        "10.1.3.1",
        "10.9.0.1",
        "10.200.0.1",
        "8.8.8.8",
        "127.0.0.1",
        "127.0.0.2",
        "169.254.169.254",
        "0.0.0.0",
        "255.255.255.255",
        "224.0.0.251",
        "::1",
        "::",
        "fd00::1",
        "fd00::2",
        "2001:db8::1",
        "fe80::1",
        "fe80::2",
        "ff02::1",
        "::ffff:127.0.0.1",
        "64:ff9b::169.254.169.254",
        "64:ff9b::10.1.2.3",
    ];
    let addresses: Vec<IpAddr> = addresses.map(|address| address.parse().unwrap()).to_vec();
    let ports = select(vec![0, 1, 22, 80, 85, 90, 91, 443, 1023, 8000, 8100, 8101, 65535]);
    (select(addresses), ports, protocol()).prop_map(|(address, port, protocol)| Destination {
        address,
        port,
        protocol,
    })
}

fn subject() -> impl Strategy<Value = Subject> {
    let sources = ["192.0.2.1", "192.0.3.1", "203.0.113.9", "2001:db8::9", "2001:db9::9"];
    let sources: Vec<IpAddr> = sources.map(|source| source.parse().unwrap()).to_vec();
    let ago = select(vec![-5000, 0, 1, 999, 1000, 59_999, 60_000, 60_001, 3_600_000, 86_400_000]);
    (
        [0..4_u128, 0..4_u128],
        vec(0..4_u128, 0..3),
        posture(),
        option::weighted(0.8, select(sources)),
        option::weighted(0.8, (ago, methods())),
        option::weighted(0.8, select(vec![-1_i64, 0, 1, 500, 60_000, 3_600_000])),
    )
        .prop_map(|([device, user], groups, posture, source, authentication, ends_in)| {
            Subject {
                device_id: device_id(device),
                user_id: user_id(user),
                groups: groups.into_iter().map(group_id).collect(),
                posture,
                source,
                authentication: authentication
                    .map(|(ago, methods)| Authentication { at: before_now(ago), methods }),
                expires_at: ends_in.map(|millis| before_now(-millis)),
            }
        })
}

fn before_now(millis: i64) -> Timestamp {
    Timestamp::from_millis(now().as_millis() - millis)
}
