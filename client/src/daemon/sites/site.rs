//! One site.

use std::{
    collections::BTreeSet,
    time::{Duration, Instant},
};

use adit_proto::{ClientMessage, ConnectorOnClient, SiteId, WireguardPublicKey};
use ipnet::IpNet;

use super::{
    Admittance, AttemptId, OpenFlows, Outbox, SessionEnd, SiteCommand, SiteView,
    contest::{Contest, Verdict},
    nearness::Nearness,
    search::Search,
    seek::Round,
    session::{Role, Session},
    sessions::Sessions,
};
use crate::{
    carrier::{Carrier, CarrierChoice},
    daemon::{backoff::Backoff, backoff::Jitter, clock::Now},
};

const FIRST_RETRY: Duration = Duration::from_millis(200);
const LONGEST_RETRY: Duration = Duration::from_secs(10);

/// Nobody waits for a standby.
const FIRST_STANDBY_RETRY: Duration = Duration::from_secs(1);
const LONGEST_STANDBY_RETRY: Duration = Duration::from_secs(30);

/// How long a connector that refuses us is heard out.
const HEARD_OUT: Duration = Duration::from_millis(500);

/// How long a connector that drains may take; it ends by itself before.
const LONGEST_DRAIN: Duration = Duration::from_secs(600);

/// After a contest that nobody won, how long until the next.
const CONTEST_PAUSE: Duration = Duration::from_secs(1);

/// The connectors of one site: one carries, another stands by.
#[derive(Debug)]
pub(super) struct Site {
    name: String,
    prefixes: BTreeSet<IpNet>,
    sessions: Sessions,
    search: Search,
    contest: Option<Contest>,
    next_contest: Instant,
    backoff: Backoff,
    standby_backoff: Backoff,
    nearness: Nearness,
    problem: Option<SessionEnd>,
    /// Whether the first search has ended, well or not.
    is_settled: bool,
}

impl Site {
    /// A site whose connectors are tried from the one at this place on, so that not every client
    /// goes to the first.
    pub(super) fn new(name: String, first: usize, now: Instant) -> Self {
        Self {
            name,
            prefixes: BTreeSet::new(),
            sessions: Sessions::default(),
            search: Search::new(first),
            contest: None,
            next_contest: now,
            backoff: Backoff::new(FIRST_RETRY, LONGEST_RETRY),
            standby_backoff: Backoff::new(FIRST_STANDBY_RETRY, LONGEST_STANDBY_RETRY),
            nearness: Nearness::default(),
            problem: None,
            is_settled: false,
        }
    }

    pub(super) const fn prefixes(&self) -> &BTreeSet<IpNet> {
        &self.prefixes
    }

    pub(super) fn update_prefixes(&mut self, prefixes: BTreeSet<IpNet>, outbox: &mut Outbox) {
        if self.prefixes == prefixes {
            return;
        }
        self.sessions.finish_hearing_out(outbox);
        self.prefixes = prefixes;
        self.sessions.upsert_all(&self.prefixes, outbox);
    }

    pub(super) fn set_choice(&mut self, choice: CarrierChoice, outbox: &mut Outbox, now: Now) {
        for session in self.sessions.both_mut() {
            let steps = session.carriers.set_choice(choice, now.instant);
            session.carrier_problem = None;
            session.follow(steps, outbox);
        }
        self.sessions.upsert_all(&self.prefixes, outbox);
        self.handle_timeout(outbox, now);
    }

