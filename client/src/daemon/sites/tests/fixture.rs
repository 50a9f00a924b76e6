//! Sites with their connectors, and a clock that the test moves.

use std::time::Duration;

use adit_proto::{
    ClientConfig, ClientMessage, ConnectorId, ConnectorOnClient, DeviceId, OrganisationId, Pin,
    ResourceOnClient, SiteOnClient, Timestamp, UserId, WireguardPublicKey,
};

use crate::{
    carrier::{Carrier, CarrierChoice},
    daemon::{
        backoff::Jitter,
        clock::Now,
        sites::{AttemptId, OpenFlows, SessionEnd, SiteCommand, Sites, UpsertedPeer},
    },
};

pub(super) const BERLIN: &str = "site_00000000000000000000000000000001";
pub(super) const OSLO: &str = "site_00000000000000000000000000000002";

pub(super) fn connector(number: u8) -> ConnectorOnClient {
    let mut key = [0; 32];
    key[0] = 9;
    key[1] = number;
    ConnectorOnClient {
        id: format!("conn_{number:032x}").parse().unwrap(),
        name: format!("connector-{number}"),
        endpoints: vec![format!("192.0.2.{number}:443")],
        pin: Pin::from_spki(&[number]),
        wireguard_public_key: WireguardPublicKey::try_from_bytes(key).unwrap(),
    }
}

pub(super) fn config(sites: &[(&str, &[&str], &[u8])]) -> ClientConfig {
    let resources = sites.iter().zip(1..).map(|((site, prefixes, _), number)| ResourceOnClient {
        id: format!("res_{number:032x}").parse().unwrap(),
        name: format!("resource-{number}"),
        site_id: site.parse().unwrap(),
        addresses: prefixes.iter().map(|prefix| prefix.parse().unwrap()).collect(),
        filters: Vec::new(),
    });
    let sites_on_client = sites.iter().map(|(site, _, connectors)| SiteOnClient {
        id: site.parse().unwrap(),
        name: (*site).to_owned(),
        connectors: connectors.iter().copied().map(connector).collect(),
    });
    ClientConfig {
        organisation_id: "org_00000000000000000000000000000001".parse::<OrganisationId>().unwrap(),
        organisation_name: "Example".to_owned(),
        device_id: "dev_00000000000000000000000000000001".parse::<DeviceId>().unwrap(),
        device_name: "laptop".to_owned(),
        user_id: "usr_00000000000000000000000000000001".parse::<UserId>().unwrap(),
        user_name: "Ada".to_owned(),
        sequence: 1,
        issued_at: Timestamp::from_millis(0),
        addresses: vec!["100.80.0.1".parse().unwrap()],
        organisation_keys: Vec::new(),
        resources: resources.collect(),
        sites: sites_on_client.collect(),
    }
}

pub(super) struct Fixture {
    pub(super) sites: Sites,
    pub(super) now: Now,
}

impl Fixture {
    pub(super) fn new(config: &ClientConfig) -> Self {
        let mut sites = Sites::new(Jitter::from_seed(5), CarrierChoice::Wireguard);
        let now = Now::read();
        sites.handle_config(config, now);
        Self { sites, now }
    }

    /// One site with these connectors; the first has admitted us and shaken hands.
    pub(super) fn established(connectors: &[u8]) -> (Self, AttemptId) {
        let mut fixture = Self::new(&config(&[(BERLIN, &["10.9.0.0/24"], connectors)]));
        let attempt = fixture.started()[0].0;
        fixture.admit(attempt);
        fixture.commands();
        let key = connector(connectors[0]).wireguard_public_key;
        fixture.sites.handle_carrier_up(&key, Carrier::Wireguard, fixture.now);
        fixture.commands();
        assert_eq!(fixture.sites.progress().established, 1);
        (fixture, attempt)
    }

    /// One site whose first connector carries and whose second stands by.
    pub(super) fn with_standby() -> (Self, AttemptId, AttemptId) {
        let (mut fixture, active) = Self::established(&[1, 2]);
        fixture.wait(Duration::from_millis(250));
        let standby = fixture.started()[0].0;
        fixture.admit(standby);
        let key = connector(2).wireguard_public_key;
        fixture.sites.handle_carrier_up(&key, Carrier::Wireguard, fixture.now);
        fixture.commands();
        (fixture, active, standby)
    }

