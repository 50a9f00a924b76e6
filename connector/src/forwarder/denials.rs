//! Flows that were denied a moment ago.

use std::{
    collections::HashMap,
    time::{Duration, Instant},
};

use adit_proto::{FlowTuple, Reason};
use adit_tunnel::PeerId;

/// So that a retry is neither decided nor logged again.
#[derive(Debug, Default)]
pub(super) struct RecentDenials {
    denials: HashMap<(PeerId, FlowTuple), RecentDenial>,
}

#[derive(Debug, Clone, Copy)]
struct RecentDenial {
    reason: Reason,
    generation: u64,
    at: Instant,
}

/// How long a denial is remembered: retries of TCP come within a few seconds.
const MEMORY: Duration = Duration::from_secs(5);
/// How many; some 6 MB.
const MAX_DENIALS: usize = 65_536;

impl RecentDenials {
    /// Why this very flow was denied under the same policy a moment ago.
    pub(super) fn recall(
        &self,
        peer: PeerId,
        tuple: &FlowTuple,
        generation: u64,
        now: Instant,
    ) -> Option<Reason> {
        let denial = self.denials.get(&(peer, *tuple))?;
        (denial.generation == generation && !denial.is_old(now)).then_some(denial.reason)
    }

    /// Remembers a denial; false if it was known, so there is nothing to report.
    ///
    /// When there is no room it is reported each time, and the queue of records is bounded.
    pub(super) fn remember(
        &mut self,
        peer: PeerId,
        tuple: FlowTuple,
        reason: Reason,
        generation: u64,
        now: Instant,
    ) -> bool {
        let denial = RecentDenial { reason, generation, at: now };
        if let Some(known) = self.denials.get_mut(&(peer, tuple)) {
            let is_news = known.is_old(now) || known.reason != reason;
            if is_news || known.generation != generation {
                *known = RecentDenial { at: if is_news { now } else { known.at }, ..denial };
            }
            return is_news;
        }
        if self.denials.len() < MAX_DENIALS {
            self.denials.insert((peer, tuple), denial);
        }
        true
    }

    pub(super) fn expire(&mut self, now: Instant) {
        self.denials.retain(|_flow, denial| !denial.is_old(now));
    }
}

impl RecentDenial {
    fn is_old(&self, now: Instant) -> bool {
        now.saturating_duration_since(self.at) >= MEMORY
    }
}
