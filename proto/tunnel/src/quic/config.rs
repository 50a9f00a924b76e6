//! How connections behave.

use std::{sync::Arc, time::Duration};

use adit_proto::Pin;
use aws_lc_rs::hmac;
use quinn_proto::{
    AckFrequencyConfig, ClientConfig, ConnectionId, ConnectionIdGenerator, EndpointConfig,
    IdleTimeout, MtuDiscoveryConfig, ServerConfig, TransportConfig, ValidationTokenConfig, VarInt,
    crypto::rustls::{QuicClientConfig, QuicServerConfig},
};

use crate::{identity::KeyPair, tls};

use super::{
    congestion::DeliveryControlFactory, initial::VERSION, packets::MAX_QUEUE_LEN, retry::TokenKey,
};

/// The protocol that is spoken on QUIC.
const ALPN: &[u8] = b"h3";

/// Longest silence. RFC 9308 §3.2 recommends at least 30 s.
const IDLE_TIMEOUT: VarInt = VarInt::from_u32(30_000);

/// NATs forget UDP after 30 s, some sooner.
const KEEPALIVE: Duration = Duration::from_secs(10);

/// What a stranger may have lying here: a request is short.
pub(super) const STRANGERS_WINDOW: u32 = 64 << 10;
/// The most that is of use: 200 ms of 1 Gbit/s.
pub(super) const LARGEST_WINDOW: u32 = 24 << 20;
const STREAM_WINDOW: u32 = 8 << 20;

/// Requests at one time of a stranger, and of one who is admitted.
const STRANGERS_REQUESTS: u32 = 4;
pub(super) const ADMITTED_REQUESTS: VarInt = VarInt::from_u32(1024);

/// Control stream, both streams of QPACK, and one that is not known.
const UNIDIRECTIONAL_STREAMS: u32 = 4;

/// Received datagrams are taken at each turn; this is for one.
const DATAGRAMS_LEN: usize = 4 << 20;

/// How many packets may overtake one before it counts as lost: RFC 9002 §6.1.1 has 3, which takes
/// every path that reorders for one that loses. Time tells them apart, for TCP as well (RFC 8985).
const REORDERED_PACKETS: u32 = 1_000;

/// As a multiple of the round trip. TCP begins with 1.25 and goes up to 2 where that is too little.
const REORDERED_TIME: f32 = 1.5;

/// As many packets are acknowledged together where the peer can be asked for that
/// (draft-ietf-quic-ack-frequency): each acknowledgement takes room from what goes the other way.
const ACKNOWLEDGED_TOGETHER: u32 = 10;

/// Bytes of a connection id, which stands in each packet. The first one says the lane.
pub(super) const CID_LEN: usize = 4;

/// What stands around a packet in a datagram at most: header and packet number, tag, frame, and the
/// prefix of the request (RFC 9000 §17.3, 9001 §5.3, 9221 §4, 9484 §6).
const PACKET_OVERHEAD: u16 = (1 + CID_LEN as u16 + 4) + 16 + (1 + 8) + 2;

/// The longest datagram that is ever tried: a jumbo frame without IPv4 and UDP.
const MAX_DATAGRAM_LEN: u16 = 9000 - 28;

pub(super) fn endpoint(identity: &KeyPair, lane: u8, lanes: u8) -> EndpointConfig {
    // Of the key, so that a process which was restarted can tell those who still speak to the one
    // before it (RFC 9000 §10.3).
    let secret = identity.derived_secret(b"adit stateless reset");
    let reset_key = hmac::Key::new(hmac::HMAC_SHA256, secret.as_slice());
    let mut config = EndpointConfig::new(Arc::new(reset_key));
    config
        .supported_versions(vec![VERSION])
        .grease_quic_bit(false)
        .cid_generator(move || Box::new(LaneCids { lane, lanes: lanes.max(1) }))
        .max_udp_payload_size(MAX_DATAGRAM_LEN)
        .expect("a payload of this length is allowed");
    config
}

