mod attacks;

use std::{
    net::SocketAddr,
    sync::{Arc, mpsc},
    thread::JoinHandle,
    time::{Duration, Instant, SystemTime},
};

use adit_proto::{
    ClientMessage, ConnectorMessage, Pin, Reason,
    http3::{Field, Http3Code, RequestHead, ResponseHead},
    masque::Capsule,
};
use bytes::Bytes;
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    sync::{mpsc as tokio_mpsc, oneshot},
};

use super::*;
use crate::{
    Datagram, Ecn, Endpoint, HttpConnection, IncomingRequest, KeyPair, Offloads, PeerId,
    ReceiveBatch, SessionChannel, SessionError, UdpSocket, Waiter, Waker,
    session_channel::session_head, tls,
};

/// What a test asks of the thread of one end.
type Job = Box<dyn FnOnce(&mut QuicEndpoint, Instant) + Send>;

/// An endpoint with a socket on loopback and a thread that turns it.
struct End {
    address: SocketAddr,
    jobs: mpsc::Sender<Job>,
    waker: Waker,
    requests: tokio_mpsc::UnboundedReceiver<IncomingRequest>,
    packets: tokio_mpsc::UnboundedReceiver<(PeerId, Vec<u8>)>,
    _thread: JoinHandle<()>,
}

impl End {
    fn server(identity: &KeyPair) -> Self {
        Self::server_at(identity, Duration::ZERO)
    }

    /// Its proofs of addresses are from so long ago.
    fn server_at(identity: &KeyPair, ago: Duration) -> Self {
        let identity = identity.clone();
        let retries = RetrySource::new(&identity);
        let take =
            move |end: &mut QuicEndpoint, udp: &mut UdpSocket, datagram: &Datagram<'_>, now| {
                if let Some(unproven) = end.handle_client_datagram(datagram, now) {
                    let retry = retries.retry(&unproven, SystemTime::now() - ago);
                    let _sent = udp.send(unproven.endpoint(), &retry);
                }
            };
        Self::start(take, |waker| QuicEndpoint::server(identity, 1420, 0, 1, waker))
    }

    fn client(identity: &KeyPair) -> Self {
        let identity = identity.clone();
        let take = |end: &mut QuicEndpoint, _udp: &mut UdpSocket, datagram: &Datagram<'_>, now| {
            end.handle_datagram(datagram, now);
        };
        Self::start(take, |waker| QuicEndpoint::client(identity, 1420, waker))
    }

    fn start(
        take: impl Fn(&mut QuicEndpoint, &mut UdpSocket, &Datagram<'_>, Instant) + Send + 'static,
        endpoint: impl FnOnce(Waker) -> QuicEndpoint,
    ) -> Self {
        let any = SocketAddr::from(([127, 0, 0, 1], 0));
        let mut udp = UdpSocket::try_bind(any, Offloads::ALL).unwrap();
        let address = udp.local_address();
        let (waiter, waker) = Waiter::try_new().unwrap();
        let mut endpoint = endpoint(waker.clone());
        let (jobs, incoming) = mpsc::channel::<Job>();
        let (requests_in, requests) = tokio_mpsc::unbounded_channel();
        let (packets_in, packets) = tokio_mpsc::unbounded_channel();
        let thread = std::thread::spawn(move || {
            use std::os::fd::AsFd as _;

            let mut batch = ReceiveBatch::new();
            let mut slot = vec![0; 65_535];
            loop {
                let now = Instant::now();
                let ready =
                    waiter.wait(None, Some(udp.as_fd()), endpoint.poll_timeout(), now).unwrap();
                let now = Instant::now();
                loop {
                    match incoming.try_recv() {
                        Ok(job) => job(&mut endpoint, now),
                        Err(mpsc::TryRecvError::Empty) => break,
                        Err(mpsc::TryRecvError::Disconnected) => return,
                    }
                }
                if ready.udp && udp.receive(&mut batch).unwrap() {
                    for datagram in batch.datagrams() {
                        assert!(is_quic(datagram.bytes));
                        take(&mut endpoint, &mut udp, &datagram, now);
                    }
                }
                while endpoint.has_newcomers() {
                    endpoint.begin_handshake(now);
                }
                endpoint.handle_timeout(now);
                while let Some((peer, len)) = endpoint.poll_packet(&mut slot, now) {
                    let _ = packets_in.send((peer, slot[..len].to_vec()));
                }
                endpoint.flush(&mut udp, now);
                while let Some(event) = endpoint.poll_event() {
                    if let QuicEvent::Request(request) = event {
                        let _ = requests_in.send(*request);
                    }
                }
            }
        });
        Self { address, jobs, waker, requests, packets, _thread: thread }
    }

    fn run(&self, job: impl FnOnce(&mut QuicEndpoint, Instant) + Send + 'static) {
        self.jobs.send(Box::new(job)).unwrap();
        self.waker.wake();
    }

    async fn connect(&self, to: &Self, pin: Pin) -> Result<QuicConnection, QuicError> {
        let (dialled, connection) = oneshot::channel();
        let address = to.address;
        self.run(move |endpoint, now| endpoint.connect(address, pin, dialled, now));
        connection.await.unwrap()
    }

    /// Attaches a stream to a peer, and says whether that was possible.
    async fn attach(&self, stream: QuicStreamId) -> bool {
        let (done, attached) = oneshot::channel();
        self.run(move |endpoint, now| {
            let _ = done.send(endpoint.attach(stream, PeerId::sample(), now));
        });
        attached.await.unwrap()
    }

    /// Returns when something is so.
    async fn until(&self, is_so: impl Fn(&QuicEndpoint) -> bool + Send + Clone + 'static) {
        loop {
            let (reply, answer) = oneshot::channel();
            let is_so = is_so.clone();
            self.run(move |endpoint, _now| {
                let _ = reply.send(is_so(endpoint));
            });
            if answer.await.unwrap() {
                return;
            }
            tokio::task::yield_now().await;
        }
    }
}

