//! A second connector that takes over.

use std::time::Duration;

use adit_proto::{ClientMessage, Reason};

use super::fixture::{BERLIN, Fixture, config, connector, moved, pinged, probed, upserted};
use crate::{
    carrier::Carrier,
    daemon::{
        sites::{AttemptId, OpenFlows, SessionEnd, SiteCommand},
        state::Progress,
    },
};

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
    let moves: Vec<_> =
        (0..6).flat_map(|_| answer_pings(&mut fixture, &[(standby, 10), (active, 50)])).collect();
    assert_eq!(fixture.active(), connector(2).id);
    assert!(moves.contains(&moved(1, 2, OpenFlows::Stay)), "{moves:?}");
    assert_eq!(
        fixture.sites.views().next().unwrap().standby.unwrap().connector.id,
        connector(1).id
    );
}

/// Answers the pings of the next round, each after so many milliseconds; what that leads to.
fn answer_pings(fixture: &mut Fixture, answers: &[(AttemptId, u64)]) -> Vec<SiteCommand> {
    fixture.wait_for_timer();
    let asked = fixture.commands();
    for (attempt, millis) in answers {
        if let Some(request_id) = pinged(&asked, *attempt) {
            fixture.now = fixture.now.after(Duration::from_millis(*millis));
            fixture.sites.handle_pong(*attempt, request_id, 0, fixture.now);
        }
    }
    fixture.commands()
}

#[test]
fn no_flow_stays_with_a_connector_that_died_when_the_standby_was_nearer() {
    let (mut fixture, active, standby) = Fixture::with_standby();
    answer_pings(&mut fixture, &[(standby, 10), (active, 50)]);
    answer_pings(&mut fixture, &[(standby, 10)]);
    fixture.sites.handle_ended(active, SessionEnd::Lost("it is gone".to_owned()), fixture.now);
    for _ in 0..8 {
        let commands = answer_pings(&mut fixture, &[(standby, 10)]);
        assert!(!commands.contains(&moved(1, 2, OpenFlows::Stay)), "{commands:?}");
    }
}

#[test]
fn flows_that_stayed_with_the_farther_one_have_the_time_of_its_drain() {
    let (mut fixture, active, standby) = Fixture::with_standby();
    for _ in 0..6 {
        answer_pings(&mut fixture, &[(standby, 10), (active, 50)]);
    }
    assert_eq!(fixture.active(), connector(2).id);

    fixture.sites.handle_draining(active, fixture.now);
    let commands = fixture.commands();
    let told = SiteCommand::Tell { attempt: active, message: ClientMessage::Moved };
    let removed = SiteCommand::RemovePeer { public_key: connector(1).wireguard_public_key };
    assert!(commands.contains(&told) && !commands.contains(&removed), "{commands:?}");
    fixture.sites.handle_ended(active, SessionEnd::Lost("it has ended".to_owned()), fixture.now);
    assert!(fixture.commands().contains(&removed));
}
