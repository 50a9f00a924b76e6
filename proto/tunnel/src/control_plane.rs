//! The client of the control plane's REST API: for connectors, devices and whoever has its pin.

mod server_sent_event;
mod stream;
#[cfg(test)]
mod tests;

use std::{
    error::Error,
    fmt,
    sync::Arc,
    time::{Duration, SystemTime},
};

use adit_proto::{
    Assertion, AssertionSubject, Pin, Timestamp,
    api::{OauthError, Problem, ProblemCode, SignedToken, StreamEvent},
};
use futures_util::Stream;
use http::{
    HeaderValue, Method, StatusCode,
    header::{ACCEPT, AUTHORIZATION, CONTENT_TYPE, ETAG, IF_NONE_MATCH},
};
use reqwest::{RequestBuilder, Response, Url, tls::TlsInfo};
use serde::{Serialize, de::DeserializeOwned};

use crate::{identity::KeyPair, tls};

/// Speaks with the control plane, known by its pin. Clones share connections.
#[derive(Clone)]
pub struct ControlPlane {
    http: reqwest::Client,
    origin: Url,
    identity: Option<Arc<(AssertionSubject, KeyPair)>>,
}

/// The answer to a conditional request.
#[derive(Clone, PartialEq, Eq)]
pub enum Fetched {
    /// The caller has the newest.
    Unchanged,
    /// There is a newer one.
    New {
        /// Compact JWS, not verified.
        token: String,
        /// To be given with the next request.
        etag: String,
    },
}

/// Why a request has failed.
#[derive(Debug, thiserror::Error)]
pub enum ControlPlaneError {
    /// The URL is not that of a control plane.
    #[error("expected a URL such as https://control.example:8443: {reason}")]
    Url {
        /// What is wrong with it.
        reason: String,
    },
    /// No answer came; trying again may help.
    #[error(
        "no answer from the control plane at {host}; check that it runs and that this machine \
         reaches it"
    )]
    Unreachable {
        /// The control plane's name and port.
        host: String,
        /// What went wrong on the way.
        source: Box<dyn Error + Send + Sync>,
    },
    /// Whoever answers is not the control plane that was joined.
    #[error(
        "certificate of {host} does not match the pin; if the control plane was given a new key, \
         join anew with a new token"
    )]
    PinMismatch {
        /// The control plane's name and port.
        host: String,
    },
    /// The control plane refuses, with a reason.
    #[error("{}", .0.detail)]
    Refused(Problem),
    /// The answer is not what a control plane of this version gives.
    #[error(
        "unexpected answer {status} from {host}: {reason}; check that it is a control plane of \
         this version"
    )]
    Unexpected {
        /// The control plane's name and port.
        host: String,
        /// The answer's.
        status: StatusCode,
        /// What is unexpected.
        reason: &'static str,
    },
    /// The event stream brought nothing, not even a heartbeat; trying again may help.
    #[error("the event stream from {host} fell silent")]
    Silent {
        /// The control plane's name and port.
        host: String,
    },
}

/// Time for the TCP and TLS handshakes.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);

/// Time for a whole request, but for an event stream.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(15);

/// How soon a dead connection is noticed, so that it is not used for the next request.
const KEEPALIVE: Duration = Duration::from_secs(10);

/// Longest body that is read, in bytes: a bundle of the greatest length.
const MAX_BODY_LEN: usize = 64 << 20;

/// Longest body of a refusal that is read, in bytes.
const MAX_PROBLEM_LEN: usize = 64 << 10;

impl ControlPlane {
    /// A client of the control plane at `url`, `https://host:port`, whose key has this pin.
    ///
    /// # Errors
    ///
    /// [`ControlPlaneError::Url`].
    pub fn try_new(url: &str, pin: Pin) -> Result<Self, ControlPlaneError> {
        let tls = tls::client_config(pin, None, &[b"h2", b"http/1.1"]);
        Self::with_tls(url, Arc::unwrap_or_clone(tls))
    }

