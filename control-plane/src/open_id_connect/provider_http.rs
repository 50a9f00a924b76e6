//! HTTP to identity providers: TLS by this machine's certificate authorities, no redirects, bounded
//! answers.

use std::{pin::Pin, sync::Arc, time::Duration};

use openidconnect::{AsyncHttpClient, HttpRequest, HttpResponse};
use rustls::{
    ClientConfig,
    crypto::aws_lc_rs,
    version::{TLS12, TLS13},
};
use rustls_platform_verifier::BuilderVerifierExt as _;
use tracing::warn;

/// How long a provider may take.
const PATIENCE: Duration = Duration::from_secs(10);

/// Longest answer that is read, in bytes.
const MAX_LEN: usize = 1 << 20;

/// Speaks with providers. Clones share connections.
#[derive(Clone)]
pub(crate) struct ProviderHttp(Inner);

#[derive(Clone)]
enum Inner {
    Network(reqwest::Client),
    /// There are no certificate authorities here, or none that can be read.
    Unusable(String),
    #[cfg(test)]
    Fake(Arc<dyn Fn(HttpRequest) -> HttpResponse + Send + Sync>),
}

/// Why a provider did not answer.
#[derive(Debug, thiserror::Error)]
pub(crate) enum HttpError {
    /// The network, or TLS.
    #[error("no answer")]
    Network(#[from] reqwest::Error),
    /// This machine cannot tell whom to trust.
    #[error("this machine has no certificate authorities; install them, then restart: {0}")]
    Unusable(String),
    /// More than anyone needs.
    #[error("the answer has more than {MAX_LEN} bytes")]
    TooLong,
    /// A URL or header that is none.
    #[error("the request is none")]
    Malformed(#[from] openidconnect::http::Error),
}

impl ProviderHttp {
    /// Without certificate authorities every request fails, and all else works.
    pub(crate) fn new() -> Self {
        match Self::client() {
            Ok(client) => Self(Inner::Network(client)),
            Err(error) => {
                let error = format!("{error:#}");
                warn!(error, "Users cannot sign in at identity providers");
                Self(Inner::Unusable(error))
            }
        }
    }

    fn client() -> anyhow::Result<reqwest::Client> {
        let provider = Arc::new(aws_lc_rs::default_provider());
        let tls = ClientConfig::builder_with_provider(provider)
            .with_protocol_versions(&[&TLS13, &TLS12])?
            .with_platform_verifier()?
            .with_no_client_auth();
        let client = reqwest::Client::builder()
            .tls_backend_preconfigured(tls)
            .https_only(true)
            .redirect(reqwest::redirect::Policy::none())
            .referer(false)
            .user_agent(concat!("adit-control/", env!("CARGO_PKG_VERSION")))
            .timeout(PATIENCE)
            .build()?;
        Ok(client)
    }

    #[cfg(test)]
    pub(crate) fn fake(
        answer: impl Fn(HttpRequest) -> HttpResponse + Send + Sync + 'static,
    ) -> Self {
        Self(Inner::Fake(Arc::new(answer)))
    }

    async fn send(&self, request: HttpRequest) -> Result<HttpResponse, HttpError> {
        match &self.0 {
            Inner::Network(client) => {
                let mut response = client.execute(request.try_into()?).await?;
                let mut builder =
                    openidconnect::http::Response::builder().status(response.status());
                for (name, value) in response.headers() {
                    builder = builder.header(name, value);
                }
                let mut body = Vec::new();
                while let Some(chunk) = response.chunk().await? {
                    if body.len().saturating_add(chunk.len()) > MAX_LEN {
                        return Err(HttpError::TooLong);
                    }
                    body.extend_from_slice(&chunk);
                }
                Ok(builder.body(body)?)
            }
            Inner::Unusable(error) => Err(HttpError::Unusable(error.clone())),
            #[cfg(test)]
            Inner::Fake(answer) => Ok(answer(request)),
        }
    }
}

impl<'c> AsyncHttpClient<'c> for ProviderHttp {
    type Error = HttpError;
    type Future = Pin<Box<dyn Future<Output = Result<HttpResponse, HttpError>> + Send + 'c>>;

    fn call(&'c self, request: HttpRequest) -> Self::Future {
        Box::pin(self.send(request))
    }
}

impl std::fmt::Debug for ProviderHttp {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("ProviderHttp(..)")
    }
}
