//! Who asks: API tokens. What an operation demands is carried by the type of its actor.

use std::{marker::PhantomData, time::SystemTime};

use adit_proto::{
    AccessEvent, ApiTokenId, Timestamp,
    api::{
        ApiToken, AuditEvent, Collection, Connector, ConnectorToken, Device, EnrollmentKey, Group,
        IdentityProvider, Organisation, Policy, ProblemCode, Resource, Scope, Site, User,
        UserSession,
    },
};
use axum::{
    extract::FromRequestParts,
    http::{Method, header, request::Parts},
    response::{IntoResponse, Response},
};

use crate::{
    api::{body::Fingerprint, request::IDEMPOTENCY_KEY},
    app::{self, App, api_tokens::PREFIX, random, roles},
    error::ApiError,
    store::{Actor, ActorId, Created, IdempotencyKey, api_tokens, idempotency},
};

/// What belongs to a collection, and so can be asked for by the scopes of it.
pub(super) trait Guarded {
    const COLLECTION: Collection;
}

/// What people decide of a device or a person that asks to be let in.
pub(super) struct Approval;

macro_rules! guard {
    ($($name:ident by $collection:ident,)+) => { $(
        impl Guarded for $name {
            const COLLECTION: Collection = Collection::$collection;
        }
    )+ };
}

guard! {
    Organisation by Organisation,
    User by Users,
    Group by Groups,
    Site by Sites,
    Resource by Resources,
    Policy by Policies,
    Device by Devices,
    Approval by Approvals,
    Connector by Connectors,
    ConnectorToken by ConnectorTokens,
    EnrollmentKey by EnrollmentKeys,
    ApiToken by ApiTokens,
    AccessEvent by AccessEvents,
    AuditEvent by AuditEvents,
    IdentityProvider by IdentityProviders,
    UserSession by Sessions,
}

/// Someone who may read what is of this kind.
pub(super) struct ReadActor<T>(PhantomData<fn() -> T>);

/// Someone who may change what is of this kind.
pub(super) struct WriteActor<T> {
    /// By what the caller is known.
    pub(super) token: ApiToken,
    actor: Actor,
    of: PhantomData<fn() -> T>,
}

impl<T> From<WriteActor<T>> for Actor {
    fn from(actor: WriteActor<T>) -> Self {
        actor.actor
    }
}

/// Why the handler is not called.
#[derive(Debug)]
pub(super) enum Interruption {
    /// The caller may not.
    Refuse(ApiError),
    /// The same request was answered before.
    Repeat(Created),
}

impl IntoResponse for Interruption {
    fn into_response(self) -> Response {
        match self {
            Self::Refuse(error) => error.into_response(),
            Self::Repeat(created) => created.into_response(),
        }
    }
}

impl<E: Into<ApiError>> From<E> for Interruption {
    fn from(error: E) -> Self {
        Self::Refuse(error.into())
    }
}

impl<T: Guarded> FromRequestParts<App> for ReadActor<T> {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, app: &App) -> Result<Self, ApiError> {
        authorize(bearer_token(parts)?, Scope::read(T::COLLECTION), app).await?;
        Ok(Self(PhantomData))
    }
}

impl<T: Guarded> FromRequestParts<App> for WriteActor<T> {
    type Rejection = Interruption;

    async fn from_request_parts(parts: &mut Parts, app: &App) -> Result<Self, Interruption> {
        let secret = bearer_token(parts)?;
        let token = authorize(secret, Scope::write(T::COLLECTION), app).await?;
        let idempotency = idempotency_key(parts, token.id, secret)?;
        if let Some(key) = &idempotency {
            let mut snapshot = app.store.snapshot().await.map_err(ApiError::from)?;
            let now = SystemTime::now().into();
            let known = idempotency::find(&mut snapshot, key, now).await.map_err(ApiError::from)?;
            match known {
                Some(idempotency::Known::Answered(created)) => {
                    return Err(Interruption::Repeat(created));
                }
                Some(idempotency::Known::OtherRequest) => {
                    return Err(ApiError::new(
                        ProblemCode::IdempotencyConflict,
                        "This Idempotency-Key came with another request; draw a new one.",
                    )
                    .into());
                }
                None => {}
            }
        }
        let actor = Actor { id: ActorId::ApiToken(token.id), idempotency };
        Ok(Self { token, actor, of: PhantomData })
    }
}

fn bearer_token(parts: &Parts) -> Result<&str, ApiError> {
    let mut values = parts.headers.get_all(header::AUTHORIZATION).iter();
    let (Some(value), None) = (values.next(), values.next()) else {
        return Err(ApiError::not_authenticated());
    };
    value
        .to_str()
        .ok()
        .and_then(|value| value.split_once(' '))
        .filter(|(scheme, _)| scheme.eq_ignore_ascii_case("bearer"))
        .map(|(_, token)| token.trim())
        .filter(|token| token.starts_with(PREFIX) && token.len() <= 100)
        .ok_or_else(ApiError::not_authenticated)
}

/// The token with this secret, if it may do what `needed` says.
async fn authorize(secret: &str, needed: Scope, app: &App) -> Result<ApiToken, ApiError> {
    let mut snapshot = app.store.snapshot().await?;
    let token = api_tokens::find_by_secret(&mut snapshot, &random::secret_hash(secret))
        .await?
        .ok_or_else(ApiError::not_authenticated)?;
    drop(snapshot);
    let now: Timestamp = SystemTime::now().into();
    if token.expires_at.is_some_and(|expires_at| expires_at <= now) {
        return Err(ApiError::new(
            ProblemCode::NotAuthenticated,
            "This API token has expired; create another.",
        ));
    }
    app::api_tokens::mark_used(app, token.id, now);
    if roles::allows(&token, needed) { Ok(token) } else { Err(ApiError::lacks(needed)) }
}

fn idempotency_key(
    parts: &Parts,
    api_token_id: ApiTokenId,
    token: &str,
) -> Result<Option<IdempotencyKey>, ApiError> {
    let mut values = parts.headers.get_all(IDEMPOTENCY_KEY).iter();
    let Some(value) = values.next() else { return Ok(None) };
    if parts.method != Method::POST {
        return Ok(None);
    }
    let key = value.to_str().ok().filter(|key| (1..=255).contains(&key.len()));
    let (Some(key), None) = (key, values.next()) else {
        let detail = "It is one header of 1 to 255 visible characters.";
        return Err(ApiError::invalid("Idempotency-Key", detail));
    };
    let Some(Fingerprint(fingerprint)) = parts.extensions.get() else {
        return Err(ApiError::internal(anyhow::anyhow!("request has no fingerprint")));
    };
    Ok(Some(IdempotencyKey::new(api_token_id, token, key.to_owned(), *fingerprint)))
}
