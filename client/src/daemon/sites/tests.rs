use std::{net::IpAddr, time::Duration};

use adit_proto::{
    DeviceId, OrganisationId, Pin, ResourceOnClient, SiteOnClient, Timestamp, UserId,
};
use proptest::{collection::vec, prelude::*, sample::select};

use super::*;

const BERLIN: &str = "site_00000000000000000000000000000001";
const OSLO: &str = "site_00000000000000000000000000000002";

fn connector(number: u8) -> ConnectorOnClient {
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

fn config(sites: &[(&str, &[&str], &[u8])]) -> ClientConfig {
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

struct Fixture {
    sites: Sites,
    now: Now,
}

impl Fixture {
    fn new(config: &ClientConfig) -> Self {
        let mut sites = Sites::new(Jitter::from_seed(5), CarrierChoice::Wireguard);
        let now = Now::read();
        sites.handle_config(config, now);
        Self { sites, now }
    }

    /// One site with these connectors; the first has admitted us and shaken hands.
    fn established(connectors: &[u8]) -> (Self, AttemptId) {
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
    fn with_standby() -> (Self, AttemptId, AttemptId) {
        let (mut fixture, active) = Self::established(&[1, 2]);
        fixture.wait(Duration::from_millis(250));
        let standby = fixture.started()[0].0;
        fixture.admit(standby);
        let key = connector(2).wireguard_public_key;
        fixture.sites.handle_carrier_up(&key, Carrier::Wireguard, fixture.now);
        fixture.commands();
        (fixture, active, standby)
    }

    fn active(&self) -> ConnectorId {
        self.sites.views().next().unwrap().connector.unwrap().id
    }

    fn commands(&mut self) -> Vec<SiteCommand> {
        std::iter::from_fn(|| self.sites.poll_command()).collect()
    }

    /// The attempts that are to be started.
    fn started(&mut self) -> Vec<(AttemptId, ConnectorId)> {
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

    fn upserted(&mut self) -> Vec<UpsertedPeer> {
        let mut upserted = Vec::new();
        for command in self.commands() {
            if let SiteCommand::UpsertPeer(peer) = command {
                upserted.push(*peer);
            }
        }
        upserted
    }

    fn admit(&mut self, attempt: AttemptId) {
        self.sites.handle_admitted(attempt, "192.0.2.1:443".parse().unwrap(), None, None, self.now);
    }

    fn end(&mut self, attempt: AttemptId) {
        let end = SessionEnd::Unreachable("cannot reach it".to_owned());
        self.sites.handle_ended(attempt, end, self.now);
    }

    fn wait(&mut self, duration: Duration) {
        self.now = self.now.after(duration);
        self.sites.handle_timeout(self.now);
    }

    /// Moves to the next timer and returns how long that took.
    fn wait_for_timer(&mut self) -> Duration {
        let at = self.sites.poll_timeout().unwrap();
        let wait = at.saturating_duration_since(self.now.instant);
        self.wait(wait);
        wait
    }
}

#[test]
fn the_second_connector_is_tried_after_a_head_start() {
    let mut fixture = Fixture::new(&config(&[(BERLIN, &["10.9.0.0/24"], &[1, 2])]));
    assert_eq!(fixture.started().len(), 1);
    fixture.wait(Duration::from_millis(249));
    assert_eq!(fixture.started().len(), 0);
    fixture.wait(Duration::from_millis(1));
    assert_eq!(fixture.started().len(), 1);
}

#[test]
fn a_failed_attempt_starts_the_next_at_once() {
    let mut fixture = Fixture::new(&config(&[(BERLIN, &["10.9.0.0/24"], &[1, 2])]));
    let first = fixture.started()[0].0;
    fixture.end(first);
    assert_eq!(fixture.started()[0].1, connector(2).id);
}

#[test]
fn the_first_that_admits_us_carries_and_the_second_stands_by() {
    let mut fixture = Fixture::new(&config(&[(BERLIN, &["10.9.0.0/24"], &[1, 2, 3])]));
    let first = fixture.started()[0].0;
    fixture.wait(Duration::from_millis(250));
    let second = fixture.started()[0].0;
    fixture.wait(Duration::from_millis(250));
    let third = fixture.started()[0].0;

    fixture.admit(second);
    assert_eq!(
        fixture.commands(),
        [
            upserted(2, &["10.9.0.0/24"]),
            SiteCommand::OpenCarrier {
                connector: Box::new(connector(2)),
                endpoint: "192.0.2.1:443".parse().unwrap(),
                carrier: Carrier::Wireguard,
            },
            SiteCommand::Tell { attempt: second, message: ClientMessage::Ping { request_id: 0 } },
        ]
    );
    assert_eq!(fixture.sites.progress(), Progress { total: 1, established: 0, unsettled: 1 });

    let key = connector(2).wireguard_public_key;
    fixture.sites.handle_carrier_up(&key, Carrier::Wireguard, fixture.now);
    assert_eq!(fixture.sites.progress(), Progress { total: 1, established: 1, unsettled: 0 });
    fixture.commands();

    fixture.admit(first);
    let commands = fixture.commands();
    assert_eq!(commands[..2], [upserted(1, &[]), SiteCommand::StopSession { attempt: third }]);
    let view = fixture.sites.views().next().unwrap();
    assert_eq!(view.connector.unwrap().id, connector(2).id);
    assert_eq!(view.standby.unwrap().connector.id, connector(1).id);
}

#[test]
fn a_connector_that_dies_is_left_once_the_standby_has_answered() {
    let (mut fixture, active, _standby) = Fixture::with_standby();
    let end = SessionEnd::Lost("the connection was reset".to_owned());
    fixture.sites.handle_ended(active, end, fixture.now);
    let keys = [1, 2].map(|number| connector(number).wireguard_public_key);
    assert_eq!(probed(&fixture.commands()), keys);

    // Neither answers: it is the network.
    fixture.wait(Duration::from_millis(350));
    assert_eq!(fixture.active(), connector(1).id);

    fixture.wait(Duration::from_secs(2));
    assert_eq!(fixture.active(), connector(1).id);
    fixture.sites.handle_suspected(&keys[0], fixture.now);
    fixture.commands();
    fixture.sites.handle_carrier_up(&keys[1], Carrier::Wireguard, fixture.now);
    fixture.wait(Duration::from_millis(350));

    assert_eq!(fixture.active(), connector(2).id);
    let commands = fixture.commands();
    assert!(commands.contains(&moved(1, 2, OpenFlows::Follow)), "{commands:?}");
    let removed = SiteCommand::RemovePeer { public_key: keys[0] };
    assert!(commands.contains(&removed), "{commands:?}");
    assert_eq!(fixture.sites.progress().established, 1);
}

#[test]
fn a_standby_that_is_lost_is_sought_again_and_at_once_when_it_is_needed() {
    let (mut fixture, _active, standby) = Fixture::with_standby();
    let end = SessionEnd::Lost("the connection was reset".to_owned());
    fixture.sites.handle_ended(standby, end, fixture.now);
    fixture.wait(Duration::from_millis(1300));
    let again = fixture.started();
    assert_eq!(again[0].1, connector(2).id);
    let mut attempt = again[0].0;
    for _ in 0..6 {
        fixture.end(attempt);
        fixture.wait(Duration::from_secs(40));
        attempt = fixture.started()[0].0;
    }
    fixture.end(attempt);
    let key = connector(1).wireguard_public_key;
    fixture.sites.handle_carrier_down(&key, Carrier::Wireguard, "silent", fixture.now);
    assert_eq!(fixture.started()[0].1, connector(2).id);
}

#[test]
fn a_connector_that_answers_stays() {
    let (mut fixture, active, _standby) = Fixture::with_standby();
    let keys = [1, 2].map(|number| connector(number).wireguard_public_key);
    let end = SessionEnd::Lost("the connection was reset".to_owned());
    fixture.sites.handle_ended(active, end, fixture.now);
    fixture.sites.handle_carrier_up(&keys[1], Carrier::Wireguard, fixture.now);
    fixture.sites.handle_carrier_up(&keys[0], Carrier::Wireguard, fixture.now);
    fixture.wait(Duration::from_secs(1));
    assert_eq!(fixture.active(), connector(1).id);
}

#[test]
fn a_standby_takes_over_at_once_from_one_that_refuses_us() {
    let (mut fixture, active, _standby) = Fixture::with_standby();
    fixture.sites.handle_ended(active, SessionEnd::Refused(Reason::BundleStale), fixture.now);
    assert_eq!(fixture.commands(), [upserted(1, &[]), upserted(2, &["10.9.0.0/24"])]);
    assert_eq!(fixture.sites.progress().established, 1);
}

#[test]
fn new_flows_go_to_a_standby_that_stays_much_nearer() {
    let (mut fixture, active, standby) = Fixture::with_standby();
    let mut moves = Vec::new();
    for _ in 0..6 {
        fixture.wait_for_timer();
        let asked = fixture.commands();
        for (attempt, millis) in [(standby, 10), (active, 50)] {
            if let Some(request_id) = pinged(&asked, attempt) {
                fixture.now = fixture.now.after(Duration::from_millis(millis));
                fixture.sites.handle_pong(attempt, request_id, 0, fixture.now);
            }
        }
        moves.extend(fixture.commands());
    }
    assert_eq!(fixture.active(), connector(2).id);
    assert!(moves.contains(&moved(1, 2, OpenFlows::Stay)), "{moves:?}");
    assert_eq!(
        fixture.sites.views().next().unwrap().standby.unwrap().connector.id,
        connector(1).id
    );
}

fn upserted(number: u8, prefixes: &[&str]) -> SiteCommand {
    SiteCommand::UpsertPeer(Box::new(peer(number, prefixes)))
}

fn moved(from: u8, to: u8, open_flows: OpenFlows) -> SiteCommand {
    let (from, to) = (peer(from, &[]), peer(to, &["10.9.0.0/24"]));
    SiteCommand::MovePackets { from: Box::new(from), to: Box::new(to), open_flows }
}

fn peer(number: u8, prefixes: &[&str]) -> UpsertedPeer {
    UpsertedPeer {
        public_key: connector(number).wireguard_public_key,
        endpoint: Some("192.0.2.1:443".parse().unwrap()),
        preshared_key: None,
        prefixes: prefixes.iter().map(|prefix| prefix.parse().unwrap()).collect(),
        shared: vec!["10.9.0.0/24".parse().unwrap()],
    }
}

fn probed(commands: &[SiteCommand]) -> Vec<WireguardPublicKey> {
    let mut probed = Vec::new();
    for command in commands {
        if let SiteCommand::ProbeCarrier { public_key, .. } = command {
            probed.push(*public_key);
        }
    }
    probed
}

fn pinged(commands: &[SiteCommand], by: AttemptId) -> Option<u64> {
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

#[test]
fn a_lost_session_is_sought_at_once_and_its_peer_stays_meanwhile() {
    let (mut fixture, attempt) = Fixture::established(&[1]);
    let end = SessionEnd::Lost("the peer answers no longer".to_owned());
    fixture.sites.handle_ended(attempt, end, fixture.now);

    let commands = fixture.commands();
    let [SiteCommand::StartSession { attempt, .. }] = commands.as_slice() else {
        panic!("{commands:?}");
    };
    assert_eq!(fixture.sites.views().next().unwrap().state, SessionState::Reconnecting);
    // Packets pass, so nobody is told of a moment that may pass, too.
    assert_eq!(fixture.sites.progress().established, 1);

    fixture.end(*attempt);
    assert_eq!(fixture.sites.progress().established, 0, "it was sought in vain");
}

#[test]
fn a_session_that_replaces_another_brings_its_own_preshared_key() {
    let (mut fixture, before) = Fixture::established(&[1]);
    fixture.sites.handle_ended(before, SessionEnd::Lost("it is gone".to_owned()), fixture.now);
    let after = fixture.started()[0].0;
    let key = PresharedKey::from_bytes([1; 32]);
    let endpoint = "192.0.2.1:443".parse().unwrap();
    fixture.sites.handle_admitted(after, endpoint, Some(key.clone()), None, fixture.now);
    let upserted = fixture.upserted();
    assert_eq!(upserted.last().unwrap().preshared_key, Some(key.clone()));

    // What the old session still says comes late.
    let old = PresharedKey::from_bytes([2; 32]);
    fixture.sites.handle_admitted(before, endpoint, Some(old), None, fixture.now);
    fixture.sites.handle_ended(before, SessionEnd::Lost("it is gone".to_owned()), fixture.now);
    assert_eq!(fixture.commands(), []);
    let config = config(&[(BERLIN, &["10.9.0.0/24", "10.9.1.0/24"], &[1])]);
    fixture.sites.handle_config(&config, fixture.now);
    assert_eq!(fixture.upserted().last().unwrap().preshared_key, Some(key));
}

#[test]
fn retries_wait_longer_and_longer_up_to_ten_seconds() {
    let mut fixture = Fixture::new(&config(&[(BERLIN, &["10.9.0.0/24"], &[1])]));
    let mut attempt = fixture.started()[0].0;
    let mut waits = Vec::new();
    for _ in 0..10 {
        fixture.end(attempt);
        waits.push(fixture.wait_for_timer());
        attempt = fixture.started()[0].0;
    }
    assert!(waits[0] <= Duration::from_millis(240), "{waits:?}");
    assert!(waits[9] >= Duration::from_secs(8), "{waits:?}");
    assert!(waits[9] <= Duration::from_secs(12), "{waits:?}");
    assert_eq!(fixture.sites.progress().unsettled, 0);
}

#[test]
fn a_refused_session_loses_its_peer() {
    let (mut fixture, attempt) = Fixture::established(&[1]);
    fixture.sites.handle_ended(attempt, SessionEnd::Refused(Reason::DeviceRevoked), fixture.now);
    assert_eq!(fixture.commands(), [], "what was on its way is heard out");
    assert_eq!(fixture.sites.progress().established, 0);
    fixture.wait(Duration::from_millis(500));
    let public_key = connector(1).wireguard_public_key;
    let carrier = Carrier::Wireguard;
    let commands = fixture.commands();
    assert!(matches!(commands[0], SiteCommand::StartSession { .. }), "{commands:?}");
    assert_eq!(
        commands[1..],
        [SiteCommand::CloseCarrier { public_key, carrier }, SiteCommand::RemovePeer { public_key }]
    );
    let problem = fixture.sites.views().next().unwrap().problem.unwrap();
    assert!(problem.contains("device-revoked"), "{problem}");
}

#[test]
fn a_draining_connector_keeps_its_flows_until_it_has_ended() {
    let (mut fixture, draining, _standby) = Fixture::with_standby();
    fixture.sites.handle_draining(draining, fixture.now);
    assert_eq!(
        fixture.commands()[..2],
        [
            moved(1, 2, OpenFlows::Stay),
            SiteCommand::Tell { attempt: draining, message: ClientMessage::Moved },
        ]
    );
    assert_eq!(fixture.sites.progress().established, 1);

    let end = SessionEnd::Lost("the connector closed the channel".to_owned());
    fixture.sites.handle_ended(draining, end, fixture.now);
    let public_key = connector(1).wireguard_public_key;
    let removed = SiteCommand::RemovePeer { public_key };
    assert!(fixture.commands().contains(&removed));
    // It may come back, and stand by then.
    fixture.wait(Duration::from_secs(1));
    assert_eq!(fixture.started()[0].1, connector(1).id);
}

#[test]
fn a_draining_connector_carries_until_another_does() {
    let (mut fixture, draining) = Fixture::established(&[1, 2]);
    fixture.sites.handle_draining(draining, fixture.now);
    let started = fixture.started();
    assert_eq!(started[0].1, connector(2).id);
    fixture.admit(started[0].0);
    assert_eq!(fixture.active(), connector(1).id);

    let key = connector(2).wireguard_public_key;
    fixture.sites.handle_carrier_up(&key, Carrier::Wireguard, fixture.now);
    assert_eq!(fixture.active(), connector(2).id);
    let moved = SiteCommand::Tell { attempt: draining, message: ClientMessage::Moved };
    assert!(fixture.commands().contains(&moved));
}

#[test]
fn a_draining_connector_hears_that_there_is_no_other() {
    let (mut fixture, attempt) = Fixture::established(&[1]);
    fixture.sites.handle_draining(attempt, fixture.now);
    let stays = SiteCommand::Tell { attempt, message: ClientMessage::Stays };
    assert!(fixture.commands().contains(&stays));

    let (mut fixture, attempt) = Fixture::established(&[1, 2]);
    fixture.sites.handle_draining(attempt, fixture.now);
    let other = fixture.started()[0].0;
    fixture.end(other);
    let stays = SiteCommand::Tell { attempt, message: ClientMessage::Stays };
    assert!(fixture.commands().contains(&stays));
    assert_eq!(fixture.sites.progress().established, 1);
}

#[test]
fn a_handshake_without_answer_is_begun_again_and_told() {
    let mut fixture = Fixture::new(&config(&[(BERLIN, &["10.9.0.0/24"], &[1])]));
    let attempt = fixture.started()[0].0;
    fixture.admit(attempt);
    fixture.commands();
    fixture.wait(Duration::from_secs(10));

    assert!(is_opening(&fixture.commands(), Carrier::Wireguard));
    let problem = fixture.sites.views().next().unwrap().problem.unwrap();
    assert!(problem.contains("firewall"), "{problem}");
}

fn is_opening(commands: &[SiteCommand], expected: Carrier) -> bool {
    let is_it = |it: &SiteCommand| matches!(it, SiteCommand::OpenCarrier { carrier, .. } if *carrier == expected);
    commands.iter().any(is_it)
}

#[test]
fn a_silent_peer_is_not_called_established() {
    let (mut fixture, _) = Fixture::established(&[1]);
    let public_key = connector(1).wireguard_public_key;
    fixture.sites.handle_carrier_down(&public_key, Carrier::Wireguard, "silent", fixture.now);
    assert_eq!(fixture.sites.progress().established, 0);
    fixture.commands();
    fixture.wait(Duration::from_secs(1));
    assert!(is_opening(&fixture.commands(), Carrier::Wireguard));
}

#[test]
fn a_config_that_says_the_same_disturbs_nothing() {
    let (mut fixture, _) = Fixture::established(&[1]);
    let same = config(&[(BERLIN, &["10.9.0.0/24"], &[1])]);
    fixture.sites.handle_config(&same, fixture.now);
    assert_eq!(fixture.commands(), []);
}

#[test]
fn a_connector_with_another_key_is_another_connector() {
    let (mut fixture, attempt) = Fixture::established(&[1]);
    let mut changed = config(&[(BERLIN, &["10.9.0.0/24"], &[1])]);
    changed.sites[0].connectors[0].pin = Pin::from_spki(b"other");
    fixture.sites.handle_config(&changed, fixture.now);

    let commands = fixture.commands();
    assert_eq!(commands[0], SiteCommand::StopSession { attempt });
    assert!(matches!(commands[2], SiteCommand::RemovePeer { .. }), "{commands:?}");
    assert!(matches!(commands[3], SiteCommand::StartSession { .. }), "{commands:?}");
}

#[test]
fn a_site_that_is_gone_is_left() {
    let (mut fixture, attempt) = Fixture::established(&[1]);
    fixture.sites.handle_config(&config(&[]), fixture.now);
    let public_key = connector(1).wireguard_public_key;
    assert_eq!(
        fixture.commands(),
        [
            SiteCommand::StopSession { attempt },
            SiteCommand::CloseCarrier { public_key, carrier: Carrier::Wireguard },
            SiteCommand::RemovePeer { public_key }
        ]
    );
    assert_eq!(fixture.sites.progress(), Progress { total: 0, established: 0, unsettled: 0 });
}

#[test]
fn a_prefix_that_moves_between_sites_is_lost_before_it_is_gained() {
    let before = config(&[(OSLO, &["10.9.0.0/24"], &[2]), (BERLIN, &["10.8.0.0/24"], &[1])]);
    let mut fixture = Fixture::new(&before);
    for (attempt, _) in fixture.started() {
        fixture.admit(attempt);
    }
    fixture.commands();

    let after =
        config(&[(OSLO, &["10.7.0.0/24"], &[2]), (BERLIN, &["10.8.0.0/24", "10.9.0.0/24"], &[1])]);
    fixture.sites.handle_config(&after, fixture.now);
    let prefix: IpNet = "10.9.0.0/24".parse().unwrap();
    let holds: Vec<(WireguardPublicKey, bool)> = fixture
        .commands()
        .into_iter()
        .filter_map(|command| match command {
            SiteCommand::UpsertPeer(peer) => {
                Some((peer.public_key, peer.prefixes.contains(&prefix)))
            }
            SiteCommand::StartSession { .. }
            | SiteCommand::StopSession { .. }
            | SiteCommand::MovePackets { .. }
            | SiteCommand::Tell { .. }
            | SiteCommand::OpenCarrier { .. }
            | SiteCommand::ProbeCarrier { .. }
            | SiteCommand::CloseCarrier { .. }
            | SiteCommand::UseCarrier { .. }
            | SiteCommand::RemovePeer { .. } => None,
        })
        .collect();
    let lost =
        holds.iter().position(|held| *held == (connector(2).wireguard_public_key, false)).unwrap();
    let gained =
        holds.iter().position(|held| *held == (connector(1).wireguard_public_key, true)).unwrap();
    assert!(lost < gained, "{holds:?}");
}

#[test]
fn the_longest_prefix_names_the_site() {
    let fixture =
        Fixture::new(&config(&[(BERLIN, &["10.0.0.0/8"], &[1]), (OSLO, &["10.9.0.0/24"], &[2])]));
    let site = |address: &str| {
        let address: IpAddr = address.parse().unwrap();
        fixture.sites.site_at(address).map(|view| view.id.to_string())
    };
    assert_eq!(site("10.9.0.2").as_deref(), Some(OSLO));
    assert_eq!(site("10.8.0.2").as_deref(), Some(BERLIN));
    assert_eq!(site("192.0.2.1"), None);
}

#[test]
fn a_prefix_of_two_sites_goes_to_the_first_resource_and_is_told() {
    let config = config(&[(OSLO, &["10.9.0.0/24"], &[2]), (BERLIN, &["10.9.0.0/24"], &[1])]);
    let prefixes = prefixes_by_site(&config);
    assert_eq!(prefixes.keys().map(ToString::to_string).collect::<Vec<_>>(), [OSLO]);
    assert_eq!(contested_prefixes(&config).len(), 1);
}

#[test]
fn a_site_without_connectors_is_not_waited_for() {
    let fixture = Fixture::new(&config(&[(BERLIN, &["10.9.0.0/24"], &[])]));
    assert_eq!(fixture.sites.progress(), Progress { total: 1, established: 0, unsettled: 0 });
    let problem = fixture.sites.views().next().unwrap().problem.unwrap();
    assert!(problem.contains("no connector"), "{problem}");
}

/// Something that happens; numbers choose among what is there.
#[derive(Debug, Clone)]
enum Step {
    Admit(usize),
    Unreachable(usize),
    Lose(usize),
    Refuse(usize),
    Drain(usize),
    CarrierUp(u8, Carrier),
    CarrierDown(u8, Carrier),
    Suspect(u8),
    Pong(usize, u64, u8),
    Wait(u64),
    Configure(usize),
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let step = prop_oneof![
        4 => (0..8_usize).prop_map(Step::Admit),
        2 => (0..8_usize).prop_map(Step::Unreachable),
        1 => (0..8_usize).prop_map(Step::Lose),
        1 => (0..8_usize).prop_map(Step::Refuse),
        1 => (0..8_usize).prop_map(Step::Drain),
        2 => (1..5_u8, select(&Carrier::ALL)).prop_map(|(it, by)| Step::CarrierUp(it, by)),
        1 => (1..5_u8, select(&Carrier::ALL)).prop_map(|(it, by)| Step::CarrierDown(it, by)),
        1 => (1..5_u8).prop_map(Step::Suspect),
        2 => (0..8_usize, 0..8_u64, 0..=100_u8).prop_map(|(it, id, load)| Step::Pong(it, id, load)),
        4 => (0..12_000_u64).prop_map(Step::Wait),
        4 => (0..400_u64).prop_map(Step::Wait),
        1 => (0..5_usize).prop_map(Step::Configure),
    ];
    vec(step, 1..80)
}

fn configs() -> [ClientConfig; 5] {
    [
        config(&[(BERLIN, &["10.9.0.0/24"], &[1, 2]), (OSLO, &["10.8.0.0/24"], &[3, 4])]),
        config(&[(BERLIN, &["10.8.0.0/24"], &[1, 2]), (OSLO, &["10.9.0.0/24"], &[3, 4])]),
        config(&[(BERLIN, &["10.8.0.0/24", "10.9.0.0/24"], &[2])]),
        config(&[(OSLO, &["10.9.0.0/24"], &[3])]),
        config(&[]),
    ]
}

/// What the event loop would have made of the commands.
#[derive(Debug, Default)]
struct World {
    attempts: Vec<AttemptId>,
    peers: BTreeMap<WireguardPublicKey, Vec<IpNet>>,
}

impl World {
    fn carry_out(&mut self, commands: Vec<SiteCommand>) {
        for command in commands {
            match command {
                SiteCommand::StartSession { attempt, .. } => self.attempts.push(attempt),
                SiteCommand::StopSession { attempt } => {
                    assert!(self.attempts.contains(&attempt), "stopped what was not there");
                    self.attempts.retain(|held| *held != attempt);
                }
                SiteCommand::UpsertPeer(peer) => self.upsert(*peer),
                SiteCommand::MovePackets { from, to, .. } => {
                    for peer in [&from, &to] {
                        assert!(
                            self.peers.contains_key(&peer.public_key),
                            "moves packets of nobody"
                        );
                    }
                    self.upsert(*from);
                    self.upsert(*to);
                }
                SiteCommand::Tell { attempt, .. } => {
                    assert!(self.attempts.contains(&attempt), "told nobody");
                }
                SiteCommand::OpenCarrier { connector, .. } => {
                    let public_key = connector.wireguard_public_key;
                    assert!(self.peers.contains_key(&public_key), "opened a carrier to nobody");
                }
                SiteCommand::ProbeCarrier { public_key, .. }
                | SiteCommand::CloseCarrier { public_key, .. }
                | SiteCommand::UseCarrier { public_key, .. } => {
                    assert!(self.peers.contains_key(&public_key), "changed a carrier to nobody");
                }
                SiteCommand::RemovePeer { public_key } => {
                    assert!(self.peers.remove(&public_key).is_some(), "removed nobody");
                }
            }
        }
    }

    fn upsert(&mut self, peer: UpsertedPeer) {
        let others = self.peers.iter().filter(|(key, _)| **key != peer.public_key);
        for (_, held) in others {
            let has_other = peer.prefixes.iter().any(|prefix| held.contains(prefix));
            assert!(!has_other, "a prefix has two owners");
        }
        self.peers.insert(peer.public_key, peer.prefixes);
    }

    fn end(&mut self, choice: usize) -> Option<AttemptId> {
        let attempt = self.attempts.get(choice % self.attempts.len().max(1)).copied()?;
        self.attempts.retain(|held| *held != attempt);
        Some(attempt)
    }

    fn check_invariants(&self, sites: &Sites) {
        let progress = sites.progress();
        assert!(self.peers.len() <= progress.total * 3, "a site has too many peers");
        assert!(progress.established <= self.peers.len());
        // Whatever happened, something goes on: a session, an attempt or a timer.
        if progress.total > 0 {
            assert!(!self.attempts.is_empty() || sites.poll_timeout().is_some(), "{sites:?}");
        }
    }
}

proptest! {
    #[test]
    fn whatever_happens_prefixes_have_one_owner_and_the_search_goes_on(steps in steps()) {
        let configs = configs();
        let mut now = Now::read();
        let mut sites = Sites::new(Jitter::from_seed(11), CarrierChoice::Auto);
        let mut world = World::default();
        sites.handle_config(&configs[0], now);
        for step in steps {
            let endpoint = "192.0.2.1:443".parse().unwrap();
            match step {
                Step::Admit(choice) => {
                    let count = world.attempts.len().max(1);
                    if let Some(attempt) = world.attempts.get(choice % count) {
                        sites.handle_admitted(*attempt, endpoint, None, None, now);
                    }
                }
                Step::Unreachable(choice) => {
                    if let Some(attempt) = world.end(choice) {
                        sites.handle_ended(attempt, SessionEnd::Unreachable(String::new()), now);
                    }
                }
                Step::Lose(choice) => {
                    if let Some(attempt) = world.end(choice) {
                        sites.handle_ended(attempt, SessionEnd::Lost(String::new()), now);
                    }
                }
                Step::Refuse(choice) => {
                    if let Some(attempt) = world.end(choice) {
                        let end = SessionEnd::Refused(Reason::CredentialExpired);
                        sites.handle_ended(attempt, end, now);
                    }
                }
                Step::Drain(choice) => {
                    let count = world.attempts.len().max(1);
                    if let Some(attempt) = world.attempts.get(choice % count) {
                        sites.handle_draining(*attempt, now);
                    }
                }
                Step::CarrierUp(number, carrier) => {
                    let key = connector(number).wireguard_public_key;
                    sites.handle_carrier_up(&key, carrier, now);
                }
                Step::CarrierDown(number, carrier) => {
                    let key = connector(number).wireguard_public_key;
                    sites.handle_carrier_down(&key, carrier, "silent", now);
                }
                Step::Suspect(number) => {
                    let key = connector(number).wireguard_public_key;
                    sites.handle_suspected(&key, now);
                }
                Step::Pong(choice, request_id, load) => {
                    let count = world.attempts.len().max(1);
                    if let Some(attempt) = world.attempts.get(choice % count) {
                        sites.handle_pong(*attempt, request_id, load, now);
                    }
                }
                Step::Wait(millis) => {
                    now = now.after(Duration::from_millis(millis));
                    sites.handle_timeout(now);
                }
                Step::Configure(choice) => sites.handle_config(&configs[choice], now),
            }
            world.carry_out(std::iter::from_fn(|| sites.poll_command()).collect());
            world.check_invariants(&sites);
        }
        sites.stop();
        world.carry_out(std::iter::from_fn(|| sites.poll_command()).collect());
        prop_assert!(world.attempts.is_empty() && world.peers.is_empty(), "{world:?}");
    }
}