    /// The pin of the control plane at `url`, as long as its certificate is one that this machine's
    /// certificate authorities vouch for.
    ///
    /// # Errors
    ///
    /// See [`ControlPlaneError`].
    pub async fn learn_pin(url: &str) -> Result<Pin, ControlPlaneError> {
        let tls = tls::public_client_config(&[b"h2", b"http/1.1"])
            .map_err(|error| invalid_url(&format!("no certificate authorities here: {error}")))?;
        let control_plane = Self::with_tls(url, tls)?;
        let request = control_plane.request(Method::GET, "/healthz", Vec::new())?;
        let response = control_plane.send(request).await?;
        let shown = response.extensions().get::<TlsInfo>().and_then(TlsInfo::peer_certificate);
        shown
            .and_then(|certificate| tls::pin_of(&certificate.into()).ok())
            .ok_or_else(|| control_plane.unexpected(response.status(), "it shows no certificate"))
    }

    fn with_tls(url: &str, tls: rustls::ClientConfig) -> Result<Self, ControlPlaneError> {
        let origin: Url = url.parse().map_err(|_error| invalid_url("not a URL"))?;
        if origin.scheme() != "https" {
            return Err(invalid_url("not https"));
        }
        if origin.path() != "/" || origin.query().is_some() || origin.fragment().is_some() {
            return Err(invalid_url("something follows host and port"));
        }
        if !origin.username().is_empty() || origin.password().is_some() {
            return Err(invalid_url("it names a user"));
        }
        let http = reqwest::Client::builder()
            .tls_backend_preconfigured(tls)
            .tls_info(true)
            .https_only(true)
            .no_proxy()
            .redirect(reqwest::redirect::Policy::none())
            .referer(false)
            .user_agent(concat!("adit/", env!("CARGO_PKG_VERSION")))
            .connect_timeout(CONNECT_TIMEOUT)
            .tcp_nodelay(true)
            .http2_keep_alive_interval(KEEPALIVE)
            .http2_keep_alive_timeout(KEEPALIVE)
            .build()
            .map_err(|error| invalid_url(&error.without_url().to_string()))?;
        Ok(Self { http, origin, identity: None })
    }

    /// Authenticates all further requests as this subject.
    #[must_use]
    pub fn with_identity(mut self, subject: AssertionSubject, key: KeyPair) -> Self {
        self.identity = Some(Arc::new((subject, key)));
        self
    }

    /// Asks for a representation. `path` begins with a slash and may have a query.
    ///
    /// # Errors
    ///
    /// See [`ControlPlaneError`].
    pub async fn get<R: DeserializeOwned>(&self, path: &str) -> Result<R, ControlPlaneError> {
        let response = self.send(self.request(Method::GET, path, Vec::new())?).await?;
        self.read(response).await
    }

    /// Posts a body; `&()` stands for an empty one, `R = ()` for an answer without one.
    ///
    /// # Errors
    ///
    /// See [`ControlPlaneError`].
    ///
    /// # Panics
    ///
    /// When the body cannot be written as JSON, which no type of the API does.
    pub async fn post<B, R>(&self, path: &str, body: &B) -> Result<R, ControlPlaneError>
    where
        B: Serialize + Sync + ?Sized,
        R: DeserializeOwned,
    {
        self.send_body(Method::POST, path, body).await
    }

    /// Posts a form (RFC 6749); an answer of failure is what the authorization server says.
    ///
    /// # Errors
    ///
    /// See [`ControlPlaneError`]; devices that may not connect are told so as a problem.
    pub async fn post_form<R: DeserializeOwned>(
        &self,
        path: &str,
        parameters: &[(&str, &str)],
    ) -> Result<Result<R, OauthError>, ControlPlaneError> {
        let mut form = self.origin.clone();
        form.query_pairs_mut().extend_pairs(parameters);
        let body = form.query().unwrap_or_default().as_bytes().to_vec();
        let request = self.request(Method::POST, path, body)?;
        let request = request
            .header(CONTENT_TYPE, "application/x-www-form-urlencoded")
            .header(ACCEPT, "application/json")
            .timeout(REQUEST_TIMEOUT);
        let response = request.send().await.map_err(|error| self.failed(error))?;
        let status = response.status();
        if status.is_success() {
            return Ok(Ok(self.read(response).await?));
        }
        let body = self.read_bytes(response, MAX_PROBLEM_LEN).await?;
        if let Ok(refusal) = serde_json::from_slice(&body) {
            return Ok(Err(refusal));
        }
        match serde_json::from_slice(&body) {
            Ok(problem) => Err(ControlPlaneError::Refused(problem)),
            Err(_error) => Err(self.unexpected(status, "its body is no refusal")),
        }
    }

