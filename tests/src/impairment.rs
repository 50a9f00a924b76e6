use std::{env, ops::Add, str::FromStr, time::Duration};

use nix::sys::signal::Signal;
use serde::{Deserialize, Serialize};

use crate::{Host, Link, Process, Random, World, binary, monotonic_ns};

/// What a bad path does to packets in one direction. As made, it passes everything at once.
#[derive(Debug, Clone, Copy, PartialEq, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Impairment {
    /// How long each packet is on its way.
    pub delay: Duration,
    /// Up to how much longer than that; the order is kept.
    pub jitter: Duration,
    /// Packets that never arrive.
    pub loss: Share,
    /// Packets that arrive so much later than they would that those behind overtake them.
    pub reorder: Share,
    /// How much later that is.
    pub reorder_by: Duration,
    /// Packets that arrive twice.
    pub duplicate: Share,
    /// Packets of which one bit arrives as it was not sent.
    pub corrupt: Share,
    /// What the path takes.
    pub rate: Option<Rate>,
}

/// How much a path takes, and how much waits for it.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Rate {
    /// Bits in a second, Ethernet headers included.
    pub bits_per_second: u64,
    /// Bytes that wait at most; what comes then is lost.
    pub queue: u64,
}

/// A share of all packets.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Share {
    millionths: u32,
}

impl Share {
    /// So many of a hundred, down to a ten-thousandth.
    ///
    /// # Panics
    ///
    /// When it is not between none and all.
    #[must_use]
    #[track_caller]
    pub fn percent(percent: f64) -> Self {
        assert!((0.0..=100.0).contains(&percent), "{percent} % is no share");
        #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "checked")]
        Self { millionths: (percent * 10_000.0).round() as u32 }
    }

    /// Tells whether this packet is one of the share.
    pub fn takes(self, random: &mut Random) -> bool {
        self.millionths > 0 && random.number() % 1_000_000 < u64::from(self.millionths)
    }
}

impl Impairment {
    /// Loses so many percent.
    #[must_use]
    #[track_caller]
    pub fn lose(self, percent: f64) -> Self {
        Self { loss: Share::percent(percent), ..self }
    }

    /// Delays everything.
    #[must_use]
    pub fn delay(self, delay: Duration) -> Self {
        Self { delay, ..self }
    }

    /// Lets so many percent be overtaken by what comes within `by`.
    #[must_use]
    #[track_caller]
    pub fn reorder(self, percent: f64, by: Duration) -> Self {
        Self { reorder: Share::percent(percent), reorder_by: by, ..self }
    }

    /// Lets no more through than `megabits` a second, of which at most `queued` wait.
    #[must_use]
    pub fn limit(self, megabits: u32, queued: Duration) -> Self {
        let bits_per_second = u64::from(megabits) * 1_000_000;
        let micros = u64::try_from(queued.as_micros()).unwrap_or(u64::MAX);
        let queue = (bits_per_second / 8).saturating_mul(micros) / 1_000_000;
        Self { rate: Some(Rate { bits_per_second, queue }), ..self }
    }
}

impl FromStr for Impairment {
    type Err = serde_json::Error;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        serde_json::from_str(text)
    }
}

/// A link that is made worse, until the [`World`] ends.
pub struct BadPath {
    relay: Host,
    process: Process,
}

/// What happened to the packets of a [`BadPath`], in both directions together.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Impaired {
    /// Packets that came.
    pub came: u64,
    /// Packets that went on, copies included.
    pub passed: u64,
    /// Packets that were lost on the way.
    pub lost: u64,
    /// Packets that came while too many waited.
    pub overflowed: u64,
    /// Packets that were held back for others to overtake them.
    pub overtaken: u64,
    /// Packets that went on twice.
    pub duplicated: u64,
    /// Packets that were damaged.
    pub corrupted: u64,
}

impl Add for Impaired {
    type Output = Self;

