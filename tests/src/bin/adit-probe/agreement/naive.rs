use std::net::IpAddr;

use adit_proto::Protocol;
use adit_tests::ApiConnection;
use serde_json::Value;

use super::{Decision, Question, devices::Subject, scenery::SHORT_SIGN_IN};

/// Decides as slowly and plainly as can be, by what the API shows.
pub(super) struct Naive {
    policies: Vec<Value>,
    resources: Vec<Value>,
    subjects: Vec<Subject>,
}

impl Naive {
    pub(super) fn read(api: &mut ApiConnection, subjects: &[Subject]) -> anyhow::Result<Self> {
        let mut policies = api.list("/v1/policies")?;
        policies.sort_by_key(id_of);

        Ok(Self { policies, resources: api.list("/v1/resources")?, subjects: subjects.to_vec() })
    }

    pub(super) fn decide(&self, question: &Question) -> Decision {
        let found = self.most_specific(question);
        let resource_id = found.map(|(resource, _)| id_of(resource));
        let decision = |allowed, reason: &str, policy_id| Decision {
            allowed,
            reason: reason.to_owned(),
            resource_id: resource_id.clone(),
            policy_id,
        };
        let alone = found.is_some_and(|(_, len)| {
            usize::from(len) == if question.destination.is_ipv4() { 32 } else { 128 }
        });
        if RESERVED.iter().any(|prefix| contains(prefix, question.destination)) && !alone {
            return decision(false, "address-reserved", None);
        }
        let Some((resource, _)) = found else {
            return decision(false, "resource-unknown", None);
        };
        let subject = &self.subjects[question.device];
        let matching = |effect: &str| {
            self.policies
                .iter()
                .filter(|policy| policy["effect"] == effect && policy["disabled"] == false)
                .find(|policy| {
                    names_subject(policy, subject)
                        && names_resource(policy, resource)
                        && unmet(policy).is_empty()
                })
                .map(id_of)
        };
        if let Some(policy) = matching("forbid") {
            return decision(false, "policy-forbids", Some(policy));
        }
        match matching("permit") {
            Some(policy) => decision(true, "policy-permits", Some(policy)),
            None => {
                let nearest = self
                    .policies
                    .iter()
                    .filter(|policy| policy["effect"] == "permit" && policy["disabled"] == false)
                    .filter(|policy| {
                        names_subject(policy, subject) && names_resource(policy, resource)
                    })
                    .min_by_key(|policy| unmet(policy).len());
                match nearest {
                    Some(policy) => decision(false, unmet(policy)[0], Some(id_of(policy))),
                    None => decision(false, "no-policy-permits", None),
                }
            }
        }
    }

    /// The resource with the longest prefix, then the fewest ports, then the smallest id, and the
    /// length of that prefix.
    fn most_specific(&self, question: &Question) -> Option<(&Value, u8)> {
        let mut candidates = Vec::new();
        for resource in &self.resources {
            let Some(ports) = ports_around(resource, question) else { continue };
            for prefix in strings(&resource["addresses"]) {
                if contains(prefix, question.destination) {
                    let len = prefix_len(prefix);
                    candidates.push((-i16::from(len), ports, id_of(resource), resource, len));
                }
            }
        }
        candidates.sort_by(|a, b| (a.0, a.1, &a.2).cmp(&(b.0, b.1, &b.2)));

        candidates.first().map(|(.., resource, len)| (*resource, *len))
    }
}

/// Where no packet is sent to unless a resource is that address alone.
const RESERVED: [&str; 13] = [
    "0.0.0.0/8",
    "127.0.0.0/8",
    "169.254.0.0/16",
    "224.0.0.0/4",
    "255.255.255.255/32",
    "::/104",
    "::127.0.0.0/104",
    "::ffff:0.0.0.0/104",
    "::ffff:127.0.0.0/104",
    "::ffff:169.254.0.0/112",
    "64:ff9b::169.254.0.0/112",
    "fe80::/10",
    "ff00::/8",
];

fn id_of(object: &Value) -> String {
    object["id"].as_str().unwrap_or_default().to_owned()
}

