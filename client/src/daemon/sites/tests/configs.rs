//! Sites, prefixes and connectors that change.

use std::net::IpAddr;

use adit_proto::{Pin, WireguardPublicKey};
use ipnet::IpNet;

use super::fixture::{BERLIN, Fixture, OSLO, config, connector};
use crate::{
    carrier::Carrier,
    daemon::{
        sites::{SiteCommand, contested_prefixes, prefixes_by_site},
        state::Progress,
    },
};

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
