//! `/v1/organisation`

use adit_proto::api::{Organisation, OrganisationWrite};
use axum::extract::State;
use utoipa_axum::{router::OpenApiRouter, routes};

use super::{
    authentication::{ReadActor, WriteActor},
    problem::{GuardedReplaceRefusals, ReadRefusals},
    request::{IfMatch, IfMatchHeader, Json},
};
use crate::{
    app::{self, App},
    error::ApiError,
    store::{self, Versioned},
};

pub(super) fn router() -> OpenApiRouter<App> {
    OpenApiRouter::new().routes(routes!(read_organisation, replace_organisation))
}

/// Reads the organisation.
#[utoipa::path(get, path = "/v1/organisation", tag = "organisation",
    security(("api_token" = ["organisation:read"])), responses((status = 200, description = "Found.", body = Organisation), ReadRefusals))]
async fn read_organisation(
    State(app): State<App>,
    _actor: ReadActor<Organisation>,
) -> Result<Versioned<Organisation>, ApiError> {
    let mut snapshot = app.store.snapshot().await?;
    Ok(store::organisation::read(&mut snapshot).await?)
}

/// Replaces what can be changed of the organisation.
#[utoipa::path(put, path = "/v1/organisation", tag = "organisation",
    security(("api_token" = ["organisation:write"])), params(IfMatchHeader),
    request_body = OrganisationWrite,
    responses((status = 200, description = "Found.", body = Organisation), GuardedReplaceRefusals))]
async fn replace_organisation(
    State(app): State<App>,
    actor: WriteActor<Organisation>,
    if_match: IfMatch,
    Json(write): Json<OrganisationWrite>,
) -> Result<Versioned<Organisation>, ApiError> {
    let matches = |version| if_match.require(version);
    app::organisation::replace(&app, actor.into(), write, matches).await
}
