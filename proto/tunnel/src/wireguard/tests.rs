use std::{
    net::{IpAddr, SocketAddr},
    slice,
    sync::Arc,
    time::{Duration, Instant},
};

use proptest::prelude::*;

use super::*;
use crate::{Endpoint, Packet, packet::sample};

const CLIENT_INNER: &str = "100.80.0.1";
const SERVICE: &str = "10.9.0.2";

#[test]
fn packets_pass_both_ways_after_a_handshake() {
    let mut pair = Pair::connected();
    let request = sample::udp(CLIENT_INNER, SERVICE, (4000, 53), b"query");
    let answer = sample::udp(SERVICE, CLIENT_INNER, (53, 4000), b"answer");
    assert_eq!(pair.client_sends(&request), [request]);
    let owner = pair.connector.owner_of(CLIENT_INNER.parse().unwrap());
    assert_eq!(owner, Some(pair.client_on_connector));
    assert_eq!(pair.connector_sends(&answer), [answer]);

    let status = pair.connector.status(pair.client_on_connector).unwrap();
    assert_eq!(status.endpoint, Some(at(CLIENT)));
    assert_eq!(status.last_handshake, Some(pair.now));
    assert_eq!((status.received_packets, status.sent_packets), (2, 1));
    let status = pair.client.status(pair.connector_on_client).unwrap();
    assert_eq!((status.received_packets, status.sent_packets), (1, 2));
}

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

#[test]
fn a_stranger_gets_no_answer() {
    let mut pair = Pair::new();
    let mut stranger = Tunnel::new(secret(9), 1420, pair.now);
    let peer = stranger.upsert(connector_config(), pair.now).unwrap();
    stranger.initiate_handshake(peer, pair.now);
    let initiation = stranger.poll_transmit().unwrap().bytes;
    assert_eq!(
        pair.connector_receives(at(ELSEWHERE), &initiation),
        Outcome::Dropped(DropReason::PeerUnknown)
    );
    assert_eq!(pair.connector.poll_transmit(), None);
}

#[test]
fn a_handshake_for_another_key_gets_no_answer() {
    let mut pair = Pair::new();
    let mut lost = Tunnel::new(secret(1), 1420, pair.now);
    let config = PeerConfig { public_key: secret(9).public_key(), ..connector_config() };
    let peer = lost.upsert(config, pair.now).unwrap();
    lost.initiate_handshake(peer, pair.now);
    let initiation = lost.poll_transmit().unwrap().bytes;
    assert_eq!(
        pair.connector_receives(at(CLIENT), &initiation),
        Outcome::Dropped(DropReason::MacInvalid)
    );
    assert_eq!(pair.connector.poll_transmit(), None);
}

#[test]
fn a_flood_of_handshakes_is_asked_for_cookies() {
    let mut pair = Pair::new();
    let initiation = pair.initiation();
    let flood = (0..2000).map(|_| pair.connector_receives(at(ELSEWHERE), &initiation));
    let outcomes: Vec<Outcome> = flood.collect();
    assert_eq!(outcomes.last(), Some(&Outcome::Dropped(DropReason::UnderLoad)));
    while pair.connector.poll_transmit().is_some() {}

    // An honest client is asked too, and passes with its cookie.
    let initiation = pair.initiation();
    assert_eq!(
        pair.connector_receives(at(CLIENT), &initiation),
        Outcome::Dropped(DropReason::UnderLoad)
    );
    let cookie = pair.connector.poll_transmit().unwrap();
    assert_eq!(cookie.to, at(CLIENT));
    assert_eq!(pair.client_receives(&cookie.bytes), Outcome::Consumed);
    let initiation = pair.client.poll_transmit().expect("it tries again at once");
    assert_eq!(pair.connector_receives(at(CLIENT), &initiation.bytes), Outcome::Consumed);
}