    /// Takes over the connectors; a search begins anew when they changed, and a session ends when
    /// its connector is gone or has other keys.
    pub(super) fn update_connectors(
        &mut self,
        name: &str,
        connectors: &[ConnectorOnClient],
        outbox: &mut Outbox,
        now: Now,
    ) {
        name.clone_into(&mut self.name);
        self.is_settled |= connectors.is_empty();
        if self.search.connectors == connectors {
            return;
        }
        self.sessions.finish_leaving(outbox);
        self.search.connectors = connectors.to_vec();
        let has_same_keys = |held: &Session| {
            let held = &held.connector;
            connectors.iter().any(|connector| {
                connector.id == held.id
                    && connector.pin == held.pin
                    && connector.wireguard_public_key == held.wireguard_public_key
            })
        };
        for session in [&mut self.sessions.active, &mut self.sessions.standby] {
            if let Some(gone) = session.take_if(|session| !has_same_keys(session)) {
                gone.drop_into(outbox);
            }
        }
        self.search.stop(outbox);
        self.settle(outbox, now);
        self.search.begin(&self.sessions, None, now.instant);
    }

    pub(super) fn owns(&self, attempt: AttemptId) -> bool {
        self.sessions.all().any(|session| session.attempt == attempt) || self.search.owns(attempt)
    }

    pub(super) fn handle_admitted(
        &mut self,
        attempt: AttemptId,
        admittance: Admittance,
        outbox: &mut Outbox,
        now: Now,
    ) {
        // A session that is admitted again has shown a fresh credential; nothing else changes.
        let Some(connector) = self.search.handle_admitted(attempt) else { return };
        let public_key = connector.wireguard_public_key;
        let is_its = |held: &mut Session| held.public_key() == public_key;
        let was_active = self.sessions.active.take_if(is_its);
        if was_active.is_none() && self.sessions.active.is_some() && self.sessions.standby.is_some()
        {
            outbox.push(SiteCommand::StopSession { attempt });
            return;
        }
        self.sessions.finish_hearing_out(outbox);
        if self.sessions.leaving.as_ref().is_some_and(|(_until, it)| it.public_key() == public_key)
        {
            self.sessions.finish_leaving(outbox);
        }
        let role = match (&was_active, &self.sessions.active) {
            (Some(_), _) | (None, None) => Role::Active,
            (None, Some(_)) => Role::Standby,
        };
        let session = Session::new(attempt, connector, admittance, was_active, now);
        session.upsert(role, &self.prefixes, outbox);
        session.follow(session.carriers.handle_readmitted(), outbox);
        match role {
            Role::Active => {
                self.search.preferred = Some(session.id());
                self.problem = None;
                self.sessions.active = Some(session);
            }
            Role::Standby => {
                self.standby_backoff.reset();
                self.sessions.standby = Some(session);
            }
        }
        if self.search.is_done(&self.sessions) {
            self.search.stop(outbox);
        }
        self.search.begin(&self.sessions, None, now.instant + FIRST_STANDBY_RETRY);
        self.handle_timeout(outbox, now);
    }

    pub(super) fn handle_ended(
        &mut self,
        attempt: AttemptId,
        end: SessionEnd,
        outbox: &mut Outbox,
        jitter: &mut Jitter,
        now: Now,
    ) {
        let is_its = |session: &Session| session.attempt == attempt;
        if self.sessions.active.as_ref().is_some_and(is_its) {
            self.handle_active_ended(end, outbox, jitter, now);
        } else if let Some(mut session) = self.sessions.standby.take_if(|session| is_its(session)) {
            session.has_channel = false;
            session.drop_into(outbox);
            let wait = self.standby_backoff.next(jitter);
            self.search.begin(&self.sessions, None, now.instant + wait);
        } else if let Some((until, mut session)) =
            self.sessions.leaving.take_if(|(_until, session)| is_its(session))
        {
            session.has_channel = false;
            if session.is_draining {
                session.drop_into(outbox);
                self.search.begin(&self.sessions, None, now.instant + FIRST_STANDBY_RETRY);
            } else {
                self.sessions.leaving = Some((until, session));
            }
        } else if let Some(left) = self.search.handle_failed(attempt, now.instant) {
            self.problem = Some(end);
            if left == Round::IsOver {
                self.handle_round_over(outbox, jitter, now);
            }
        }
    }

