//! The relying party of OpenID Connect Core 1.0: authorization code flow with PKCE.

mod provider_http;

use std::time::Duration;

use adit_proto::Timestamp;
use openidconnect::{
    AdditionalClaims, AuthenticationFlow, AuthorizationCode, Client, ClientId, ClientSecret,
    CsrfToken, EmptyExtraTokenFields, EndpointMaybeSet, EndpointNotSet, EndpointSet, IdTokenFields,
    IssuerUrl, Nonce, PkceCodeChallenge, PkceCodeVerifier, RedirectUrl, Scope,
    StandardErrorResponse, StandardTokenResponse, TokenResponse as _,
    core::{
        CoreAuthDisplay, CoreAuthPrompt, CoreErrorResponseType, CoreGenderClaim, CoreJsonWebKey,
        CoreJweContentEncryptionAlgorithm, CoreJwsSigningAlgorithm, CoreProviderMetadata,
        CoreResponseType, CoreRevocableToken, CoreRevocationErrorResponse,
        CoreTokenIntrospectionResponse, CoreTokenType,
    },
};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

pub(crate) use self::provider_http::ProviderHttp;

/// A sign-in at the provider that is older does not count: whoever signs in does so now.
const MAX_AGE: Duration = Duration::from_mins(5);

/// By how much clocks may differ.
const MAX_CLOCK_SKEW: Duration = Duration::from_mins(1);

/// Signatures of a key pair. Neither `none`, nor a MAC whose key others may know.
const SIGNATURES: [CoreJwsSigningAlgorithm; 9] = [
    CoreJwsSigningAlgorithm::RsaSsaPkcs1V15Sha256,
    CoreJwsSigningAlgorithm::RsaSsaPkcs1V15Sha384,
    CoreJwsSigningAlgorithm::RsaSsaPkcs1V15Sha512,
    CoreJwsSigningAlgorithm::RsaSsaPssSha256,
    CoreJwsSigningAlgorithm::RsaSsaPssSha384,
    CoreJwsSigningAlgorithm::RsaSsaPssSha512,
    CoreJwsSigningAlgorithm::EcdsaP256Sha256,
    CoreJwsSigningAlgorithm::EcdsaP384Sha384,
    CoreJwsSigningAlgorithm::EdDsa,
];

/// What a provider knows this control plane by.
pub(crate) struct Registration {
    pub(crate) issuer: String,
    pub(crate) client_id: String,
    pub(crate) client_secret: Option<String>,
    pub(crate) scopes: Vec<String>,
    pub(crate) redirect_uri: String,
}

/// Where the user goes next, and what must come back.
pub(crate) struct AuthorizationRequest {
    pub(crate) url: String,
    pub(crate) state: String,
    pub(crate) expected: Expected,
}

/// What an answer must fit to; used once.
pub(crate) struct Expected {
    nonce: Nonce,
    verifier: PkceCodeVerifier,
}

/// Who the provider says it is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct ProvenIdentity {
    pub(crate) issuer: String,
    pub(crate) subject: String,
    /// For people: what the provider calls the user.
    pub(crate) name: Option<String>,
    /// For people; never used to identify.
    pub(crate) email: Option<String>,
    pub(crate) authenticated_at: Timestamp,
    pub(crate) methods: Vec<String>,
    claims: Map<String, Value>,
}

impl ProvenIdentity {
    /// The strings of a claim that is not one of the standard's.
    pub(crate) fn strings_of(&self, claim: &str) -> Vec<String> {
        match self.claims.get(claim) {
            Some(Value::String(one)) => vec![one.clone()],
            Some(Value::Array(many)) => {
                many.iter().filter_map(Value::as_str).map(str::to_owned).collect()
            }
            Some(Value::Null | Value::Bool(_) | Value::Number(_) | Value::Object(_)) | None => {
                Vec::new()
            }
        }
    }
}

/// Why nobody is signed in, by who must act.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ProviderError {
    /// The provider's URL or the redirect URI is none.
    #[error("the provider's settings are of no use: {0}")]
    Settings(String),
    /// Its description cannot be had.
    #[error("the provider's description cannot be read: {0}")]
    Discovery(String),
    /// The provider does not take the code.
    #[error("the provider gives no token for the code: {0}")]
    Token(String),
    /// The ID token is not one that was asked for.
    #[error("the ID token is refused: {0}")]
    IdToken(String),
}

#[derive(Debug, Clone, Serialize, Deserialize)]
struct OtherClaims(Map<String, Value>);

impl AdditionalClaims for OtherClaims {}

type Fields = IdTokenFields<
    OtherClaims,
    EmptyExtraTokenFields,
    CoreGenderClaim,
    CoreJweContentEncryptionAlgorithm,
    CoreJwsSigningAlgorithm,
>;