#[test]
fn whoever_makes_cookies_does_not_set_a_client_running() {
    let mut pair = Pair::new();
    let mut sent = 0;
    let mut initiation = Some(pair.initiation());
    while let Some(bytes) = initiation {
        sent += 1;
        // Each asks for a cookie of its own.
        let mut cookies = HandshakeFilter::new(secret(2), Arc::default(), pair.now);
        let cookie = (0..1000).find_map(|_| match cookies.check(at(CLIENT), &bytes, pair.now) {
            Filtered::Cookie(cookie) => Some(cookie.to_vec()),
            Filtered::Passed(_) | Filtered::Dropped(_) => None,
        });
        assert_eq!(pair.client_receives(&cookie.expect("a cookie")), Outcome::Consumed);
        initiation = pair.client.poll_transmit().map(|transmit| transmit.bytes);
    }
    assert_eq!(sent, 2);
}

#[test]
fn a_filter_may_work_elsewhere() {
    let mut pair = Pair::new();
    let (mut lanes, mut filter) = Tunnel::lanes(&secret(2), 1420, 1, pair.now);
    pair.connector = lanes.pop().unwrap();
    pair.client_on_connector = pair.connector.upsert(client_config(), pair.now).unwrap();
    let initiation = pair.initiation();
    let mut into = vec![0; Tunnel::BUFFER_LEN];
    let received = pair.connector.handle_datagram(at(CLIENT), &initiation, &mut into, pair.now);
    assert!(matches!(received, Received::Initiation), "{received:?}");

    let Filtered::Passed(passed) = filter.check(at(CLIENT), &initiation, pair.now) else {
        panic!("a peer's initiation passes")
    };
    assert!(matches!(pair.connector.handle_initiation(&passed, pair.now), Received::Consumed));
    assert!(pair.connector.poll_transmit().is_some());

    pair.connector.remove(pair.client_on_connector);
    let Filtered::Dropped(reason) = filter.check(at(CLIENT), &initiation, pair.now) else {
        panic!("a removed peer's initiation does not pass")
    };
    assert_eq!(reason, DropReason::PeerUnknown);
    let received = pair.connector.handle_initiation(&passed, pair.now);
    assert!(matches!(received, Received::Dropped { reason: DropReason::PeerUnknown, .. }));
    assert_eq!(pair.connector.drops().of(DropReason::PeerUnknown), 2);
}

#[test]
fn a_source_address_of_another_peer_is_refused() {
    let mut pair = Pair::connected();
    let other = PeerConfig {
        public_key: secret(7).public_key(),
        // Overlaps the client's own prefix, which is longer.
        allowed_ips: vec!["100.80.0.0/24".parse().unwrap(), "100.80.0.9/32".parse().unwrap()],
        endpoint: None,
        keepalive: None,
    };
    pair.connector.upsert(other, pair.now).unwrap();
    for source in ["100.80.0.9", "100.80.0.2", SERVICE, "127.0.0.1"] {
        let packet = sample::udp(source, SERVICE, (4000, 53), b"query");
        let datagram = pair.seal_on_client(&packet).unwrap();
        let mut into = vec![0; Tunnel::BUFFER_LEN];
        let received = pair.connector.handle_datagram(at(CLIENT), &datagram, &mut into, pair.now);
        let Received::Dropped { reason, peer, packet: inner } = received else {
            panic!("{source} passed")
        };
        assert_eq!(reason, DropReason::SourceSpoofed);
        assert_eq!(peer, Some(pair.client_on_connector));
        assert_eq!(Packet::try_parse(inner).unwrap().source(), source.parse::<IpAddr>().unwrap());
    }
    assert_eq!(pair.connector.drops().of(DropReason::SourceSpoofed), 4);
}

#[test]
fn an_authentic_packet_that_is_no_ip_is_refused() {
    let mut pair = Pair::connected();
    for packet in [&[0x00; 40][..], &[0x45; 19], &[0x60; 39], &[0x45; 40]] {
        let datagram = pair.seal_on_client(packet).unwrap();
        assert_eq!(
            pair.connector_receives(at(CLIENT), &datagram),
            Outcome::Dropped(DropReason::InnerMalformed)
        );
    }
}

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

