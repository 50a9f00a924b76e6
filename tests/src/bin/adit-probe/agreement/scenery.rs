use std::{
    collections::{BTreeMap, BTreeSet},
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
    time::{Duration, SystemTime},
};

use adit_proto::Protocol;
use adit_tests::{ApiConnection, Random};
use anyhow::{Context as _, ensure};
use ipnet::IpNet;
use serde_json::{Value, json};

use super::Question;

/// A sign-in of these tests is older than this when questions are asked.
pub(super) const SHORT_SIGN_IN: Duration = Duration::from_secs(2);

/// And never as old as this.
const LONG_SIGN_IN: Duration = Duration::from_secs(86_400);

const USERS: usize = 12;
const GROUPS: usize = 6;
const RESOURCES: usize = 40;
const FEWEST_POLICIES: usize = 4;
const MOST_POLICIES: usize = 30;
const TAGS: [&str; 6] = ["db", "web", "env:prod", "env:test", "ssh", "legacy"];
const PORTS: [u16; 12] = [1, 22, 79, 80, 81, 443, 1023, 1024, 8000, 8050, 8100, 65_535];

/// Users, groups, and ever new resources and policies.
pub(super) struct Scenery {
    site: String,
    users: Vec<String>,
    groups: Vec<String>,
    members: BTreeMap<String, BTreeSet<String>>,
    resources: Vec<String>,
    policies: Vec<String>,
    /// Where there is something to find.
    prefixes: Vec<IpNet>,
    round: u32,
}

impl Scenery {
    pub(super) fn new(
        api: &mut ApiConnection,
        site: &str,
        random: &mut Random,
    ) -> anyhow::Result<Self> {
        let mut scenery = Self {
            site: site.to_owned(),
            users: Vec::new(),
            groups: Vec::new(),
            members: BTreeMap::new(),
            resources: Vec::new(),
            policies: Vec::new(),
            prefixes: Vec::new(),
            round: 0,
        };
        for number in 0..USERS {
            let user = create(api, "/v1/users", &json!({ "name": format!("user {number}") }))?;
            scenery.users.push(user);
        }
        for number in 0..GROUPS {
            let group = create(api, "/v1/groups", &json!({ "name": format!("group {number}") }))?;
            for user in &scenery.users {
                if random.percent(30) {
                    let path = format!("/v1/groups/{group}/members/{user}");
                    let answer = api.request("PUT", &path, &[], None)?;
                    ensure!(answer.status < 300, "{path}: {answer:?}");
                    scenery.members.entry(user.clone()).or_default().insert(group.clone());
                }
            }
            scenery.groups.push(group);
        }

        Ok(scenery)
    }

    pub(super) fn users(&self) -> &[String] {
        &self.users
    }

    pub(super) fn groups_of(&self, user: &str) -> BTreeSet<String> {
        self.members.get(user).cloned().unwrap_or_default()
    }

    /// Replaces resources and policies by others; returns address and id of the resource that was
    /// written last.
    pub(super) fn rewrite(
        &mut self,
        api: &mut ApiConnection,
        random: &mut Random,
    ) -> anyhow::Result<(IpAddr, String)> {
        for (path, ids) in [
            ("/v1/policies", std::mem::take(&mut self.policies)),
            ("/v1/resources", std::mem::take(&mut self.resources)),
        ] {
            for id in ids {
                let path = format!("{path}/{id}");
                let etag = api.request("GET", &path, &[], None)?.etag.context("no ETag")?;
                let if_match = format!("If-Match: {etag}");
                let answer = api.request("DELETE", &path, &[&if_match], None)?;
                ensure!(answer.status == 204, "{path}: {answer:?}");
            }
        }
        self.round += 1;
        self.prefixes.clear();
        for number in 0..RESOURCES {
            let body = self.resource(number, random);
            self.resources.push(create(api, "/v1/resources", &body)?);
        }
        // With few of them most flows are permitted by none, with many most are forbidden by one.
        let policies = FEWEST_POLICIES + random.below(MOST_POLICIES - FEWEST_POLICIES);
        for number in 0..policies {
            let body = self.policy(number, random);
            self.policies.push(create(api, "/v1/policies", &body)?);
        }
        let marker = Ipv4Addr::from_bits(Ipv4Addr::new(203, 0, 113, 0).to_bits() + self.round);
        let body = json!({
            "name": format!("marker {}", self.round),
            "site_id": self.site,
            "addresses": [format!("{marker}/32")],
        });
        let id = create(api, "/v1/resources", &body)?;
        self.resources.push(id.clone());

        Ok((marker.into(), id))
    }

