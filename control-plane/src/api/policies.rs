//! `/v1/policies`

use adit_proto::{
    PolicyId,
    api::{Effect, Page, Policy, PolicyWrite},
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
    OpenApiRouter::new().routes(routes!(list_policies, create_policy)).routes(routes!(
        read_policy,
        replace_policy,
        delete_policy
    ))
}

/// Parameters of the list of policies.
#[derive(Debug, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
struct PolicyQuery {
    /// How many objects a page holds at most; 50 unless said.
    #[param(minimum = 1, maximum = 200)]
    limit: Option<u32>,
    /// `next_cursor` of the page before.
    #[param(min_length = 1, max_length = 200)]
    cursor: Option<String>,
    /// Only objects with exactly this name.
    name: Option<String>,
    /// Only policies with this effect.
    effect: Option<Effect>,
    /// Only policies that name this user, group, device or resource.
    object_id: Option<String>,
}

/// Lists policies, oldest first.
#[utoipa::path(get, path = "/v1/policies", tag = "policies",
    security(("api_token" = ["policies:read"])), params(PolicyQuery),
    responses((status = 200, description = "Found.", body = Page<Policy>), ListRefusals))]
async fn list_policies(
    State(app): State<App>,
    _actor: ReadActor<Policy>,
    Query(query): Query<PolicyQuery>,
) -> Result<Response, ApiError> {
    let limit = limit(query.limit)?;
    let after = query.cursor.as_deref().map(read_cursor).transpose()?;
    let mut snapshot = app.store.snapshot().await?;
    let filter = store::policies::Filter {
        name: query.name,
        effect: query.effect,
        object_id: query.object_id,
    };
    let policies = store::policies::list(&mut snapshot, &filter, after, limit + 1).await?;
    Ok(page(policies, limit, |policy| policy.id))
}

/// Creates a policy.
#[utoipa::path(post, path = "/v1/policies", tag = "policies",
    security(("api_token" = ["policies:write"])), params(IdempotencyHeader),
    request_body = PolicyWrite, responses((status = 201, description = "Created.", body = Policy), CreateRefusals))]
async fn create_policy(
    State(app): State<App>,
    actor: WriteActor<Policy>,
    Json(write): Json<PolicyWrite>,
) -> Result<Created, ApiError> {
    app::policies::create(&app, actor.into(), write).await
}

/// Reads a policy.
#[utoipa::path(get, path = "/v1/policies/{id}", tag = "policies",
    security(("api_token" = ["policies:read"])), params(("id" = PolicyId, Path)),
    responses((status = 200, description = "Found.", body = Policy), ReadRefusals))]
async fn read_policy(
    State(app): State<App>,
    _actor: ReadActor<Policy>,
    Path(id): Path<PolicyId>,
) -> Result<Versioned<Policy>, ApiError> {
    let mut snapshot = app.store.snapshot().await?;
    store::policies::find(&mut snapshot, id).await?.ok_or_else(ApiError::not_found)
}

/// Replaces a policy; flows are decided anew at once.
#[utoipa::path(put, path = "/v1/policies/{id}", tag = "policies",
    security(("api_token" = ["policies:write"])), params(("id" = PolicyId, Path), IfMatchHeader), request_body = PolicyWrite,
    responses((status = 200, description = "Found.", body = Policy), GuardedReplaceRefusals))]
async fn replace_policy(
    State(app): State<App>,
    actor: WriteActor<Policy>,
    Path(id): Path<PolicyId>,
    if_match: IfMatch,
    Json(write): Json<PolicyWrite>,
) -> Result<Versioned<Policy>, ApiError> {
    app::policies::replace(&app, actor.into(), id, write, |version| if_match.require(version)).await
}

/// Deletes a policy; flows are decided anew at once.
#[utoipa::path(delete, path = "/v1/policies/{id}", tag = "policies",
    security(("api_token" = ["policies:write"])), params(("id" = PolicyId, Path), IfMatchHeader), responses((status = 204, description = "It is gone."), RemoveRefusals))]
async fn delete_policy(
    State(app): State<App>,
    actor: WriteActor<Policy>,
    Path(id): Path<PolicyId>,
    if_match: IfMatch,
) -> Result<StatusCode, ApiError> {
    app::policies::remove(&app, actor.into(), id, |version| if_match.check(version)).await?;
    Ok(StatusCode::NO_CONTENT)
}