    fn handle_active_ended(
        &mut self,
        end: SessionEnd,
        outbox: &mut Outbox,
        jitter: &mut Jitter,
        now: Now,
    ) {
        let Some(mut session) = self.sessions.active.take() else { return };
        let was_refused = matches!(end, SessionEnd::Refused(_));
        session.has_channel = false;
        session.is_draining = false;
        if session.was_stable(now.instant) {
            self.backoff.reset();
        }
        self.problem = Some(end);
        // The first retry is at once, unless the connector has just thrown us out or sessions do not
        // last.
        let wait = if was_refused || self.backoff.has_failed() {
            self.backoff.next(jitter)
        } else {
            self.backoff.note_failure();
            Duration::ZERO
        };
        let connector = session.connector.clone();
        if was_refused {
            self.sessions.finish_leaving(outbox);
            if self.sessions.standby.is_some() {
                session.upsert(Role::Standby, &self.prefixes, outbox);
                self.move_to_standby(OpenFlows::Follow, outbox, now);
            }
            self.sessions.leaving = Some((now.instant + HEARD_OUT, session));
        } else {
            self.sessions.active = Some(session);
            self.begin_contest(outbox, now);
        }
        self.search.hurry_to(&connector, &self.sessions, now.instant + wait);
    }

    fn handle_round_over(&mut self, outbox: &mut Outbox, jitter: &mut Jitter, now: Now) {
        self.is_settled = true;
        if let Some(active) = &mut self.sessions.active {
            active.is_missed = !active.has_channel;
        }
        let active = self.sessions.active.as_ref().filter(|session| session.has_channel);
        if let Some(draining) = active.filter(|session| session.is_draining) {
            draining.tell(ClientMessage::Stays, outbox);
        }
        let backoff = match active {
            Some(_) => &mut self.standby_backoff,
            None => &mut self.backoff,
        };
        let wait = backoff.next(jitter);
        self.search.begin(&self.sessions, None, now.instant + wait);
    }

    pub(super) fn handle_draining(&mut self, attempt: AttemptId, outbox: &mut Outbox, now: Now) {
        let is_its = |session: &Session| session.attempt == attempt;
        if let Some(mut draining) = self.sessions.standby.take_if(|session| is_its(session)) {
            let id = draining.id();
            // Flows may have stayed there when the other one was found nearer.
            draining.is_draining = true;
            draining.tell(ClientMessage::Moved, outbox);
            self.sessions.finish_leaving(outbox);
            self.sessions.leaving = Some((now.instant + LONGEST_DRAIN, draining));
            self.search.begin(&self.sessions, Some(id), now.instant + FIRST_STANDBY_RETRY);
        } else if let Some(active) = self.sessions.active.as_mut().filter(|session| is_its(session))
        {
            active.is_draining = true;
            let id = active.id();
            self.search.preferred = None;
            if self.search.connectors.iter().all(|connector| connector.id == id) {
                active.tell(ClientMessage::Stays, outbox);
            } else if self.sessions.standby.is_none() {
                self.search.stop(outbox);
                self.search.begin(&self.sessions, None, now.instant);
            }
            self.settle(outbox, now);
        }
    }

    pub(super) fn handle_carrier_up(
        &mut self,
        public_key: &WireguardPublicKey,
        carrier: Carrier,
        outbox: &mut Outbox,
        now: Now,
    ) {
        if let Some(session) = self.sessions.with_key(public_key) {
            let steps = session.carriers.handle_up(carrier, now.instant);
            session.carrier_problem = None;
            session.follow(steps, outbox);
            self.is_settled |= self.sessions.active.as_ref().is_some_and(Session::is_carried);
            self.handle_alive(public_key);
            self.settle(outbox, now);
        }
    }

