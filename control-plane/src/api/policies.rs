//! `/v1/policies`

use adit_proto::{
    PolicyId,
    api::{Effect, Page, Policy, PolicyDryRun, PolicyWrite},
};
use axum::{extract::State, http::StatusCode, response::Response};
use serde::Deserialize;
use utoipa::IntoParams;
use utoipa_axum::{router::OpenApiRouter, routes};

use super::{
    authentication::{ReadActor, WriteActor},
    problem::{CreateRefusals, GuardedReplaceRefusals, ListRefusals, ReadRefusals, RemoveRefusals},
    request::{
        IdempotencyHeader, IfMatch, IfMatchHeader, IntentQuery, Json, Path, Query, limit,
        read_cursor,
    },
    response::page,
};
use crate::{
    app::{self, App, policies::Written},
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

/// A policy, or what writing it would bring.
#[derive(utoipa::ToSchema)]
#[serde(untagged)]
#[expect(dead_code, reason = "describes the two answers to a write")]
enum PolicyOrDryRun {
    Policy(Box<Policy>),
    DryRun(PolicyDryRun),
}

/// Creates a policy.
#[utoipa::path(post, path = "/v1/policies", tag = "policies",
    security(("api_token" = ["policies:write"])),
    params(IntentQuery, IdempotencyHeader), request_body = PolicyWrite,
    responses((status = 201, description = "Created.", body = Policy),
        (status = 200, description = "What a dry run has found.", body = PolicyDryRun),
        CreateRefusals))]
async fn create_policy(
    State(app): State<App>,
    actor: WriteActor<Policy>,
    Query(intent): Query<IntentQuery>,
    Json(write): Json<PolicyWrite>,
) -> Result<Written<Created>, ApiError> {
    app::policies::create(&app, actor.into(), write, intent.into()).await
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
    security(("api_token" = ["policies:write"])),
    params(("id" = PolicyId, Path), IntentQuery, IfMatchHeader), request_body = PolicyWrite,
    responses((status = 200, description = "Found.", body = PolicyOrDryRun),
        GuardedReplaceRefusals))]
async fn replace_policy(
    State(app): State<App>,
    actor: WriteActor<Policy>,
    Path(id): Path<PolicyId>,
    Query(intent): Query<IntentQuery>,
    if_match: IfMatch,
    Json(write): Json<PolicyWrite>,
) -> Result<Written<Versioned<Policy>>, ApiError> {
    let matches = |version| if_match.require(version);
    app::policies::replace(&app, actor.into(), id, write, intent.into(), matches).await
}

/// Deletes a policy; flows are decided anew at once.
#[utoipa::path(delete, path = "/v1/policies/{id}", tag = "policies",
    security(("api_token" = ["policies:write"])),
    params(("id" = PolicyId, Path), IntentQuery, IfMatchHeader),
    responses((status = 204, description = "It is gone."),
        (status = 200, description = "What a dry run has found.", body = PolicyDryRun),
        RemoveRefusals))]
async fn delete_policy(
    State(app): State<App>,
    actor: WriteActor<Policy>,
    Path(id): Path<PolicyId>,
    Query(intent): Query<IntentQuery>,
    if_match: IfMatch,
) -> Result<Written<StatusCode>, ApiError> {
    let matches = |version| if_match.check(version);
    let removed = app::policies::remove(&app, actor.into(), id, intent.into(), matches).await?;
    Ok(removed.map(|()| StatusCode::NO_CONTENT))
}
