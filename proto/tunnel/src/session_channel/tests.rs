use std::{
    future::pending,
    net::{Ipv4Addr, SocketAddr},
};

use adit_proto::{ClientMessage, ConnectorMessage, Reason as DenialReason};
use rustls::pki_types::ServerName;
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _, DuplexStream, copy_bidirectional, duplex},
    net::{TcpSocket, TcpStream},
    sync::{mpsc, oneshot},
    task::JoinHandle,
    time::Instant,
};
use tokio_rustls::TlsConnector;

use super::*;
use crate::{
    Http2Connection, Http2Listener, IncomingRequest, KeyPair, connect,
    http2::{Peer, Server},
    tls,
};

type Opening = JoinHandle<Result<ClientChannel, SessionError>>;
type ClientChannel = SessionChannel<ClientMessage, ConnectorMessage>;
type ConnectorChannel = SessionChannel<ConnectorMessage, ClientMessage>;

#[tokio::test]
async fn messages_pass_both_ways_in_order() {
    let mut site = Site::new();
    let (client, incoming) = site.next_session().await;
    let (mut to_connector, mut from_connector) = client.split();
    let (mut to_client, mut from_client) = incoming.split();

    for request_id in 0..50 {
        to_connector.send(&ClientMessage::Ping { request_id }).await.unwrap();
    }
    for request_id in 0..50 {
        let received = from_client.next().await.unwrap().unwrap();
        assert_eq!(received, ClientMessage::Ping { request_id });
        to_client.send(&ConnectorMessage::Pong { request_id, load: 7 }).await.unwrap();
    }
    for request_id in 0..50 {
        let received = from_connector.next().await.unwrap().unwrap();
        assert_eq!(received, ConnectorMessage::Pong { request_id, load: 7 });
    }
}

#[tokio::test]
async fn a_listener_learns_who_its_client_is() {
    let mut site = Site::new();
    let (_client, incoming) = site.next_request().await;
    assert_eq!(incoming.peer_pin, site.client.pin());
    assert!(incoming.remote.ip().is_loopback());
}

#[tokio::test]
async fn a_listener_on_all_addresses_hears_ipv4_and_names_it_so() {
    let (client, connector) = (KeyPair::try_generate().unwrap(), KeyPair::try_generate().unwrap());
    let mut listener = Http2Listener::try_bind("[::]:0".parse().unwrap(), &connector).unwrap();
    let endpoint = SocketAddr::from((Ipv4Addr::LOCALHOST, listener.local_address().port()));
    let opening = tokio::spawn(async move { connect(endpoint, connector.pin(), &client).await });
    let incoming = listener.accept().await;
    assert_eq!(incoming.remote.ip(), Ipv4Addr::LOCALHOST);
    let _session = incoming.into_session();
    opening.await.unwrap().unwrap();
}

#[tokio::test]
async fn a_connector_of_another_key_is_refused() {
    let mut site = Site::new();
    let other = KeyPair::try_generate().unwrap();
    let error = connect(site.endpoint(), other.pin(), &site.client).await.err().unwrap();
    assert_eq!(
        error.to_string(),
        format!("certificate of {} does not match the pin", site.endpoint())
    );
    assert!(is_http2(&error, |error| matches!(error, Http2Error::PinMismatch { .. })));

    // The connector has given no session for it: the first is that of the next client.
    let (_client, incoming) = site.next_request().await;
    assert_eq!(incoming.peer_pin, site.client.pin());
}

#[tokio::test]
async fn a_client_without_a_key_is_refused() {
    let mut site = Site::new();
    let tcp = TcpStream::connect(site.endpoint()).await.unwrap();
    let config = tls::client_config(site.connector.pin(), None, &[b"h2"]);
    let name = ServerName::from(site.endpoint().ip());
    let stream = TlsConnector::from(config).connect(name, tcp).await.unwrap();
    let connection = HttpConnection::Http2(Http2Connection::try_new(stream).await.unwrap());
    let error = SessionChannel::open(connection, site.endpoint()).await.err().unwrap();
    assert!(is_http2(&error, |error| matches!(error, Http2Error::Lost { .. })), "{error}");

    let (_client, incoming) = site.next_request().await;
    assert_eq!(incoming.peer_pin, site.client.pin());
}

