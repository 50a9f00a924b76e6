//! Whether anything carries the packets.

use std::time::Duration;

use super::fixture::{BERLIN, Fixture, config, connector, is_opening};
use crate::carrier::Carrier;

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
