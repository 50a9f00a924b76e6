//! Flows that were denied, and what is said of them.

use std::{
    collections::VecDeque,
    time::{Duration, Instant},
};

use adit_policy::Denial;
use adit_proto::{FlowTuple, Reason, Timestamp};

use super::{
    allowance::{Allowance, Rate},
    recent::{Bounds, Recent},
};
use crate::flow_table::{DevicePlace, FlowKey, Volume};

/// Denials of a moment ago, so that a retry is neither decided nor reported again.
#[derive(Debug)]
pub(super) struct RecentDenials(Recent<RecentDenial>);

#[derive(Debug, Clone, Copy)]
struct RecentDenial {
    reason: Reason,
    generation: u64,
}

impl RecentDenials {
    /// Retries of TCP come within a few seconds; a program that is denied much retries not more
    /// than some hundred at a time. Full, some 12 MB.
    const BOUNDS: Bounds =
        Bounds { memory: Duration::from_secs(5), in_all: 65_536, of_device: 256 };

    pub(super) fn new() -> Self {
        Self(Recent::new(Self::BOUNDS))
    }

    /// Why this very flow was denied under the same policy a moment ago.
    pub(super) fn recall(
        &self,
        device: DevicePlace,
        tuple: &FlowTuple,
        generation: u64,
        now: Instant,
    ) -> Option<Reason> {
        let denial = self.0.of(device, FlowKey::new(tuple), now)?;
        (denial.generation == generation).then_some(denial.reason)
    }

    /// Remembers a denial; false if it was known, so that there is nothing to report.
    pub(super) fn remember(
        &mut self,
        device: DevicePlace,
        tuple: &FlowTuple,
        reason: Reason,
        generation: u64,
        now: Instant,
    ) -> bool {
        let key = FlowKey::new(tuple);
        let denial = RecentDenial { reason, generation };
        let is_news = self.0.of(device, key, now).is_none_or(|known| known.reason != reason);
        if is_news {
            self.0.note(device, key, denial, now);
        } else {
            self.0.amend(device, key, denial);
        }
        is_news
    }

    pub(super) fn expire(&mut self, at_once: usize, now: Instant) {
        self.0.expire(at_once, now);
    }
}

/// What is reported of a device's denials: the first ones each, and then together what a scan or a
/// flood does, which would fill the access log and the queue to it at the cost of others.
#[derive(Debug)]
pub(super) struct Reports {
    each: Allowance,
    /// A reason at most once; there are few.
    together: Vec<Report>,
}

/// One or many denials of a device for one reason.
#[derive(Debug, Clone, Copy)]
pub(super) struct Report {
    /// What all of them have in common; the policy or resource is missing if it was not the same.
    pub(super) denial: Denial,
    /// The last of them.
    pub(super) tuple: FlowTuple,
    pub(super) at: Timestamp,
    /// Of many, what was denied since the report before.
    pub(super) volume: Volume,
    pub(super) duration: Duration,
    since: Timestamp,
}

impl Reports {
    /// More than anyone reads of one device, once and then in the long run.
    const EACH: Rate = Rate { every: Duration::from_secs(2), burst: 128 };
    /// How long denials are gathered.
    pub(super) const INTERVAL: Duration = Duration::from_secs(10);

    pub(super) const fn new(now: Instant) -> Self {
        Self { each: Allowance::new(now), together: Vec::new() }
    }

    /// Takes a denial in; what is returned is to be reported at once.
    pub(super) fn add(
        &mut self,
        denial: Denial,
        tuple: FlowTuple,
        volume: Volume,
        at: crate::clock::Now,
    ) -> Option<Report> {
        let known = self.together.iter_mut().find(|it| it.denial.reason == denial.reason);
        if let Some(known) = known {
            known.denial.resource_id =
                known.denial.resource_id.filter(|id| denial.resource_id == Some(*id));
            known.denial.policy_id =
                known.denial.policy_id.filter(|id| denial.policy_id == Some(*id));
            known.tuple = tuple;
            known.volume += volume;
            known.at = at.wall;
            known.duration = at.wall.saturating_duration_since(known.since);
            return None;
        }
        let report = Report {
            denial,
            tuple,
            at: at.wall,
            volume: Volume::default(),
            duration: Duration::ZERO,
            since: at.wall,
        };
        if self.each.take(Self::EACH, at.monotonic) {
            return Some(report);
        }
        self.together.push(Report { volume, ..report });
        None
    }

    /// Whether denials are being gathered.
    pub(super) const fn are_gathered(&self) -> bool {
        !self.together.is_empty()
    }

    /// What was gathered.
    pub(super) fn take(&mut self) -> Vec<Report> {
        std::mem::take(&mut self.together)
    }
}

/// The devices whose denials are being gathered, and until when.
#[derive(Debug, Default)]
pub(super) struct ReportsDue(VecDeque<(Instant, DevicePlace)>);

impl ReportsDue {
    pub(super) fn push(&mut self, device: DevicePlace, now: Instant) {
        self.0.push_back((now + Reports::INTERVAL, device));
    }

    pub(super) fn pop(&mut self, now: Instant) -> Option<DevicePlace> {
        let (_at, device) = self.0.pop_front_if(|(at, _device)| *at <= now)?;
        Some(device)
    }

    pub(super) fn next(&self) -> Option<Instant> {
        self.0.front().map(|(at, _device)| *at)
    }
}