    /// Puts a body; `&()` stands for an empty one, `R = ()` for an answer without one.
    ///
    /// # Errors
    ///
    /// See [`ControlPlaneError`].
    ///
    /// # Panics
    ///
    /// When the body cannot be written as JSON, which no type of the API does.
    pub async fn put<B, R>(&self, path: &str, body: &B) -> Result<R, ControlPlaneError>
    where
        B: Serialize + Sync + ?Sized,
        R: DeserializeOwned,
    {
        self.send_body(Method::PUT, path, body).await
    }

    /// Asks for a signed token, unless it is still the one with this tag.
    ///
    /// # Errors
    ///
    /// See [`ControlPlaneError`].
    pub async fn fetch_signed(
        &self,
        path: &str,
        etag: Option<&str>,
    ) -> Result<Fetched, ControlPlaneError> {
        let mut request = self.request(Method::GET, path, Vec::new())?;
        // A tag that is no header value is none that was ever given.
        if let Some(etag) = etag.and_then(|etag| HeaderValue::from_str(etag).ok()) {
            request = request.header(IF_NONE_MATCH, etag);
        }
        let response = self.send(request).await?;
        if response.status() == StatusCode::NOT_MODIFIED {
            return Ok(Fetched::Unchanged);
        }
        let etag = response.headers().get(ETAG).and_then(|etag| etag.to_str().ok());
        let Some(etag) = etag.map(str::to_owned) else {
            return Err(self.unexpected(response.status(), "it has no ETag"));
        };
        let SignedToken { token } = self.read(response).await?;
        Ok(Fetched::New { token, etag })
    }

    /// Follows an event stream, from behind the event with this id.
    ///
    /// The stream ends when the control plane closes it, and after an error, such as 25 s without
    /// as much as a heartbeat.
    ///
    /// # Errors
    ///
    /// See [`ControlPlaneError`].
    pub async fn stream(
        &self,
        path: &str,
        last_event_id: Option<u64>,
    ) -> Result<
        impl Stream<Item = Result<StreamEvent, ControlPlaneError>> + Send + Unpin + use<>,
        ControlPlaneError,
    > {
        stream::open(self, path, last_event_id).await
    }

    async fn send_body<B, R>(
        &self,
        method: Method,
        path: &str,
        body: &B,
    ) -> Result<R, ControlPlaneError>
    where
        B: Serialize + Sync + ?Sized,
        R: DeserializeOwned,
    {
        let body = json(body);
        let is_empty = body.is_empty();
        let mut request = self.request(method, path, body)?;
        if !is_empty {
            request = request.header(CONTENT_TYPE, "application/json");
        }
        self.read(self.send(request).await?).await
    }

    fn request(
        &self,
        method: Method,
        path: &str,
        body: Vec<u8>,
    ) -> Result<RequestBuilder, ControlPlaneError> {
        let url = self
            .origin
            .join(path)
            .ok()
            .filter(|url| url.origin() == self.origin.origin())
            .ok_or_else(|| ControlPlaneError::Url { reason: format!("no path: {path}") })?;
        let mut request = self.http.request(method.clone(), url.clone());
        if let Some(identity) = &self.identity {
            let value = authorization(identity, &method, &url, &body);
            request = request.header(AUTHORIZATION, value);
        }
        if !body.is_empty() {
            request = request.body(body);
        }
        Ok(request)
    }

