//! `/v1/connectors`

use adit_proto::{
    ConnectorId, SiteId,
    api::{Connector, ConnectorWrite, Page},
};
use axum::{extract::State, http::StatusCode, response::Response};
use serde::Deserialize;
use utoipa::IntoParams;
use utoipa_axum::{router::OpenApiRouter, routes};

use super::{
    authentication::{ReadActor, WriteActor},
    problem::{ListRefusals, ReadRefusals, RemoveRefusals, ReplaceRefusals},
    request::{IfMatch, IfMatchHeader, Json, Path, Query, limit, read_cursor},
    response::page,
};
use crate::{
    app::{self, App, connectors::with_presence},
    error::ApiError,
    store::{self, Versioned},
};

pub(super) fn router() -> OpenApiRouter<App> {
    OpenApiRouter::new().routes(routes!(list_connectors)).routes(routes!(
        read_connector,
        replace_connector,
        delete_connector
    ))
}

#[derive(Debug, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
struct ConnectorQuery {
    /// How many objects a page holds at most; 50 unless said.
    #[param(minimum = 1, maximum = 200)]
    limit: Option<u32>,
    /// `next_cursor` of the page before.
    #[param(min_length = 1, max_length = 200)]
    cursor: Option<String>,
    /// Only connectors with exactly this name.
    name: Option<String>,
    /// Only connectors of this site.
    site_id: Option<SiteId>,
}

/// Lists connectors, oldest first.
#[utoipa::path(get, path = "/v1/connectors", tag = "connectors",
    security(("api_token" = ["connectors:read"])), params(ConnectorQuery),
    responses((status = 200, description = "Found.", body = Page<Connector>), ListRefusals))]
async fn list_connectors(
    State(app): State<App>,
    _actor: ReadActor<Connector>,
    Query(query): Query<ConnectorQuery>,
) -> Result<Response, ApiError> {
    let limit = limit(query.limit)?;
    let after = query.cursor.as_deref().map(read_cursor).transpose()?;
    let (name, site_id) = (query.name.as_deref(), query.site_id);
    let mut snapshot = app.store.snapshot().await?;
    let records = store::connectors::list(&mut snapshot, name, site_id, after, limit + 1).await?;
    let connectors = records.into_iter().map(|record| with_presence(&app, record).object).collect();
    Ok(page(connectors, limit, |connector: &Connector| connector.id))
}

/// Reads a connector.
#[utoipa::path(get, path = "/v1/connectors/{id}", tag = "connectors",
    security(("api_token" = ["connectors:read"])), params(("id" = ConnectorId, Path)),
    responses((status = 200, description = "Found.", body = Connector), ReadRefusals))]
async fn read_connector(
    State(app): State<App>,
    _actor: ReadActor<Connector>,
    Path(id): Path<ConnectorId>,
) -> Result<Versioned<Connector>, ApiError> {
    let mut snapshot = app.store.snapshot().await?;
    let record =
        store::connectors::find(&mut snapshot, id).await?.ok_or_else(ApiError::not_found)?;
    Ok(with_presence(&app, record))
}

/// Replaces a connector's name and endpoints.
#[utoipa::path(put, path = "/v1/connectors/{id}", tag = "connectors",
    security(("api_token" = ["connectors:write"])), params(("id" = ConnectorId, Path), IfMatchHeader), request_body = ConnectorWrite,
    responses((status = 200, description = "Found.", body = Connector), ReplaceRefusals))]
async fn replace_connector(
    State(app): State<App>,
    actor: WriteActor<Connector>,
    Path(id): Path<ConnectorId>,
    if_match: IfMatch,
    Json(write): Json<ConnectorWrite>,
) -> Result<Versioned<Connector>, ApiError> {
    app::connectors::replace(&app, actor.into(), id, write, |version| if_match.check(version)).await
}

/// Deletes a connector and shuts it out.
#[utoipa::path(delete, path = "/v1/connectors/{id}", tag = "connectors",
    security(("api_token" = ["connectors:write"])), params(("id" = ConnectorId, Path), IfMatchHeader),
    responses((status = 204, description = "It is gone."), RemoveRefusals))]
async fn delete_connector(
    State(app): State<App>,
    actor: WriteActor<Connector>,
    Path(id): Path<ConnectorId>,
    if_match: IfMatch,
) -> Result<StatusCode, ApiError> {
    app::connectors::remove(&app, actor.into(), id, |version| if_match.check(version)).await?;
    Ok(StatusCode::NO_CONTENT)
}