#[test]
fn counters_at_the_limit_never_reach_the_window() {
    let mut pair = Pair::connected();
    let packet = sample::udp(CLIENT_INNER, SERVICE, (4000, 53), b"query");
    let genuine = pair.seal_on_client(&packet).unwrap();
    let limit = u64::MAX - (1 << 13);
    for (counter, reason) in [
        (limit - 1, DropReason::AuthenticationFailed),
        (limit, DropReason::CounterExhausted),
        (u64::MAX, DropReason::CounterExhausted),
    ] {
        let mut forged = genuine.clone();
        forged[8..16].copy_from_slice(&counter.to_le_bytes());
        assert_eq!(pair.connector_receives(at(CLIENT), &forged), Outcome::Dropped(reason));
    }
    assert_eq!(pair.connector_receives(at(CLIENT), &genuine), Outcome::Packet(packet));
}

#[test]
fn a_buffer_that_is_too_small_is_an_error_not_a_panic() {
    let mut pair = Pair::connected();
    let packet = sample::udp(CLIENT_INNER, SERVICE, (4000, 53), &[0; 500]);
    for len in [0, 147, packet.len() + DATA_OVERHEAD - 1] {
        let mut into = vec![0; len];
        assert!(matches!(
            pair.client.seal(pair.connector_on_client, &packet, &mut into, pair.now),
            Sealed::Dropped(DropReason::BufferTooSmall)
        ));
    }
    let datagram = pair.seal_on_client(&packet).unwrap();
    let mut into = vec![0; datagram.len() - 1];
    assert!(matches!(
        pair.connector.handle_datagram(at(CLIENT), &datagram, &mut into, pair.now),
        Received::Dropped { reason: DropReason::BufferTooSmall, .. }
    ));
}

#[test]
fn packets_of_every_length_pass() {
    let mut pair = Pair::connected();
    for len in [1, 15, 16, 1280, 1420, 9000, 65_000] {
        let packet = sample::udp(CLIENT_INNER, SERVICE, (4000, 53), &vec![7; len]);
        assert_eq!(pair.client_sends(&packet), [packet]);
    }
    assert!(pair.seal_on_client(&[0x45; 65_535]).is_none());
    assert_eq!(pair.client.drops().of(DropReason::Oversize), 1);
}

#[test]
fn a_silent_path_is_kept_open() {
    let mut pair = Pair::new();
    let keepalive = PeerConfig { keepalive: Some(Duration::from_secs(20)), ..connector_config() };
    pair.client.upsert(keepalive, pair.now).unwrap();
    pair.client.initiate_handshake(pair.connector_on_client, pair.now);
    pair.exchange();

    let mut sent = 0;
    for _ in 0..240 {
        pair.now += Duration::from_millis(250);
        pair.client.handle_timeout(pair.now);
        while let Some(transmit) = pair.client.poll_transmit() {
            assert_eq!(transmit.bytes.len(), DATA_OVERHEAD);
            assert_eq!(pair.connector_receives(at(CLIENT), &transmit.bytes), Outcome::Consumed);
            sent += 1;
        }
    }
    assert_eq!(sent, 3);
}

#[test]
fn garbage_of_every_length_is_dropped() {
    let mut pair = Pair::connected();
    let genuine = pair.seal_on_client(&sample::udp(CLIENT_INNER, SERVICE, (1, 2), b"")).unwrap();
    let mut noise = 0x2545_f491_4f6c_dd1d_u64;
    for len in 0..2000 {
        for kind in 0..=5 {
            let mut datagram: Vec<u8> = std::iter::repeat_with(|| {
                noise ^= noise << 13;
                noise ^= noise >> 7;
                noise ^= noise << 17;
                noise.to_le_bytes()[0]
            })
            .take(len)
            .collect();
            // A right type, and every other time the index of a living session.
            let outside = [&[kind, 0, 0, 0][..], &genuine[4..8]].concat();
            let kept = if len % 2 == 0 { 4 } else { 8 };
            for (byte, right) in datagram.iter_mut().zip(outside.iter().take(kept)) {
                *byte = *right;
            }
            let outcome = pair.connector_receives(at(ELSEWHERE), &datagram);
            assert!(matches!(outcome, Outcome::Dropped(_)), "{kind} {len}");
        }
    }
    assert_eq!(pair.connector.poll_transmit(), None);
    assert_eq!(pair.client_endpoint(), Some(at(CLIENT)));
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn damaged_messages_are_dropped(
        which in 0..4_usize,
        damage in prop::collection::vec((any::<prop::sample::Index>(), 1..=255_u8), 1..4),
    ) {
        let mut pair = Pair::connected();
        let packet = sample::udp(CLIENT_INNER, SERVICE, (4000, 53), b"query");
        let mut datagram = match which {
            0 => pair.initiation(),
            1 => {
                let initiation = pair.initiation();
                pair.connector_receives(at(CLIENT), &initiation);
                pair.connector.poll_transmit().unwrap().bytes
            }
            2 => {
                pair.client.send_keepalive(pair.connector_on_client, pair.now);
                pair.client.poll_transmit().unwrap().bytes
            }
            _ => pair.seal_on_client(&packet).unwrap(),
        };
        let genuine = datagram.clone();
        for (at, flip) in damage {
            let at = at.index(datagram.len());
            datagram[at] ^= flip;
        }
        prop_assume!(datagram != genuine);
        let outcome =
            if which == 1 { pair.client_receives(&datagram) } else { pair.connector_receives(at(ELSEWHERE), &datagram) };
        // Nobody has asked for a cookie, so the second MAC may be anything.
        let is_damaged = datagram.len() < 92 || datagram[..datagram.len() - 16] != genuine[..genuine.len() - 16];
        prop_assert_eq!(matches!(outcome, Outcome::Dropped(_)), is_damaged);
        prop_assert_eq!(pair.client_endpoint(), Some(at(CLIENT)));
    }
}

