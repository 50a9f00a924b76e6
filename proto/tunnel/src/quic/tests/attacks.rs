//! Peers that say what no client of ours says, with time moved by hand.

use quinn_proto::{
    ClientConfig, ConnectionHandle, DatagramEvent, Dir, StreamId, TransportConfig,
    congestion::NewRenoConfig, crypto::rustls::QuicClientConfig,
};
use rustls::client::Resumption;

use super::*;

const KIB: u64 = 1 << 10;
const MIB: u64 = 1 << 20;

#[test]
fn a_peer_is_granted_the_memory_it_was_given_over_all_of_its_streams() {
    let mut lab = Lab::new();
    let mut client = lab.connect();
    assert_eq!(client.write_all_that_is_granted(), u64::from(QuicEndpoint::LEAST_MEMORY));
    for (given, more) in [(MIB, MIB - 64 * KIB), (24 * MIB, 23 * MIB), (24 * MIB, 0)] {
        lab.server.set_memory(FIRST, u32::try_from(given).unwrap());
        lab.exchange_answers(&mut client);
        assert_eq!(client.write_all_that_is_granted(), more, "of {given} bytes");
    }
    // What was granted stays granted.
    lab.server.set_memory(FIRST, QuicEndpoint::LEAST_MEMORY);
    lab.exchange_answers(&mut client);
    assert_eq!(client.write_all_that_is_granted(), 0);
}

#[test]
fn streams_whose_first_byte_is_withheld_pin_no_more_than_was_granted() {
    let mut lab = Lab::new();
    let mut client = lab.connect();
    lab.server.set_memory(FIRST, u32::try_from(MIB).unwrap());
    lab.exchange(&mut client);
    assert_eq!(client.write_all_that_is_granted(), MIB);
    // It repeats nothing, as nothing tells it the time.
    let (mut sent, mut withheld) = (0, 1);
    for _ in 0..5_000 {
        lab.now += Duration::from_millis(1);
        for datagram in client.transmit(lab.now).into_iter().skip(withheld) {
            withheld = 0;
            sent += datagram.len();
            lab.deliver(client.address(), &datagram);
        }
        lab.turn(&mut client);
    }
    assert!(sent as u64 > MIB * 9 / 10, "{sent} bytes arrived");
    assert_eq!(client.write_all_that_is_granted(), 0, "nothing more is granted for them");
    assert_eq!(lab.server.counters().connections, 1);
}

#[test]
fn a_client_that_would_send_early_data_is_not_invited_to() {
    let mut lab = Lab::new();
    let pin = lab.identity.pin();
    let identity = KeyPair::try_generate().unwrap();
    let mut tls = Arc::unwrap_or_clone(tls::client_config(pin, Some(&identity), &[b"h3"]));
    tls.enable_early_data = true;
    tls.resumption = Resumption::in_memory_sessions(8);
    let config = ClientConfig::new(Arc::new(QuicClientConfig::try_from(tls).unwrap()));
    for _ in 0..2 {
        let mut client = lab.begin(config.clone());
        assert!(!client.connection.has_0rtt(), "it has no ticket");
        lab.exchange(&mut client);
        assert!(client.is_connected && !client.connection.accepted_0rtt());
    }
    let tls = tls::server_config(&lab.identity, &[b"h3"]);
    assert_eq!((tls.send_tls13_tickets, tls.max_early_data_size), (0, 0));
}

#[test]
fn early_data_of_nobody_is_not_answered() {
    /// A long header of 0-RTT (RFC 9000 §17.2.3).
    const ZERO_RTT: u8 = 0xd0;

    let mut lab = Lab::new();
    let sender = std::net::UdpSocket::bind("127.0.0.1:0").unwrap();
    let mut datagram = vec![0; 1200];
    datagram[0] = ZERO_RTT;
    datagram[1..5].copy_from_slice(&initial::VERSION.to_be_bytes());
    datagram[5] = 8;
    for number in 0..100 {
        datagram[6] = number;
        lab.deliver(sender.local_addr().unwrap(), &datagram);
    }
    assert_eq!(lab.server.counters(), QuicCounters::default());
    assert_eq!(received(&sender), 0);
}

