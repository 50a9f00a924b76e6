//! The search for a connector.

use std::{
    collections::VecDeque,
    time::{Duration, Instant},
};

use adit_proto::ConnectorOnClient;

use super::{AttemptId, Outbox, SiteCommand};

/// How long a connector is tried alone before the next is tried beside it (RFC 8305 §5).
const HEAD_START: Duration = Duration::from_millis(250);

/// One round over connectors.
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
    /// A round that begins at `at`, in this order.
    pub(super) fn new(
        connectors: impl IntoIterator<Item = ConnectorOnClient>,
        at: Instant,
    ) -> Self {
        let waiting = connectors.into_iter().collect();
        Self { waiting, running: Vec::new(), next_start: at }
    }

    pub(super) fn owns(&self, attempt: AttemptId) -> bool {
        self.running.iter().any(|(running, _)| *running == attempt)
    }

    pub(super) fn connectors(&self) -> impl Iterator<Item = &ConnectorOnClient> {
        self.running.iter().map(|(_, connector)| connector).chain(&self.waiting)
    }

    /// Tries this connector next, and no later than `at`.
    pub(super) fn hurry(&mut self, connector: &ConnectorOnClient, at: Instant) {
        if self.running.iter().any(|(_, running)| running.id == connector.id) {
            return;
        }
        self.waiting.retain(|waiting| waiting.id != connector.id);
        self.waiting.push_front(connector.clone());
        self.begin(at);
    }

    /// Tries the next connector no later than `at`.
    pub(super) fn begin(&mut self, at: Instant) {
        self.next_start = self.next_start.min(at);
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

    /// An attempt has succeeded.
    pub(super) fn handle_admitted(&mut self, attempt: AttemptId) -> Option<ConnectorOnClient> {
        let place = self.running.iter().position(|(running, _)| *running == attempt)?;
        Some(self.running.swap_remove(place).1)
    }

    /// An attempt failed, so the next need not wait.
    pub(super) fn handle_failed(&mut self, attempt: AttemptId, now: Instant) -> Round {
        self.running.retain(|(running, _)| *running != attempt);
        self.next_start = self.next_start.min(now);
        if self.is_over() { Round::IsOver } else { Round::GoesOn }
    }

    pub(super) fn is_over(&self) -> bool {
        self.running.is_empty() && self.waiting.is_empty()
    }

    /// Ends the search.
    pub(super) fn stop(self, outbox: &mut Outbox) {
        for (attempt, _connector) in self.running {
            outbox.push(SiteCommand::StopSession { attempt });
        }
    }

    pub(super) fn poll_timeout(&self) -> Option<Instant> {
        (!self.waiting.is_empty()).then_some(self.next_start)
    }
}
