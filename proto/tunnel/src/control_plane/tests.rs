use std::net::Ipv4Addr;

use adit_proto::DeviceId;
use futures_util::StreamExt as _;
use tokio::{
    io::{AsyncRead, AsyncReadExt as _, AsyncWriteExt as _, BufReader},
    net::TcpListener,
    sync::mpsc,
};
use tokio_rustls::{TlsAcceptor, server::TlsStream};

use super::*;

#[tokio::test]
async fn an_answer_is_read() {
    let server =
        Server::new(["HTTP/1.1 200 OK\r\ncontent-length: 14\r\n\r\n{\"sequence\":7}"]).await;
    let event: StreamEvent = server.client().get("/v1/anything").await.unwrap();
    assert_eq!(event.sequence, 7);
}

#[tokio::test]
async fn a_request_is_signed_over_its_query_and_body() {
    let mut server = Server::new([NO_CONTENT]).await;
    let (key, subject) = (KeyPair::try_generate().unwrap(), subject());
    let client = server.client().with_identity(subject, key.clone());
    let () = client.put("/v1/x?a=b c", &StreamEvent { sequence: 7 }).await.unwrap();

    let request = server.next_request().await;
    assert_eq!(request.line, "PUT /v1/x?a=b%20c HTTP/1.1");
    assert_eq!(request.body, b"{\"sequence\":7}");
    assert_eq!(request.header("content-type"), Some("application/json"));
    let token = request.header("authorization").unwrap().strip_prefix("Adit ").unwrap();
    let path = "/v1/x?a=b%20c";
    let assertion =
        Assertion::verify(token, key.spki_der(), "PUT", path, &request.body, now()).unwrap();
    assert_eq!(assertion.subject, subject);
}

#[tokio::test]
async fn a_body_of_nothing_is_empty() {
    let mut server = Server::new([NO_CONTENT]).await;
    let () = server.client().post("/v1/client/credential", &()).await.unwrap();
    let request = server.next_request().await;
    assert_eq!(request.body, b"");
    assert_eq!(request.header("content-type"), None);
    assert_eq!(request.header("authorization"), None);
}

#[tokio::test]
async fn a_newer_token_is_fetched_and_the_same_is_not() {
    let mut server = Server::new([
        "HTTP/1.1 200 OK\r\netag: \"7\"\r\ncontent-length: 17\r\n\r\n{\"token\":\"a.b.c\"}",
        "HTTP/1.1 304 Not Modified\r\netag: \"7\"\r\n\r\n",
    ])
    .await;
    let client = server.client();
    let fetched = client.fetch_signed("/v1/connector/bundle", None).await.unwrap();
    let expected = Fetched::New { token: "a.b.c".to_owned(), etag: "\"7\"".to_owned() };
    assert!(fetched == expected);
    assert_eq!(server.next_request().await.header("if-none-match"), None);

    let fetched = client.fetch_signed("/v1/connector/bundle", Some("\"7\"")).await.unwrap();
    assert!(fetched == Fetched::Unchanged);
    assert_eq!(server.next_request().await.header("if-none-match"), Some("\"7\""));
}

#[tokio::test]
async fn a_refusal_says_why() {
    let problem = Problem {
        kind: "about:blank".to_owned(),
        title: "Forbidden".to_owned(),
        status: 403,
        code: ProblemCode::DevicePending,
        detail: "the device waits for approval; ask an administrator".to_owned(),
        field: None,
        failed_tests: Box::default(),
    };
    let body = serde_json::to_string(&problem).unwrap();
    let answer = format!(
        "HTTP/1.1 403 Forbidden\r\ncontent-type: application/problem+json\r\n\
         content-length: {}\r\n\r\n{body}",
        body.len()
    );
    let server = Server::new([answer]).await;
    let error = server.client().post::<_, ()>("/v1/client/credential", &()).await.unwrap_err();
    assert_eq!(error.code(), Some(ProblemCode::DevicePending));
    assert_eq!(error.to_string(), problem.detail);
}

#[tokio::test]
async fn an_answer_of_something_else_is_unexpected() {
    for answer in [
        "HTTP/1.1 502 Bad Gateway\r\ncontent-length: 6\r\n\r\n<html>",
        "HTTP/1.1 302 Found\r\nlocation: https://other.example/\r\ncontent-length: 0\r\n\r\n",
        "HTTP/1.1 200 OK\r\ncontent-length: 6\r\n\r\n<html>",
    ] {
        let server = Server::new([answer]).await;
        let error = server.client().get::<StreamEvent>("/v1/x").await.unwrap_err();
        assert!(matches!(error, ControlPlaneError::Unexpected { .. }), "{error}");
        assert!(!error.to_string().contains("<html>"), "{error}");
    }
}

#[tokio::test]
async fn a_refusal_without_end_is_not_read_to_the_end() {
    let answer = format!("HTTP/1.1 500 Error\r\n\r\n{}", "a".repeat(MAX_PROBLEM_LEN + 1));
    let server = Server::new([answer]).await;
    let error = server.client().get::<StreamEvent>("/v1/x").await.unwrap_err();
    assert!(error.to_string().contains("too long"), "{error}");
}