    /// Sends a request whose whole answer is awaited. An answer of failure is an error.
    async fn send(&self, request: RequestBuilder) -> Result<Response, ControlPlaneError> {
        let request = request.header(ACCEPT, "application/json").timeout(REQUEST_TIMEOUT);
        let response = request.send().await.map_err(|error| self.failed(error))?;
        self.check_status(response).await
    }

    async fn check_status(&self, response: Response) -> Result<Response, ControlPlaneError> {
        let status = response.status();
        if status.is_success() || status == StatusCode::NOT_MODIFIED {
            return Ok(response);
        }
        let body = self.read_bytes(response, MAX_PROBLEM_LEN).await?;
        match serde_json::from_slice(&body) {
            Ok(problem) => Err(ControlPlaneError::Refused(problem)),
            Err(_error) => Err(self.unexpected(status, "its body is no problem report")),
        }
    }

    async fn read<R: DeserializeOwned>(&self, response: Response) -> Result<R, ControlPlaneError> {
        let status = response.status();
        let mut body = self.read_bytes(response, MAX_BODY_LEN).await?;
        if body.is_empty() {
            body.extend_from_slice(b"null");
        }
        serde_json::from_slice(&body)
            .map_err(|_error| self.unexpected(status, "its body is of another shape"))
    }

    async fn read_bytes(
        &self,
        mut response: Response,
        max_len: usize,
    ) -> Result<Vec<u8>, ControlPlaneError> {
        let mut body = Vec::new();
        while let Some(chunk) = response.chunk().await.map_err(|error| self.failed(error))? {
            if body.len().saturating_add(chunk.len()) > max_len {
                return Err(self.unexpected(response.status(), "its body is too long"));
            }
            body.extend_from_slice(&chunk);
        }
        Ok(body)
    }

    fn failed(&self, error: reqwest::Error) -> ControlPlaneError {
        let host = self.host();
        if tls::is_pin_mismatch(&error) {
            return ControlPlaneError::PinMismatch { host };
        }
        ControlPlaneError::Unreachable { host, source: Box::new(error.without_url()) }
    }

    fn unexpected(&self, status: StatusCode, reason: &'static str) -> ControlPlaneError {
        ControlPlaneError::Unexpected { host: self.host(), status, reason }
    }

    fn host(&self) -> String {
        self.origin.authority().to_owned()
    }
}

impl ControlPlaneError {
    /// The stable code of a refusal.
    pub fn code(&self) -> Option<ProblemCode> {
        match self {
            Self::Refused(problem) => Some(problem.code),
            Self::Url { .. }
            | Self::Unreachable { .. }
            | Self::PinMismatch { .. }
            | Self::Unexpected { .. }
            | Self::Silent { .. } => None,
        }
    }
}

impl fmt::Debug for ControlPlane {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "ControlPlane({})", self.origin)
    }
}

impl fmt::Debug for Fetched {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unchanged => f.write_str("Unchanged"),
            Self::New { etag, .. } => f.debug_struct("New").field("etag", etag).finish(),
        }
    }
}

fn invalid_url(reason: &str) -> ControlPlaneError {
    ControlPlaneError::Url { reason: reason.to_owned() }
}

/// The body of a request: empty for `()`.
fn json<B: Serialize + ?Sized>(body: &B) -> Vec<u8> {
    let mut json = serde_json::to_vec(body).expect("a body is representable in JSON");
    if json == b"null" {
        json.clear();
    }
    json
}

fn authorization(
    (subject, key): &(AssertionSubject, KeyPair),
    method: &Method,
    url: &Url,
    body: &[u8],
) -> HeaderValue {
    // As the control plane sees it, after the URL's normalisation.
    let path = match url.query() {
        Some(query) => format!("{}?{query}", url.path()),
        None => url.path().to_owned(),
    };
    let token = key.assertion(*subject, method.as_str(), &path, body, now());
    let mut value: HeaderValue = format!("{} {token}", Assertion::SCHEME)
        .try_into()
        .expect("an assertion is made of base64url and a dot");
    value.set_sensitive(true);
    value
}

fn now() -> Timestamp {
    SystemTime::now().into()
}
