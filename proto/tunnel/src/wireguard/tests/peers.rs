//! Peers that are changed and removed.

use std::{slice, time::Duration};

use super::pair::{
    ACK, CLIENT, CLIENT_INNER, ELSEWHERE, Outcome, Pair, SERVICE, acknowledgment, at,
    client_config, connector_config, reset, secret,
};
use crate::{DropReason, PeerConfig, UpsertError, packet::sample};

#[test]
fn a_removed_peer_is_heard_out_for_five_seconds() {
    let mut pair = Pair::connected();
    let peer = pair.client_on_connector;
    let packet = acknowledgment(CLIENT_INNER);
    let answer = reset();
    pair.connector.send_keepalive(peer, pair.now);

    assert!(pair.connector.remove(peer));
    assert!(!pair.connector.remove(peer));
    assert_eq!(pair.connector.poll_transmit(), None);
    assert_eq!(pair.connector.owner_of(CLIENT_INNER.parse().unwrap()), None);
    assert_eq!(pair.connector.peer_of(&client_config().public_key), None);
    assert_eq!(pair.connector.peers().count(), 0);
    assert_eq!(pair.connector.status(peer), None);
    pair.pass_time(Duration::from_millis(4_900));
    assert_eq!(pair.client_sends(&packet), slice::from_ref(&packet));
    assert_eq!(pair.connector_sends(&answer), slice::from_ref(&answer));

    pair.pass_time(Duration::from_millis(400));
    let datagram = pair.seal_on_client(&packet).unwrap();
    assert_eq!(
        pair.connector_receives(at(CLIENT), &datagram),
        Outcome::Dropped(DropReason::IndexUnknown)
    );
    assert_eq!(pair.seal_on_connector(&answer), None);
    assert_eq!(pair.connector.drops().of(DropReason::PeerRemoved), 1);
    assert_eq!(pair.connector.poll_timeout(), None);
}

#[test]
fn no_data_of_a_removed_peer_passes() {
    let mut pair = Pair::connected();
    pair.connector.remove(pair.client_on_connector);
    for packet in [
        sample::udp(CLIENT_INNER, SERVICE, (4000, 53), b"query"),
        sample::tcp(CLIENT_INNER, SERVICE, (4000, 80), (1, 1, ACK), b"GET / "),
        sample::echo(CLIENT_INNER, SERVICE, true, 7),
    ] {
        let datagram = pair.seal_on_client(&packet).unwrap();
        assert_eq!(
            pair.connector_receives(at(CLIENT), &datagram),
            Outcome::Dropped(DropReason::PeerRemoved)
        );
    }
}

#[test]
fn a_removed_peer_begins_nothing_and_moves_nowhere() {
    let mut pair = Pair::connected();
    let peer = pair.client_on_connector;
    let packet = acknowledgment(CLIENT_INNER);
    let datagram = pair.seal_on_client(&packet).unwrap();
    let initiation = pair.initiation();
    while pair.connector.poll_event().is_some() {}
    pair.connector.remove(peer);

    assert_eq!(
        pair.connector_receives(at(CLIENT), &initiation),
        Outcome::Dropped(DropReason::PeerUnknown)
    );
    pair.connector.initiate_handshake(peer, pair.now);
    pair.connector.send_keepalive(peer, pair.now);
    assert_eq!(pair.connector.poll_transmit(), None);
    assert_eq!(pair.connector_receives(at(ELSEWHERE), &datagram), Outcome::Packet(packet));
    assert_eq!(pair.connector.poll_event(), None);
    assert!(pair.seal_on_connector(&reset()).is_some(), "to where it was, not elsewhere");
}

#[test]
fn the_addresses_of_a_removed_peer_are_free_at_once() {
    let mut pair = Pair::connected();
    pair.connector.remove(pair.client_on_connector);
    let heir = PeerConfig { public_key: secret(7).public_key(), ..client_config() };
    assert!(pair.connector.upsert(heir, pair.now).is_ok());

    let datagram = pair.seal_on_client(&acknowledgment(CLIENT_INNER)).unwrap();
    assert_eq!(
        pair.connector_receives(at(CLIENT), &datagram),
        Outcome::Dropped(DropReason::SourceSpoofed)
    );
}