    pub(super) fn handle_carrier_down(
        &mut self,
        public_key: &WireguardPublicKey,
        carrier: Carrier,
        why: &str,
        outbox: &mut Outbox,
        now: Now,
    ) {
        if let Some(session) = self.sessions.with_key(public_key) {
            let was_carried = session.is_carried();
            let steps = session.carriers.handle_down(carrier, now.instant);
            session.carrier_problem = Some(format!("{carrier}: {why}"));
            session.follow(steps, outbox);
            let is_lost = was_carried && !session.is_carried();
            if is_lost && self.sessions.standby.is_none() {
                // Somebody waits for a standby now.
                self.search.hurry(&self.sessions, now.instant);
            }
            self.handle_timeout(outbox, now);
        }
    }

    /// A connector seems not to answer.
    pub(super) fn handle_suspected(
        &mut self,
        public_key: &WireguardPublicKey,
        outbox: &mut Outbox,
        now: Now,
    ) {
        if self.sessions.active.as_ref().is_some_and(|active| active.public_key() == *public_key) {
            self.begin_contest(outbox, now);
        }
    }

    /// A connector answers by what carries its packets.
    fn handle_alive(&mut self, public_key: &WireguardPublicKey) {
        let is_its = |session: &Session| session.public_key() == *public_key;
        if self.sessions.active.as_ref().is_some_and(is_its) {
            self.contest = None;
        } else if self.sessions.standby.as_ref().is_some_and(is_its)
            && let Some(contest) = &mut self.contest
        {
            contest.handle_standby_answered();
        }
    }

    /// A connector answers on its session channel.
    pub(super) fn handle_pong(
        &mut self,
        attempt: AttemptId,
        request_id: u64,
        load: u8,
        outbox: &mut Outbox,
        now: Now,
    ) {
        let Some(session) = self.sessions.both_mut().find(|session| session.attempt == attempt)
        else {
            return;
        };
        if !session.latency.handle_pong(request_id, load, now.instant) {
            return;
        }
        // Nothing else asks it, and both go the same way.
        if session.carriers.current() == Some(Carrier::Http2) {
            let public_key = session.public_key();
            self.handle_alive(&public_key);
        }
        self.compare();
        self.settle(outbox, now);
    }

    pub(super) fn handle_timeout(&mut self, outbox: &mut Outbox, now: Now) {
        self.search.handle_timeout(outbox, now.instant);
        if self.sessions.leaving.as_ref().is_some_and(|(until, _session)| *until <= now.instant) {
            self.sessions.finish_leaving(outbox);
            self.search.begin(&self.sessions, None, now.instant);
        }
        self.sessions.handle_timeout(outbox, now.instant);
        self.is_settled |=
            self.sessions.active.as_ref().is_some_and(|session| session.carriers.is_in_trouble());
        match self.contest.as_mut().map(|contest| contest.handle_timeout(now.instant)) {
            None | Some(Verdict::Open) => {}
            Some(Verdict::AskAgain) => self.sessions.probe_both(outbox, now),
            Some(Verdict::StandbyWins) => {
                self.contest = None;
                if self.sessions.standby.as_ref().is_some_and(Session::is_ready) {
                    self.move_to_standby(OpenFlows::Follow, outbox, now);
                }
            }
            Some(Verdict::Nobody) => {
                self.contest = None;
                self.next_contest = now.instant + CONTEST_PAUSE;
            }
        }
        self.settle(outbox, now);
    }

    /// Ends everything.
    pub(super) fn stop(&mut self, outbox: &mut Outbox) {
        self.search.stop(outbox);
        self.sessions.stop(outbox);
    }

    pub(super) fn poll_timeout(&self) -> Option<Instant> {
        let search = self.search.poll_timeout();
        let contest = self.contest.as_ref().map(Contest::poll_timeout);
        self.sessions.poll_timeout().into_iter().chain(search).chain(contest).min()
    }

    pub(super) fn is_established(&self) -> bool {
        let has_channel = |session: &Session| session.has_channel || !session.is_missed;
        self.sessions
            .active
            .as_ref()
            .is_some_and(|session| has_channel(session) && session.is_carried())
    }

    pub(super) const fn is_settled(&self) -> bool {
        self.is_settled
    }