#[tokio::test]
async fn a_control_plane_of_another_key_is_refused_before_anything_is_sent() {
    let mut server = Server::new([NO_CONTENT]).await;
    let other = KeyPair::try_generate().unwrap();
    let client = ControlPlane::try_new(&server.url, other.pin()).unwrap();
    let error = client.get::<()>("/v1/x").await.unwrap_err();
    assert!(matches!(error, ControlPlaneError::PinMismatch { .. }), "{error}");
    let text = error.to_string();
    assert!(text.starts_with("certificate of 127.0.0.1:"), "{text}");
    assert!(text.contains("does not match the pin"), "{text}");
    assert!(server.requests.try_recv().is_err());
}

#[tokio::test]
async fn an_absent_control_plane_is_unreachable() {
    let socket = tokio::net::TcpSocket::new_v4().unwrap();
    socket.bind((Ipv4Addr::LOCALHOST, 0).into()).unwrap();
    let url = format!("https://{}", socket.local_addr().unwrap());
    let pin = KeyPair::try_generate().unwrap().pin();
    let error = ControlPlane::try_new(&url, pin).unwrap().get::<()>("/v1/x").await.unwrap_err();
    assert!(matches!(error, ControlPlaneError::Unreachable { .. }), "{error}");
}

#[test]
fn only_an_https_origin_is_a_url() {
    let pin = KeyPair::try_generate().unwrap().pin();
    for url in [
        "http://control.example",
        "https://control.example/path",
        "https://user:secret@control.example",
        "control.example:8443",
        "",
    ] {
        let error = ControlPlane::try_new(url, pin).unwrap_err();
        assert!(matches!(error, ControlPlaneError::Url { .. }), "{url}");
        assert!(!error.to_string().contains("secret"), "{error}");
    }
    ControlPlane::try_new("https://control.example:8443", pin).unwrap();
}

#[tokio::test]
async fn a_path_does_not_lead_elsewhere() {
    let pin = KeyPair::try_generate().unwrap().pin();
    let client = ControlPlane::try_new("https://control.example:8443", pin).unwrap();
    let error = client.get::<()>("//other.example/v1/x").await.unwrap_err();
    assert!(matches!(error, ControlPlaneError::Url { .. }), "{error}");
}

#[tokio::test]
async fn a_stream_gives_events_until_it_is_closed() {
    let mut server = Server::new(["HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\n\r\n\
         : keepalive\n\nid: 8\nevent: bundle\ndata: {\"sequence\":8}\n\n\
         event: later\ndata: {}\n\nid: 9\nevent: bundle\ndata: {\"sequence\":9}\n\n"])
    .await;
    let stream = server.client().stream("/v1/connector/stream", Some(7)).await.unwrap();
    let events: Vec<_> = stream.map(|event| event.unwrap().sequence).collect().await;
    assert_eq!(events, [8, 9]);
    let request = server.next_request().await;
    assert_eq!(request.header("last-event-id"), Some("7"));
    assert_eq!(request.header("accept"), Some("text/event-stream"));
}

#[tokio::test]
async fn a_stream_of_nonsense_is_an_error_and_the_last_item() {
    let server = Server::new([
        "HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\n\r\nevent: bundle\ndata: x\n\n",
    ])
    .await;
    let mut stream = server.client().stream("/v1/connector/stream", None).await.unwrap();
    let error = stream.next().await.unwrap().unwrap_err();
    assert!(matches!(error, ControlPlaneError::Unexpected { .. }), "{error}");
    assert!(stream.next().await.is_none());
}

#[tokio::test]
async fn a_silent_stream_is_given_up() {
    let server = Server::holding(
        "HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\n\r\n\
         event: bundle\ndata: {\"sequence\":8}\n\n",
    )
    .await;
    let mut stream = server.client().stream("/v1/connector/stream", None).await.unwrap();
    assert_eq!(stream.next().await.unwrap().unwrap().sequence, 8);
    // Time passes by itself when there is nothing else to do.
    tokio::time::pause();
    let since = tokio::time::Instant::now();
    let error = stream.next().await.unwrap().unwrap_err();
    assert!(matches!(error, ControlPlaneError::Silent { .. }), "{error}");
    assert_eq!(since.elapsed().as_secs(), stream::MAX_SILENCE.as_secs());
    assert!(stream.next().await.is_none());
}

#[tokio::test]
async fn an_answer_that_does_not_end_is_not_awaited_for_ever() {
    let mut server =
        Server::holding("HTTP/1.1 200 OK\r\ncontent-length: 20\r\n\r\n{\"sequence\":").await;
    let client = server.client();
    let answer = tokio::spawn(async move { client.get::<StreamEvent>("/v1/x").await });
    server.next_request().await;
    // Time passes by itself when there is nothing else to do.
    tokio::time::pause();
    let error = answer.await.unwrap().unwrap_err();
    assert!(matches!(error, ControlPlaneError::Unreachable { .. }), "{error}");
}

