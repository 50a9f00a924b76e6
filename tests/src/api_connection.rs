use std::{
    fs,
    io::{self, BufRead as _, BufReader, ErrorKind, Read as _, Write as _},
    net::{SocketAddr, TcpStream},
    path::Path,
    sync::Arc,
    time::Duration,
};

use adit_proto::Pin;
use adit_tunnel::{KeyPair, client_config};
use rustls::{ClientConnection, StreamOwned, pki_types::ServerName};
use serde_json::Value;

/// Longer than any request takes, also on a busy machine.
const TIMEOUT: Duration = Duration::from_secs(20);

/// Longest answer that is read, in bytes.
const MAX_BODY_LEN: usize = 64 << 20;

/// An admin's connection to the REST API that is kept open: for tests that send many requests.
///
/// Runs on the control plane's host, or wherever its data directory can be read.
pub struct ApiConnection {
    stream: BufReader<StreamOwned<ClientConnection, TcpStream>>,
    head: String,
}

/// What the API answered on an [`ApiConnection`].
#[derive(Debug, Clone)]
pub struct ApiAnswer {
    /// HTTP status.
    pub status: u16,
    /// The `ETag`.
    pub etag: Option<String>,
    /// Body; null when there is none.
    pub body: Value,
}

impl ApiConnection {
    /// Connects to a control plane, trusting the key and using the admin token in its data
    /// directory.
    ///
    /// # Errors
    ///
    /// When it does not answer.
    pub fn open(address: SocketAddr, data_dir: &Path) -> io::Result<Self> {
        let token = fs::read_to_string(data_dir.join("admin-token"))?;
        let tcp = TcpStream::connect_timeout(&address, TIMEOUT)?;
        tcp.set_nodelay(true)?;
        tcp.set_read_timeout(Some(TIMEOUT))?;
        tcp.set_write_timeout(Some(TIMEOUT))?;
        let config = client_config(server_pin(data_dir)?, None, &[b"http/1.1"]);
        let connection = ClientConnection::new(Arc::clone(&config), ServerName::from(address.ip()))
            .map_err(io::Error::other)?;

        Ok(Self {
            stream: BufReader::new(StreamOwned::new(connection, tcp)),
            head: format!("Host: {address}\r\nAuthorization: Bearer {}\r\n", token.trim()),
        })
    }

    /// Sends a request and waits for its answer. `headers` are whole lines.
    ///
    /// # Errors
    ///
    /// When the connection breaks; it is of no more use then.
    pub fn request(
        &mut self,
        method: &str,
        path: &str,
        headers: &[&str],
        body: Option<&Value>,
    ) -> io::Result<ApiAnswer> {
        self.send(method, path, headers, body)?;
        self.receive()
    }

    /// Sends a request whose answer [`Self::receive`] will give, in the order of the requests.
    ///
    /// # Errors
    ///
    /// As [`Self::request`].
    pub fn send(
        &mut self,
        method: &str,
        path: &str,
        headers: &[&str],
        body: Option<&Value>,
    ) -> io::Result<()> {
        let body = body.map(Value::to_string);
        let mut text = format!("{method} {path} HTTP/1.1\r\n{}", self.head);
        for header in headers {
            text.push_str(header);
            text.push_str("\r\n");
        }
        if let Some(body) = &body {
            text.push_str(&format!(
                "Content-Type: application/json\r\nContent-Length: {}\r\n",
                body.len()
            ));
        }
        text.push_str("\r\n");
        text.push_str(body.as_deref().unwrap_or_default());
        let stream = self.stream.get_mut();
        stream.write_all(text.as_bytes())?;
        stream.flush()
    }

    /// Waits for the answer to the oldest request that has none yet.
    ///
    /// # Errors
    ///
    /// As [`Self::request`].
    pub fn receive(&mut self) -> io::Result<ApiAnswer> {
        let malformed = || io::Error::new(ErrorKind::InvalidData, "not an answer of HTTP/1.1");
        let mut answer = ApiAnswer { status: 0, etag: None, body: Value::Null };
        let mut body_len = 0;
        let mut line = String::new();
        loop {
            line.clear();
            if self.stream.read_line(&mut line)? == 0 {
                return Err(ErrorKind::UnexpectedEof.into());
            }
            let text = line.trim_end();
            if text.is_empty() {
                break;
            }
            if answer.status == 0 {
                let status = text.split(' ').nth(1).and_then(|status| status.parse().ok());
                answer.status = status.ok_or_else(malformed)?;
                continue;
            }
            let (name, value) = text.split_once(':').ok_or_else(malformed)?;
            let value = value.trim();
            match name.to_ascii_lowercase().as_str() {
                "etag" => answer.etag = Some(value.to_owned()),
                "content-length" => body_len = value.parse().map_err(|_error| malformed())?,
                "transfer-encoding" => return Err(malformed()),
                _ => {}
            }
        }
        if body_len > MAX_BODY_LEN {
            return Err(malformed());
        }
        let mut body = vec![0; body_len];
        self.stream.read_exact(&mut body)?;
        if !body.is_empty() {
            answer.body = serde_json::from_slice(&body)?;
        }

        Ok(answer)
    }

    /// Reads all pages of a list; `path` may have a query.
    ///
    /// # Errors
    ///
    /// As [`Self::request`], and when it is not a list.
    pub fn list(&mut self, path: &str) -> io::Result<Vec<Value>> {
        let mut items = Vec::new();
        let mut cursor = String::new();
        let separator = if path.contains('?') { '&' } else { '?' };
        loop {
            let page = format!("{path}{separator}limit=200{cursor}");
            let answer = self.request("GET", &page, &[], None)?;
            let Some(page) = answer.body["items"].as_array() else {
                return Err(io::Error::other(format!("not a list: {answer:?}")));
            };
            items.extend(page.iter().cloned());
            match answer.body["next_cursor"].as_str() {
                Some(next) => cursor = format!("&cursor={next}"),
                None => return Ok(items),
            }
        }
    }
}

/// Returns the pin of the control plane whose data directory this is.
///
/// # Errors
///
/// When it has no key yet.
pub fn server_pin(data_dir: &Path) -> io::Result<Pin> {
    let file = data_dir.join("tls-key.pem");
    // Reading must not make a key.
    fs::metadata(&file)?;
    let key = KeyPair::load_or_create(&file).map_err(io::Error::other)?;

    Ok(key.pin())
}
