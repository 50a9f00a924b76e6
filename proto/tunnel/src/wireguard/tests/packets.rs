//! What passes, and what does not.

use std::{net::IpAddr, time::Duration};

use super::pair::{CLIENT, CLIENT_INNER, Outcome, Pair, SERVICE, at, connector_config, secret};
use crate::{
    DATA_OVERHEAD, DropReason, Packet, PeerConfig, Received, Sealed, Tunnel, packet::sample,
};

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
