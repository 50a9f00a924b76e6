//! The REST API as an administrator's machine reaches it.

use std::{env, fmt, fs, path::PathBuf, sync::Arc, time::Duration};

use adit_proto::{
    Pin,
    api::{PolicySet, PolicySetChange, Problem, ProblemCode},
};
use anyhow::{Context as _, bail};
use clap::Args;
use reqwest::{
    Method, Response, Url,
    header::{ETAG, IF_MATCH},
};
use rustls::{
    CertificateError, ClientConfig, DigitallySignedStruct, RootCertStore, SignatureScheme,
    client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier},
    crypto::{CryptoProvider, aws_lc_rs, verify_tls13_signature},
    pki_types::{CertificateDer, ServerName, UnixTime, pem::PemObject as _},
    server::ParsedCertificate,
    version::TLS13,
};
use zeroize::Zeroizing;

use super::report::failed_test;
use crate::data_dir;

/// The variable that holds an API token.
const TOKEN_VARIABLE: &str = "ADIT_CONTROL_TOKEN";

/// A policy set of thousands of policies takes a while.
const TIMEOUT: Duration = Duration::from_secs(120);

/// Which control plane, and by what it and the caller are known.
#[derive(Debug, Args)]
pub(crate) struct Server {
    /// On the control plane's own machine: the folder of `serve --data-dir`, which says all else.
    #[arg(long, env = "ADIT_CONTROL_DATA_DIR", value_name = "DIR")]
    data_dir: Option<PathBuf>,
    /// Where the control plane is.
    #[arg(long, env = "ADIT_CONTROL_URL", value_name = "https://HOST[:PORT]")]
    url: Option<String>,
    /// The pin of the control plane's key, as it stands in join tokens.
    #[arg(long, env = "ADIT_CONTROL_PIN", value_name = "PIN", conflicts_with = "ca")]
    #[arg(allow_hyphen_values = true)]
    pin: Option<Pin>,
    /// A file with the certificates of those who vouch for the control plane, as PEM.
    #[arg(long, env = "ADIT_CONTROL_CA", value_name = "FILE")]
    ca: Option<PathBuf>,
    /// A file with an API token; else it is in the variable ADIT_CONTROL_TOKEN.
    #[arg(long, env = "ADIT_CONTROL_TOKEN_FILE", value_name = "FILE")]
    token_file: Option<PathBuf>,
}

impl Server {
    fn url(&self) -> anyhow::Result<Url> {
        let text = match (&self.url, &self.data_dir) {
            (Some(url), _) => url.clone(),
            (None, Some(folder)) => {
                let file = data_dir::local_url_file(folder);
                fs::read_to_string(&file).with_context(|| {
                    format!(
                        "failed to read {}; does adit-control serve with this folder?",
                        file.display()
                    )
                })?
            }
            (None, None) => bail!("where is the control plane? Say --url, or --data-dir"),
        };
        let url: Url = text.trim().parse().context("expected a URL such as https://HOST:8443")?;
        if url.scheme() != "https" || url.path() != "/" || url.query().is_some() {
            bail!("expected https://HOST or https://HOST:PORT, not {url}");
        }
        Ok(url)
    }

    fn token(&self) -> anyhow::Result<Zeroizing<String>> {
        let file = match (&self.token_file, env::var(TOKEN_VARIABLE), &self.data_dir) {
            (Some(file), _, _) => file.clone(),
            (None, Ok(token), _) => return Ok(Zeroizing::new(token.trim().to_owned())),
            (None, Err(_), Some(folder)) => data_dir::admin_token_file(folder),
            (None, Err(_), None) => {
                bail!("an API token is needed: say --token-file, or set {TOKEN_VARIABLE}")
            }
        };
        let text = fs::read_to_string(&file).map(Zeroizing::new);
        let text = text.with_context(|| format!("failed to read {}", file.display()))?;
        Ok(Zeroizing::new(text.trim().to_owned()))
    }

    fn tls(&self) -> anyhow::Result<ClientConfig> {
        let provider = Arc::new(aws_lc_rs::default_provider());
        let builder = ClientConfig::builder_with_provider(Arc::clone(&provider))
            .with_protocol_versions(&[&TLS13])?;
        let pin = match (&self.pin, &self.ca, &self.data_dir) {
            (Some(pin), _, _) => *pin,
            (None, Some(file), _) => {
                let shown = file.display();
                let mut roots = RootCertStore::empty();
                let certificates = CertificateDer::pem_file_iter(file)
                    .with_context(|| format!("failed to read {shown}"))?;
                for certificate in certificates {
                    let certificate =
                        certificate.with_context(|| format!("failed to read {shown}"))?;
                    roots.add(certificate).with_context(|| format!("failed to use {shown}"))?;
                }
                return Ok(builder.with_root_certificates(roots).with_no_client_auth());
            }
            (None, None, Some(folder)) => {
                let file = data_dir::certificate_file(folder);
                let certificate = CertificateDer::from_pem_file(&file)
                    .with_context(|| format!("failed to read {}", file.display()))?;
                pin_of(&certificate).context("failed to read the certificate")?
            }
            (None, None, None) => bail!("who is the control plane? Say --pin, or --ca"),
        };
        Ok(builder
            .dangerous()
            .with_custom_certificate_verifier(Arc::new(PinnedServer { pin, provider }))
            .with_no_client_auth())
    }
}

