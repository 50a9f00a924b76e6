use std::{
    net::{IpAddr, Ipv4Addr},
    sync::{Arc, atomic::AtomicU64},
};

use adit_proto::{
    ClientMessage, ConnectorMessage,
    http3::{Field, Http3Code, RequestHead, ResponseHead},
    masque::{AssignedAddress, Capsule},
};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::{TcpListener, TcpStream},
    task::JoinHandle,
    time::timeout,
};

use super::{server::IDLE_TIMEOUT, *};
use crate::{
    Answer, ByteStream, CapsuleStream, CapsuleStreamError, IncomingRequest, KeyPair,
    SessionChannel, SpliceCounters, session_channel::session_head, splice,
};

#[tokio::test]
async fn a_request_arrives_with_the_pin_of_its_sender_and_bytes_flow_both_ways() {
    let mut world = World::new().await;
    let (request, asked) = world.ask(connect_head()).await;
    assert_eq!(request.head, connect_head());
    assert_eq!(request.peer_pin, world.client.pin());
    assert_eq!(request.quic_stream(), None);
    request.admit();
    let mut at_server = request.respond(ok()).into_bytes();
    let answer = asked.await.unwrap().unwrap();
    assert_eq!(answer.head, ok());
    let mut at_client = answer.body.into_bytes();

    // More than windows and buffers hold, so both have to be emptied to go on.
    let sent: Vec<u8> = (0..30_000_000_u32).map(|n| (n >> 3) as u8).collect();
    let echo = tokio::spawn(async move {
        let mut received = Vec::new();
        at_server.read_to_end(&mut received).await.unwrap();
        at_server.write_all(&received).await.unwrap();
        at_server.shutdown().await.unwrap();
    });
    at_client.write_all(&sent).await.unwrap();
    at_client.shutdown().await.unwrap();
    let mut back = Vec::new();
    at_client.read_to_end(&mut back).await.unwrap();
    echo.await.unwrap();
    assert!(back == sent, "{} of {} bytes came back", back.len(), sent.len());
}

#[tokio::test]
async fn a_splice_with_tcp_carries_either_direction_after_the_other_has_ended() {
    let mut world = World::new().await;
    let (mut at_client, mut at_server) = world.bytes().await;
    let (mut at_proxy, mut service) = tcp_pair().await;
    let spliced = tokio::spawn(async move {
        let (from_peer, to_peer) = (AtomicU64::new(0), AtomicU64::new(0));
        let counters = SpliceCounters { from_peer: &from_peer, to_peer: &to_peer };
        let result = splice(&mut at_server, &mut at_proxy, counters).await;
        (result, from_peer.into_inner(), to_peer.into_inner())
    });

    let sent: Vec<u8> = (0..10_000_000_u32).map(|n| (n >> 3) as u8).collect();
    let echo = tokio::spawn(async move {
        let mut received = Vec::new();
        service.read_to_end(&mut received).await.unwrap();
        service.write_all(&received).await.unwrap();
    });
    at_client.write_all(&sent).await.unwrap();
    at_client.shutdown().await.unwrap();
    let mut back = Vec::new();
    at_client.read_to_end(&mut back).await.unwrap();
    echo.await.unwrap();
    assert!(back == sent, "{} of {} bytes came back", back.len(), sent.len());
    let (result, from_peer, to_peer) = spliced.await.unwrap();
    result.unwrap();
    assert_eq!((from_peer, to_peer), (10_000_000, 10_000_000));
}

#[tokio::test]
async fn a_splice_with_tcp_says_when_either_end_breaks() {
    let mut world = World::new().await;
    let none = AtomicU64::new(0);
    let counters = SpliceCounters { from_peer: &none, to_peer: &none };

    let (at_client, mut at_server) = world.bytes().await;
    let (mut at_proxy, _service) = tcp_pair().await;
    at_client.abort(Http3Code::ConnectError);
    splice(&mut at_server, &mut at_proxy, counters).await.unwrap_err();

    let (_at_client, mut at_server) = world.bytes().await;
    let (mut at_proxy, service) = tcp_pair().await;
    service.set_zero_linger().unwrap();
    drop(service);
    splice(&mut at_server, &mut at_proxy, counters).await.unwrap_err();
}

