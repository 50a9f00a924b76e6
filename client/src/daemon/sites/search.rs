//! What is sought for the sessions of a site.

use std::time::Instant;

use adit_proto::{ConnectorId, ConnectorOnClient};

use super::{
    AttemptId, Outbox,
    seek::{Round, Seek},
    session::Session,
    sessions::Sessions,
};

/// Goes over the connectors of a site, round by round, for what is missing of two sessions.
#[derive(Debug)]
pub(super) struct Search {
    first: usize,
    pub(super) connectors: Vec<ConnectorOnClient>,
    /// Tried before the others.
    pub(super) preferred: Option<ConnectorId>,
    round: Option<Seek>,
}

impl Search {
    /// Connectors are tried from the one at this place on.
    pub(super) const fn new(first: usize) -> Self {
        Self { first, connectors: Vec::new(), preferred: None, round: None }
    }

    pub(super) fn owns(&self, attempt: AttemptId) -> bool {
        self.round.as_ref().is_some_and(|round| round.owns(attempt))
    }

    /// Those of the round that have not answered yet.
    pub(super) fn sought(&self) -> impl Iterator<Item = &ConnectorOnClient> {
        self.round.iter().flat_map(Seek::connectors)
    }

    pub(super) fn is_done(&self, sessions: &Sessions) -> bool {
        let open = sessions.both().filter(|session| session.has_channel);
        open.count() >= self.connectors.len().min(2)
    }

    /// Begins a round at `at` for what is missing, unless one is under way.
    pub(super) fn begin(&mut self, sessions: &Sessions, avoided: Option<ConnectorId>, at: Instant) {
        if self.round.as_ref().is_some_and(|round| !round.is_over()) || self.is_done(sessions) {
            return;
        }
        let is_open = |id: ConnectorId| {
            sessions.all().any(|session| session.id() == id && session.has_channel)
        };
        // Beside a standby only the channel of the active one is missing.
        let only = sessions.standby.as_ref().and(sessions.active.as_ref()).map(Session::id);
        let is_wanted = |connector: &&ConnectorOnClient| {
            !is_open(connector.id) && only.is_none_or(|only| connector.id == only)
        };
        let (before, from) = self.connectors.split_at(self.first % self.connectors.len().max(1));
        let mut connectors: Vec<ConnectorOnClient> =
            from.iter().chain(before).filter(is_wanted).cloned().collect();
        connectors.sort_by_key(|connector| {
            (Some(connector.id) == avoided, Some(connector.id) != self.preferred)
        });
        self.round = (!connectors.is_empty()).then(|| Seek::new(connectors, at));
    }

    /// As [`Self::begin`]; a round that is under way goes on no later than `at`.
    pub(super) fn hurry(&mut self, sessions: &Sessions, at: Instant) {
        match &mut self.round {
            Some(round) => round.begin(at),
            None => self.begin(sessions, None, at),
        }
    }

    /// As [`Self::hurry`], and this connector is the next one.
    pub(super) fn hurry_to(
        &mut self,
        connector: &ConnectorOnClient,
        sessions: &Sessions,
        at: Instant,
    ) {
        match &mut self.round {
            Some(round) => round.hurry(connector, at),
            None => self.begin(sessions, None, at),
        }
    }

    /// An attempt has succeeded.
    pub(super) fn handle_admitted(&mut self, attempt: AttemptId) -> Option<ConnectorOnClient> {
        self.round.as_mut()?.handle_admitted(attempt)
    }

    /// An attempt failed; says what is left of its round, if there is one.
    pub(super) fn handle_failed(&mut self, attempt: AttemptId, now: Instant) -> Option<Round> {
        let left = self.round.as_mut()?.handle_failed(attempt, now);
        if left == Round::IsOver {
            self.round = None;
        }
        Some(left)
    }

    pub(super) fn handle_timeout(&mut self, outbox: &mut Outbox, now: Instant) {
        if let Some(round) = &mut self.round {
            round.handle_timeout(outbox, now);
        }
    }

    pub(super) fn poll_timeout(&self) -> Option<Instant> {
        self.round.as_ref().and_then(Seek::poll_timeout)
    }

    /// Ends the round.
    pub(super) fn stop(&mut self, outbox: &mut Outbox) {
        if let Some(round) = self.round.take() {
            round.stop(outbox);
        }
    }
}
