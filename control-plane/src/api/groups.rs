//! `/v1/groups`

use adit_proto::{
    GroupId, UserId,
    api::{Group, GroupWrite, Page, User},
};
use axum::{extract::State, http::StatusCode, response::Response};
use utoipa_axum::{router::OpenApiRouter, routes};

use super::{
    authentication::{ReadActor, WriteActor},
    problem::{
        CreateRefusals, ListRefusals, ReadRefusals, RemoveRefusals, ReplaceRefusals,
        SublistRefusals,
    },
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
        .routes(routes!(list_groups, create_group))
        .routes(routes!(read_group, replace_group, delete_group))
        .routes(routes!(list_members))
        .routes(routes!(add_member, remove_member))
}

/// Lists groups, oldest first.
#[utoipa::path(get, path = "/v1/groups", tag = "groups",
    security(("api_token" = ["groups:read"])), params(ListQuery),
    responses((status = 200, description = "Found.", body = Page<Group>), ListRefusals))]
async fn list_groups(
    State(app): State<App>,
    _actor: ReadActor<Group>,
    Query(query): Query<ListQuery>,
) -> Result<Response, ApiError> {
    let (limit, after) = (query.limit()?, query.after()?);
    let mut snapshot = app.store.snapshot().await?;
    let name = query.name.as_deref();
    let groups = store::groups::list(&mut snapshot, name, after, limit + 1).await?;
    Ok(page(groups, limit, |group| group.id))
}

/// Creates a group.
#[utoipa::path(post, path = "/v1/groups", tag = "groups",
    security(("api_token" = ["groups:write"])), params(IdempotencyHeader),
    request_body = GroupWrite, responses((status = 201, description = "Created.", body = Group), CreateRefusals))]
async fn create_group(
    State(app): State<App>,
    actor: WriteActor<Group>,
    Json(write): Json<GroupWrite>,
) -> Result<Created, ApiError> {
    app::groups::create(&app, actor.into(), write).await
}

/// Reads a group.
#[utoipa::path(get, path = "/v1/groups/{id}", tag = "groups",
    security(("api_token" = ["groups:read"])), params(("id" = GroupId, Path)),
    responses((status = 200, description = "Found.", body = Group), ReadRefusals))]
async fn read_group(
    State(app): State<App>,
    _actor: ReadActor<Group>,
    Path(id): Path<GroupId>,
) -> Result<Versioned<Group>, ApiError> {
    let mut snapshot = app.store.snapshot().await?;
    store::groups::find(&mut snapshot, id).await?.ok_or_else(ApiError::not_found)
}

/// Replaces a group.
#[utoipa::path(put, path = "/v1/groups/{id}", tag = "groups",
    security(("api_token" = ["groups:write"])), params(("id" = GroupId, Path), IfMatchHeader), request_body = GroupWrite,
    responses((status = 200, description = "Found.", body = Group), ReplaceRefusals))]
async fn replace_group(
    State(app): State<App>,
    actor: WriteActor<Group>,
    Path(id): Path<GroupId>,
    if_match: IfMatch,
    Json(write): Json<GroupWrite>,
) -> Result<Versioned<Group>, ApiError> {
    app::groups::replace(&app, actor.into(), id, write, |version| if_match.check(version)).await
}

/// Deletes a group that no policy names.
#[utoipa::path(delete, path = "/v1/groups/{id}", tag = "groups",
    security(("api_token" = ["groups:write"])), params(("id" = GroupId, Path), IfMatchHeader), responses((status = 204, description = "It is gone."), RemoveRefusals))]
async fn delete_group(
    State(app): State<App>,
    actor: WriteActor<Group>,
    Path(id): Path<GroupId>,
    if_match: IfMatch,
) -> Result<StatusCode, ApiError> {
    app::groups::remove(&app, actor.into(), id, |version| if_match.check(version)).await?;
    Ok(StatusCode::NO_CONTENT)
}

/// Lists the members of a group, oldest user first.
#[utoipa::path(get, path = "/v1/groups/{id}/members", tag = "groups",
    security(("api_token" = ["groups:read"])), params(("id" = GroupId, Path), ListQuery),
    responses((status = 200, description = "Found.", body = Page<User>), SublistRefusals))]
async fn list_members(
    State(app): State<App>,
    _actor: ReadActor<Group>,
    Path(id): Path<GroupId>,
    Query(query): Query<ListQuery>,
) -> Result<Response, ApiError> {
    let (limit, after) = (query.limit()?, query.after()?);
    let mut snapshot = app.store.snapshot().await?;
    store::groups::find(&mut snapshot, id).await?.ok_or_else(ApiError::not_found)?;
    let name = query.name.as_deref();
    let users = store::groups::members(&mut snapshot, id, name, after, limit + 1).await?;
    Ok(page(users, limit, |user| user.id))
}

/// Puts a user into a group; nothing happens when the user is a member already.
#[utoipa::path(put, path = "/v1/groups/{id}/members/{user_id}", tag = "groups",
    security(("api_token" = ["groups:write"])), params(("id" = GroupId, Path), ("user_id" = UserId, Path)),
    responses((status = 204, description = "The user is a member."), RemoveRefusals))]
async fn add_member(
    State(app): State<App>,
    actor: WriteActor<Group>,
    Path((id, user_id)): Path<(GroupId, UserId)>,
) -> Result<StatusCode, ApiError> {
    app::groups::insert_member(&app, actor.into(), id, user_id).await?;
    Ok(StatusCode::NO_CONTENT)
}

/// Takes a user out of a group and cuts what only this group permitted.
#[utoipa::path(delete, path = "/v1/groups/{id}/members/{user_id}", tag = "groups",
    security(("api_token" = ["groups:write"])), params(("id" = GroupId, Path), ("user_id" = UserId, Path)),
    responses((status = 204, description = "The user is no member any more."), RemoveRefusals))]
async fn remove_member(
    State(app): State<App>,
    actor: WriteActor<Group>,
    Path((id, user_id)): Path<(GroupId, UserId)>,
) -> Result<StatusCode, ApiError> {
    app::groups::remove_member(&app, actor.into(), id, user_id).await?;
    Ok(StatusCode::NO_CONTENT)
}