    pub(super) fn view(&self, id: SiteId) -> SiteView<'_> {
        let active = self.sessions.active.as_ref();
        SiteView {
            id,
            name: &self.name,
            state: self.sessions.state(),
            connector: active.map(|session| &session.connector),
            attempt: active.map(|session| session.attempt),
            endpoint: active.map(|session| session.endpoint),
            carrier: active.and_then(|session| session.carriers.current()),
            round_trip: active.and_then(|session| session.latency.round_trip()),
            load: active.map(|session| session.latency.load()),
            since: active.map(|session| session.since),
            standby: self.sessions.standby_view(),
            problem: self.problem(),
        }
    }

    fn problem(&self) -> Option<String> {
        if let Some(session) = &self.sessions.active
            && session.has_channel
        {
            return session.trouble();
        }
        if self.search.connectors.is_empty() {
            return Some("the site has no connector; ask an administrator".to_owned());
        }
        let names: Vec<&str> =
            self.search.sought().map(|connector| connector.name.as_str()).collect();
        self.problem.as_ref().map(|end| match names.as_slice() {
            [] | [_, _, ..] => end.to_string(),
            [name] => format!("{name}: {end}"),
        })
    }

    /// Moves to the standby when that is better.
    fn settle(&mut self, outbox: &mut Outbox, now: Now) {
        let Some(standby) = &self.sessions.standby else { return };
        let Some(active) = &self.sessions.active else {
            self.move_to_standby(OpenFlows::Follow, outbox, now);
            return;
        };
        if !standby.is_ready() {
            return;
        }
        // Where the active one may be gone, a contest says so; flows that stay there would hang.
        let is_well = active.has_channel && active.is_carried() && self.contest.is_none();
        if active.is_draining || (is_well && self.nearness.calls_for_move(now.instant)) {
            self.move_to_standby(OpenFlows::Stay, outbox, now);
        } else if !active.is_carried() {
            self.begin_contest(outbox, now);
        }
    }

    /// Notes whether the standby is nearer.
    fn compare(&mut self) {
        let cost = |session: &Option<Session>| session.as_ref()?.latency.cost();
        if let (Some(active), Some(standby)) =
            (cost(&self.sessions.active), cost(&self.sessions.standby))
        {
            self.nearness.compare(active, standby);
        }
    }

    fn move_to_standby(&mut self, open_flows: OpenFlows, outbox: &mut Outbox, now: Now) {
        let Some(new) = self.sessions.standby.take() else { return };
        if let Some(old) = self.sessions.active.take() {
            outbox.push(SiteCommand::MovePackets {
                from: old.peer(Role::Standby, &self.prefixes),
                to: new.peer(Role::Active, &self.prefixes),
                open_flows,
            });
            if old.is_draining {
                old.tell(ClientMessage::Moved, outbox);
                self.sessions.finish_leaving(outbox);
                self.sessions.leaving = Some((now.instant + LONGEST_DRAIN, old));
            } else if open_flows == OpenFlows::Stay {
                self.sessions.standby = Some(old);
            } else {
                // Its channel may be as dead, only without having been told.
                old.drop_into(outbox);
            }
        } else {
            new.upsert(Role::Active, &self.prefixes, outbox);
        }
        self.search.preferred = Some(new.id());
        self.problem = None;
        self.sessions.active = Some(new);
        self.contest = None;
        self.nearness.handle_moved(now.instant);
        self.search.begin(&self.sessions, None, now.instant + FIRST_STANDBY_RETRY);
    }

    fn begin_contest(&mut self, outbox: &mut Outbox, now: Now) {
        let is_ready = self.sessions.standby.as_ref().is_some_and(Session::is_ready);
        if self.contest.is_none() && is_ready && now.instant >= self.next_contest {
            let round_trip =
                self.sessions.active.as_ref().and_then(|active| active.latency.round_trip());
            self.contest = Some(Contest::new(round_trip, now.instant));
            self.sessions.probe_both(outbox, now);
        }
    }
}
