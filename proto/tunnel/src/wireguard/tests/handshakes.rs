//! How ends get to know each other.

use std::time::{Duration, Instant};

use super::pair::{
    CLIENT, CLIENT_INNER, ELSEWHERE, Outcome, Pair, SERVICE, address, at, client_config, secret,
};
use crate::{DropReason, Lane, PeerConfig, Tunnel, TunnelEvent, packet::sample};

#[test]
fn both_ends_tell_that_they_are_connected() {
    let mut pair = Pair::connected();
    let peer = pair.connector_on_client;
    assert_eq!(pair.client.poll_event(), Some(TunnelEvent::Established { peer }));
    assert_eq!(pair.client.poll_event(), None);
    let peer = pair.client_on_connector;
    assert_eq!(
        pair.connector.poll_event(),
        Some(TunnelEvent::Roamed { peer, endpoint: at(CLIENT) })
    );
    assert_eq!(pair.connector.poll_event(), Some(TunnelEvent::Established { peer }));
    assert_eq!(pair.connector.poll_event(), None);
}

#[test]
fn ends_with_different_preshared_keys_are_strangers() {
    let mut pair = Pair::connected();
    let [key, other] = [7, 8].map(|byte| adit_proto::PresharedKey::from_bytes([byte; 32]));
    pair.connector.set_preshared_key(pair.client_on_connector, &key);
    pair.client.set_preshared_key(pair.connector_on_client, &other);
    let packet = sample::udp(CLIENT_INNER, SERVICE, (1, 53), b"query");
    assert_eq!(pair.seal_on_client(&packet), None, "the old session is of no use any more");
    let initiation = pair.client.poll_transmit().unwrap();
    pair.connector_receives(at(CLIENT), &initiation.bytes);
    let response = pair.connector.poll_transmit().unwrap();
    assert!(matches!(pair.client_receives(&response.bytes), Outcome::Dropped(_)));

    pair.client.set_preshared_key(pair.connector_on_client, &key);
    pair.now += Duration::from_secs(1);
    pair.client.initiate_handshake(pair.connector_on_client, pair.now);
    assert_eq!(pair.exchange().len(), 1);
    // The same key again changes nothing.
    pair.client.set_preshared_key(pair.connector_on_client, &key);
    assert!(pair.seal_on_client(&packet).is_some());
}

#[test]
fn packets_wait_for_the_handshake_in_order() {
    let mut pair = Pair::new();
    let packets: Vec<Vec<u8>> =
        (0..20_u16).map(|n| sample::udp(CLIENT_INNER, SERVICE, (n, 53), &[0; 900])).collect();
    let received: Vec<Vec<u8>> =
        packets.iter().flat_map(|packet| pair.seal_on_client(packet)).collect();
    assert!(received.is_empty());
    assert_eq!(pair.exchange(), packets);
}

#[test]
fn what_waits_for_a_silent_peer_is_bounded() {
    let mut pair = Pair::new();
    let packet = sample::udp(CLIENT_INNER, SERVICE, (4000, 53), &[0; 1372]);
    for _ in 0..1000 {
        assert!(pair.seal_on_client(&packet).is_none());
    }
    let dropped = pair.client.drops().of(DropReason::QueueFull);
    assert!((900..1000).contains(&dropped), "{dropped}");
    // One initiation, however many packets.
    assert!(pair.client.poll_transmit().is_some());
    assert_eq!(pair.client.poll_transmit(), None);
}

#[test]
fn a_first_handshake_that_was_lost_is_sent_again_after_a_second() {
    let mut pair = Pair::new();
    let start = pair.now;
    pair.client.initiate_handshake(pair.connector_on_client, pair.now);
    let _lost = pair.client.poll_transmit().unwrap();
    while pair.client.poll_timeout().is_some_and(|at| at < start + Duration::from_secs(1)) {
        pair.now += Duration::from_millis(50);
        pair.client.handle_timeout(pair.now);
        assert_eq!(pair.client.poll_transmit(), None);
    }
    pair.now = start + Duration::from_millis(1250);
    pair.client.handle_timeout(pair.now);
    pair.exchange();
    let handshake = pair.client.status(pair.connector_on_client).unwrap().last_handshake;
    assert_eq!(handshake, Some(pair.now));

    // Nobody repeats what was answered.
    pair.now += Duration::from_secs(2);
    pair.client.handle_timeout(pair.now);
    assert_eq!(pair.client.poll_transmit(), None);
}

#[test]
fn a_replayed_handshake_is_refused() {
    let mut pair = Pair::new();
    let initiation = pair.initiation();
    assert_eq!(pair.connector_receives(at(CLIENT), &initiation), Outcome::Consumed);
    assert!(pair.connector.poll_transmit().is_some());
    pair.now += Duration::from_millis(100);
    assert_eq!(
        pair.connector_receives(at(ELSEWHERE), &initiation),
        Outcome::Dropped(DropReason::HandshakeReplayed)
    );
    assert_eq!(pair.connector.poll_transmit(), None);
}

#[test]
fn a_peer_is_answered_once_in_a_while() {
    let mut pair = Pair::new();
    let [first, second] = [(); 2].map(|()| pair.initiation());
    assert_eq!(pair.connector_receives(at(CLIENT), &first), Outcome::Consumed);
    let outcome = pair.connector_receives(at(CLIENT), &second);
    assert_eq!(outcome, Outcome::Dropped(DropReason::PeerTooBusy));
    pair.now += Duration::from_millis(100);
    assert_eq!(pair.connector_receives(at(CLIENT), &second), Outcome::Consumed);
}

#[test]
fn the_index_of_a_session_says_its_lane() {
    let now = Instant::now();
    let (mut lanes, _filter) = Tunnel::lanes(&secret(2), 1420, 3, now);
    for seed in 10..40 {
        let public_key = secret(seed).public_key();
        let number = Lane::number_of(&public_key, lanes.len());
        let config = PeerConfig { public_key, endpoint: Some(address(CLIENT)), ..client_config() };
        let config = PeerConfig { allowed_ips: Vec::new(), ..config };
        let lane = &mut lanes[number];
        let peer = lane.upsert(config, now).unwrap();
        lane.initiate_handshake(peer, now);
        let initiation = lane.poll_transmit().unwrap().bytes;
        // Its sender is the receiver of all that comes back.
        assert_eq!(usize::from(initiation[5]) % 3, number);
    }
}
