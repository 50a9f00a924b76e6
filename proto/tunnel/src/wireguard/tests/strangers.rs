//! Those who may not get in, or are too many.

use std::sync::Arc;

use proptest::prelude::*;

use super::pair::{
    CLIENT, CLIENT_INNER, ELSEWHERE, Outcome, Pair, SERVICE, at, client_config, connector_config,
    secret,
};
use crate::{DropReason, Filtered, HandshakeFilter, PeerConfig, Received, Tunnel, packet::sample};

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