type RelyingParty = Client<
    OtherClaims,
    CoreAuthDisplay,
    CoreGenderClaim,
    CoreJweContentEncryptionAlgorithm,
    CoreJsonWebKey,
    CoreAuthPrompt,
    StandardErrorResponse<CoreErrorResponseType>,
    StandardTokenResponse<Fields, CoreTokenType>,
    CoreTokenIntrospectionResponse,
    CoreRevocableToken,
    CoreRevocationErrorResponse,
    EndpointSet,
    EndpointNotSet,
    EndpointNotSet,
    EndpointNotSet,
    EndpointMaybeSet,
    EndpointMaybeSet,
>;

/// Where to send the user.
pub(crate) async fn begin(
    http: &ProviderHttp,
    registration: &Registration,
) -> Result<AuthorizationRequest, ProviderError> {
    let client = discover(http, registration).await?;
    let (challenge, verifier) = PkceCodeChallenge::new_random_sha256();
    let flow = AuthenticationFlow::<CoreResponseType>::AuthorizationCode;
    let mut request = client
        .authorize_url(flow, CsrfToken::new_random, Nonce::new_random)
        .set_pkce_challenge(challenge)
        .set_max_age(MAX_AGE);
    for scope in &registration.scopes {
        request = request.add_scope(Scope::new(scope.clone()));
    }
    let (url, state, nonce) = request.url();
    Ok(AuthorizationRequest {
        url: url.into(),
        state: state.into_secret(),
        expected: Expected { nonce, verifier },
    })
}

/// Who comes back with a code.
pub(crate) async fn finish(
    http: &ProviderHttp,
    registration: &Registration,
    code: String,
    expected: Expected,
    now: Timestamp,
) -> Result<ProvenIdentity, ProviderError> {
    let client = discover(http, registration).await?;
    let exchange = client
        .exchange_code(AuthorizationCode::new(code))
        .map_err(|error| ProviderError::Discovery(error.to_string()))?;
    let answer = exchange
        .set_pkce_verifier(expected.verifier)
        .request_async(http)
        .await
        .map_err(|error| ProviderError::Token(chain(&error)))?;
    let refused = |reason: &str| ProviderError::IdToken(reason.to_owned());
    let id_token = answer.id_token().ok_or_else(|| refused("there is none"))?;
    // What the provider announces does not matter: it may announce `none`.
    let verifier = client.id_token_verifier().set_allowed_algs(SIGNATURES);
    let claims = id_token
        .claims(&verifier, &expected.nonce)
        .map_err(|error| ProviderError::IdToken(chain(&error)))?;

    let issued_at = claims.issue_time();
    // Some providers do not say, although it was asked for (OpenID Connect Core §3.1.2.1).
    let authenticated_at = claims.auth_time().unwrap_or(issued_at);
    let authenticated_at = Timestamp::from_millis(authenticated_at.timestamp_millis()).min(now);
    if now.saturating_duration_since(authenticated_at) > MAX_AGE + MAX_CLOCK_SKEW {
        return Err(refused("the user signed in at the provider too long ago"));
    }
    let name = claims
        .preferred_username()
        .map(|name| name.as_str().to_owned())
        .or_else(|| claims.name()?.get(None).map(|name| name.as_str().to_owned()));
    let methods = claims.auth_method_refs().map_or(&[][..], Vec::as_slice);
    Ok(ProvenIdentity {
        issuer: claims.issuer().as_str().to_owned(),
        subject: claims.subject().as_str().to_owned(),
        name,
        email: claims.email().map(|email| email.as_str().to_owned()),
        authenticated_at,
        methods: methods.iter().map(|method| method.as_str().to_owned()).collect(),
        claims: claims.additional_claims().0.clone(),
    })
}

async fn discover(
    http: &ProviderHttp,
    registration: &Registration,
) -> Result<RelyingParty, ProviderError> {
    let settings = |error: &dyn std::error::Error| ProviderError::Settings(chain(error));
    let issuer = IssuerUrl::new(registration.issuer.clone()).map_err(|error| settings(&error))?;
    let redirect_uri =
        RedirectUrl::new(registration.redirect_uri.clone()).map_err(|error| settings(&error))?;
    let metadata = CoreProviderMetadata::discover_async(issuer, http)
        .await
        .map_err(|error| ProviderError::Discovery(chain(&error)))?;
    let client_id = ClientId::new(registration.client_id.clone());
    let client_secret = registration.client_secret.clone().map(ClientSecret::new);
    let client = RelyingParty::from_provider_metadata(metadata, client_id, client_secret);
    Ok(client.set_redirect_uri(redirect_uri))
}

/// An error with all its causes.
fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(error) = source {
        text.push_str(": ");
        text.push_str(&error.to_string());
        source = error.source();
    }
    text
}
