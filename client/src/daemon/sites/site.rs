//! One site.

use std::{
    collections::BTreeSet,
    net::SocketAddr,
    time::{Duration, Instant},
};

use adit_proto::{
    ConnectorId, ConnectorOnClient, PresharedKey, SiteId, Timestamp, WireguardPublicKey,
};
use ipnet::IpNet;

use super::{
    Admittance, AttemptId, Outbox, SessionEnd, SiteCommand, SiteView,
    carriers::{CarrierStep, Carriers},
    seek::{Round, Seek},
};
use crate::{
    carrier::{Carrier, CarrierChoice},
    daemon::{backoff::Backoff, backoff::Jitter, clock::Now},
    ipc::SessionState,
};

const FIRST_RETRY: Duration = Duration::from_millis(200);
const LONGEST_RETRY: Duration = Duration::from_secs(10);

/// How long a connector that refuses us is heard out.
const HEARD_OUT: Duration = Duration::from_millis(500);

/// A session that has lived this long was no failed attempt.
const STABLE_AFTER: Duration = Duration::from_secs(30);

#[derive(Debug)]
pub(super) struct Site {
    name: String,
    prefixes: BTreeSet<IpNet>,
    connectors: Vec<ConnectorOnClient>,
    session: Option<Session>,
    /// A session that was refused, heard out until then: what tells flows that they are cut may lie
    /// behind what was sent before.
    leaving: Option<(Instant, Session)>,
    /// A search under way, beside a session that drains or whose channel was lost.
    seek: Option<Seek>,
    backoff: Backoff,
    preferred: Option<ConnectorId>,
    problem: Option<SessionEnd>,
    /// Whether the first search has ended, well or not.
    is_settled: bool,
}

/// A connector that has admitted us.
#[derive(Debug)]
struct Session {
    attempt: AttemptId,
    connector: ConnectorOnClient,
    endpoint: SocketAddr,
    preshared_key: Option<PresharedKey>,
    since: Timestamp,
    admitted: Instant,
    /// Whether the session channel is open. The peer outlives it, so that packets pass while the
    /// channel is made anew.
    has_channel: bool,
    carriers: Carriers,
    /// Why a carrier did not come about.
    carrier_problem: Option<String>,
}

