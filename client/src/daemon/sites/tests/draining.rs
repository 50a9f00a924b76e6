//! Connectors that are about to stop.

use std::time::Duration;

use adit_proto::ClientMessage;

use super::fixture::{Fixture, connector, moved};
use crate::{
    carrier::Carrier,
    daemon::sites::{OpenFlows, SessionEnd, SiteCommand},
};

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
