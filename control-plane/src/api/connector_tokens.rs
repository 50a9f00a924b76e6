//! `/v1/sites/{id}/connector-tokens` and `/v1/connector-tokens`

use adit_proto::{
    ConnectorTokenId, SiteId,
    api::{ConnectorToken, ConnectorTokenCreated, ConnectorTokenWrite, Page},
};
use axum::{extract::State, http::StatusCode, response::Response};
use utoipa_axum::{router::OpenApiRouter, routes};

use super::{
    authentication::{ReadActor, WriteActor},
    problem::{ReadRefusals, RemoveRefusals, SubcreateRefusals, SublistRefusals},
    request::{IdempotencyHeader, IfMatch, IfMatchHeader, Json, ListQuery, Path, Query},
    response::page,
};
use crate::{
    app::{self, App},
    error::ApiError,
    store::{self, Created, Versioned},
};

pub(super) fn router() -> OpenApiRouter<App> {
    OpenApiRouter::new()
        .routes(routes!(list_connector_tokens, create_connector_token))
        .routes(routes!(read_connector_token, delete_connector_token))
}

/// Lists the tokens of a site with which no connector joined yet, oldest first.
#[utoipa::path(get, path = "/v1/sites/{id}/connector-tokens", tag = "connector-tokens",
    security(("api_token" = ["connector-tokens:read"])), params(("id" = SiteId, Path), ListQuery),
    responses(
        (status = 200, description = "Found.", body = Page<ConnectorToken>),
        SublistRefusals,
    ))]
async fn list_connector_tokens(
    State(app): State<App>,
    _actor: ReadActor<ConnectorToken>,
    Path(site_id): Path<SiteId>,
    Query(query): Query<ListQuery>,
) -> Result<Response, ApiError> {
    let (limit, after) = (query.limit()?, query.after()?);
    let name = query.name.as_deref();
    let mut snapshot = app.store.snapshot().await?;
    store::sites::find(&mut snapshot, site_id).await?.ok_or_else(ApiError::not_found)?;
    let tokens =
        store::connector_tokens::list(&mut snapshot, site_id, name, after, limit + 1).await?;
    Ok(page(tokens, limit, |token| token.id))
}

/// Creates a token with which one connector joins. Only this answer holds it.
#[utoipa::path(post, path = "/v1/sites/{id}/connector-tokens", tag = "connector-tokens",
    security(("api_token" = ["connector-tokens:write"])), params(("id" = SiteId, Path), IdempotencyHeader), request_body = ConnectorTokenWrite,
    responses(
        (status = 201, description = "Created.", body = ConnectorTokenCreated),
        SubcreateRefusals,
    ))]
async fn create_connector_token(
    State(app): State<App>,
    actor: WriteActor<ConnectorToken>,
    Path(site_id): Path<SiteId>,
    Json(write): Json<ConnectorTokenWrite>,
) -> Result<Created, ApiError> {
    app::connector_tokens::create(&app, actor.into(), site_id, write).await
}

/// Reads a connector token, without its secret.
#[utoipa::path(get, path = "/v1/connector-tokens/{id}", tag = "connector-tokens",
    security(("api_token" = ["connector-tokens:read"])), params(("id" = ConnectorTokenId, Path)),
    responses((status = 200, description = "Found.", body = ConnectorToken), ReadRefusals))]
async fn read_connector_token(
    State(app): State<App>,
    _actor: ReadActor<ConnectorToken>,
    Path(id): Path<ConnectorTokenId>,
) -> Result<Versioned<ConnectorToken>, ApiError> {
    let mut snapshot = app.store.snapshot().await?;
    let object =
        store::connector_tokens::find(&mut snapshot, id).await?.ok_or_else(ApiError::not_found)?;
    Ok(Versioned { version: 1, object })
}

/// Deletes a connector token, so that no connector joins with it.
#[utoipa::path(delete, path = "/v1/connector-tokens/{id}", tag = "connector-tokens",
    security(("api_token" = ["connector-tokens:write"])), params(("id" = ConnectorTokenId, Path), IfMatchHeader),
    responses((status = 204, description = "It is gone."), RemoveRefusals))]
async fn delete_connector_token(
    State(app): State<App>,
    actor: WriteActor<ConnectorToken>,
    Path(id): Path<ConnectorTokenId>,
    if_match: IfMatch,
) -> Result<StatusCode, ApiError> {
    app::connector_tokens::remove(&app, actor.into(), id, |version| if_match.check(version))
        .await?;
    Ok(StatusCode::NO_CONTENT)
}