impl Drop for End {
    fn drop(&mut self) {
        // The thread ends when it is woken and nobody can ask for more.
        self.jobs = mpsc::channel().0;
        self.waker.wake();
    }
}

struct World {
    server: End,
    client: End,
    connection: QuicConnection,
    client_key: KeyPair,
}

async fn world() -> World {
    let (server_key, client_key) =
        (KeyPair::try_generate().unwrap(), KeyPair::try_generate().unwrap());
    let (server, client) = (End::server(&server_key), End::client(&client_key));
    let connection = client.connect(&server, server_key.pin()).await.unwrap();
    World { server, client, connection, client_key }
}

/// A session, the client's and the server's end.
async fn session() -> (
    Ends,
    SessionChannel<ClientMessage, ConnectorMessage>,
    SessionChannel<ConnectorMessage, ClientMessage>,
) {
    let (server_key, client_key) =
        (KeyPair::try_generate().unwrap(), KeyPair::try_generate().unwrap());
    let (mut server, client) = (End::server(&server_key), End::client(&client_key));
    let connection = client.connect(&server, server_key.pin()).await.unwrap();
    let opening = SessionChannel::open(HttpConnection::Quic(connection), server.address);
    let answering = async {
        let request = server.requests.recv().await.unwrap();
        assert!(request.is_session());
        assert_eq!(request.peer_pin, client_key.pin());
        request.into_session()
    };
    let (opened, incoming) = tokio::join!(opening, answering);
    (Ends { server, _client: client }, opened.unwrap(), incoming)
}

/// Both ends of what a test holds otherwise.
struct Ends {
    server: End,
    _client: End,
}