/// What an address that has not answered may get beyond three times what came from it (RFC 9000
/// §8.2.1): quinn sends it a challenge of full length and a probe of the path's MTU, whatever came.
const MOST_BEYOND: usize = 2 * 1400;

/// Whoever is on the path can send a client's datagrams from elsewhere, before they come from the
/// client itself.
#[test]
fn an_address_that_does_not_answer_gets_little_and_packets_go_back() {
    for elsewhere in ["127.0.0.1:0", "127.0.0.2:0"] {
        let mut lab = Lab::new();
        let mut client = lab.connect();
        lab.attach(&mut client);
        lab.send_packets(20);
        lab.exchange(&mut client);
        assert_eq!(lab.server.remote_of(PeerId::sample()), Some(client.address()));
        let victim = std::net::UdpSocket::bind(elsewhere).unwrap();
        client.connection.ping();
        let mut caught = 0;
        for datagram in client.transmit(lab.now) {
            caught += datagram.len();
            lab.deliver(victim.local_addr().unwrap(), &datagram);
        }
        assert!(caught > 0);

        let start = lab.now;
        let mut gone_back = None;
        while lab.now < start + Duration::from_secs(5) {
            lab.now += Duration::from_millis(10);
            lab.send_packets(10);
            if lab.server.remote_of(PeerId::sample()) == Some(client.address()) {
                gone_back.get_or_insert(lab.now - start);
            }
        }
        let received = received(&victim);
        assert!(received <= 3 * caught + MOST_BEYOND, "{received} bytes for {caught}");
        let gone_back = gone_back.expect("packets go back");
        assert!(gone_back < Duration::from_secs(4), "{gone_back:?}");
    }
}

#[test]
fn a_client_that_seems_to_flap_between_addresses_is_sent_little_elsewhere() {
    const FLAPS: usize = 50;

    let mut lab = Lab::new();
    let mut client = lab.connect();
    lab.attach(&mut client);
    let victims = ["127.0.0.1:0", "127.0.0.2:0"].map(|at| std::net::UdpSocket::bind(at).unwrap());
    let mut caught = 0;
    for flap in 0..FLAPS {
        lab.now += Duration::from_millis(5);
        client.connection.ping();
        for datagram in client.transmit(lab.now) {
            caught += datagram.len();
            let from = victims[flap % 2].local_addr().unwrap();
            lab.deliver(from, &datagram);
        }
        lab.send_packets(10);
    }
    let received: usize = victims.iter().map(received).sum();
    assert!(received <= 3 * caught + FLAPS * MOST_BEYOND, "{received} bytes for {caught}");

    // A word of its own brings the packets back to the client.
    client.connection.ping();
    lab.exchange(&mut client);
    assert_eq!(lab.server.remote_of(PeerId::sample()), Some(client.address()));
    client.datagrams = 0;
    lab.send_packets(5);
    lab.exchange(&mut client);
    assert_eq!(client.datagrams, 5);
}

#[test]
fn datagrams_of_unknown_connections_cost_more_than_their_answers() {
    let mut lab = Lab::new();
    let sender = std::net::UdpSocket::bind("127.0.0.1:0").unwrap();
    let mut sent = 0;
    for number in 0..10_000_u32 {
        let mut datagram = vec![0x40; 100];
        datagram[1..5].copy_from_slice(&number.to_be_bytes());
        sent += datagram.len();
        lab.deliver(sender.local_addr().unwrap(), &datagram);
    }
    let received = received(&sender);
    assert!(received > 0, "who speaks to a process that is gone is told so");
    assert!(received < sent / 100, "{received} bytes for {sent}");
}