    fn add(self, other: Self) -> Self {
        Self {
            came: self.came + other.came,
            passed: self.passed + other.passed,
            lost: self.lost + other.lost,
            overflowed: self.overflowed + other.overflowed,
            overtaken: self.overtaken + other.overtaken,
            duplicated: self.duplicated + other.duplicated,
            corrupted: self.corrupted + other.corrupted,
        }
    }
}

impl World {
    /// Makes a link as bad as this in both directions, by a host of its own between its ends.
    ///
    /// The second end's interface is made anew, with the addresses that it has but without routes
    /// that were added to it, and neither end leaves the cutting of packets to the network.
    #[track_caller]
    pub fn impair(&self, link: &Link, impairment: &Impairment) -> BadPath {
        self.impair_apart(link, impairment, impairment)
    }

    /// As [`Self::impair`], from the first end to the second and back.
    #[track_caller]
    pub fn impair_apart(&self, link: &Link, there: &Impairment, back: &Impairment) -> BadPath {
        let relay = self.between(link);
        let process = spawn(&relay, there, back);

        BadPath { relay, process }
    }

    /// Puts a host between both ends, whose interfaces `a` and `b` lead to them.
    #[track_caller]
    fn between(&self, link: &Link) -> Host {
        let relay = self.relay();
        let (a, b) = (link.a(), link.b());
        self.sh(&format!(
            r#"
            near={a} far={b} relay={relay} near_end={a_end} far_end={b_end}
            addresses=$(ip -n $far -o addr show dev $far_end scope global | awk '{{ print $4 }}')
            address=$(ip netns exec $far cat /sys/class/net/$far_end/address)
            mtu=$(ip netns exec $far cat /sys/class/net/$far_end/mtu)
            ip -n $far link set dev $far_end netns $relay name a
            ip -n $far link add name $far_end address $address mtu $mtu type veth \
                peer name b netns $relay
            # What arrives in the relay goes to the probe and to nobody else.
            ip netns exec $relay sh -c 'echo 1 > /proc/sys/net/ipv6/conf/all/disable_ipv6'
            for end in a b; do ip -n $relay link set dev $end mtu 9216 up; done
            ip -n $far link set dev $far_end up
            for one in $addresses; do ip -n $far addr add $one dev $far_end nodad; done
            # Packets are seen as they would be on a cable: cut, and with their checksums.
            cut() {{ ip netns exec $1 ethtool -K $2 tx off tso off gso off gro off; }}
            cut $near $near_end
            cut $far $far_end
            cut $relay a
            cut $relay b
            "#,
            a = a.host().name(),
            b = b.host().name(),
            relay = relay.name(),
            a_end = a.interface(),
            b_end = b.interface(),
        ));

        relay
    }
}

impl BadPath {
    /// Makes the path bad in another way. What is on it is lost.
    #[track_caller]
    pub fn change(&mut self, impairment: &Impairment) {
        self.process.kill();
        self.process = spawn(&self.relay, impairment, impairment);
    }

    /// Ends the path and returns what it has done.
    #[must_use]
    #[track_caller]
    pub fn finish(self) -> Impaired {
        self.process.signal(Signal::SIGTERM);
        let event = self.process.wait_for_event("impaired", Duration::from_secs(10));

        serde_json::from_value(event).expect("the probe prints every field of what it did")
    }
}

#[track_caller]
fn spawn(relay: &Host, there: &Impairment, back: &Impairment) -> Process {
    let given = env::var("ADIT_SEED").ok().and_then(|seed| seed.parse().ok());
    // The probe prints it, and a failing test what the probe printed.
    let seed: u64 = given.unwrap_or_else(monotonic_ns);
    let json = |one| serde_json::to_string(one).expect("an impairment is JSON");
    let process = relay
        .command(binary("adit-probe"))
        .args(["impair", "--seed", &seed.to_string(), "--there", &json(there)])
        .args(["--back", &json(back), "a", "b"])
        .spawn();
    process.wait_for_event("impairing", Duration::from_secs(10));

    process
}