fn connect_head() -> RequestHead {
    RequestHead {
        method: "CONNECT".to_owned(),
        protocol: None,
        scheme: None,
        authority: Some("wiki.example:443".to_owned()),
        path: None,
        headers: vec![Field {
            name: "proxy-authorization".to_owned(),
            value: "Bearer x".to_owned(),
        }],
    }
}

fn ok() -> ResponseHead {
    ResponseHead { status: 200, headers: Vec::new() }
}

#[tokio::test]
async fn a_request_arrives_with_the_pin_of_its_sender_and_bytes_flow_both_ways() {
    let mut world = world().await;
    let asked = tokio::spawn(async move {
        let answer = world.connection.request(connect_head()).await.unwrap();
        (world.connection, answer)
    });
    let request = world.server.requests.recv().await.unwrap();
    assert_eq!(request.head, connect_head());
    assert_eq!(request.peer_pin, world.client_key.pin());
    request.admit();
    let mut at_server = request.respond(ok()).into_bytes();
    let (_connection, answer) = asked.await.unwrap();
    assert_eq!(answer.head.status, 200);
    let mut at_client = answer.body.into_bytes();

    // More than windows and pipes hold, so both have to be emptied to go on.
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
async fn packets_of_an_attached_request_arrive_as_they_were_sent() {
    let mut world = world().await;
    let asked = tokio::spawn(async move {
        let answer = world.connection.request(connect_head()).await.unwrap();
        (world.connection, answer)
    });
    let request = world.server.requests.recv().await.unwrap();
    assert!(world.server.attach(request.quic_stream().unwrap()).await);
    let _at_server = request.respond(ok());
    let (_connection, answer) = asked.await.unwrap();
    assert!(world.client.attach(answer.body.quic_stream().unwrap()).await);

    let packet = [0x45; 1000];
    world.client.run(move |endpoint, _now| endpoint.send_packet(PeerId::sample(), &packet));
    let (peer, received) = world.server.packets.recv().await.unwrap();
    assert_eq!((peer, received.as_slice()), (PeerId::sample(), packet.as_slice()));
    world.server.run(move |endpoint, _now| endpoint.send_packet(PeerId::sample(), &packet[..20]));
    let (_peer, received) = world.client.packets.recv().await.unwrap();
    assert_eq!(received, packet[..20]);
}

#[tokio::test]
async fn datagrams_of_a_request_reach_its_task_and_no_other() {
    let mut world = world().await;
    let asked = tokio::spawn(async move {
        let answer = world.connection.request(connect_head()).await.unwrap();
        (world.connection, answer)
    });
    let request = world.server.requests.recv().await.unwrap();
    let mut at_server = request.respond(ok()).into_capsules();
    let (_connection, answer) = asked.await.unwrap();
    let mut at_client = answer.body.into_capsules();
    at_client.send_datagram(0, b"hello");
    let received = at_server.next().await.unwrap();
    assert_eq!(received, Some(Capsule::Datagram(Bytes::from_static(b"\0hello"))));
}

#[tokio::test]
async fn a_stream_that_is_broken_off_does_not_look_complete() {
    let mut world = world().await;
    let asked = tokio::spawn(async move {
        let answer = world.connection.request(connect_head()).await.unwrap();
        (world.connection, answer)
    });
    let request = world.server.requests.recv().await.unwrap();
    let mut at_server = request.respond(ok()).into_bytes();
    let (_connection, answer) = asked.await.unwrap();
    let mut at_client = answer.body.into_bytes();
    at_server.write_all(b"half").await.unwrap();
    let mut half = [0; 4];
    at_client.read_exact(&mut half).await.unwrap();
    at_server.abort(Http3Code::ConnectError);
    let error = at_client.read(&mut half).await.unwrap_err();
    assert_eq!(error.kind(), std::io::ErrorKind::ConnectionReset);
}

#[tokio::test]
async fn what_a_connection_is_used_for_is_known_until_it_is_closed() {
    let mut world = world().await;
    let asked = tokio::spawn(async move {
        let answer = world.connection.request(connect_head()).await.unwrap();
        (world.connection, answer)
    });
    let request = world.server.requests.recv().await.unwrap();
    let stream = request.quic_stream().unwrap();
    let use_of = async |server: &End| {
        let (told, answer) = oneshot::channel();
        server.run(move |endpoint, _now| told.send(endpoint.use_of(stream.connection())).unwrap());
        answer.await.unwrap()
    };
    assert_eq!(use_of(&world.server).await, Some(QuicUse::Requests));
    assert!(world.server.attach(stream).await);
    assert_eq!(use_of(&world.server).await, Some(QuicUse::Packets));
    let mut at_server = request.respond(ok()).into_bytes();
    let _client = asked.await.unwrap();
    world.server.run(move |endpoint, now| endpoint.close(stream.connection(), now));
    assert_eq!(use_of(&world.server).await, Some(QuicUse::Nothing));
    let mut rest = Vec::new();
    assert!(at_server.read_to_end(&mut rest).await.is_err() || rest.is_empty());
}

#[tokio::test]
async fn a_server_of_another_key_is_told_apart_from_one_that_is_not_there() {
    let keys = [(); 3].map(|()| KeyPair::try_generate().unwrap());
    let (server, client) = (End::server(&keys[0]), End::client(&keys[1]));
    let error = client.connect(&server, keys[2].pin()).await.unwrap_err();
    assert_eq!(error, QuicError::PinMismatch);
}

#[tokio::test]
async fn a_request_that_nobody_answers_is_rejected() {
    let mut world = world().await;
    let asked = tokio::spawn(async move { world.connection.request(connect_head()).await.err() });
    drop(world.server.requests.recv().await.unwrap());
    assert_eq!(asked.await.unwrap(), Some(QuicError::Reset));
}

#[tokio::test]
async fn a_lost_connection_ends_its_requests() {
    let mut world = world().await;
    let asked = tokio::spawn(async move { world.connection.request(connect_head()).await });
    let request = world.server.requests.recv().await.unwrap();
    let mut at_server = request.respond(ok()).into_bytes();
    // The answer of the task drops the connection, and with it all of its streams.
    drop(asked.await.unwrap().unwrap());
    let mut rest = Vec::new();
    let end = tokio::time::timeout(Duration::from_secs(5), at_server.read_to_end(&mut rest)).await;
    assert!(end.is_ok(), "the server's stream is still open");
}

#[tokio::test]
async fn a_session_passes_messages_both_ways_and_its_last_one_before_it_ends() {
    let (ends, client, connector) = session().await;
    let (mut to_connector, mut from_connector) = client.split();
    let (mut to_client, mut from_client) = connector.split();
    for request_id in 0..50 {
        to_connector.send(&ClientMessage::Ping { request_id }).await.unwrap();
    }
    for request_id in 0..50 {
        let received = from_client.next().await.unwrap().unwrap();
        assert_eq!(received, ClientMessage::Ping { request_id });
    }
    let refused = ConnectorMessage::Refused { reason: Reason::CredentialExpired };
    to_client.send(&refused).await.unwrap();
    drop((to_client, from_client));
    assert_eq!(from_connector.next().await.unwrap().unwrap(), refused);
    assert!(from_connector.next().await.is_none());
    // Its end is that of the client's connection, so that the server has room again.
    drop((to_connector, from_connector));
    ends.server.until(|endpoint| endpoint.counters().connections == 0).await;
}

#[tokio::test]
async fn a_client_that_goes_ends_its_session_at_the_server() {
    let (_ends, client, connector) = session().await;
    let (_to_client, mut from_client) = connector.split();
    drop(client);
    let ended = from_client.next().await;
    assert!(ended.is_none_or(|message| message.is_err()));
}

#[tokio::test]
async fn a_line_of_a_session_that_is_no_message_closes_the_connection() {
    let mut world = world().await;
    let asked = tokio::spawn(async move {
        let address = SocketAddr::from(([127, 0, 0, 1], 443));
        let answer = world.connection.request(session_head(address)).await.unwrap();
        (world.connection, answer.body.into_bytes())
    });
    let request = world.server.requests.recv().await.unwrap();
    let (_to_client, mut from_client) = request.into_session().split();
    let (_connection, mut at_client) = asked.await.unwrap();
    at_client.write_all(b"nonsense\n").await.unwrap();
    assert!(matches!(from_client.next().await, Some(Err(SessionError::Malformed))));
    assert!(at_client.read(&mut [0]).await.is_err());
}

#[tokio::test]
async fn a_session_that_is_admitted_may_use_more_than_a_strangers_requests() {
    let mut world = world().await;
    let asked = tokio::spawn(async move {
        let address = SocketAddr::from(([127, 0, 0, 1], 443));
        let answer = world.connection.request(session_head(address)).await.unwrap();
        (world.connection, answer)
    });
    let (to_client, _from_client) =
        world.server.requests.recv().await.unwrap().into_session().split();
    let (connection, _answer) = asked.await.unwrap();
    to_client.admit();
    let mut held = Vec::new();
    for _index in 0..20 {
        let answering = async {
            let request = world.server.requests.recv().await.unwrap();
            request.respond(ok())
        };
        // Room is made a moment later.
        let asking = async {
            loop {
                match connection.request(connect_head()).await {
                    Err(QuicError::TooManyRequests) => tokio::task::yield_now().await,
                    answer => return answer.unwrap(),
                }
            }
        };
        held.push(tokio::join!(asking, answering));
    }
}

/// Beyond it whoever comes has to prove its address.
const BUSY: usize = 64;

/// Connections that show no credential, as many as there may be before addresses are to be proven.
async fn strangers(client: &End, server: &End, pin: Pin) -> Vec<QuicConnection> {
    let mut connections = Vec::new();
    for _ in 0..BUSY {
        connections.push(client.connect(server, pin).await.unwrap());
    }
    connections
}

async fn counters(end: &End) -> QuicCounters {
    let (counted, counters) = oneshot::channel();
    end.run(move |endpoint, _now| counted.send(endpoint.counters()).unwrap());
    counters.await.unwrap()
}

#[tokio::test]
async fn with_many_strangers_a_client_proves_its_address_and_gets_through() {
    let (server_key, client_key) =
        (KeyPair::try_generate().unwrap(), KeyPair::try_generate().unwrap());
    let (server, client) = (End::server(&server_key), End::client(&client_key));
    let _strangers = strangers(&client, &server, server_key.pin()).await;
    assert_eq!(counters(&server).await.retries, 0);
    let _last = client.connect(&server, server_key.pin()).await.unwrap();
    let counted = counters(&server).await;
    assert_eq!((counted.connections, counted.handshakes), (BUSY + 1, BUSY as u64 + 1));
    assert!(counted.retries > 0, "{counted:?}");
}

#[tokio::test]
async fn whoever_is_admitted_is_no_stranger() {
    let (server_key, client_key) =
        (KeyPair::try_generate().unwrap(), KeyPair::try_generate().unwrap());
    let (mut server, client) = (End::server(&server_key), End::client(&client_key));
    let mut asked = Vec::new();
    for connection in strangers(&client, &server, server_key.pin()).await {
        asked.push(tokio::spawn(async move {
            let _answer = connection.request(connect_head()).await.unwrap();
            connection
        }));
        let request = server.requests.recv().await.unwrap();
        request.admit();
        let _at_server = request.respond(ok());
    }
    let _last = client.connect(&server, server_key.pin()).await.unwrap();
    assert_eq!(counters(&server).await.retries, 0);
}

#[tokio::test]
async fn an_old_proof_of_an_address_is_refused() {
    let (server_key, client_key) =
        (KeyPair::try_generate().unwrap(), KeyPair::try_generate().unwrap());
    let server = End::server_at(&server_key, Duration::from_secs(20));
    let client = End::client(&client_key);
    let _strangers = strangers(&client, &server, server_key.pin()).await;
    let error = client.connect(&server, server_key.pin()).await.unwrap_err();
    let QuicError::Lost { reason } = error else { panic!("{error:?}") };
    assert!(reason.contains("invalid Retry Token"), "{reason}");
}

/// A server whose flights nobody answers, with its socket.
fn lone_server() -> (QuicEndpoint, UdpSocket, KeyPair) {
    let identity = KeyPair::try_generate().unwrap();
    let (_waiter, waker) = Waiter::try_new().unwrap();
    let any = SocketAddr::from(([127, 0, 0, 1], 0));
    let udp = UdpSocket::try_bind(any, Offloads::ALL).unwrap();
    (QuicEndpoint::server(identity.clone(), 1420, 0, 1, waker), udp, identity)
}

/// A client whose datagrams the test carries.
struct LoneClient {
    endpoint: quinn_proto::Endpoint,
    connection: quinn_proto::Connection,
}

impl LoneClient {
    const SERVER: SocketAddr =
        SocketAddr::new(std::net::IpAddr::V4(std::net::Ipv4Addr::LOCALHOST), 443);

    fn new(pin: Pin, now: Instant) -> Self {
        let config = Arc::new(quinn_proto::EndpointConfig::default());
        let mut endpoint = quinn_proto::Endpoint::new(config, None, true, None);
        let config = config::client(&KeyPair::try_generate().unwrap(), pin, 1500);
        let (_handle, connection) =
            endpoint.connect(now, config, Self::SERVER, "connector").unwrap();
        Self { endpoint, connection }
    }

    fn next(&mut self, now: Instant) -> Option<Vec<u8>> {
        let mut datagram = Vec::new();
        self.connection.poll_transmit(now, 1, &mut datagram).map(|_transmit| datagram)
    }

    fn handle(&mut self, datagram: &[u8], now: Instant) {
        let mut answer = Vec::new();
        let event =
            self.endpoint.handle(now, Self::SERVER, None, None, datagram.into(), &mut answer);
        if let Some(quinn_proto::DatagramEvent::ConnectionEvent(handle, event)) = event {
            self.connection.handle_event(event);
            while let Some(event) = self.connection.poll_endpoint_events() {
                if let Some(event) = self.endpoint.handle_event(handle, event) {
                    self.connection.handle_event(event);
                }
            }
        }
    }
}

/// What a client says first.
fn first_words(pin: Pin) -> Vec<Vec<u8>> {
    let now = Instant::now();
    let mut client = LoneClient::new(pin, now);
    let next = || client.next(now);
    std::iter::from_fn(next).collect()
}

#[test]
fn an_address_that_is_not_proven_gets_three_times_what_it_sent_at_most() {
    let (mut server, mut udp, identity) = lone_server();
    let victim = std::net::UdpSocket::bind("127.0.0.1:0").unwrap();
    let from = Endpoint::from(victim.local_addr().unwrap());
    let start = Instant::now();
    let (mut sent, mut received) = (0, 0);
    for bytes in first_words(identity.pin()) {
        sent += bytes.len();
        let datagram = Datagram { from, ecn: Ecn::NotCapable, bytes: &bytes };
        assert!(server.handle_client_datagram(&datagram, start).is_none());
    }
    assert!(server.has_newcomers());
    let mut now = start;
    server.begin_handshake(now);
    server.flush(&mut udp, now);
    // Until it gives up.
    while let Some(at) = server.poll_timeout()
        && at < start + Duration::from_secs(60)
    {
        now = at;
        server.handle_timeout(now);
        server.flush(&mut udp, now);
    }
    assert_eq!(server.counters().connections, 0);
    victim.set_nonblocking(true).unwrap();
    let mut buffer = [0; 2048];
    while let Ok(len) = victim.recv(&mut buffer) {
        received += len;
    }
    assert!(received > sent && received <= 3 * sent, "{received} for {sent}");
}

#[test]
fn a_handshake_survives_the_loss_of_any_of_its_datagrams() {
    for lost in 0..6 {
        let (mut server, mut udp, identity) = lone_server();
        let socket = std::net::UdpSocket::bind("127.0.0.1:0").unwrap();
        socket.set_nonblocking(true).unwrap();
        let from = Endpoint::from(socket.local_addr().unwrap());
        let start = Instant::now();
        let mut now = start;
        let mut client = LoneClient::new(identity.pin(), now);
        let mut sent = 0;
        while client.connection.is_handshaking() {
            assert!(now < start + Duration::from_secs(10), "{lost}");
            let before = sent;
            while let Some(bytes) = client.next(now) {
                let datagram = Datagram { from, ecn: Ecn::NotCapable, bytes: &bytes };
                if sent != lost {
                    assert!(server.handle_client_datagram(&datagram, now).is_none());
                }
                sent += 1;
            }
            while server.has_newcomers() {
                server.begin_handshake(now);
            }
            server.flush(&mut udp, now);
            let mut buffer = [0; 2048];
            while let Ok(len) = socket.recv(&mut buffer) {
                if sent != lost {
                    client.handle(&buffer[..len], now);
                }
                sent += 1;
            }
            if sent == before {
                let timeouts = [server.poll_timeout(), client.connection.poll_timeout()];
                now = now.max(timeouts.into_iter().flatten().min().unwrap());
                server.handle_timeout(now);
                client.connection.handle_timeout(now);
            }
        }
    }
}

#[test]
fn who_waits_and_who_has_begun_is_bounded() {
    let (mut server, mut udp, identity) = lone_server();
    let retries = RetrySource::new(&identity);
    let words = first_words(identity.pin());
    let now = Instant::now();
    let mut asked = 0;
    for port in 1..=5000 {
        let from = Endpoint::from(SocketAddr::from(([127, 0, 0, 1], port)));
        for bytes in &words {
            let datagram = Datagram { from, ecn: Ecn::NotCapable, bytes };
            if let Some(unproven) = server.handle_client_datagram(&datagram, now) {
                assert!(retries.retry(&unproven, SystemTime::now()).len() * 3 < bytes.len());
                asked += 1;
            }
        }
    }
    assert_eq!(asked, (5000 - BUSY) * words.len());
    while server.has_newcomers() {
        server.begin_handshake(now);
    }
    server.flush(&mut udp, now);
    let counted = server.counters();
    assert_eq!(counted.retries, asked as u64);
    // All of them call the server by one name.
    assert!(counted.connections <= BUSY, "{counted:?}");
}

#[test]
fn junk_begins_nothing() {
    let (mut server, mut udp, identity) = lone_server();
    let from = Endpoint::from(SocketAddr::from(([127, 0, 0, 1], 9)));
    let words = first_words(identity.pin());
    let now = Instant::now();
    for at in 0..60 {
        for bit in 0..8 {
            let mut bytes = words[0].clone();
            bytes[at] ^= 1 << bit;
            for bytes in [&bytes[..], &bytes[..at]] {
                let datagram = Datagram { from, ecn: Ecn::NotCapable, bytes };
                let _unproven = server.handle_client_datagram(&datagram, now);
            }
        }
    }
    while server.has_newcomers() {
        server.begin_handshake(now);
    }
    server.flush(&mut udp, now);
    assert_eq!(server.counters().connections, 0);
}

#[test]
fn wireguard_is_not_quic() {
    for kind in 1..=4 {
        assert!(!is_quic(&[kind, 0, 0, 0]));
    }
    assert!(!is_quic(&[]));
    assert!(is_quic(&[0xc0]) && is_quic(&[0x40]));
}