#[test]
fn a_connection_survives_resets_that_are_not_its_peers() {
    let mut lab = Lab::new();
    let mut client = lab.connect();
    lab.attach(&mut client);
    client.connection.ping();
    let genuine = client.transmit(lab.now);
    for byte in 0..=u8::MAX {
        for len in [21, 40, 100] {
            let mut datagram = vec![byte; len];
            // To this connection and to none.
            datagram[..9].copy_from_slice(&genuine[0][..9]);
            lab.deliver(client.address(), &datagram);
            datagram[1..9].fill(byte);
            lab.deliver(client.address(), &datagram);
        }
    }
    lab.now += Duration::from_secs(1);
    client.connection.handle_timeout(lab.now);
    lab.send_packets(5);
    lab.exchange(&mut client);
    assert_eq!(client.datagrams, 5);
}

/// The connection that is begun first.
const FIRST: QuicConnectionId = QuicConnectionId { place: 0, serial: 1 };

/// A server whose time is that of the test.
struct Lab {
    server: QuicEndpoint,
    udp: UdpSocket,
    identity: KeyPair,
    now: Instant,
}

/// quinn without anything of ours, with a socket that its answers come to.
struct RawClient {
    endpoint: quinn_proto::Endpoint,
    connection: quinn_proto::Connection,
    handle: ConnectionHandle,
    socket: std::net::UdpSocket,
    streams: Vec<StreamId>,
    is_connected: bool,
    /// How many have come (RFC 9221).
    datagrams: usize,
}

impl Lab {
    fn new() -> Self {
        let (server, udp, identity) = lone_server();
        Self { server, udp, identity, now: Instant::now() }
    }

    /// A client that takes nothing for lost and sends without limits of its own.
    fn connect(&mut self) -> RawClient {
        let mut boundless = NewRenoConfig::default();
        boundless.initial_window(1 << 30);
        let mut transport = TransportConfig::default();
        transport
            .send_window(u64::MAX)
            .packet_threshold(u32::MAX)
            .time_threshold(1e6)
            .congestion_controller_factory(Arc::new(boundless))
            .mtu_discovery_config(None);
        let identity = KeyPair::try_generate().unwrap();
        let mut config = config::client(&identity, self.identity.pin(), 1500);
        config.transport_config(Arc::new(transport));
        let mut client = self.begin(config);
        self.exchange(&mut client);
        assert!(client.is_connected);
        client
    }

    fn begin(&mut self, config: ClientConfig) -> RawClient {
        let mut endpoint = quinn_proto::Endpoint::new(
            Arc::new(quinn_proto::EndpointConfig::default()),
            None,
            true,
            None,
        );
        let to = self.udp.local_address();
        let (handle, connection) = endpoint.connect(self.now, config, to, "connector").unwrap();
        let socket = std::net::UdpSocket::bind("127.0.0.1:0").unwrap();
        socket.set_nonblocking(true).unwrap();
        RawClient {
            endpoint,
            connection,
            handle,
            socket,
            streams: Vec::new(),
            is_connected: false,
            datagrams: 0,
        }
    }

    /// Carries datagrams both ways until nobody has more to say.
    fn exchange(&mut self, client: &mut RawClient) {
        let mut silent = 0;
        while silent < 50 {
            self.now += Duration::from_millis(1);
            client.handle_timeout(self.now);
            let datagrams = client.transmit(self.now);
            silent = if datagrams.is_empty() { silent + 1 } else { 0 };
            for datagram in datagrams {
                self.deliver(client.address(), &datagram);
            }
            self.turn(client);
        }
    }

    /// As [`Self::exchange`], but nothing of what the client would say is heard.
    fn exchange_answers(&mut self, client: &mut RawClient) {
        for _ in 0..50 {
            self.now += Duration::from_millis(1);
            self.turn(client);
        }
    }

    fn deliver(&mut self, from: SocketAddr, bytes: &[u8]) {
        let datagram = Datagram { from: Endpoint::from(from), ecn: Ecn::NotCapable, bytes };
        assert!(self.server.handle_client_datagram(&datagram, self.now).is_none());
        while self.server.has_newcomers() {
            self.server.begin_handshake(self.now);
        }
        self.flush();
    }

