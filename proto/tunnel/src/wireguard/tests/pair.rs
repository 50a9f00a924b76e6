//! A client and a connector with a network between that the test plays.

use std::{
    net::SocketAddr,
    time::{Duration, Instant},
};

use crate::{
    DropReason, Endpoint, PeerConfig, PeerId, Received, Sealed, Tunnel, WireguardSecret,
    packet::sample,
};

pub(super) const CLIENT: &str = "198.51.100.1:5555";
const CONNECTOR: &str = "192.0.2.1:443";
pub(super) const ELSEWHERE: &str = "203.0.113.66:6666";

pub(super) const CLIENT_INNER: &str = "100.80.0.1";
pub(super) const SERVICE: &str = "10.9.0.2";

pub(super) const ACK: u8 = 0x10;
const RST: u8 = 0x04;

/// What a device answers to a reset behind a gap.
pub(super) fn acknowledgment(source: &str) -> Vec<u8> {
    sample::tcp(source, SERVICE, (4000, 80), (1, 1, ACK), &[])
}

pub(super) fn reset() -> Vec<u8> {
    sample::tcp(SERVICE, CLIENT_INNER, (80, 4000), (1, 0, RST), &[])
}

/// A client and a connector with a network between that the test plays.
pub(super) struct Pair {
    pub(super) client: Tunnel,
    pub(super) connector: Tunnel,
    pub(super) connector_on_client: PeerId,
    pub(super) client_on_connector: PeerId,
    pub(super) now: Instant,
}

#[derive(Debug, PartialEq, Eq)]
pub(super) enum Outcome {
    Packet(Vec<u8>),
    Consumed,
    Dropped(DropReason),
}

impl Pair {
    pub(super) fn new() -> Self {
        let now = Instant::now();
        let mut client = Tunnel::new(secret(1), 1420, now);
        let mut connector = Tunnel::new(secret(2), 1420, now);
        let connector_on_client = client.upsert(connector_config(), now).unwrap();
        let client_on_connector = connector.upsert(client_config(), now).unwrap();
        Self { client, connector, connector_on_client, client_on_connector, now }
    }

    /// After a first packet from the client.
    pub(super) fn connected() -> Self {
        let mut pair = Self::new();
        let packet = sample::udp(CLIENT_INNER, SERVICE, (1, 1), b"first");
        assert!(pair.seal_on_client(&packet).is_none());
        assert_eq!(pair.exchange(), [packet]);
        pair
    }

    pub(super) fn restart_connector(&mut self) {
        self.connector = Tunnel::new(secret(2), 1420, self.now);
        self.client_on_connector = self.connector.upsert(client_config(), self.now).unwrap();
    }

    /// Lets time pass on the connector, which has to say nothing meanwhile.
    pub(super) fn pass_time(&mut self, time: Duration) {
        let end = self.now + time;
        while self.now < end {
            self.now += Duration::from_millis(50);
            self.connector.handle_timeout(self.now);
        }
        assert_eq!(self.connector.poll_transmit(), None);
    }

    /// Carries what both want sent until they are quiet; returns the packets that came out.
    pub(super) fn exchange(&mut self) -> Vec<Vec<u8>> {
        self.exchange_with(at(CLIENT))
    }

    /// As [`Self::exchange`], with a client that is somewhere else.
    pub(super) fn exchange_with(&mut self, client: Endpoint) -> Vec<Vec<u8>> {
        let mut packets = Vec::new();
        loop {
            let outcome = if let Some(transmit) = self.client.poll_transmit() {
                assert_eq!(transmit.to, at(CONNECTOR));
                self.connector_receives(client, &transmit.bytes)
            } else if let Some(transmit) = self.connector.poll_transmit() {
                assert_eq!(transmit.to, client);
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

    pub(super) fn client_sends(&mut self, packet: &[u8]) -> Vec<Vec<u8>> {
        let datagram = self.seal_on_client(packet).unwrap();
        match self.connector_receives(at(CLIENT), &datagram) {
            Outcome::Packet(packet) => vec![packet],
            Outcome::Consumed | Outcome::Dropped(_) => Vec::new(),
        }
    }

    pub(super) fn connector_sends(&mut self, packet: &[u8]) -> Vec<Vec<u8>> {
        let datagram = self.seal_on_connector(packet).unwrap();
        match self.client_receives(&datagram) {
            Outcome::Packet(packet) => vec![packet],
            Outcome::Consumed | Outcome::Dropped(_) => Vec::new(),
        }
    }

    pub(super) fn seal_on_client(&mut self, packet: &[u8]) -> Option<Vec<u8>> {
        seal(&mut self.client, self.connector_on_client, packet, at(CONNECTOR), self.now)
    }

    pub(super) fn seal_on_connector(&mut self, packet: &[u8]) -> Option<Vec<u8>> {
        seal(&mut self.connector, self.client_on_connector, packet, at(CLIENT), self.now)
    }

    pub(super) fn connector_receives(&mut self, from: Endpoint, datagram: &[u8]) -> Outcome {
        deliver(&mut self.connector, from, datagram, self.client_on_connector, self.now)
    }

    pub(super) fn client_receives(&mut self, datagram: &[u8]) -> Outcome {
        deliver(&mut self.client, at(CONNECTOR), datagram, self.connector_on_client, self.now)
    }

    /// What the client begins a moment after whatever was before.
    pub(super) fn initiation(&mut self) -> Vec<u8> {
        self.now += Duration::from_millis(100);
        self.client.initiate_handshake(self.connector_on_client, self.now);
        self.client.poll_transmit().unwrap().bytes
    }

    pub(super) fn client_endpoint(&self) -> Option<Endpoint> {
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

pub(super) fn secret(seed: u8) -> WireguardSecret {
    use base64::Engine as _;
    base64::engine::general_purpose::STANDARD.encode([seed; 32]).parse().unwrap()
}

pub(super) fn connector_config() -> PeerConfig {
    PeerConfig {
        public_key: secret(2).public_key(),
        allowed_ips: vec!["10.9.0.0/16".parse().unwrap()],
        endpoint: Some(address(CONNECTOR)),
        keepalive: None,
    }
}

pub(super) fn client_config() -> PeerConfig {
    PeerConfig {
        public_key: secret(1).public_key(),
        allowed_ips: vec!["100.80.0.1/32".parse().unwrap(), "fd00::1/128".parse().unwrap()],
        endpoint: None,
        keepalive: None,
    }
}

pub(super) fn address(text: &str) -> SocketAddr {
    text.parse().unwrap()
}

pub(super) fn at(text: &str) -> Endpoint {
    address(text).into()
}
