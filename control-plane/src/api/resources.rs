//! `/v1/resources`

use adit_proto::{
    ResourceId, SiteId,
    api::{Page, Resource, ResourceWrite},
};
use axum::{extract::State, http::StatusCode, response::Response};
use serde::Deserialize;
use utoipa::IntoParams;
use utoipa_axum::{router::OpenApiRouter, routes};

use super::{
    authentication::{ReadActor, WriteActor},
    problem::{CreateRefusals, GuardedReplaceRefusals, ListRefusals, ReadRefusals, RemoveRefusals},
    request::{IdempotencyHeader, IfMatch, IfMatchHeader, Json, Path, Query, limit, read_cursor},
    response::page,
};
use crate::{
    app::{self, App},
    error::ApiError,
    store::{self, Created, Versioned},
};

pub(super) fn router() -> OpenApiRouter<App> {
    OpenApiRouter::new().routes(routes!(list_resources, create_resource)).routes(routes!(
        read_resource,
        replace_resource,
        delete_resource
    ))
}

/// Parameters of the list of resources.
#[derive(Debug, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
struct ResourceQuery {
    /// How many objects a page holds at most; 50 unless said.
    #[param(minimum = 1, maximum = 200)]
    limit: Option<u32>,
    /// `next_cursor` of the page before.
    #[param(min_length = 1, max_length = 200)]
    cursor: Option<String>,
    /// Only objects with exactly this name.
    name: Option<String>,
    /// Only resources of this site.
    site_id: Option<SiteId>,
    /// Only resources that bear this tag.
    tag: Option<String>,
}

/// Lists resources, oldest first.
#[utoipa::path(get, path = "/v1/resources", tag = "resources",
    security(("api_token" = ["resources:read"])), params(ResourceQuery),
    responses((status = 200, description = "Found.", body = Page<Resource>), ListRefusals))]
async fn list_resources(
    State(app): State<App>,
    _actor: ReadActor<Resource>,
    Query(query): Query<ResourceQuery>,
) -> Result<Response, ApiError> {
    let limit = limit(query.limit)?;
    let after = query.cursor.as_deref().map(read_cursor).transpose()?;
    let mut snapshot = app.store.snapshot().await?;
    let filter =
        store::resources::Filter { name: query.name, site_id: query.site_id, tag: query.tag };
    let resources = store::resources::list(&mut snapshot, &filter, after, limit + 1).await?;
    Ok(page(resources, limit, |resource| resource.id))
}

/// Creates a resource.
#[utoipa::path(post, path = "/v1/resources", tag = "resources",
    security(("api_token" = ["resources:write"])), params(IdempotencyHeader),
    request_body = ResourceWrite, responses((status = 201, description = "Created.", body = Resource), CreateRefusals))]
async fn create_resource(
    State(app): State<App>,
    actor: WriteActor<Resource>,
    Json(write): Json<ResourceWrite>,
) -> Result<Created, ApiError> {
    app::resources::create(&app, actor.into(), write).await
}

/// Reads a resource.
#[utoipa::path(get, path = "/v1/resources/{id}", tag = "resources",
    security(("api_token" = ["resources:read"])), params(("id" = ResourceId, Path)),
    responses((status = 200, description = "Found.", body = Resource), ReadRefusals))]
async fn read_resource(
    State(app): State<App>,
    _actor: ReadActor<Resource>,
    Path(id): Path<ResourceId>,
) -> Result<Versioned<Resource>, ApiError> {
    let mut snapshot = app.store.snapshot().await?;
    store::resources::find(&mut snapshot, id).await?.ok_or_else(ApiError::not_found)
}

/// Replaces a resource; flows are decided anew at once.
#[utoipa::path(put, path = "/v1/resources/{id}", tag = "resources",
    security(("api_token" = ["resources:write"])), params(("id" = ResourceId, Path), IfMatchHeader), request_body = ResourceWrite,
    responses((status = 200, description = "Found.", body = Resource), GuardedReplaceRefusals))]
async fn replace_resource(
    State(app): State<App>,
    actor: WriteActor<Resource>,
    Path(id): Path<ResourceId>,
    if_match: IfMatch,
    Json(write): Json<ResourceWrite>,
) -> Result<Versioned<Resource>, ApiError> {
    app::resources::replace(&app, actor.into(), id, write, |version| if_match.require(version))
        .await
}

/// Deletes a resource that no policy names.
#[utoipa::path(delete, path = "/v1/resources/{id}", tag = "resources",
    security(("api_token" = ["resources:write"])), params(("id" = ResourceId, Path), IfMatchHeader), responses((status = 204, description = "It is gone."), RemoveRefusals))]
async fn delete_resource(
    State(app): State<App>,
    actor: WriteActor<Resource>,
    Path(id): Path<ResourceId>,
    if_match: IfMatch,
) -> Result<StatusCode, ApiError> {
    app::resources::remove(&app, actor.into(), id, |version| if_match.check(version)).await?;
    Ok(StatusCode::NO_CONTENT)
}