#[test]
fn a_removed_peer_may_not_use_an_address_that_was_never_its_own() {
    let mut pair = Pair::connected();
    pair.connector.remove(pair.client_on_connector);
    let datagram = pair.seal_on_client(&acknowledgment("100.80.0.2")).unwrap();
    assert_eq!(
        pair.connector_receives(at(CLIENT), &datagram),
        Outcome::Dropped(DropReason::SourceSpoofed)
    );
}

#[test]
fn a_peer_that_comes_back_while_it_is_heard_out_goes_on() {
    let mut pair = Pair::connected();
    let peer = pair.client_on_connector;
    pair.connector.remove(peer);
    pair.pass_time(Duration::from_secs(4));
    assert_eq!(pair.connector.upsert(client_config(), pair.now), Ok(peer));
    pair.pass_time(Duration::from_secs(20));

    let packet = sample::udp(CLIENT_INNER, SERVICE, (4000, 53), b"query");
    assert_eq!(pair.client_sends(&packet), [packet]);
    assert!(pair.connector.status(peer).is_some());
}

#[test]
fn a_peer_that_was_forgotten_comes_back_as_another() {
    let mut pair = Pair::connected();
    let peer = pair.client_on_connector;
    pair.connector.remove(peer);
    pair.pass_time(Duration::from_secs(6));
    let again = pair.connector.upsert(client_config(), pair.now).unwrap();
    assert_ne!(again, peer);
    assert_eq!(pair.connector.status(peer), None);
    assert!(!pair.connector.remove(peer));
    assert_eq!(pair.connector.peer_of(&client_config().public_key), Some(again));
}

#[test]
fn a_peer_without_a_session_is_forgotten_at_once() {
    let mut pair = Pair::new();
    assert!(pair.connector.remove(pair.client_on_connector));
    assert_eq!(pair.connector.poll_timeout(), None);
}

#[test]
fn changing_a_peer_keeps_its_session() {
    let mut pair = Pair::connected();
    let wider =
        PeerConfig { allowed_ips: vec!["100.80.0.0/24".parse().unwrap()], ..client_config() };
    assert_eq!(pair.connector.upsert(wider, pair.now), Ok(pair.client_on_connector));
    let packet = sample::udp("100.80.0.77", SERVICE, (4000, 53), b"query");
    assert_eq!(pair.client_sends(&packet), [packet]);
}

#[test]
fn a_prefix_has_one_owner() {
    let mut pair = Pair::new();
    let thief = PeerConfig { public_key: secret(7).public_key(), ..client_config() };
    assert_eq!(
        pair.connector.upsert(thief.clone(), pair.now),
        Err(UpsertError::PrefixTaken {
            prefix: "100.80.0.1/32".parse().unwrap(),
            owner: pair.client_on_connector,
        })
    );
    assert_eq!(pair.connector.peer_of(&thief.public_key), None);
    let own = PeerConfig { public_key: secret(2).public_key(), ..client_config() };
    assert_eq!(pair.connector.upsert(own, pair.now), Err(UpsertError::OwnKey));
}

#[test]
fn who_shares_a_prefix_sends_from_it_and_its_owner_is_sent_to() {
    let mut pair = Pair::connected();
    let (peer, service) = (pair.connector_on_client, SERVICE.parse().unwrap());
    let config = PeerConfig { allowed_ips: Vec::new(), ..connector_config() };
    pair.client.upsert(config, pair.now).unwrap();
    let owner = PeerConfig { public_key: secret(7).public_key(), ..connector_config() };
    let owner = pair.client.upsert(owner, pair.now).unwrap();
    let packet = sample::udp(SERVICE, CLIENT_INNER, (53, 4000), b"answer");
    assert!(pair.connector_sends(&packet).is_empty());
    assert!(!pair.client.may_send_from(peer, service));

    pair.client.set_shared_ips(peer, connector_config().allowed_ips);

    assert_eq!(pair.connector_sends(&packet), [packet]);
    assert!(pair.client.may_send_from(peer, service));
    assert!(!pair.client.may_send_from(peer, "192.0.2.200".parse().unwrap()));
    assert_eq!(pair.client.owner_of(service), Some(owner));
}