    fn flush(&mut self) {
        self.server.handle_timeout(self.now);
        while self.server.poll_packet(&mut [0; 2048], self.now).is_some() {}
        self.server.flush(&mut self.udp, self.now);
    }

    fn turn(&mut self, client: &mut RawClient) {
        self.flush();
        client.receive(self.udp.local_address(), self.now);
    }

    /// Makes a request of the client carry the packets of a peer.
    fn attach(&mut self, client: &mut RawClient) {
        let mut head = Vec::new();
        adit_proto::http3::encode_headers(&connect_head().fields(), &mut head);
        let stream = client.connection.streams().open(Dir::Bi).unwrap();
        assert_eq!(client.connection.send_stream(stream).write(&head).unwrap(), head.len());
        self.exchange(client);
        let event = self.server.poll_event();
        let Some(QuicEvent::Request(request)) = event else { panic!("{event:?}") };
        assert!(self.server.attach(request.quic_stream().unwrap(), PeerId::sample(), self.now));
        let _at_server = request.respond(ok());
        self.exchange(client);
    }

    /// Sends so many packets to the peer.
    fn send_packets(&mut self, count: usize) {
        for _ in 0..count {
            self.server.send_packet(PeerId::sample(), &[0x45; 1000]);
        }
        self.flush();
    }
}

impl RawClient {
    fn address(&self) -> SocketAddr {
        self.socket.local_addr().unwrap()
    }

    /// Writes to as many streams as there may be until each is blocked; returns how many bytes
    /// that were.
    fn write_all_that_is_granted(&mut self) -> u64 {
        let piece = [7; 64 << 10];
        while let Some(stream) = self.connection.streams().open(Dir::Bi) {
            self.streams.push(stream);
        }
        let mut written = 0;
        for stream in &self.streams {
            while let Ok(len) = self.connection.send_stream(*stream).write(&piece) {
                written += len as u64;
            }
        }
        written
    }

    fn handle_timeout(&mut self, now: Instant) {
        if self.connection.poll_timeout().is_some_and(|at| at <= now) {
            self.connection.handle_timeout(now);
        }
    }

    /// What it has to say.
    fn transmit(&mut self, now: Instant) -> Vec<Vec<u8>> {
        let mut all = Vec::new();
        loop {
            let mut datagram = Vec::new();
            if self.connection.poll_transmit(now, 1, &mut datagram).is_none() {
                return all;
            }
            all.push(datagram);
        }
    }

    /// Takes what has come.
    fn receive(&mut self, from: SocketAddr, now: Instant) {
        let mut buffer = [0; 65_535];
        while let Ok(len) = self.socket.recv(&mut buffer) {
            let bytes = buffer[..len].into();
            let event = self.endpoint.handle(now, from, None, None, bytes, &mut Vec::new());
            if let Some(DatagramEvent::ConnectionEvent(_handle, event)) = event {
                self.connection.handle_event(event);
            }
        }
        while let Some(event) = self.connection.poll_endpoint_events() {
            if let Some(event) = self.endpoint.handle_event(self.handle, event) {
                self.connection.handle_event(event);
            }
        }
        while let Some(event) = self.connection.poll() {
            self.is_connected |= matches!(event, quinn_proto::Event::Connected);
            if let quinn_proto::Event::ConnectionLost { reason } = event {
                panic!("{reason}");
            }
        }
        while self.connection.datagrams().recv().is_some() {
            self.datagrams += 1;
        }
    }
}

/// How many bytes have come to a socket.
fn received(socket: &std::net::UdpSocket) -> usize {
    socket.set_nonblocking(true).unwrap();
    let mut buffer = [0; 65_535];
    let lens = std::iter::from_fn(|| socket.recv(&mut buffer).ok());
    lens.sum()
}
