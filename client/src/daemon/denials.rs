//! What was refused lately.

use std::{collections::VecDeque, time::Duration};

use adit_proto::{FlowTuple, PolicyId, Protocol, Reason, ResourceId, Timestamp, Verdict};

/// As many are remembered.
const CAPACITY: usize = 50;

/// Refusals of the same destination for the same reason within this time count as one.
const SAME_WITHIN: Duration = Duration::from_secs(300);

/// A flow that was refused or cut.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Denial {
    pub(crate) flow: FlowTuple,
    pub(crate) verdict: Verdict,
    pub(crate) reason: Reason,
    pub(crate) resource_id: Option<ResourceId>,
    pub(crate) policy_id: Option<PolicyId>,
}

/// One or several alike.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Remembered {
    pub(crate) denial: Denial,
    pub(crate) at: Timestamp,
    pub(crate) count: u64,
}

/// A bounded memory; the oldest is forgotten first.
#[derive(Debug, Default)]
pub(crate) struct Denials {
    latest_first: VecDeque<Remembered>,
}

impl Denials {
    /// Remembers one; returns whether it is of a new kind, which is worth a line in the log.
    pub(crate) fn insert(&mut self, denial: Denial, now: Timestamp) -> bool {
        let alike = self.latest_first.iter().position(|held| {
            key(&held.denial) == key(&denial)
                && now.saturating_duration_since(held.at) < SAME_WITHIN
        });
        let count = match alike.and_then(|index| self.latest_first.remove(index)) {
            Some(held) => held.count.saturating_add(1),
            None => 1,
        };
        self.latest_first.push_front(Remembered { denial, at: now, count });
        self.latest_first.truncate(CAPACITY);
        count == 1
    }

    /// Forgets all: another identity.
    pub(crate) fn clear(&mut self) {
        self.latest_first.clear();
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = &Remembered> {
        self.latest_first.iter()
    }
}

/// The source port differs at each attempt, and an echo's identifier is no port.
fn key(denial: &Denial) -> (Protocol, std::net::IpAddr, u16, Verdict, Reason) {
    let port = match denial.flow.protocol {
        Protocol::Tcp | Protocol::Udp => denial.flow.destination_port,
        Protocol::Icmp => 0,
    };
    (denial.flow.protocol, denial.flow.destination, port, denial.verdict, denial.reason)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn denial(source_port: u16, destination_port: u16) -> Denial {
        Denial {
            flow: FlowTuple {
                protocol: Protocol::Tcp,
                source: "100.80.0.1".parse().unwrap(),
                source_port,
                destination: "10.9.0.2".parse().unwrap(),
                destination_port,
            },
            verdict: Verdict::Deny,
            reason: Reason::NoPolicyPermits,
            resource_id: None,
            policy_id: None,
        }
    }

    #[test]
    fn attempts_at_one_destination_count_as_one() {
        let mut denials = Denials::default();
        let now = Timestamp::from_millis(0);
        assert!(denials.insert(denial(1000, 22), now));
        assert!(!denials.insert(denial(1001, 22), now));
        assert!(denials.insert(denial(1002, 23), now));

        let counts: Vec<u64> = denials.iter().map(|held| held.count).collect();
        assert_eq!(counts, [1, 2]);
    }

    #[test]
    fn the_oldest_are_forgotten() {
        let mut denials = Denials::default();
        for port in 1..=200 {
            denials.insert(denial(1000, port), Timestamp::from_millis(port.into()));
        }
        assert_eq!(denials.iter().count(), CAPACITY);
        assert_eq!(denials.iter().next().unwrap().denial.flow.destination_port, 200);
    }
}
