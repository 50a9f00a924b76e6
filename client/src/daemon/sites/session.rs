//! One connector that has admitted us.

use std::{
    collections::BTreeSet,
    net::SocketAddr,
    time::{Duration, Instant},
};

use adit_proto::{
    ClientMessage, ConnectorId, ConnectorOnClient, PresharedKey, Timestamp, WireguardPublicKey,
};
use ipnet::IpNet;

use super::{
    Admittance, AttemptId, Outbox, SiteCommand, UpsertedPeer,
    carriers::{CarrierStep, Carriers},
    latency::Latency,
};
use crate::{carrier::Carrier, daemon::clock::Now};

/// A session that has lived this long was no failed attempt.
const STABLE_AFTER: Duration = Duration::from_secs(30);

/// A connector that has admitted us, and how its packets go.
#[derive(Debug)]
pub(super) struct Session {
    pub(super) attempt: AttemptId,
    pub(super) connector: ConnectorOnClient,
    pub(super) endpoint: SocketAddr,
    preshared_key: Option<PresharedKey>,
    pub(super) since: Timestamp,
    admitted: Instant,
    /// Whether the session channel is open. The peer outlives it, so that packets pass while the
    /// channel is made anew.
    pub(super) has_channel: bool,
    /// Whether the channel was lost and sought in vain.
    pub(super) is_missed: bool,
    /// Whether the connector is about to stop.
    pub(super) is_draining: bool,
    pub(super) carriers: Carriers,
    /// Why a carrier did not come about.
    pub(super) carrier_problem: Option<String>,
    pub(super) latency: Latency,
}

/// What a connector is to the site.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Role {
    /// Packets go there.
    Active,
    /// Packets may come from there.
    Standby,
}

impl Session {
    /// `before` is the session with this connector whose channel was lost: packets pass as before,
    /// whatever became of it.
    pub(super) fn new(
        attempt: AttemptId,
        connector: ConnectorOnClient,
        admittance: Admittance,
        before: Option<Self>,
        now: Now,
    ) -> Self {
        let Admittance { endpoint, preshared_key, choice, remembered } = admittance;
        let carriers = before.map(|before| before.carriers);
        Self {
            attempt,
            connector,
            endpoint,
            preshared_key,
            since: now.time,
            admitted: now.instant,
            has_channel: true,
            is_missed: false,
            is_draining: false,
            carriers: carriers.unwrap_or_else(|| Carriers::new(choice, remembered, now.instant)),
            carrier_problem: None,
            latency: Latency::new(now.instant),
        }
    }

    pub(super) const fn public_key(&self) -> WireguardPublicKey {
        self.connector.wireguard_public_key
    }

    pub(super) const fn id(&self) -> ConnectorId {
        self.connector.id
    }

    pub(super) const fn is_carried(&self) -> bool {
        self.carriers.current().is_some()
    }

    /// Whether new flows may begin there.
    pub(super) const fn is_ready(&self) -> bool {
        self.has_channel && !self.is_draining && self.is_carried()
    }

    pub(super) fn was_stable(&self, now: Instant) -> bool {
        now.saturating_duration_since(self.admitted) >= STABLE_AFTER
    }

    /// Does what is due.
    pub(super) fn handle_timeout(&mut self, outbox: &mut Outbox, now: Instant) {
        let steps = self.carriers.handle_timeout(now);
        self.follow(steps, outbox);
        if self.has_channel && self.latency.poll_ping(outbox.next_request, now) {
            let message = ClientMessage::Ping { request_id: outbox.next_request };
            outbox.next_request += 1;
            self.tell(message, outbox);
        }
    }

    pub(super) fn poll_timeout(&self) -> Option<Instant> {
        let ping = self.has_channel.then(|| self.latency.poll_timeout());
        self.carriers.poll_timeout().into_iter().chain(ping).min()
    }

    /// Asks the connector to answer by what carries its packets.
    pub(super) fn probe(&self, outbox: &mut Outbox) {
        if let Some(carrier) = self.carriers.current() {
            outbox.push(SiteCommand::ProbeCarrier { public_key: self.public_key(), carrier });
        }
    }

    pub(super) fn tell(&self, message: ClientMessage, outbox: &mut Outbox) {
        outbox.push(SiteCommand::Tell { attempt: self.attempt, message });
    }

    pub(super) fn follow(&self, steps: Vec<CarrierStep>, outbox: &mut Outbox) {
        let public_key = self.public_key();
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

    /// Makes the connector a peer for what it is to the site.
    pub(super) fn upsert(&self, role: Role, prefixes: &BTreeSet<IpNet>, outbox: &mut Outbox) {
        outbox.push(SiteCommand::UpsertPeer(self.peer(role, prefixes)));
    }

    /// The peer that it is.
    pub(super) fn peer(&self, role: Role, prefixes: &BTreeSet<IpNet>) -> Box<UpsertedPeer> {
        let by_wireguard = self.carriers.choice().allows(Carrier::Wireguard);
        Box::new(UpsertedPeer {
            public_key: self.public_key(),
            endpoint: by_wireguard.then_some(self.endpoint),
            preshared_key: self.preshared_key.clone(),
            prefixes: match role {
                Role::Active => prefixes.iter().copied().collect(),
                Role::Standby => Vec::new(),
            },
            shared: prefixes.iter().copied().collect(),
        })
    }

    /// What the user is told when no carrier reaches the connector.
    pub(super) fn trouble(&self) -> Option<String> {
        if !self.carriers.is_in_trouble() {
            return None;
        }
        let endpoint = self.endpoint;
        let why = self.carrier_problem.as_ref().map(|why| format!(" ({why})"));
        let why = why.unwrap_or_default();
        Some(match self.carriers.choice().only() {
            None => format!("no carrier reaches {endpoint}{why}"),
            Some(only) => format!(
                "{only} does not reach {endpoint}{why}; does a firewall block it? Next: adit set \
                 carrier auto"
            ),
        })
    }

    /// Ends it.
    pub(super) fn drop_into(mut self, outbox: &mut Outbox) {
        if self.has_channel {
            outbox.push(SiteCommand::StopSession { attempt: self.attempt });
        }
        let steps = self.carriers.close_all();
        self.follow(steps, outbox);
        outbox.push(SiteCommand::RemovePeer { public_key: self.public_key() });
    }
}
