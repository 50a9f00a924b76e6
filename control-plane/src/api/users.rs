//! `/v1/users`

use adit_proto::{
    UserId,
    api::{Page, User, UserWrite},
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
    app::{self, App},
    error::ApiError,
    store::{self, Created, Versioned},
};

pub(super) fn router() -> OpenApiRouter<App> {
    OpenApiRouter::new().routes(routes!(list_users, create_user)).routes(routes!(
        read_user,
        replace_user,
        delete_user
    ))
}

/// Lists users, oldest first.
#[utoipa::path(get, path = "/v1/users", tag = "users",
    security(("api_token" = ["users:read"])), params(ListQuery),
    responses((status = 200, description = "Found.", body = Page<User>), ListRefusals))]
async fn list_users(
    State(app): State<App>,
    _actor: ReadActor<User>,
    Query(query): Query<ListQuery>,
) -> Result<Response, ApiError> {
    let (limit, after) = (query.limit()?, query.after()?);
    let mut snapshot = app.store.snapshot().await?;
    let name = query.name.as_deref();
    let users = store::users::list(&mut snapshot, name, after, limit + 1).await?;
    Ok(page(users, limit, |user| user.id))
}

/// Creates a user.
#[utoipa::path(post, path = "/v1/users", tag = "users",
    security(("api_token" = ["users:write"])), params(IdempotencyHeader),
    request_body = UserWrite, responses((status = 201, description = "Created.", body = User), CreateRefusals))]
async fn create_user(
    State(app): State<App>,
    actor: WriteActor<User>,
    Json(write): Json<UserWrite>,
) -> Result<Created, ApiError> {
    app::users::create(&app, actor.into(), write).await
}

/// Reads a user.
#[utoipa::path(get, path = "/v1/users/{id}", tag = "users",
    security(("api_token" = ["users:read"])), params(("id" = UserId, Path)),
    responses((status = 200, description = "Found.", body = User), ReadRefusals))]
async fn read_user(
    State(app): State<App>,
    _actor: ReadActor<User>,
    Path(id): Path<UserId>,
) -> Result<Versioned<User>, ApiError> {
    let mut snapshot = app.store.snapshot().await?;
    store::users::find(&mut snapshot, id).await?.ok_or_else(ApiError::not_found)
}

/// Replaces a user. One who is disabled is cut at once.
#[utoipa::path(put, path = "/v1/users/{id}", tag = "users",
    security(("api_token" = ["users:write"])), params(("id" = UserId, Path), IfMatchHeader), request_body = UserWrite,
    responses((status = 200, description = "Found.", body = User), ReplaceRefusals))]
async fn replace_user(
    State(app): State<App>,
    actor: WriteActor<User>,
    Path(id): Path<UserId>,
    if_match: IfMatch,
    Json(write): Json<UserWrite>,
) -> Result<Versioned<User>, ApiError> {
    app::users::replace(&app, actor.into(), id, write, |version| if_match.check(version)).await
}

/// Deletes a user with devices, enrolment keys and memberships, and cuts what the devices do.
#[utoipa::path(delete, path = "/v1/users/{id}", tag = "users",
    security(("api_token" = ["users:write"])), params(("id" = UserId, Path), IfMatchHeader), responses((status = 204, description = "It is gone."), RemoveRefusals))]
async fn delete_user(
    State(app): State<App>,
    actor: WriteActor<User>,
    Path(id): Path<UserId>,
    if_match: IfMatch,
) -> Result<StatusCode, ApiError> {
    app::users::remove(&app, actor.into(), id, |version| if_match.check(version)).await?;
    Ok(StatusCode::NO_CONTENT)
}
