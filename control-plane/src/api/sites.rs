//! `/v1/sites`

use adit_proto::{
    SiteId,
    api::{Page, Site, SiteWrite},
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
    OpenApiRouter::new().routes(routes!(list_sites, create_site)).routes(routes!(
        read_site,
        replace_site,
        delete_site
    ))
}

/// Lists sites, oldest first.
#[utoipa::path(get, path = "/v1/sites", tag = "sites",
    security(("api_token" = ["sites:read"])), params(ListQuery),
    responses((status = 200, description = "Found.", body = Page<Site>), ListRefusals))]
async fn list_sites(
    State(app): State<App>,
    _actor: ReadActor<Site>,
    Query(query): Query<ListQuery>,
) -> Result<Response, ApiError> {
    let (limit, after) = (query.limit()?, query.after()?);
    let mut snapshot = app.store.snapshot().await?;
    let name = query.name.as_deref();
    let sites = store::sites::list(&mut snapshot, name, after, limit + 1).await?;
    Ok(page(sites, limit, |site| site.id))
}

/// Creates a site.
#[utoipa::path(post, path = "/v1/sites", tag = "sites",
    security(("api_token" = ["sites:write"])), params(IdempotencyHeader),
    request_body = SiteWrite, responses((status = 201, description = "Created.", body = Site), CreateRefusals))]
async fn create_site(
    State(app): State<App>,
    actor: WriteActor<Site>,
    Json(write): Json<SiteWrite>,
) -> Result<Created, ApiError> {
    app::sites::create(&app, actor.into(), write).await
}

/// Reads a site.
#[utoipa::path(get, path = "/v1/sites/{id}", tag = "sites",
    security(("api_token" = ["sites:read"])), params(("id" = SiteId, Path)),
    responses((status = 200, description = "Found.", body = Site), ReadRefusals))]
async fn read_site(
    State(app): State<App>,
    _actor: ReadActor<Site>,
    Path(id): Path<SiteId>,
) -> Result<Versioned<Site>, ApiError> {
    let mut snapshot = app.store.snapshot().await?;
    store::sites::find(&mut snapshot, id).await?.ok_or_else(ApiError::not_found)
}

/// Replaces a site.
#[utoipa::path(put, path = "/v1/sites/{id}", tag = "sites",
    security(("api_token" = ["sites:write"])), params(("id" = SiteId, Path), IfMatchHeader), request_body = SiteWrite,
    responses((status = 200, description = "Found.", body = Site), ReplaceRefusals))]
async fn replace_site(
    State(app): State<App>,
    actor: WriteActor<Site>,
    Path(id): Path<SiteId>,
    if_match: IfMatch,
    Json(write): Json<SiteWrite>,
) -> Result<Versioned<Site>, ApiError> {
    app::sites::replace(&app, actor.into(), id, write, |version| if_match.check(version)).await
}

/// Deletes a site that has neither resources nor connectors, and its connector tokens.
#[utoipa::path(delete, path = "/v1/sites/{id}", tag = "sites",
    security(("api_token" = ["sites:write"])), params(("id" = SiteId, Path), IfMatchHeader), responses((status = 204, description = "It is gone."), RemoveRefusals))]
async fn delete_site(
    State(app): State<App>,
    actor: WriteActor<Site>,
    Path(id): Path<SiteId>,
    if_match: IfMatch,
) -> Result<StatusCode, ApiError> {
    app::sites::remove(&app, actor.into(), id, |version| if_match.check(version)).await?;
    Ok(StatusCode::NO_CONTENT)
}