    fn resource(&mut self, number: usize, random: &mut Random) -> Value {
        let count = 1 + random.below(3);
        let addresses: BTreeSet<IpNet> = (0..count).map(|_| prefix(random)).collect();
        self.prefixes.extend(&addresses);
        let filters: Vec<Value> = (0..random.below(4)).map(|_| filter(random)).collect();
        let tags: BTreeSet<_> = (0..random.below(3)).map(|_| *random.pick(&TAGS)).collect();

        json!({
            "name": format!("resource {number} of {}", self.round),
            "site_id": self.site,
            "addresses": addresses,
            "filters": filters,
            "tags": tags,
        })
    }

    fn policy(&self, number: usize, random: &mut Random) -> Value {
        let some = |from: &[String], random: &mut Random| -> BTreeSet<String> {
            (0..random.below(4)).map(|_| random.pick(from).clone()).collect()
        };
        let forbid = random.percent(25);
        let mut subjects =
            json!({ "users": some(&self.users, random), "groups": some(&self.groups, random) });
        if random.percent(15) || is_empty(&subjects) {
            subjects = json!({ "everyone": true });
        }
        let tags: BTreeSet<_> = (0..random.below(3)).map(|_| *random.pick(&TAGS)).collect();
        let mut resources = json!({ "ids": some(&self.resources, random), "tags": tags });
        if random.percent(if forbid { 3 } else { 6 }) || is_empty(&resources) {
            resources = if forbid {
                json!({ "ids": [random.pick(&self.resources)] })
            } else {
                json!({ "all": true })
            };
        }

        json!({
            "name": format!("policy {number} of {}", self.round),
            "effect": if forbid { "forbid" } else { "permit" },
            "subjects": subjects,
            "resources": resources,
            "conditions": conditions(forbid, random),
            "disabled": random.percent(8),
        })
    }

    /// A question about one of some devices.
    pub(super) fn question(&self, devices: usize, random: &mut Random) -> Question {
        let protocol = *random.pick(&[Protocol::Tcp, Protocol::Tcp, Protocol::Udp, Protocol::Icmp]);
        let destination = if random.percent(85) && !self.prefixes.is_empty() {
            let prefix = *random.pick(&self.prefixes);
            address_in(prefix, random)
        } else {
            random.pick(&STRANGE).parse().expect("these are addresses")
        };

        Question {
            device: random.below(devices),
            destination,
            port: if random.percent(80) {
                *random.pick(&PORTS)
            } else {
                random.below(65_536) as u16
            },
            protocol,
        }
    }
}

/// Addresses outside most prefixes, many of them reserved.
const STRANGE: [&str; 16] = [
    "8.8.8.8",
    "10.255.0.1",
    "127.0.0.1",
    "127.1.2.3",
    "169.254.169.254",
    "0.0.0.0",
    "0.1.2.3",
    "255.255.255.255",
    "224.0.0.251",
    "::1",
    "::",
    "fe80::1",
    "ff02::1",
    "2001:db8:ffff::1",
    "::ffff:127.0.0.1",
    "64:ff9b::169.254.169.254",
];

/// Conditions that control plane and connector know the same of: the control plane does not know
/// where a device comes from, which is held against it, so permits name networks where the devices
/// of these tests are not, and forbids those where they are.
fn conditions(forbid: bool, random: &mut Random) -> Value {
    let mut conditions = json!({});
    if random.percent(5) {
        conditions["posture"] = json!(["encrypted"]);
    }
    if random.percent(8) {
        conditions["source_networks"] =
            if forbid { json!(["0.0.0.0/0", "::/0"]) } else { json!(["192.0.2.0/24"]) };
    }
    if random.percent(25) {
        let limit = if random.percent(60) { LONG_SIGN_IN } else { SHORT_SIGN_IN };
        conditions["authenticated_within_s"] = json!(limit.as_secs());
    }
    if random.percent(15) {
        conditions["authentication_methods"] = json!(["mfa"]);
    }
    if random.percent(30) {
        let (always, never) = (
            json!({ "time_zone": "Asia/Kathmandu" }),
            json!({ "days": [distant_day()], "from": "08:00", "time_zone": "America/New_York" }),
        );
        conditions["time_windows"] =
            if random.percent(50) { json!([never, always]) } else { json!([never]) };
    }
    if random.percent(25) {
        let year = if random.percent(50) { 2020 } else { 2999 };
        conditions["expires_at"] = json!(format!("{year}-01-01T00:00:00Z"));
    }

    conditions
}

