//! Who asks: API tokens. The right to change is carried by the type.

use std::time::SystemTime;

use adit_proto::{
    ApiTokenId, Timestamp,
    api::{ProblemCode, Scope},
};
use axum::{
    extract::FromRequestParts,
    http::{Method, header, request::Parts},
    response::{IntoResponse, Response},
};

use crate::{
    api::{body::Fingerprint, request::IDEMPOTENCY_KEY},
    app::{App, api_tokens::PREFIX, random},
    error::ApiError,
    store::{Actor, ActorId, Created, IdempotencyKey, api_tokens, idempotency},
};

/// Someone who may read everything.
#[derive(Debug)]
pub(super) struct ReadActor;

/// Someone who may change everything.
#[derive(Debug)]
pub(super) struct AdminActor(Actor);

impl From<AdminActor> for Actor {
    fn from(actor: AdminActor) -> Self {
        actor.0
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

impl FromRequestParts<App> for ReadActor {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, app: &App) -> Result<Self, ApiError> {
        authenticate(bearer_token(parts)?, app).await?;
        Ok(Self)
    }
}

impl FromRequestParts<App> for AdminActor {
    type Rejection = Interruption;

    async fn from_request_parts(parts: &mut Parts, app: &App) -> Result<Self, Interruption> {
        let token = bearer_token(parts)?;
        let (api_token_id, scope) = authenticate(token, app).await?;
        match scope {
            Scope::Admin => {}
            Scope::Read => {
                return Err(ApiError::new(
                    ProblemCode::NotAllowed,
                    "This API token may only read; use one with the scope `admin`.",
                )
                .into());
            }
        }
        let idempotency = idempotency_key(parts, api_token_id, token)?;
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
        Ok(Self(Actor { id: ActorId::ApiToken(api_token_id), idempotency }))
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

async fn authenticate(token: &str, app: &App) -> Result<(ApiTokenId, Scope), ApiError> {
    let mut snapshot = app.store.snapshot().await?;
    let token = api_tokens::find_by_secret(&mut snapshot, &random::secret_hash(token))
        .await?
        .ok_or_else(ApiError::not_authenticated)?;
    let now: Timestamp = SystemTime::now().into();
    if token.expires_at.is_some_and(|expires_at| expires_at <= now) {
        return Err(ApiError::new(
            ProblemCode::NotAuthenticated,
            "This API token has expired; create another.",
        ));
    }
    Ok((token.id, token.scope))
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
