//! How often someone has typed a code that is none.

use std::{
    collections::BTreeMap,
    sync::{Mutex, PoisonError},
    time::Duration,
};

use adit_proto::Timestamp;

use crate::app::network::Network;

/// Wrong codes that a network may type within [`WINDOW`].
const MAX_TRIES: usize = 10;

const WINDOW: Duration = Duration::from_mins(15);

/// Beyond this many networks, others wait: whoever has so many could try as often.
const MAX_NETWORKS: usize = 10_000;

/// Wrong codes of the last quarter of an hour.
#[derive(Debug, Default)]
pub(crate) struct CodeTries {
    wrong: Mutex<BTreeMap<Network, Vec<Timestamp>>>,
}

impl CodeTries {
    /// Whether another code may be tried.
    pub(crate) fn may_try(&self, network: Network, now: Timestamp) -> bool {
        let mut wrong = self.wrong.lock().unwrap_or_else(PoisonError::into_inner);
        let begin = now.saturating_sub(WINDOW);
        match wrong.get_mut(&network) {
            Some(times) => {
                times.retain(|time| *time > begin);
                times.len() < MAX_TRIES
            }
            None => {
                if wrong.len() >= MAX_NETWORKS {
                    wrong.retain(|_, times| times.last().is_some_and(|last| *last > begin));
                }
                wrong.len() < MAX_NETWORKS
            }
        }
    }

    /// A code was none.
    pub(crate) fn note_wrong(&self, network: Network, now: Timestamp) {
        let mut wrong = self.wrong.lock().unwrap_or_else(PoisonError::into_inner);
        wrong.entry(network).or_default().push(now);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn network(number: u32) -> Network {
        Network::of(std::net::Ipv4Addr::from_bits(number).into())
    }

    #[test]
    fn ten_wrong_codes_are_all_that_a_network_has_in_a_quarter_of_an_hour() {
        let tries = CodeTries::default();
        let now = Timestamp::from_millis(10_000_000);
        for _ in 0..MAX_TRIES {
            assert!(tries.may_try(network(1), now));
            tries.note_wrong(network(1), now);
        }
        assert!(!tries.may_try(network(1), now));
        assert!(tries.may_try(network(2), now));
        assert!(!tries.may_try(network(1), now.saturating_add(WINDOW - Duration::from_millis(1))));
        assert!(tries.may_try(network(1), now.saturating_add(WINDOW)));
    }

    #[test]
    fn the_memory_is_bounded_and_does_not_fail_open() {
        let tries = CodeTries::default();
        let now = Timestamp::from_millis(10_000_000);
        for number in 0..u32::try_from(MAX_NETWORKS).unwrap() {
            tries.note_wrong(network(number), now);
        }
        assert!(!tries.may_try(network(u32::MAX), now));
        assert!(tries.may_try(network(u32::MAX), now.saturating_add(WINDOW)));
    }
}