fn strings(list: &Value) -> Vec<&str> {
    list.as_array().into_iter().flatten().filter_map(Value::as_str).collect()
}

/// Compares the bits of a prefix with those of an address, one by one.
fn contains(prefix: &str, address: IpAddr) -> bool {
    let (network, _) = prefix.split_once('/').unwrap_or((prefix, ""));
    let network: IpAddr = network.parse().expect("the API shows prefixes");
    let (network, address) = (bits(network), bits(address));
    let len = usize::from(prefix_len(prefix));

    network.len() == address.len() && network[..len] == address[..len]
}

fn prefix_len(prefix: &str) -> u8 {
    match prefix.split_once('/') {
        Some((_, len)) => len.parse().expect("the API shows prefixes"),
        None if prefix.contains(':') => 128,
        None => 32,
    }
}

fn bits(address: IpAddr) -> Vec<bool> {
    let bytes = match address {
        IpAddr::V4(address) => address.octets().to_vec(),
        IpAddr::V6(address) => address.octets().to_vec(),
    };
    bytes.iter().flat_map(|byte| (0..8).rev().map(move |bit| byte >> bit & 1 == 1)).collect()
}

/// How many ports the smallest set has by which a resource lets the question's port in, if any.
fn ports_around(resource: &Value, question: &Question) -> Option<u32> {
    let filters = resource["filters"].as_array().cloned().unwrap_or_default();
    if filters.is_empty() {
        return Some(u32::MAX);
    }
    let mut sizes = Vec::new();
    for filter in &filters {
        if filter["protocol"] != question.protocol.to_string() {
            continue;
        }
        let ports = strings(&filter["ports"]);
        if ports.is_empty() || question.protocol == Protocol::Icmp {
            sizes.push(1_000_000);
        }
        for range in ports {
            let (first, last) = range.split_once('-').unwrap_or((range, range));
            let first: u32 = first.parse().expect("the API shows ports");
            let last: u32 = last.parse().expect("the API shows ports");
            if first <= u32::from(question.port) && u32::from(question.port) <= last {
                sizes.push(last - first + 1);
            }
        }
    }

    sizes.into_iter().min()
}

fn names_subject(policy: &Value, subject: &Subject) -> bool {
    let who = &policy["subjects"];
    who["everyone"] == true
        || strings(&who["users"]).contains(&subject.user_id.as_str())
        || strings(&who["devices"]).contains(&subject.device_id.as_str())
        || strings(&who["groups"]).iter().any(|group| subject.groups.contains(*group))
}

fn names_resource(policy: &Value, resource: &Value) -> bool {
    let what = &policy["resources"];
    let tags = strings(&resource["tags"]);
    what["all"] == true
        || strings(&what["ids"]).contains(&id_of(resource).as_str())
        || strings(&what["tags"]).iter().any(|tag| tags.contains(tag))
}

/// Which conditions do not hold for the devices of these tests: without posture, in the networks
/// that forbids name and permits do not, with a sign-in of some seconds by no method; on a day that
/// no window with days names.
fn unmet(policy: &Value) -> Vec<&'static str> {
    let when = &policy["conditions"];
    let has =
        |list: &str| !when[list].as_array().into_iter().flatten().collect::<Vec<_>>().is_empty();
    let is_short = when["authenticated_within_s"].as_u64() == Some(SHORT_SIGN_IN.as_secs());
    let windows = when["time_windows"].as_array().cloned().unwrap_or_default();
    let is_open = |window: &Value| strings(&window["days"]).is_empty();
    [
        (when["expires_at"].as_str().is_some_and(|at| at < "2100"), "policy-expired"),
        (has("posture"), "posture-failed"),
        (has("source_networks") && policy["effect"] == "permit", "source-network-other"),
        (is_short, "sign-in-too-old"),
        (has("authentication_methods"), "authentication-methods-missing"),
        (!windows.is_empty() && !windows.iter().any(is_open), "time-window-closed"),
    ]
    .into_iter()
    .filter_map(|(is_unmet, reason)| is_unmet.then_some(reason))
    .collect()
}