#[tokio::test]
async fn a_session_and_a_carrier_of_packets_share_a_connection() {
    let mut world = World::new().await;
    let (session, incoming) = world.session().await;
    let (mut to_connector, _from_connector) = session.split();
    let (to_client, mut from_client) = incoming.split();
    to_client.admit();
    let (mut at_client, mut at_server) = world.capsules(connect_ip_head()).await;

    at_client.send_datagram(0, b"packet");
    let _flushed = timeout(INSTANT, at_client.next()).await;
    assert_eq!(at_server.next().await.unwrap(), Some(datagram(b"packet")));
    let ping = ClientMessage::Ping { request_id: 1 };
    to_connector.send(&ping).await.unwrap();
    assert_eq!(from_client.next().await.unwrap().unwrap(), ping);
}

#[tokio::test]
async fn streams_outlive_the_session_of_their_connection() {
    let mut world = World::new().await;
    let (session, incoming) = world.session().await;
    let (mut at_client, mut at_server) = world.capsules(connect_ip_head()).await;
    drop((session, incoming));
    // Until the connector has said that it takes no more requests.
    loop {
        tokio::select! {
            answer = world.connection.request(connect_head()) => match answer {
                Err(Http2Error::Closed) => break,
                answer => drop(answer),
            },
            incoming = world.listener.accept() => drop(incoming),
        }
    }
    at_server.send_datagram(0, b"packet");
    let _flushed = timeout(INSTANT, at_server.next()).await;
    assert_eq!(at_client.next().await.unwrap(), Some(datagram(b"packet")));
}

#[tokio::test]
async fn capsules_and_datagrams_pass_in_order() {
    let mut world = World::new().await;
    let (mut at_client, mut at_server) = world.capsules(connect_ip_head()).await;
    let assign = assign();
    at_server.send_datagram(0, &[0x45; 1400]);
    at_server.send(&assign).await.unwrap();
    at_server.send_datagram(1, b"");
    drop(at_server.send(&assign).await);
    assert_eq!(at_client.next().await.unwrap(), Some(datagram(&[0x45; 1400])));
    assert_eq!(at_client.next().await.unwrap(), Some(assign.clone()));
    assert_eq!(at_client.next().await.unwrap(), Some(Capsule::Datagram(b"\x01".as_slice().into())));
    assert_eq!(at_client.next().await.unwrap(), Some(assign));
    drop(at_server);
    assert_eq!(at_client.next().await.unwrap(), None);
}

#[tokio::test]
async fn datagrams_to_a_stream_that_does_not_move_are_dropped_and_capsules_wait() {
    const COUNT: u32 = 200_000;

    let mut world = World::new().await;
    let (mut at_client, mut at_server) = world.capsules(connect_ip_head()).await;
    for number in 0..COUNT {
        let mut packet = [0; 1400];
        packet[..4].copy_from_slice(&number.to_be_bytes());
        at_client.send_datagram(0, &packet);
        if number % 32 == 0 {
            let _flushed = timeout(Duration::ZERO, at_client.next()).await;
        }
    }
    let last = assign();
    let receiving = async {
        let (mut count, mut latest) = (0_u32, None);
        loop {
            let packet = match at_server.next().await.unwrap() {
                Some(Capsule::Datagram(packet)) => packet,
                other => return (count, other),
            };
            assert_eq!(packet.len(), 1401);
            let number = u32::from_be_bytes(packet[1..5].try_into().unwrap());
            assert!(latest < Some(number), "{number} after {latest:?}");
            (count, latest) = (count + 1, Some(number));
        }
    };
    let (sent, (count, other)) = tokio::join!(at_client.send(&last), receiving);
    sent.unwrap();
    assert_eq!(other, Some(last));
    assert!((1..COUNT / 10).contains(&count), "{count} of {COUNT} passed");
}

#[tokio::test]
async fn a_stream_of_capsules_that_is_dropped_inside_one_does_not_look_complete() {
    let mut world = World::new().await;
    let (mut at_client, mut at_server) = world.capsules(connect_ip_head()).await;
    // More than what may lie unread.
    let capsule = Capsule::Datagram(vec![0; 100_000].into());
    while timeout(INSTANT, at_client.send(&capsule)).await.is_ok() {}
    drop(at_client);
    let error = loop {
        match at_server.next().await {
            Ok(received) => assert_eq!(received.as_ref(), Some(&capsule)),
            Err(error) => break error,
        }
    };
    assert!(matches!(error, CapsuleStreamError::Stream(_)), "{error}");
}

