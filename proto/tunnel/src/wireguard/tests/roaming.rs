//! Where a peer is.

use std::time::Duration;

use super::pair::{
    CLIENT, CLIENT_INNER, ELSEWHERE, Outcome, Pair, SERVICE, address, at, connector_config,
};
use crate::{DropReason, PeerConfig, Sealed, Tunnel, packet::sample};

#[test]
fn a_peer_roams_by_data() {
    let mut pair = Pair::connected();
    let packet = sample::udp(CLIENT_INNER, SERVICE, (4000, 53), b"query");
    let datagram = pair.seal_on_client(&packet).unwrap();
    assert_eq!(pair.connector_receives(at(ELSEWHERE), &datagram), Outcome::Packet(packet));
    assert_eq!(pair.client_endpoint(), Some(at(ELSEWHERE)));
}

#[test]
fn a_peer_roams_by_a_keepalive() {
    let mut pair = Pair::connected();
    pair.client.send_keepalive(pair.connector_on_client, pair.now);
    let keepalive = pair.client.poll_transmit().unwrap().bytes;
    assert_eq!(pair.connector_receives(at(ELSEWHERE), &keepalive), Outcome::Consumed);
    assert_eq!(pair.client_endpoint(), Some(at(ELSEWHERE)));
}

#[test]
fn a_handshake_that_was_lost_begins_anew_where_the_peer_is_now() {
    let mut pair = Pair::connected();
    let _lost = pair.initiation();
    pair.client.announce(pair.connector_on_client, pair.now);
    assert!(pair.exchange_with(at(ELSEWHERE)).is_empty());
    assert_eq!(pair.client_endpoint(), Some(at(ELSEWHERE)));
    let handshake = pair.client.status(pair.connector_on_client).unwrap().last_handshake;
    assert_eq!(handshake, Some(pair.now));

    // Nothing is under way any more.
    pair.client.announce(pair.connector_on_client, pair.now);
    assert!(pair.client.poll_transmit().is_some());
    assert_eq!(pair.client.poll_transmit(), None);
}

#[test]
fn a_replayed_packet_does_not_move_the_endpoint() {
    let mut pair = Pair::connected();
    let packet = sample::udp(CLIENT_INNER, SERVICE, (4000, 53), b"query");
    let datagram = pair.seal_on_client(&packet).unwrap();
    assert_eq!(pair.connector_receives(at(CLIENT), &datagram), Outcome::Packet(packet));
    assert_eq!(
        pair.connector_receives(at(ELSEWHERE), &datagram),
        Outcome::Dropped(DropReason::CounterReplayed)
    );
    assert_eq!(pair.client_endpoint(), Some(at(CLIENT)));
}

#[test]
fn a_fresh_handshake_does_not_move_the_endpoint() {
    let mut pair = Pair::connected();
    let initiation = pair.initiation();
    assert_eq!(pair.connector_receives(at(ELSEWHERE), &initiation), Outcome::Consumed);
    assert_eq!(pair.connector.poll_transmit().unwrap().to, at(ELSEWHERE));
    assert_eq!(pair.client_endpoint(), Some(at(CLIENT)));
}

#[test]
fn a_handshake_replayed_after_a_restart_does_not_move_the_endpoint() {
    let mut pair = Pair::new();
    let recorded = pair.initiation();
    pair.connector_receives(at(CLIENT), &recorded);
    pair.restart_connector();

    // The restarted connector cannot know that it saw this before, so it answers; but it believes
    // nothing of it.
    assert_eq!(pair.connector_receives(at(ELSEWHERE), &recorded), Outcome::Consumed);
    let packet = sample::udp(SERVICE, CLIENT_INNER, (53, 4000), b"secret");
    let peer = pair.client_on_connector;
    let mut into = vec![0; Tunnel::BUFFER_LEN];
    assert!(matches!(
        pair.connector.seal(peer, &packet, &mut into, pair.now),
        Sealed::Dropped(DropReason::EndpointUnknown)
    ));
    while pair.connector.poll_transmit().is_some() {}

    // Once the client has come back by itself, the old recording is refused altogether.
    pair.now += Duration::from_millis(100);
    pair.client.initiate_handshake(pair.connector_on_client, pair.now);
    pair.exchange();
    assert_eq!(pair.client_endpoint(), Some(at(CLIENT)));
    pair.now += Duration::from_millis(100);
    assert_eq!(
        pair.connector_receives(at(ELSEWHERE), &recorded),
        Outcome::Dropped(DropReason::HandshakeReplayed)
    );
    assert_eq!(pair.client_endpoint(), Some(at(CLIENT)));
    assert_eq!(pair.connector_sends(&packet), [packet]);
}

#[test]
fn a_configured_endpoint_overrides_only_when_it_changes() {
    let mut pair = Pair::connected();
    let peer = pair.connector_on_client;
    let packet = sample::udp(SERVICE, CLIENT_INNER, (53, 4000), b"answer");
    let datagram = pair.seal_on_connector(&packet).unwrap();
    let mut into = vec![0; Tunnel::BUFFER_LEN];
    pair.client.handle_datagram(at(ELSEWHERE), &datagram, &mut into, pair.now);
    pair.client.upsert(connector_config(), pair.now).unwrap();
    assert_eq!(pair.client.status(peer).unwrap().endpoint, Some(at(ELSEWHERE)));

    let moved = PeerConfig { endpoint: Some(address("192.0.2.99:443")), ..connector_config() };
    pair.client.upsert(moved, pair.now).unwrap();
    assert_eq!(pair.client.status(peer).unwrap().endpoint, Some(at("192.0.2.99:443")));
}