impl Site {
    pub(super) fn new(name: String, now: Instant) -> Self {
        Self {
            name,
            prefixes: BTreeSet::new(),
            connectors: Vec::new(),
            session: None,
            leaving: None,
            seek: Some(Seek::new(&[], None, None, now)),
            backoff: Backoff::new(FIRST_RETRY, LONGEST_RETRY),
            preferred: None,
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
        self.finish_leaving(outbox);
        self.prefixes = prefixes;
        if let Some(session) = &self.session {
            outbox.push(session.upsert(&self.prefixes));
        }
    }

    pub(super) fn set_choice(&mut self, choice: CarrierChoice, outbox: &mut Outbox, now: Now) {
        if let Some(session) = &mut self.session {
            let steps = session.carriers.set_choice(choice, now.instant);
            session.carrier_problem = None;
            outbox.push(session.upsert(&self.prefixes));
            session.follow(steps, outbox);
            self.handle_timeout(outbox, now);
        }
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
        if self.connectors == connectors {
            return;
        }
        self.finish_leaving(outbox);
        self.connectors = connectors.to_vec();
        let same_keys = |held: &ConnectorOnClient| {
            connectors.iter().any(|connector| {
                connector.id == held.id
                    && connector.pin == held.pin
                    && connector.wireguard_public_key == held.wireguard_public_key
            })
        };
        if self.session.as_ref().is_some_and(|session| !same_keys(&session.connector)) {
            self.drop_session(outbox);
        }
        let is_seeking = self.seek.is_some();
        if let Some(seek) = self.seek.take() {
            seek.finish(None, outbox);
        }
        if is_seeking || self.session.is_none() {
            self.seek(None, now.instant);
        }
    }

    pub(super) fn owns(&self, attempt: AttemptId) -> bool {
        self.session.as_ref().is_some_and(|session| session.attempt == attempt)
            || self.seek.as_ref().is_some_and(|seek| seek.owns(attempt))
    }

    pub(super) fn handle_admitted(
        &mut self,
        attempt: AttemptId,
        admittance: Admittance,
        outbox: &mut Outbox,
        now: Now,
    ) {
        let Admittance { endpoint, preshared_key, choice } = admittance;
        // A session that is admitted again has shown a fresh credential; nothing else changes.
        if !self.seek.as_ref().is_some_and(|seek| seek.owns(attempt)) {
            return;
        }
        let Some(connector) = self.seek.take().and_then(|seek| seek.finish(Some(attempt), outbox))
        else {
            return;
        };
        self.finish_leaving(outbox);
        let mut carriers = None;
        if let Some(mut before) = self.session.take() {
            if before.has_channel {
                outbox.push(SiteCommand::StopSession { attempt: before.attempt });
            }
            let public_key = before.connector.wireguard_public_key;
            if public_key == connector.wireguard_public_key {
                // Packets pass as before, whatever became of the channel.
                carriers = Some(before.carriers);
            } else {
                let steps = before.carriers.close_all();
                before.follow(steps, outbox);
                outbox.push(SiteCommand::RemovePeer { public_key });
            }
        }
        self.preferred = Some(connector.id);
        self.problem = None;
        let session = Session {
            attempt,
            connector,
            endpoint,
            preshared_key,
            since: now.time,
            admitted: now.instant,
            has_channel: true,
            carriers: carriers.unwrap_or_else(|| Carriers::new(choice, now.instant)),
            carrier_problem: None,
        };
        outbox.push(session.upsert(&self.prefixes));
        session.follow(session.carriers.handle_readmitted(), outbox);
        self.session = Some(session);
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
        let was_refused = matches!(end, SessionEnd::Refused(_));
        if let Some(session) = self.session.as_mut().filter(|session| session.attempt == attempt) {
            session.has_channel = false;
            if now.instant.saturating_duration_since(session.admitted) >= STABLE_AFTER {
                self.backoff.reset();
            }
            self.problem = Some(end);
            if was_refused {
                self.finish_leaving(outbox);
                self.leaving =
                    self.session.take().map(|session| (now.instant + HEARD_OUT, session));
            }
            if self.seek.is_none() {
                // The first retry is at once, unless the connector has just thrown us out or
                // sessions do not last.
                let wait = match was_refused || self.backoff.has_failed() {
                    true => self.backoff.next(jitter),
                    false => {
                        self.backoff.note_failure();
                        Duration::ZERO
                    }
                };
                self.seek(None, now.instant + wait);
            }
            return;
        }

        let Some(seek) = &mut self.seek else {
            return;
        };
        self.problem = Some(end);
        if seek.handle_failed(attempt, now.instant) == Round::IsOver {
            self.is_settled = true;
            let wait = self.backoff.next(jitter);
            let avoided = self.session.as_ref().map(|session| session.connector.id);
            self.seek(avoided.filter(|_| self.has_channel()), now.instant + wait);
        }
    }

    pub(super) fn handle_draining(&mut self, attempt: AttemptId, now: Now) {
        let Some(session) = self.session.as_ref().filter(|session| session.attempt == attempt)
        else {
            return;
        };
        let id = session.connector.id;
        if self.seek.is_none() && self.connectors.iter().any(|connector| connector.id != id) {
            self.preferred = None;
            self.seek(Some(id), now.instant);
        }
    }

    pub(super) fn handle_carrier_up(
        &mut self,
        public_key: &WireguardPublicKey,
        carrier: Carrier,
        outbox: &mut Outbox,
        now: Now,
    ) {
        if let Some(session) = &mut self.session
            && session.connector.wireguard_public_key == *public_key
        {
            let steps = session.carriers.handle_up(carrier, now.instant);
            session.carrier_problem = None;
            session.follow(steps, outbox);
            self.is_settled = true;
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
        if let Some(session) = &mut self.session
            && session.connector.wireguard_public_key == *public_key
        {
            let steps = session.carriers.handle_down(carrier, now.instant);
            session.carrier_problem = Some(format!("{carrier}: {why}"));
            session.follow(steps, outbox);
            self.handle_timeout(outbox, now);
        }
    }

    pub(super) fn handle_timeout(&mut self, outbox: &mut Outbox, now: Now) {
        if let Some(seek) = &mut self.seek {
            seek.handle_timeout(outbox, now.instant);
        }
        if self.leaving.as_ref().is_some_and(|(until, _session)| *until <= now.instant) {
            self.finish_leaving(outbox);
        }
        if let Some(session) = &mut self.session {
            let steps = session.carriers.handle_timeout(now.instant);
            session.follow(steps, outbox);
            self.is_settled |= session.carriers.is_in_trouble();
        }
    }

    /// Ends everything.
    pub(super) fn stop(&mut self, outbox: &mut Outbox) {
        if let Some(seek) = self.seek.take() {
            seek.finish(None, outbox);
        }
        self.finish_leaving(outbox);
        self.drop_session(outbox);
    }

    pub(super) fn poll_timeout(&self) -> Option<Instant> {
        let seek = self.seek.as_ref().and_then(Seek::poll_timeout);
        let carriers = self.session.as_ref().and_then(|session| session.carriers.poll_timeout());
        let leaving = self.leaving.as_ref().map(|(until, _session)| *until);
        seek.into_iter().chain(carriers).chain(leaving).min()
    }

    pub(super) fn is_established(&self) -> bool {
        self.session.as_ref().is_some_and(|session| session.has_channel && session.is_carried())
    }

    pub(super) const fn is_settled(&self) -> bool {
        self.is_settled
    }

    pub(super) fn view(&self, id: SiteId) -> SiteView<'_> {
        let state = match &self.session {
            None => SessionState::Seeking,
            Some(session) if !session.has_channel => SessionState::Reconnecting,
            Some(session) if !session.is_carried() => SessionState::Handshaking,
            Some(_) => SessionState::Established,
        };
        SiteView {
            id,
            name: &self.name,
            state,
            connector: self.session.as_ref().map(|session| &session.connector),
            attempt: self.session.as_ref().map(|session| session.attempt),
            endpoint: self.session.as_ref().map(|session| session.endpoint),
            carrier: self.session.as_ref().and_then(|session| session.carriers.current()),
            since: self.session.as_ref().map(|session| session.since),
            problem: self.problem(),
        }
    }

    fn problem(&self) -> Option<String> {
        if let Some(session) = &self.session
            && session.has_channel
        {
            return session.carriers.is_in_trouble().then(|| {
                let endpoint = session.endpoint;
                let why = session.carrier_problem.as_ref().map(|why| format!(" ({why})"));
                let why = why.unwrap_or_default();
                match session.carriers.choice().only() {
                    None => format!("no carrier reaches {endpoint}{why}"),
                    Some(only) => format!(
                        "{only} does not reach {endpoint}{why}; does a firewall block it? Next: \
                         adit set carrier auto"
                    ),
                }
            });
        }
        if self.connectors.is_empty() {
            return Some("the site has no connector; ask an administrator".to_owned());
        }
        let names: Vec<&str> = match &self.seek {
            Some(seek) => seek.connectors().map(|connector| connector.name.as_str()).collect(),
            None => Vec::new(),
        };
        self.problem.as_ref().map(|end| match names.as_slice() {
            [] | [_, _, ..] => end.to_string(),
            [name] => format!("{name}: {end}"),
        })
    }

    fn has_channel(&self) -> bool {
        self.session.as_ref().is_some_and(|session| session.has_channel)
    }

    fn seek(&mut self, avoided: Option<ConnectorId>, at: Instant) {
        self.seek = Some(Seek::new(&self.connectors, self.preferred, avoided, at));
    }

    fn drop_session(&mut self, outbox: &mut Outbox) {
        if let Some(session) = self.session.take() {
            session.drop_into(outbox);
        }
    }

    fn finish_leaving(&mut self, outbox: &mut Outbox) {
        if let Some((_until, session)) = self.leaving.take() {
            session.drop_into(outbox);
        }
    }
}

impl Session {
    fn drop_into(mut self, outbox: &mut Outbox) {
        if self.has_channel {
            outbox.push(SiteCommand::StopSession { attempt: self.attempt });
        }
        let steps = self.carriers.close_all();
        self.follow(steps, outbox);
        let public_key = self.connector.wireguard_public_key;
        outbox.push(SiteCommand::RemovePeer { public_key });
    }

    const fn is_carried(&self) -> bool {
        self.carriers.current().is_some()
    }

    fn follow(&self, steps: Vec<CarrierStep>, outbox: &mut Outbox) {
        let public_key = self.connector.wireguard_public_key;
        for step in steps {
            outbox.push(match step {
                CarrierStep::Open(carrier) => SiteCommand::OpenCarrier {
                    connector: Box::new(self.connector.clone()),
                    endpoint: self.endpoint,
                    carrier,
                },
                CarrierStep::Probe(carrier) => SiteCommand::ProbeCarrier { public_key, carrier },
                CarrierStep::Close(carrier) => SiteCommand::CloseCarrier { public_key, carrier },
                CarrierStep::Use(carrier) => SiteCommand::UseCarrier { public_key, carrier },
            });
        }
    }

    fn upsert(&self, prefixes: &BTreeSet<IpNet>) -> SiteCommand {
        let by_wireguard = self.carriers.choice().allows(Carrier::Wireguard);
        SiteCommand::UpsertPeer {
            public_key: self.connector.wireguard_public_key,
            endpoint: by_wireguard.then_some(self.endpoint),
            preshared_key: self.preshared_key.clone(),
            prefixes: prefixes.iter().copied().collect(),
        }
    }
}
