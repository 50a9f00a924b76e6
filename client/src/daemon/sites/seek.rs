//! The search for a connector.

use std::{
    collections::VecDeque,
    time::{Duration, Instant},
};

use adit_proto::{ConnectorId, ConnectorOnClient};

use super::{AttemptId, Outbox, SiteCommand};

/// How long a connector is tried alone before the next is tried beside it (RFC 8305 §5).
const HEAD_START: Duration = Duration::from_millis(250);

/// One round over a site's connectors: the first that admits us wins.
#[derive(Debug)]
pub(super) struct Seek {
    waiting: VecDeque<ConnectorOnClient>,
    running: Vec<(AttemptId, ConnectorOnClient)>,
    next_start: Instant,
}

/// What is left of a round after an attempt failed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Round {
    GoesOn,
    IsOver,
}

impl Seek {
    /// A round that begins at `at`, with the preferred connector in front.
    pub(super) fn new(
        connectors: &[ConnectorOnClient],
        preferred: Option<ConnectorId>,
        avoided: Option<ConnectorId>,
        at: Instant,
    ) -> Self {
        let mut waiting: Vec<ConnectorOnClient> = connectors.to_vec();
        waiting.sort_by_key(|connector| {
            (Some(connector.id) == avoided, Some(connector.id) != preferred)
        });
        Self { waiting: waiting.into(), running: Vec::new(), next_start: at }
    }

    pub(super) fn owns(&self, attempt: AttemptId) -> bool {
        self.running.iter().any(|(running, _)| *running == attempt)
    }

    pub(super) fn connectors(&self) -> impl Iterator<Item = &ConnectorOnClient> {
        self.running.iter().map(|(_, connector)| connector).chain(&self.waiting)
    }

    /// Starts the next attempt when it is time.
    pub(super) fn handle_timeout(&mut self, outbox: &mut Outbox, now: Instant) {
        while now >= self.next_start {
            let Some(connector) = self.waiting.pop_front() else {
                return;
            };
            let attempt = outbox.start(&connector);
            self.running.push((attempt, connector));
            self.next_start = now + HEAD_START;
        }
    }

    /// An attempt failed, so the next need not wait.
    pub(super) fn handle_failed(&mut self, attempt: AttemptId, now: Instant) -> Round {
        self.running.retain(|(running, _)| *running != attempt);
        self.next_start = self.next_start.min(now);
        if self.running.is_empty() && self.waiting.is_empty() {
            return Round::IsOver;
        }
        Round::GoesOn
    }

    /// Ends the search; the attempt that won goes on and its connector is returned.
    pub(super) fn finish(
        self,
        winner: Option<AttemptId>,
        outbox: &mut Outbox,
    ) -> Option<ConnectorOnClient> {
        let mut won = None;
        for (attempt, connector) in self.running {
            if Some(attempt) == winner {
                won = Some(connector);
            } else {
                outbox.push(SiteCommand::StopSession { attempt });
            }
        }
        won
    }

    pub(super) fn poll_timeout(&self) -> Option<Instant> {
        (!self.waiting.is_empty()).then_some(self.next_start)
    }
}