#[tokio::test]
async fn a_stream_that_is_broken_off_does_not_look_complete() {
    let mut world = World::new().await;
    let (mut at_client, mut at_server) = world.bytes().await;
    at_server.write_all(b"half").await.unwrap();
    let mut half = [0; 4];
    at_client.read_exact(&mut half).await.unwrap();
    at_server.abort(Http3Code::ConnectError);
    let error = at_client.read(&mut half).await.unwrap_err();
    assert_eq!(error.kind(), std::io::ErrorKind::ConnectionReset);
    let source = std::error::Error::source(&error).unwrap().to_string();
    assert!(source.contains("CONNECT"), "{source}");
}

#[tokio::test]
async fn a_lost_connection_does_not_look_like_the_end_of_its_streams() {
    let mut world = World::new().await;
    let (at_client, mut at_server) = world.bytes().await;
    world.connection.handle().shared().abort();
    let error = at_server.read(&mut [0; 4]).await.unwrap_err();
    assert_eq!(error.kind(), std::io::ErrorKind::ConnectionReset);
    drop(at_client);
}

#[tokio::test]
async fn a_stream_that_is_dropped_ends_in_order() {
    let mut world = World::new().await;
    let (mut at_client, mut at_server) = world.bytes().await;
    at_server.write_all(b"all").await.unwrap();
    drop(at_server);
    let mut all = Vec::new();
    at_client.read_to_end(&mut all).await.unwrap();
    assert_eq!(all, b"all");
}

#[tokio::test]
async fn a_request_that_nobody_answers_is_rejected() {
    let mut world = World::new().await;
    let (request, asked) = world.ask(connect_head()).await;
    drop(request);
    assert!(matches!(asked.await.unwrap(), Err(Http2Error::Reset { .. })));
}

#[tokio::test]
async fn a_stranger_has_few_streams_until_it_is_admitted() {
    let mut world = World::new().await;
    let mut held = Vec::new();
    for _index in 0..4 {
        held.push(world.ask(connect_head()).await);
    }
    let refused = world.connection.request(connect_head()).await;
    assert!(matches!(refused, Err(Http2Error::Reset { .. })), "{refused:?}");
    held[0].0.admit();
    for _index in 0..20 {
        held.push(world.ask(connect_head()).await);
    }
}

#[tokio::test]
async fn a_connection_has_one_session() {
    let mut world = World::new().await;
    let _first = world.session().await;
    let second = world.connection.request(session_head(world.endpoint())).await;
    assert!(matches!(second, Err(Http2Error::Reset { .. })), "{second:?}");
}

#[tokio::test]
async fn what_is_neither_a_session_nor_a_request_to_carry_is_not_found() {
    let world = World::new().await;
    for (method, path) in [("GET", "/v1/session"), ("POST", "/v1/other")] {
        let head = RequestHead {
            method: method.to_owned(),
            protocol: None,
            path: Some(path.to_owned()),
            ..connect_ip_head()
        };
        assert_eq!(world.connection.request(head).await.unwrap().head.status, 404);
    }
}

#[tokio::test(start_paused = true)]
async fn a_stranger_that_is_never_admitted_is_dropped_in_time() {
    let mut world = World::new().await;
    let (request, asked) = world.ask(connect_head()).await;
    let mut at_server = request.respond(ResponseHead { status: 407, headers: vec![] }).into_bytes();
    let mut at_client = asked.await.unwrap().unwrap().body.into_bytes();
    // Time passes by itself when there is nothing else to do.
    assert!(at_client.read(&mut [0]).await.is_err());
    assert!(at_server.read(&mut [0]).await.is_err());
}

#[tokio::test(start_paused = true)]
async fn a_connection_without_streams_goes_in_time_and_not_before() {
    let (near, far) = tokio::io::duplex(1 << 16);
    let endpoint = SocketAddr::from((Ipv4Addr::LOCALHOST, 443));
    let peer = Peer { pin: KeyPair::try_generate().unwrap().pin(), remote: endpoint };
    let (sender, mut incoming) = tokio::sync::mpsc::channel(1);
    let (connection, server) =
        tokio::join!(Http2Connection::try_new(near), Server::try_new(far, peer, sender));
    let (connection, server) = (connection.unwrap(), tokio::spawn(server.unwrap().run()));
    for _index in 0..2 {
        let answering = async { incoming.recv().await.unwrap().respond(ok()) };
        let (answer, body) = tokio::join!(connection.request(connect_ip_head()), answering);
        assert_eq!(answer.unwrap().head, ok());
        drop(body);
        tokio::time::sleep(IDLE_TIMEOUT / 2).await;
        assert!(!server.is_finished());
    }
    timeout(IDLE_TIMEOUT, server).await.unwrap().unwrap();
    assert!(connection.request(connect_ip_head()).await.is_err());
}