/// A day of the week that is nowhere near, wherever a clock is.
fn distant_day() -> &'static str {
    const DAYS: [&str; 7] = ["mon", "tue", "wed", "thu", "fri", "sat", "sun"];
    /// 1970 began on it.
    const THURSDAY: u64 = 3;

    let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).expect("it is after 1970");
    DAYS[((now.as_secs() / 86_400 + THURSDAY + 3) % 7) as usize]
}

/// Prefixes with few distinct bits, so that they overlap.
fn prefix(random: &mut Random) -> IpNet {
    if random.percent(4) {
        let alone = ["127.0.0.1/32", "169.254.169.254/32", "fe80::1/128", "ff02::1/128"];
        return random.pick(&alone).parse().expect("these are prefixes");
    }
    let net = if random.percent(65) {
        let address = Ipv4Addr::new(10, 32 + small(random), small(random), small(random));
        IpNet::new(address.into(), *random.pick(&[8, 11, 16, 20, 24, 24, 31, 32]))
    } else {
        let tail = u16::from(small(random));
        let address = Ipv6Addr::new(
            0xfd42,
            0,
            u16::from(small(random)),
            tail,
            0,
            0,
            0,
            u16::from(small(random)),
        );
        IpNet::new(address.into(), *random.pick(&[8, 32, 48, 64, 64, 127, 128]))
    };

    net.expect("the lengths fit").trunc()
}

fn small(random: &mut Random) -> u8 {
    *random.pick(&[0, 1, 2, 3])
}

fn address_in(prefix: IpNet, random: &mut Random) -> IpAddr {
    let host_bits = u32::from(prefix.max_prefix_len() - prefix.prefix_len());
    // Only the lowest bits and bytes that prefixes use, so that longer prefixes are hit too.
    let mask = 0x0003_0003_0303_0303_u128;
    let noise = (u128::from(random.number()) & mask)
        & 1_u128.checked_shl(host_bits).map_or(u128::MAX, |it| it - 1);
    match prefix.addr() {
        IpAddr::V4(address) => {
            let noise = u32::try_from(noise & u128::from(u32::MAX)).expect("it was masked");
            Ipv4Addr::from_bits(address.to_bits() | noise).into()
        }
        IpAddr::V6(address) => {
            // The third and fourth group as well.
            let groups = u128::from(random.number() & 0x0003_0003) << 64;
            let groups = if host_bits >= 96 { groups } else { 0 };
            Ipv6Addr::from_bits(address.to_bits() | (noise & 0x0303) | groups).into()
        }
    }
}

fn filter(random: &mut Random) -> Value {
    let protocol = *random.pick(&["tcp", "tcp", "udp", "icmp"]);
    let ports: BTreeSet<String> = match protocol {
        "icmp" => BTreeSet::new(),
        _ => (0..random.below(3)).map(|_| port_range(random)).collect(),
    };

    json!({ "protocol": protocol, "ports": ports })
}

fn port_range(random: &mut Random) -> String {
    let (a, b) = (*random.pick(&PORTS), *random.pick(&PORTS));
    if a == b { a.to_string() } else { format!("{}-{}", a.min(b), a.max(b)) }
}

fn is_empty(selector: &Value) -> bool {
    let lists = selector.as_object().into_iter().flat_map(|members| members.values());
    lists.filter_map(Value::as_array).all(Vec::is_empty)
}

fn create(api: &mut ApiConnection, path: &str, body: &Value) -> anyhow::Result<String> {
    let answer = api.request("POST", path, &[], Some(body))?;
    ensure!(answer.status == 201, "{path} {body}: {answer:?}");

    Ok(answer.body["id"].as_str().context("no id")?.to_owned())
}