#[tokio::test]
async fn strangers_that_send_garbage_or_nothing_block_no_one() {
    let mut site = Site::new();
    let mut strangers = Vec::new();
    for index in 0..40 {
        let mut tcp = TcpStream::connect(site.endpoint()).await.unwrap();
        if index % 2 == 0 {
            tcp.write_all(b"GET / HTTP/1.1\r\n\r\n").await.unwrap();
        }
        strangers.push(tcp);
    }
    let (_client, incoming) = site.next_request().await;
    assert_eq!(incoming.peer_pin, site.client.pin());
}

#[tokio::test]
async fn handshakes_from_one_source_are_limited_and_room_is_made_again() {
    let mut site = Site::new();
    let mut strangers = Vec::new();
    for _index in 0..64 {
        strangers.push(TcpStream::connect(site.endpoint()).await.unwrap());
    }
    let mut excess = TcpStream::connect(site.endpoint()).await.unwrap();
    assert_eq!(excess.read(&mut [0]).await.unwrap(), 0, "the connection should be dropped");

    drop(strangers);
    // It takes a moment until the connector has seen them go.
    let (endpoint, pin, client) = (site.endpoint(), site.connector.pin(), site.client.clone());
    let opening =
        tokio::spawn(async move { while connect(endpoint, pin, &client).await.is_err() {} });
    let incoming = site.listener.accept().await;
    assert_eq!(incoming.peer_pin, site.client.pin());
    let _session = incoming.into_session();
    opening.await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn a_silent_stranger_is_dropped_in_time() {
    let site = Site::new();
    let mut tcp = TcpStream::connect(site.endpoint()).await.unwrap();
    // Time passes by itself when there is nothing else to do.
    assert_eq!(tcp.read(&mut [0]).await.unwrap(), 0);
}

#[tokio::test]
async fn a_port_where_no_one_listens_is_unreachable() {
    let site = Site::new();
    let socket = TcpSocket::new_v4().unwrap();
    socket.bind(SocketAddr::from((Ipv4Addr::LOCALHOST, 0))).unwrap();
    let endpoint = socket.local_addr().unwrap();
    let error = connect(endpoint, site.connector.pin(), &site.client).await.err().unwrap();
    assert!(is_http2(&error, |error| matches!(error, Http2Error::Unreachable { .. })), "{error}");
}

#[tokio::test]
async fn a_dropped_listener_keeps_the_sessions_it_has_given() {
    let mut site = Site::new();
    let (client, incoming) = site.next_session().await;
    let endpoint = site.endpoint();
    drop(site.listener);
    // The port closes a moment later.
    while TcpStream::connect(endpoint).await.is_ok() {}

    let (mut to_connector, _from_connector) = client.split();
    let (_to_client, mut from_client) = incoming.split();
    let ping = ClientMessage::Ping { request_id: 1 };
    to_connector.send(&ping).await.unwrap();
    assert_eq!(from_client.next().await.unwrap().unwrap(), ping);
}

#[tokio::test]
async fn what_was_sent_before_closing_arrives() {
    let (client, connector) = pair().await;
    let (_to_connector, mut from_connector) = client.split();
    let (mut to_client, from_client) = connector.split();
    let refused = ConnectorMessage::Refused { reason: DenialReason::CredentialExpired };
    to_client.send(&refused).await.unwrap();
    drop((to_client, from_client));
    assert_eq!(from_connector.next().await.unwrap().unwrap(), refused);
    assert!(from_connector.next().await.is_none());
}

#[tokio::test]
async fn a_dropped_client_ends_the_session_at_the_connector() {
    let mut site = Site::new();
    let (client, incoming) = site.next_session().await;
    let (mut to_client, mut from_client) = incoming.split();
    drop(client);
    assert!(from_client.next().await.is_none());
    // The direction to the client closes with the connection.
    while to_client.send(&ConnectorMessage::Draining).await.is_ok() {
        tokio::task::yield_now().await;
    }
}

#[tokio::test]
async fn a_dropped_channel_closes_its_connection() {
    let (cut, relay, client, _connector) = pair_over_relay().await;
    drop(client);
    // The relay ends when both sides have closed.
    relay.await.unwrap();
    drop(cut);

    let (cut, relay, _client, connector) = pair_over_relay().await;
    drop(connector);
    relay.await.unwrap();
    drop(cut);
}

#[tokio::test]
async fn a_line_that_is_too_long_closes_the_session() {
    let (client, connector) = pair().await;
    let (mut to_connector, mut from_connector) = client.split();
    let (_to_client, mut from_client) = connector.split();
    to_connector.unsent.extend_from_slice(&[b'a'; MAX_SESSION_LINE_LEN + 1]);
    let ping = ClientMessage::Ping { request_id: 0 };
    let (_sent, received) = tokio::join!(to_connector.send(&ping), from_client.next());
    assert!(matches!(received, Some(Err(SessionError::LineTooLong))));
    assert!(from_client.next().await.is_none());
    let error = from_connector.next().await.unwrap().unwrap_err();
    assert!(is_http2(&error, |error| matches!(error, Http2Error::Lost { .. })), "{error}");
}

#[tokio::test]
async fn a_line_that_is_no_message_closes_the_session() {
    for line in ["nonsense\n", "{}\n", "\n", "{\"type\":\"ping\"}\n"] {
        let (client, connector) = pair().await;
        let (mut to_connector, mut from_connector) = client.split();
        let (_to_client, mut from_client) = connector.split();
        to_connector.unsent.extend_from_slice(line.as_bytes());
        to_connector.flush().await.unwrap();
        assert!(matches!(from_client.next().await, Some(Err(SessionError::Malformed))), "{line}");
        assert!(from_connector.next().await.is_some_and(|message| message.is_err()));
    }
}

#[tokio::test]
async fn a_message_that_is_too_long_is_not_sent_and_harms_nothing() {
    let (client, connector) = pair().await;
    let (mut to_connector, _from_connector) = client.split();
    let (_to_client, mut from_client) = connector.split();
    let too_long = ClientMessage::Present { credential: "a".repeat(MAX_SESSION_LINE_LEN) };
    assert!(matches!(to_connector.send(&too_long).await, Err(SessionError::LineTooLong)));
    let ping = ClientMessage::Ping { request_id: 1 };
    to_connector.send(&ping).await.unwrap();
    assert_eq!(from_client.next().await.unwrap().unwrap(), ping);
}

#[tokio::test]
async fn long_messages_pass_whatever_the_windows() {
    let (client, connector) = pair().await;
    let (mut to_connector, _from_connector) = client.split();
    let (_to_client, mut from_client) = connector.split();
    let message = ClientMessage::Present { credential: "a".repeat(60_000) };
    let sending = async {
        for _index in 0..20 {
            to_connector.send(&message).await.unwrap();
        }
    };
    let receiving = async {
        for _index in 0..20 {
            assert_eq!(from_client.next().await.unwrap().unwrap(), message);
        }
    };
    tokio::join!(sending, receiving);
}

#[tokio::test(start_paused = true)]
async fn a_message_whose_sending_was_cancelled_does_not_spoil_the_next() {
    let (client, connector) = pair().await;
    let (mut to_connector, _from_connector) = client.split();
    let (_to_client, mut from_client) = connector.split();
    let message = ClientMessage::Present { credential: "a".repeat(60_000) };
    let mut sent = 0;
    // Until the windows are full and a message is left half sent.
    while timeout(Duration::from_secs(1), to_connector.send(&message)).await.is_ok() {
        sent += 1;
    }
    let ping = ClientMessage::Ping { request_id: 1 };
    let receiving = async {
        for _index in 0..=sent {
            assert_eq!(from_client.next().await.unwrap().unwrap(), message);
        }
        assert_eq!(from_client.next().await.unwrap().unwrap(), ping);
    };
    let (result, ()) = tokio::join!(to_connector.send(&ping), receiving);
    result.unwrap();
}

#[tokio::test(start_paused = true)]
async fn a_peer_that_does_not_read_is_given_up() {
    let (client, connector) = pair().await;
    let (mut to_connector, mut from_connector) = client.split();
    let _connector_that_does_not_read = connector;
    let message = ClientMessage::Present { credential: "a".repeat(60_000) };
    let error = loop {
        if let Err(error) = to_connector.send(&message).await {
            break error;
        }
    };
    assert!(matches!(error, SessionError::Stalled), "{error}");
    assert!(from_connector.next().await.is_none_or(|message| message.is_err()));
}

#[tokio::test(start_paused = true)]
async fn an_idle_session_stays() {
    let (client, connector) = pair().await;
    let (mut to_connector, _from_connector) = client.split();
    let (_to_client, mut from_client) = connector.split();
    tokio::time::sleep(Duration::from_secs(3600)).await;
    let ping = ClientMessage::Ping { request_id: 1 };
    to_connector.send(&ping).await.unwrap();
    assert_eq!(from_client.next().await.unwrap().unwrap(), ping);
}

#[tokio::test(start_paused = true)]
async fn a_client_notices_the_death_of_its_connector() {
    let (cut, _relay, client, _connector) = pair_over_relay().await;
    let (mut to_connector, mut from_connector) = client.split();
    cut.send(()).unwrap();
    let since = Instant::now();
    let error = from_connector.next().await.unwrap().unwrap_err();
    assert!(is_http2(&error, |error| matches!(error, Http2Error::Unresponsive)), "{error}");
    assert!(since.elapsed() <= Duration::from_secs(15), "after {:?}", since.elapsed());
    let error = to_connector.send(&ClientMessage::Ping { request_id: 1 }).await.unwrap_err();
    assert!(is_http2(&error, |error| matches!(error, Http2Error::Unresponsive)), "{error}");
}

#[tokio::test(start_paused = true)]
async fn a_connector_notices_the_death_of_its_client() {
    let (cut, _relay, _client, connector) = pair_over_relay().await;
    let (_to_client, mut from_client) = connector.split();
    cut.send(()).unwrap();
    let since = Instant::now();
    let error = from_client.next().await.unwrap().unwrap_err();
    assert!(is_http2(&error, |error| matches!(error, Http2Error::Unresponsive)), "{error}");
    assert!(since.elapsed() <= Duration::from_secs(15), "after {:?}", since.elapsed());
}

/// A listening connector and a client that may come.
struct Site {
    listener: Http2Listener,
    connector: KeyPair,
    client: KeyPair,
}

impl Site {
    fn new() -> Self {
        let (client, connector) =
            (KeyPair::try_generate().unwrap(), KeyPair::try_generate().unwrap());
        let address = SocketAddr::from((Ipv4Addr::LOCALHOST, 0));
        let listener = Http2Listener::try_bind(address, &connector).unwrap();
        Self { listener, connector, client }
    }

    fn endpoint(&self) -> SocketAddr {
        self.listener.local_address()
    }

    async fn next_session(&mut self) -> (ClientChannel, ConnectorChannel) {
        let (client, incoming) = self.next_request().await;
        let connector = incoming.into_session();
        (client.await.unwrap().unwrap(), connector)
    }

    /// A session that is asked for and not answered yet.
    async fn next_request(&mut self) -> (Opening, IncomingRequest) {
        let (endpoint, pin, client) = (self.endpoint(), self.connector.pin(), self.client.clone());
        let opening = tokio::spawn(async move { connect(endpoint, pin, &client).await });
        let incoming = self.listener.accept().await;
        assert!(incoming.is_session());
        (opening, incoming)
    }
}

fn endpoint() -> SocketAddr {
    SocketAddr::from((Ipv4Addr::LOCALHOST, 443))
}

async fn pair() -> (ClientChannel, ConnectorChannel) {
    let (near, far) = duplex(1 << 16);
    sessions_over(near, far).await
}

/// Two ends with a relay between them that can stop to carry, without closing anything.
async fn pair_over_relay() -> (oneshot::Sender<()>, JoinHandle<()>, ClientChannel, ConnectorChannel)
{
    let (near, mut left) = duplex(1 << 16);
    let (mut right, far) = duplex(1 << 16);
    let (cut, is_cut) = oneshot::channel();
    let relay = tokio::spawn(async move {
        tokio::select! {
            // An error is an end that has closed, too.
            _result = copy_bidirectional(&mut left, &mut right) => {}
            Ok(()) = is_cut => pending().await,
        }
    });
    let (client, connector) = sessions_over(near, far).await;
    (cut, relay, client, connector)
}

/// A session on two streams that are connected.
async fn sessions_over(near: DuplexStream, far: DuplexStream) -> (ClientChannel, ConnectorChannel) {
    let pin = KeyPair::try_generate().unwrap().pin();
    let (sender, mut incoming) = mpsc::channel(1);
    let server = Server::try_new(far, Peer { pin, remote: endpoint() }, sender);
    let (connection, server) = tokio::join!(Http2Connection::try_new(near), server);
    tokio::spawn(server.unwrap().run());
    let connection = HttpConnection::Http2(connection.unwrap());
    let answering = async { incoming.recv().await.unwrap().into_session() };
    let (client, connector) = tokio::join!(SessionChannel::open(connection, endpoint()), answering);
    (client.unwrap(), connector)
}

fn is_http2(error: &SessionError, is_expected: impl FnOnce(&Http2Error) -> bool) -> bool {
    let SessionError::Connection(RequestError::Http2(error)) = error else { return false };
    is_expected(error)
}