pub(super) fn server(identity: &KeyPair, packet_mtu: u16) -> Arc<ServerConfig> {
    let tls = tls::server_config(identity, &[ALPN]);
    let crypto = QuicServerConfig::try_from(tls).expect("the provider has AES-128-GCM");
    let mut config = ServerConfig::with_crypto(Arc::new(crypto));
    let mut transport = transport(packet_mtu);
    transport
        .receive_window(STRANGERS_WINDOW.into())
        .send_window(send_window(STRANGERS_WINDOW))
        .max_concurrent_bidi_streams(STRANGERS_REQUESTS.into());
    let mut tokens = ValidationTokenConfig::default();
    tokens.sent(0);
    config
        .transport_config(Arc::new(transport))
        .validation_token_config(tokens)
        .token_key(Arc::new(TokenKey::new(identity)))
        // Each is taken or turned away at once.
        .max_incoming(64)
        .incoming_buffer_size(64 << 10)
        .incoming_buffer_size_total(1 << 20);
    Arc::new(config)
}

pub(super) fn client(identity: &KeyPair, pin: Pin, packet_mtu: u16) -> ClientConfig {
    let tls = tls::client_config(pin, Some(identity), &[ALPN]);
    let crypto = QuicClientConfig::try_from(tls).expect("the provider has AES-128-GCM");
    let mut config = ClientConfig::new(Arc::new(crypto));
    let mut transport = transport(packet_mtu);
    transport
        .receive_window(LARGEST_WINDOW.into())
        // A server opens none.
        .max_concurrent_bidi_streams(0_u32.into())
        .keep_alive_interval(Some(KEEPALIVE));
    config.transport_config(Arc::new(transport));
    config
}

/// For a tunnel whose longest packet is `packet_mtu`.
///
/// Datagrams of QUIC are no longer than such a packet needs. Where there is room for an
/// acknowledgement beside it, datagrams differ in length, and quinn takes four losses at a time of
/// shorter ones than have arrived for a path that takes no long ones any more: at 5 % loss within a
/// second. That is rare now, not impossible: what quinn reckons around a packet leaves 8 bytes.
fn transport(packet_mtu: u16) -> TransportConfig {
    let longest = packet_mtu.saturating_add(PACKET_OVERHEAD);
    let mut search = MtuDiscoveryConfig::default();
    search.upper_bound(longest.clamp(1200, MAX_DATAGRAM_LEN));
    let mut acknowledgements = AckFrequencyConfig::default();
    // As many may come before without one.
    acknowledgements.ack_eliciting_threshold((ACKNOWLEDGED_TOGETHER - 1).into());
    let mut config = TransportConfig::default();
    config
        .max_idle_timeout(Some(IdleTimeout::from(IDLE_TIMEOUT)))
        .max_concurrent_uni_streams(UNIDIRECTIONAL_STREAMS.into())
        .stream_receive_window(STREAM_WINDOW.into())
        .send_window(send_window(LARGEST_WINDOW))
        .datagram_receive_buffer_size(Some(DATAGRAMS_LEN))
        .datagram_send_buffer_size(MAX_QUEUE_LEN * 2)
        .mtu_discovery_config(Some(search))
        .congestion_controller_factory(Arc::new(DeliveryControlFactory))
        .ack_frequency_config(Some(acknowledgements))
        .packet_threshold(REORDERED_PACKETS)
        .time_threshold(REORDERED_TIME)
        .allow_spin(false);
    config
}

/// What may wait to be acknowledged where so much may wait to be taken: a peer can withhold either.
pub(super) const fn send_window(receive_window: u32) -> u64 {
    receive_window as u64 / 3
}

/// Connection ids whose first byte, divided by the number of lanes, leaves the lane.
struct LaneCids {
    lane: u8,
    lanes: u8,
}

impl ConnectionIdGenerator for LaneCids {
    fn generate_cid(&mut self) -> ConnectionId {
        let mut bytes = [0; CID_LEN];
        // Without randomness the ids repeat and connections fail, which is all that can be done.
        let _ = getrandom::fill(&mut bytes);
        bytes[0] = steered(bytes[0], self.lane, self.lanes);
        ConnectionId::new(&bytes)
    }

    fn cid_len(&self) -> usize {
        CID_LEN
    }

    fn cid_lifetime(&self) -> Option<Duration> {
        None
    }
}

/// The byte nearest below `random` that leads to the lane, or the lane's own number.
fn steered(random: u8, lane: u8, lanes: u8) -> u8 {
    (random - random % lanes).checked_add(lane).unwrap_or(lane)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_connection_id_leads_to_its_lane() {
        for lanes in 1..=u8::MAX {
            for lane in [0, lanes / 2, lanes - 1] {
                for random in 0..=u8::MAX {
                    assert_eq!(steered(random, lane, lanes) % lanes, lane, "{random} {lanes}");
                }
            }
        }
    }
}