#[tokio::test]
async fn a_server_without_extended_connect_is_told_apart() {
    let (near, far) = tokio::io::duplex(1 << 16);
    tokio::spawn(async move {
        let mut connection = h2::server::handshake(far).await.unwrap();
        while connection.accept().await.is_some() {}
    });
    let connection = Http2Connection::try_new(near).await.unwrap();
    let error = connection.request(connect_ip_head()).await.unwrap_err();
    assert!(matches!(error, Http2Error::NotOffered), "{error}");
}

/// For what is under way at once.
const INSTANT: Duration = Duration::from_millis(50);

/// A connector's listener and a client that is connected.
struct World {
    listener: Http2Listener,
    client: KeyPair,
    connection: Arc<Http2Connection>,
}

type ClientChannel = SessionChannel<ClientMessage, ConnectorMessage>;
type ConnectorChannel = SessionChannel<ConnectorMessage, ClientMessage>;

type Asked = JoinHandle<Result<Answer, Http2Error>>;

impl World {
    async fn new() -> Self {
        let (client, connector) =
            (KeyPair::try_generate().unwrap(), KeyPair::try_generate().unwrap());
        let address = SocketAddr::from((Ipv4Addr::LOCALHOST, 0));
        let listener = Http2Listener::try_bind(address, &connector).unwrap();
        let endpoint = listener.local_address();
        let connection = Http2Connection::try_connect(endpoint, connector.pin(), &client).await;
        Self { listener, client, connection: Arc::new(connection.unwrap()) }
    }

    /// A request as it arrives, and what becomes of it.
    async fn ask(&mut self, head: RequestHead) -> (IncomingRequest, Asked) {
        let connection = Arc::clone(&self.connection);
        let asked = tokio::spawn(async move { connection.request(head).await });
        (self.listener.accept().await, asked)
    }

    /// The client's and the connector's end.
    async fn session(&mut self) -> (ClientChannel, ConnectorChannel) {
        let (request, asked) = self.ask(session_head(self.endpoint())).await;
        assert!(request.is_session());
        let at_server = request.into_session();
        (SessionChannel::new(asked.await.unwrap().unwrap().body, None), at_server)
    }

    fn endpoint(&self) -> SocketAddr {
        self.listener.local_address()
    }

    /// The client's and the connector's end.
    async fn bytes(&mut self) -> (ByteStream, ByteStream) {
        let (request, asked) = self.ask(connect_head()).await;
        let at_server = request.respond(ok()).into_bytes();
        (asked.await.unwrap().unwrap().body.into_bytes(), at_server)
    }

    /// The client's and the connector's end.
    async fn capsules(&mut self, head: RequestHead) -> (CapsuleStream, CapsuleStream) {
        let (request, asked) = self.ask(head).await;
        request.admit();
        let at_server = request.respond(ok()).into_capsules();
        (asked.await.unwrap().unwrap().body.into_capsules(), at_server)
    }
}

/// Both ends of a connection.
async fn tcp_pair() -> (TcpStream, TcpStream) {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
    let address = listener.local_addr().unwrap();
    let (one, other) = tokio::join!(TcpStream::connect(address), listener.accept());
    (one.unwrap(), other.unwrap().0)
}

fn connect_head() -> RequestHead {
    RequestHead {
        method: "CONNECT".to_owned(),
        protocol: None,
        scheme: None,
        authority: Some("wiki.example:443".to_owned()),
        path: None,
        headers: vec![Field::new("proxy-authorization", "Bearer x")],
    }
}

fn connect_ip_head() -> RequestHead {
    RequestHead {
        method: "CONNECT".to_owned(),
        protocol: Some("connect-ip".to_owned()),
        scheme: Some("https".to_owned()),
        authority: Some("connector.example".to_owned()),
        path: Some("/.well-known/masque/ip/*/*/".to_owned()),
        headers: vec![Field::new("capsule-protocol", "?1")],
    }
}

fn ok() -> ResponseHead {
    ResponseHead { status: 200, headers: Vec::new() }
}

fn assign() -> Capsule {
    let prefix = IpAddr::from(Ipv4Addr::LOCALHOST).into();
    Capsule::AddressAssign(vec![AssignedAddress { request_id: 0, prefix }])
}

/// With the context of packets.
fn datagram(payload: &[u8]) -> Capsule {
    Capsule::Datagram([b"\0", payload].concat().into())
}
