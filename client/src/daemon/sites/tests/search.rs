//! Which connectors are tried, and when.

use std::time::Duration;

use adit_proto::{PresharedKey, Reason};

use super::fixture::{BERLIN, Fixture, config, connector};
use crate::{
    carrier::Carrier,
    daemon::sites::{SessionEnd, SiteCommand},
    ipc::SessionState,
};

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
