//! The sessions of one site.

use std::{collections::BTreeSet, time::Instant};

use adit_proto::WireguardPublicKey;
use ipnet::IpNet;

use super::{
    Outbox, StandbyView,
    session::{Role, Session},
};
use crate::{daemon::clock::Now, ipc::SessionState};

/// Sessions by what they are to their site.
#[derive(Debug, Default)]
pub(super) struct Sessions {
    /// Packets go there.
    pub(super) active: Option<Session>,
    /// Admitted and carried, so that packets can go there at once.
    pub(super) standby: Option<Session>,
    /// One that was active before. If it drains, its flows end there until then. If it refuses us,
    /// it is heard out: what tells flows that they are cut may lie behind what was sent before.
    pub(super) leaving: Option<(Instant, Session)>,
}

impl Sessions {
    pub(super) fn all(&self) -> impl Iterator<Item = &Session> {
        let leaving = self.leaving.as_ref().map(|(_until, session)| session);
        self.active.iter().chain(&self.standby).chain(leaving)
    }

    /// The active one and the standby.
    pub(super) fn both(&self) -> impl Iterator<Item = &Session> {
        self.active.iter().chain(&self.standby)
    }

    pub(super) fn both_mut(&mut self) -> impl Iterator<Item = &mut Session> {
        self.active.iter_mut().chain(&mut self.standby)
    }

    pub(super) fn with_key(&mut self, public_key: &WireguardPublicKey) -> Option<&mut Session> {
        let leaving = self.leaving.as_mut().map(|(_until, session)| session);
        let mut all = self.active.iter_mut().chain(&mut self.standby).chain(leaving);
        all.find(|session| session.public_key() == *public_key)
    }

    /// Makes the connectors peers for these prefixes.
    pub(super) fn upsert_all(&self, prefixes: &BTreeSet<IpNet>, outbox: &mut Outbox) {
        let draining = self.leaving.iter().filter(|(_until, session)| session.is_draining);
        for session in draining.map(|(_until, session)| session).chain(&self.standby) {
            session.upsert(Role::Standby, prefixes, outbox);
        }
        if let Some(active) = &self.active {
            active.upsert(Role::Active, prefixes, outbox);
        }
    }

    /// Asks both connectors whether they are there.
    pub(super) fn probe_both(&mut self, outbox: &mut Outbox, now: Now) {
        for session in self.both_mut() {
            session.probe(outbox);
            session.latency.hurry(now.instant);
        }
    }

    pub(super) fn handle_timeout(&mut self, outbox: &mut Outbox, now: Instant) {
        let leaving = self.leaving.as_mut().map(|(_until, session)| session);
        // One that refuses us is not asked again.
        let leaving = leaving.filter(|session| session.is_draining);
        for session in self.active.iter_mut().chain(&mut self.standby).chain(leaving) {
            session.handle_timeout(outbox, now);
        }
    }

    pub(super) fn poll_timeout(&self) -> Option<Instant> {
        let leaving = self.leaving.as_ref().map(|(until, _session)| *until);
        self.all().filter_map(Session::poll_timeout).chain(leaving).min()
    }

    pub(super) fn finish_hearing_out(&mut self, outbox: &mut Outbox) {
        if self.leaving.as_ref().is_some_and(|(_until, session)| !session.is_draining) {
            self.finish_leaving(outbox);
        }
    }

    pub(super) fn finish_leaving(&mut self, outbox: &mut Outbox) {
        if let Some((_until, session)) = self.leaving.take() {
            session.drop_into(outbox);
        }
    }

    /// Ends them all.
    pub(super) fn stop(&mut self, outbox: &mut Outbox) {
        self.finish_leaving(outbox);
        for session in self.active.take().into_iter().chain(self.standby.take()) {
            session.drop_into(outbox);
        }
    }

    pub(super) fn state(&self) -> SessionState {
        match &self.active {
            None => SessionState::Seeking,
            Some(session) if !session.has_channel => SessionState::Reconnecting,
            Some(session) if !session.is_carried() => SessionState::Handshaking,
            Some(_) => SessionState::Established,
        }
    }

    pub(super) fn standby_view(&self) -> Option<StandbyView<'_>> {
        self.standby.as_ref().map(|session| StandbyView {
            connector: &session.connector,
            endpoint: session.endpoint,
            carrier: session.carriers.current(),
            round_trip: session.latency.round_trip(),
            load: session.latency.load(),
            since: session.since,
        })
    }
}