/// A client that has a token.
pub(super) struct ApiClient {
    http: reqwest::Client,
    url: Url,
    token: Zeroizing<String>,
}

impl ApiClient {
    pub(super) fn new(server: &Server) -> anyhow::Result<Self> {
        let http = reqwest::Client::builder()
            .tls_backend_preconfigured(server.tls()?)
            .https_only(true)
            .redirect(reqwest::redirect::Policy::none())
            .user_agent(concat!("adit-control/", env!("CARGO_PKG_VERSION")))
            .connect_timeout(Duration::from_secs(10))
            .timeout(TIMEOUT)
            .build()
            .context("failed to make the HTTP client")?;
        Ok(Self { http, url: server.url()?, token: server.token()? })
    }

    /// The policy set and its version.
    pub(super) async fn read(&self) -> anyhow::Result<(PolicySet, u64)> {
        let response = self.send(Method::GET, &[], None, None).await?;
        let version = response.headers().get(ETAG).and_then(|etag| etag.to_str().ok());
        let version = version.and_then(|etag| etag.trim_matches('"').parse().ok());
        let version = version.context("the control plane did not say the version")?;
        Ok((response.json().await.context("failed to read the answer")?, version))
    }

    /// What writing a policy set would bring.
    pub(super) async fn plan(&self, set: &PolicySet) -> anyhow::Result<PolicySetChange> {
        let query = [("dry_run", "true")];
        let response = self.send(Method::PUT, &query, Some(set), None).await?;
        response.json().await.context("failed to read the answer")
    }

    /// Writes a policy set in place of version `base`.
    pub(super) async fn apply(
        &self,
        set: &PolicySet,
        base: u64,
        reason: Option<&str>,
    ) -> anyhow::Result<PolicySetChange> {
        let query: Vec<_> = reason.map(|reason| ("reason", reason)).into_iter().collect();
        let response = self.send(Method::PUT, &query, Some(set), Some(base)).await?;
        response.json().await.context("failed to read the answer")
    }

    async fn send(
        &self,
        method: Method,
        query: &[(&str, &str)],
        body: Option<&PolicySet>,
        base: Option<u64>,
    ) -> anyhow::Result<Response> {
        let mut url = self.url.join("/v1/policy-set").context("failed to make the URL")?;
        if !query.is_empty() {
            url.query_pairs_mut().extend_pairs(query);
        }
        let mut request = self.http.request(method, url).bearer_auth(self.token.as_str());
        if let Some(body) = body {
            request = request.json(body);
        }
        if let Some(base) = base {
            request = request.header(IF_MATCH, format!("\"{base}\""));
        }
        let response = request.send().await.map_err(reqwest::Error::without_url);
        let response = response
            .with_context(|| format!("no answer from the control plane at {}", self.url))?;
        if response.status().is_success() {
            return Ok(response);
        }
        let status = response.status();
        let problem: Problem = response
            .json()
            .await
            .with_context(|| format!("unexpected answer {status}; is it a control plane?"))?;
        Err(refusal(&problem, base))
    }
}

fn refusal(problem: &Problem, base: Option<u64>) -> anyhow::Error {
    if let (ProblemCode::EtagMismatch, Some(base)) = (problem.code, base) {
        return anyhow::anyhow!(
            "the policies were changed since version {base}; nothing was done. Export anew and \
             merge, or look at `plan` and say the version it prints with --base"
        );
    }
    let mut text = problem.detail.clone();
    if let Some(field) = problem.field.as_deref().filter(|field| !field.is_empty()) {
        text += &format!(" ({field})");
    }
    for test in &problem.failed_tests {
        text += &format!("\n  ! {}", failed_test(test));
    }
    anyhow::Error::msg(text)
}

fn pin_of(certificate: &CertificateDer<'_>) -> Result<Pin, rustls::Error> {
    Ok(Pin::from_spki(&ParsedCertificate::try_from(certificate)?.subject_public_key_info()))
}

/// Trusts one key, whatever else stands in its certificate.
struct PinnedServer {
    pin: Pin,
    provider: Arc<CryptoProvider>,
}

impl fmt::Debug for PinnedServer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "PinnedServer({})", self.pin)
    }
}

impl ServerCertVerifier for PinnedServer {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        _intermediates: &[CertificateDer<'_>],
        _server_name: &ServerName<'_>,
        _ocsp_response: &[u8],
        _now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        if pin_of(end_entity)? == self.pin {
            Ok(ServerCertVerified::assertion())
        } else {
            Err(CertificateError::ApplicationVerificationFailure.into())
        }
    }

    /// INVARIANT: the configuration allows TLS 1.3 alone.
    fn verify_tls12_signature(
        &self,
        _message: &[u8],
        _certificate: &CertificateDer<'_>,
        _signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        Err(rustls::Error::General("TLS 1.2 is not spoken".to_owned()))
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        let algorithms = &self.provider.signature_verification_algorithms;
        verify_tls13_signature(message, certificate, signature, algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.provider.signature_verification_algorithms.supported_schemes()
    }
}