const ACK: u8 = 0x10;
const RST: u8 = 0x04;

/// What a device answers to a reset behind a gap.
fn acknowledgment(source: &str) -> Vec<u8> {
    sample::tcp(source, SERVICE, (4000, 80), (1, 1, ACK), &[])
}

fn reset() -> Vec<u8> {
    sample::tcp(SERVICE, CLIENT_INNER, (80, 4000), (1, 0, RST), &[])
}

const CLIENT: &str = "198.51.100.1:5555";
const CONNECTOR: &str = "192.0.2.1:443";
const ELSEWHERE: &str = "203.0.113.66:6666";

/// A client and a connector with a network between that the test plays.
struct Pair {
    client: Tunnel,
    connector: Tunnel,
    connector_on_client: PeerId,
    client_on_connector: PeerId,
    now: Instant,
}

#[derive(Debug, PartialEq, Eq)]
enum Outcome {
    Packet(Vec<u8>),
    Consumed,
    Dropped(DropReason),
}

impl Pair {
    fn new() -> Self {
        let now = Instant::now();
        let mut client = Tunnel::new(secret(1), 1420, now);
        let mut connector = Tunnel::new(secret(2), 1420, now);
        let connector_on_client = client.upsert(connector_config(), now).unwrap();
        let client_on_connector = connector.upsert(client_config(), now).unwrap();
        Self { client, connector, connector_on_client, client_on_connector, now }
    }

    /// After a first packet from the client.
    fn connected() -> Self {
        let mut pair = Self::new();
        let packet = sample::udp(CLIENT_INNER, SERVICE, (1, 1), b"first");
        assert!(pair.seal_on_client(&packet).is_none());
        assert_eq!(pair.exchange(), [packet]);
        pair
    }

    fn restart_connector(&mut self) {
        self.connector = Tunnel::new(secret(2), 1420, self.now);
        self.client_on_connector = self.connector.upsert(client_config(), self.now).unwrap();
    }

    /// Lets time pass on the connector, which has to say nothing meanwhile.
    fn pass_time(&mut self, time: Duration) {
        let end = self.now + time;
        while self.now < end {
            self.now += Duration::from_millis(50);
            self.connector.handle_timeout(self.now);
        }
        assert_eq!(self.connector.poll_transmit(), None);
    }

    /// Carries what both want sent until they are quiet; returns the packets that came out.
    fn exchange(&mut self) -> Vec<Vec<u8>> {
        let mut packets = Vec::new();
        loop {
            let outcome = if let Some(transmit) = self.client.poll_transmit() {
                assert_eq!(transmit.to, at(CONNECTOR));
                self.connector_receives(at(CLIENT), &transmit.bytes)
            } else if let Some(transmit) = self.connector.poll_transmit() {
                assert_eq!(transmit.to, at(CLIENT));
                self.client_receives(&transmit.bytes)
            } else {
                return packets;
            };
            match outcome {
                Outcome::Packet(packet) => packets.push(packet),
                Outcome::Consumed => {}
                Outcome::Dropped(reason) => panic!("dropped: {reason}"),
            }
        }
    }