#[tokio::test]
async fn http_2_is_spoken_where_it_is_offered() {
    let key = KeyPair::try_generate().unwrap();
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
    let url = format!("https://{}", listener.local_addr().unwrap());
    let acceptor = TlsAcceptor::from(server_config(&key, &[b"h2"]));
    let server = tokio::spawn(async move {
        let (tcp, _remote) = listener.accept().await.unwrap();
        let stream = acceptor.accept(tcp).await.unwrap();
        let mut connection = h2::server::handshake(stream).await.unwrap();
        let (request, mut respond) = connection.accept().await.unwrap().unwrap();
        let mut answer = respond.send_response(http::Response::new(()), false).unwrap();
        answer.send_data(bytes::Bytes::from_static(b"{\"sequence\":7}"), true).unwrap();
        while connection.accept().await.is_some() {}
        request.uri().path().to_owned()
    });
    let client = ControlPlane::try_new(&url, key.pin()).unwrap();
    let event: StreamEvent = client.get("/v1/x").await.unwrap();
    assert_eq!(event.sequence, 7);
    drop(client);
    assert_eq!(server.await.unwrap(), "/v1/x");
}

const NO_CONTENT: &str = "HTTP/1.1 204 No Content\r\n\r\n";

fn subject() -> AssertionSubject {
    let id = format!("{}_{:032x}", DeviceId::PREFIX, 1);
    AssertionSubject::Device(id.parse().unwrap())
}

/// As that of a control plane, which asks for no certificate.
fn server_config(key: &KeyPair, alpn: &[&[u8]]) -> Arc<rustls::ServerConfig> {
    let resolver = rustls::sign::SingleCertAndKey::from(key.certified_key());
    let mut config = rustls::ServerConfig::builder_with_provider(Arc::new(tls::provider()))
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_cert_resolver(Arc::new(resolver));
    config.alpn_protocols = alpn.iter().map(|protocol| protocol.to_vec()).collect();
    Arc::new(config)
}

/// Gives prepared answers over HTTP/1.1, one on each connection, and keeps the requests.
struct Server {
    key: KeyPair,
    url: String,
    requests: mpsc::UnboundedReceiver<Request>,
}

struct Request {
    line: String,
    headers: Vec<String>,
    body: Vec<u8>,
}

impl Server {
    async fn new<T: Into<String>>(answers: impl IntoIterator<Item = T>) -> Self {
        Self::start(answers.into_iter().map(Into::into).collect(), false).await
    }

    /// Keeps the connection open after the answer.
    async fn holding(answer: &str) -> Self {
        Self::start(vec![answer.to_owned()], true).await
    }

    async fn start(answers: Vec<String>, holds: bool) -> Self {
        let key = KeyPair::try_generate().unwrap();
        let acceptor = TlsAcceptor::from(server_config(&key, &[b"http/1.1"]));
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
        let url = format!("https://{}", listener.local_addr().unwrap());
        let (sender, requests) = mpsc::unbounded_channel();
        tokio::spawn(async move {
            for answer in answers {
                let (tcp, _remote) = listener.accept().await.unwrap();
                // Fails when the client does not trust this server.
                let Ok(mut stream) = acceptor.accept(tcp).await else { continue };
                sender.send(Request::read(&mut stream).await).unwrap();
                let answer = answer.replacen("\r\n", "\r\nconnection: close\r\n", 1);
                stream.write_all(answer.as_bytes()).await.unwrap();
                if holds {
                    stream.flush().await.unwrap();
                    std::future::pending::<()>().await;
                }
                stream.shutdown().await.unwrap();
            }
        });
        Self { key, url, requests }
    }

    fn client(&self) -> ControlPlane {
        ControlPlane::try_new(&self.url, self.key.pin()).unwrap()
    }

    async fn next_request(&mut self) -> Request {
        self.requests.recv().await.unwrap()
    }
}

impl Request {
    async fn read(stream: &mut TlsStream<tokio::net::TcpStream>) -> Self {
        let mut stream = BufReader::new(stream);
        let line = read_line(&mut stream).await;
        let mut headers = Vec::new();
        loop {
            let header = read_line(&mut stream).await;
            if header.is_empty() {
                break;
            }
            headers.push(header);
        }
        let mut request = Self { line, headers, body: Vec::new() };
        let len = request.header("content-length").map_or(0, |len| len.parse().unwrap());
        request.body.resize(len, 0);
        stream.read_exact(&mut request.body).await.unwrap();
        request
    }

    fn header(&self, name: &str) -> Option<&str> {
        self.headers
            .iter()
            .filter_map(|header| header.split_once(": "))
            .find_map(|(other, value)| other.eq_ignore_ascii_case(name).then_some(value))
    }
}

async fn read_line<T: AsyncRead + Unpin>(stream: &mut BufReader<T>) -> String {
    use tokio::io::AsyncBufReadExt as _;
    let mut line = String::new();
    stream.read_line(&mut line).await.unwrap();
    line.trim_end().to_owned()
}
