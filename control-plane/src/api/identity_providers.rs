//! `/v1/identity-providers`

use adit_proto::{
    IdentityProviderId,
    api::{IdentityProvider, IdentityProviderWrite, Page},
};
use axum::{extract::State, http::StatusCode, response::Response};
use utoipa_axum::{router::OpenApiRouter, routes};

use super::{
    authentication::{ReadActor, WriteActor},
    problem::{CreateRefusals, ListRefusals, ReadRefusals, RemoveRefusals, ReplaceRefusals},
    request::{IdempotencyHeader, IfMatch, IfMatchHeader, Json, ListQuery, Path, Query},
    response::page,
};
use crate::{
    app::{self, App, identity_providers::shown},
    error::ApiError,
    store::{self, Created, Versioned},
};

pub(super) fn router() -> OpenApiRouter<App> {
    OpenApiRouter::new().routes(routes!(list_identity_providers, create_identity_provider)).routes(
        routes!(read_identity_provider, replace_identity_provider, delete_identity_provider),
    )
}

/// Lists identity providers, oldest first.
#[utoipa::path(get, path = "/v1/identity-providers", tag = "identity-providers",
    security(("api_token" = ["identity-providers:read"])),
    params(ListQuery),
    responses(
        (status = 200, description = "Found.", body = Page<IdentityProvider>),
        ListRefusals,
    ))]
async fn list_identity_providers(
    State(app): State<App>,
    _actor: ReadActor<IdentityProvider>,
    Query(query): Query<ListQuery>,
) -> Result<Response, ApiError> {
    let (limit, after) = (query.limit()?, query.after()?);
    let name = query.name.as_deref();
    let mut snapshot = app.store.snapshot().await?;
    let held = store::identity_providers::list(&mut snapshot, name, after, limit + 1).await?;
    let providers = held.into_iter().map(|record| shown(&app, record)).collect();
    Ok(page(providers, limit, |provider: &IdentityProvider| provider.id))
}

/// Creates an identity provider. Its secret is never shown again.
#[utoipa::path(post, path = "/v1/identity-providers", tag = "identity-providers",
    security(("api_token" = ["identity-providers:write"])),
    params(IdempotencyHeader), request_body = IdentityProviderWrite,
    responses((status = 201, description = "Created.", body = IdentityProvider), CreateRefusals))]
async fn create_identity_provider(
    State(app): State<App>,
    actor: WriteActor<IdentityProvider>,
    Json(write): Json<IdentityProviderWrite>,
) -> Result<Created, ApiError> {
    app::identity_providers::create(&app, actor.into(), write).await
}

/// Reads an identity provider, without its secret.
#[utoipa::path(get, path = "/v1/identity-providers/{id}", tag = "identity-providers",
    security(("api_token" = ["identity-providers:read"])),
    params(("id" = IdentityProviderId, Path)),
    responses((status = 200, description = "Found.", body = IdentityProvider), ReadRefusals))]
async fn read_identity_provider(
    State(app): State<App>,
    _actor: ReadActor<IdentityProvider>,
    Path(id): Path<IdentityProviderId>,
) -> Result<Versioned<IdentityProvider>, ApiError> {
    let mut snapshot = app.store.snapshot().await?;
    let held = store::identity_providers::find(&mut snapshot, id).await?;
    let Versioned { version, object } = held.ok_or_else(ApiError::not_found)?;
    Ok(Versioned { version, object: shown(&app, object) })
}

/// Replaces an identity provider. Without a secret the one that is held stays.
#[utoipa::path(put, path = "/v1/identity-providers/{id}", tag = "identity-providers",
    security(("api_token" = ["identity-providers:write"])),
    params(("id" = IdentityProviderId, Path), IfMatchHeader),
    request_body = IdentityProviderWrite,
    responses((status = 200, description = "Found.", body = IdentityProvider), ReplaceRefusals))]
async fn replace_identity_provider(
    State(app): State<App>,
    actor: WriteActor<IdentityProvider>,
    Path(id): Path<IdentityProviderId>,
    if_match: IfMatch,
    Json(write): Json<IdentityProviderWrite>,
) -> Result<Versioned<IdentityProvider>, ApiError> {
    let matches = |version| if_match.check(version);
    app::identity_providers::replace(&app, actor.into(), id, write, matches).await
}

/// Deletes an identity provider. Users, their sessions and its groups stay.
#[utoipa::path(delete, path = "/v1/identity-providers/{id}", tag = "identity-providers",
    security(("api_token" = ["identity-providers:write"])),
    params(("id" = IdentityProviderId, Path), IfMatchHeader),
    responses((status = 204, description = "It is gone."), RemoveRefusals))]
async fn delete_identity_provider(
    State(app): State<App>,
    actor: WriteActor<IdentityProvider>,
    Path(id): Path<IdentityProviderId>,
    if_match: IfMatch,
) -> Result<StatusCode, ApiError> {
    let matches = |version| if_match.check(version);
    app::identity_providers::remove(&app, actor.into(), id, matches).await?;
    Ok(StatusCode::NO_CONTENT)
}
