//! `/v1/api-tokens`

use adit_proto::{
    ApiTokenId,
    api::{ApiToken, ApiTokenCreated, ApiTokenWrite, Page},
};
use axum::{extract::State, http::StatusCode, response::Response};
use utoipa_axum::{router::OpenApiRouter, routes};

use super::{
    authentication::{ReadActor, WriteActor},
    problem::{CreateRefusals, ListRefusals, ReadRefusals, RemoveRefusals},
    request::{IdempotencyHeader, Json, ListQuery, Path, Query},
    response::page,
};
use crate::{
    app::{self, App},
    error::ApiError,
    store::{self, Created, Versioned},
};

pub(super) fn router() -> OpenApiRouter<App> {
    OpenApiRouter::new()
        .routes(routes!(list_api_tokens, create_api_token))
        .routes(routes!(read_api_token, delete_api_token))
}

/// Lists API tokens without their secrets, oldest first.
#[utoipa::path(get, path = "/v1/api-tokens", tag = "api-tokens",
    security(("api_token" = ["api-tokens:read"])), params(ListQuery),
    responses((status = 200, description = "Found.", body = Page<ApiToken>), ListRefusals))]
async fn list_api_tokens(
    State(app): State<App>,
    _actor: ReadActor<ApiToken>,
    Query(query): Query<ListQuery>,
) -> Result<Response, ApiError> {
    let (limit, after) = (query.limit()?, query.after()?);
    let mut snapshot = app.store.snapshot().await?;
    let name = query.name.as_deref();
    let tokens = store::api_tokens::list(&mut snapshot, name, after, limit + 1).await?;
    Ok(page(tokens, limit, |token| token.id))
}

/// Creates an API token that may do no more than the caller's; only this answer holds the token
/// itself.
#[utoipa::path(post, path = "/v1/api-tokens", tag = "api-tokens",
    security(("api_token" = ["api-tokens:write"])), params(IdempotencyHeader),
    request_body = ApiTokenWrite,
    responses((status = 201, description = "Created.", body = ApiTokenCreated), CreateRefusals))]
async fn create_api_token(
    State(app): State<App>,
    actor: WriteActor<ApiToken>,
    Json(write): Json<ApiTokenWrite>,
) -> Result<Created, ApiError> {
    let creator = actor.token.clone();
    app::api_tokens::create(&app, &creator, actor.into(), write).await
}

/// Reads an API token without its secret.
#[utoipa::path(get, path = "/v1/api-tokens/{id}", tag = "api-tokens",
    security(("api_token" = ["api-tokens:read"])), params(("id" = ApiTokenId, Path)), responses((status = 200, description = "Found.", body = ApiToken), ReadRefusals))]
async fn read_api_token(
    State(app): State<App>,
    _actor: ReadActor<ApiToken>,
    Path(id): Path<ApiTokenId>,
) -> Result<Versioned<ApiToken>, ApiError> {
    let mut snapshot = app.store.snapshot().await?;
    let token = store::api_tokens::find(&mut snapshot, id).await?;
    // A token is never changed, so its first version is its last.
    token.map(|object| Versioned { version: 1, object }).ok_or_else(ApiError::not_found)
}

/// Deletes an API token that may do no more than the caller's; it is refused from then on.
#[utoipa::path(delete, path = "/v1/api-tokens/{id}", tag = "api-tokens",
    security(("api_token" = ["api-tokens:write"])), params(("id" = ApiTokenId, Path)),
    responses((status = 204, description = "It is gone."), RemoveRefusals))]
async fn delete_api_token(
    State(app): State<App>,
    actor: WriteActor<ApiToken>,
    Path(id): Path<ApiTokenId>,
) -> Result<StatusCode, ApiError> {
    let remover = actor.token.clone();
    app::api_tokens::remove(&app, &remover, actor.into(), id).await?;
    Ok(StatusCode::NO_CONTENT)
}