    fn client_sends(&mut self, packet: &[u8]) -> Vec<Vec<u8>> {
        let datagram = self.seal_on_client(packet).unwrap();
        match self.connector_receives(at(CLIENT), &datagram) {
            Outcome::Packet(packet) => vec![packet],
            Outcome::Consumed | Outcome::Dropped(_) => Vec::new(),
        }
    }

    fn connector_sends(&mut self, packet: &[u8]) -> Vec<Vec<u8>> {
        let datagram = self.seal_on_connector(packet).unwrap();
        match self.client_receives(&datagram) {
            Outcome::Packet(packet) => vec![packet],
            Outcome::Consumed | Outcome::Dropped(_) => Vec::new(),
        }
    }

    fn seal_on_client(&mut self, packet: &[u8]) -> Option<Vec<u8>> {
        seal(&mut self.client, self.connector_on_client, packet, at(CONNECTOR), self.now)
    }

    fn seal_on_connector(&mut self, packet: &[u8]) -> Option<Vec<u8>> {
        seal(&mut self.connector, self.client_on_connector, packet, at(CLIENT), self.now)
    }

    fn connector_receives(&mut self, from: Endpoint, datagram: &[u8]) -> Outcome {
        deliver(&mut self.connector, from, datagram, self.client_on_connector, self.now)
    }

    fn client_receives(&mut self, datagram: &[u8]) -> Outcome {
        deliver(&mut self.client, at(CONNECTOR), datagram, self.connector_on_client, self.now)
    }

    /// What the client begins a moment after whatever was before.
    fn initiation(&mut self) -> Vec<u8> {
        self.now += Duration::from_millis(100);
        self.client.initiate_handshake(self.connector_on_client, self.now);
        self.client.poll_transmit().unwrap().bytes
    }

    fn client_endpoint(&self) -> Option<Endpoint> {
        self.connector.status(self.client_on_connector)?.endpoint
    }
}

fn seal(
    tunnel: &mut Tunnel,
    peer: PeerId,
    packet: &[u8],
    expected: Endpoint,
    now: Instant,
) -> Option<Vec<u8>> {
    let mut into = vec![0; Tunnel::BUFFER_LEN];
    match tunnel.seal(peer, packet, &mut into, now) {
        Sealed::Datagram { to, bytes } => {
            assert_eq!(to, expected);
            Some(bytes.to_vec())
        }
        Sealed::Waiting | Sealed::Dropped(_) => None,
    }
}

fn deliver(
    tunnel: &mut Tunnel,
    from: Endpoint,
    datagram: &[u8],
    expected: PeerId,
    now: Instant,
) -> Outcome {
    let mut into = vec![0; Tunnel::BUFFER_LEN];
    match tunnel.handle_datagram(from, datagram, &mut into, now) {
        Received::Packet { peer, packet } => {
            assert_eq!(peer, expected);
            Outcome::Packet(packet.to_vec())
        }
        Received::Consumed => Outcome::Consumed,
        Received::Initiation => unreachable!("the filter is not taken"),
        Received::Dropped { reason, .. } => Outcome::Dropped(reason),
    }
}

fn secret(seed: u8) -> WireguardSecret {
    use base64::Engine as _;
    base64::engine::general_purpose::STANDARD.encode([seed; 32]).parse().unwrap()
}

fn connector_config() -> PeerConfig {
    PeerConfig {
        public_key: secret(2).public_key(),
        allowed_ips: vec!["10.9.0.0/16".parse().unwrap()],
        endpoint: Some(address(CONNECTOR)),
        keepalive: None,
    }
}

fn client_config() -> PeerConfig {
    PeerConfig {
        public_key: secret(1).public_key(),
        allowed_ips: vec!["100.80.0.1/32".parse().unwrap(), "fd00::1/128".parse().unwrap()],
        endpoint: None,
        keepalive: None,
    }
}

fn address(text: &str) -> SocketAddr {
    text.parse().unwrap()
}

fn at(text: &str) -> Endpoint {
    address(text).into()
}