    pub(super) fn active(&self) -> ConnectorId {
        self.sites.views().next().unwrap().connector.unwrap().id
    }

    pub(super) fn commands(&mut self) -> Vec<SiteCommand> {
        std::iter::from_fn(|| self.sites.poll_command()).collect()
    }

    /// The attempts that are to be started.
    pub(super) fn started(&mut self) -> Vec<(AttemptId, ConnectorId)> {
        let start = |command| match command {
            SiteCommand::StartSession { attempt, connector } => Some((attempt, connector.id)),
            SiteCommand::StopSession { .. }
            | SiteCommand::UpsertPeer(_)
            | SiteCommand::MovePackets { .. }
            | SiteCommand::Tell { .. }
            | SiteCommand::OpenCarrier { .. }
            | SiteCommand::ProbeCarrier { .. }
            | SiteCommand::CloseCarrier { .. }
            | SiteCommand::UseCarrier { .. }
            | SiteCommand::RemovePeer { .. } => None,
        };
        self.commands().into_iter().filter_map(start).collect()
    }

    pub(super) fn upserted(&mut self) -> Vec<UpsertedPeer> {
        let mut upserted = Vec::new();
        for command in self.commands() {
            if let SiteCommand::UpsertPeer(peer) = command {
                upserted.push(*peer);
            }
        }
        upserted
    }

    pub(super) fn admit(&mut self, attempt: AttemptId) {
        self.sites.handle_admitted(attempt, "192.0.2.1:443".parse().unwrap(), None, None, self.now);
    }

    pub(super) fn end(&mut self, attempt: AttemptId) {
        let end = SessionEnd::Unreachable("cannot reach it".to_owned());
        self.sites.handle_ended(attempt, end, self.now);
    }

    pub(super) fn wait(&mut self, duration: Duration) {
        self.now = self.now.after(duration);
        self.sites.handle_timeout(self.now);
    }

    /// Moves to the next timer and returns how long that took.
    pub(super) fn wait_for_timer(&mut self) -> Duration {
        let at = self.sites.poll_timeout().unwrap();
        let wait = at.saturating_duration_since(self.now.instant);
        self.wait(wait);
        wait
    }
}

pub(super) fn upserted(number: u8, prefixes: &[&str]) -> SiteCommand {
    SiteCommand::UpsertPeer(Box::new(peer(number, prefixes)))
}

pub(super) fn moved(from: u8, to: u8, open_flows: OpenFlows) -> SiteCommand {
    let (from, to) = (peer(from, &[]), peer(to, &["10.9.0.0/24"]));
    SiteCommand::MovePackets { from: Box::new(from), to: Box::new(to), open_flows }
}

pub(super) fn peer(number: u8, prefixes: &[&str]) -> UpsertedPeer {
    UpsertedPeer {
        public_key: connector(number).wireguard_public_key,
        endpoint: Some("192.0.2.1:443".parse().unwrap()),
        preshared_key: None,
        prefixes: prefixes.iter().map(|prefix| prefix.parse().unwrap()).collect(),
        shared: vec!["10.9.0.0/24".parse().unwrap()],
    }
}

pub(super) fn probed(commands: &[SiteCommand]) -> Vec<WireguardPublicKey> {
    let mut probed = Vec::new();
    for command in commands {
        if let SiteCommand::ProbeCarrier { public_key, .. } = command {
            probed.push(*public_key);
        }
    }
    probed
}

pub(super) fn pinged(commands: &[SiteCommand], by: AttemptId) -> Option<u64> {
    let mut pinged = None;
    for command in commands {
        if let SiteCommand::Tell { attempt, message: ClientMessage::Ping { request_id } } = command
            && *attempt == by
        {
            pinged = Some(*request_id);
        }
    }
    pinged
}

pub(super) fn is_opening(commands: &[SiteCommand], expected: Carrier) -> bool {
    let is_it = |it: &SiteCommand| matches!(it, SiteCommand::OpenCarrier { carrier, .. } if *carrier == expected);
    commands.iter().any(is_it)
}
