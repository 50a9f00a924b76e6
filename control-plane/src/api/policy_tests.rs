//! `/v1/policy-tests`

use adit_proto::{
    PolicyTestId,
    api::{Page, Policy, PolicyTest, PolicyTestRun, PolicyTestWrite},
};
use axum::{extract::State, http::StatusCode, response::Response};
use utoipa_axum::{router::OpenApiRouter, routes};

use super::{
    authentication::{ReadActor, WriteActor},
    problem::{CreateRefusals, GuardedReplaceRefusals, ListRefusals, ReadRefusals, RemoveRefusals},
    request::{
        IdempotencyHeader, IfMatch, IfMatchHeader, Json, ListQuery, Path, Query, ReasonQuery,
    },
    response::{json, page},
};
use crate::{
    app::{self, App},
    error::ApiError,
    store::{self, Created, Versioned},
};

pub(super) fn router() -> OpenApiRouter<App> {
    OpenApiRouter::new()
        .routes(routes!(list_policy_tests, create_policy_test))
        .routes(routes!(read_policy_test, replace_policy_test, delete_policy_test))
        .routes(routes!(run_policy_tests))
}

/// Lists policy tests, oldest first.
#[utoipa::path(get, path = "/v1/policy-tests", tag = "policies",
    security(("api_token" = ["policies:read"])), params(ListQuery),
    responses((status = 200, description = "Found.", body = Page<PolicyTest>), ListRefusals))]
async fn list_policy_tests(
    State(app): State<App>,
    _actor: ReadActor<Policy>,
    Query(query): Query<ListQuery>,
) -> Result<Response, ApiError> {
    let (limit, after) = (query.limit()?, query.after()?);
    let mut snapshot = app.store.snapshot().await?;
    let name = query.name.as_deref();
    let tests = store::policy_tests::list(&mut snapshot, name, after, limit + 1).await?;
    Ok(page(tests, limit, |test| test.id))
}

/// Creates a policy test, which must hold.
#[utoipa::path(post, path = "/v1/policy-tests", tag = "policies",
    security(("api_token" = ["policies:write"])),
    params(ReasonQuery, IdempotencyHeader), request_body = PolicyTestWrite,
    responses((status = 201, description = "Created.", body = PolicyTest), CreateRefusals))]
async fn create_policy_test(
    State(app): State<App>,
    actor: WriteActor<Policy>,
    Query(query): Query<ReasonQuery>,
    Json(write): Json<PolicyTestWrite>,
) -> Result<Created, ApiError> {
    app::policy_tests::create(&app, actor.into(), write, query.reason.as_deref()).await
}

/// Reads a policy test.
#[utoipa::path(get, path = "/v1/policy-tests/{id}", tag = "policies",
    security(("api_token" = ["policies:read"])),
    params(("id" = PolicyTestId, Path)),
    responses((status = 200, description = "Found.", body = PolicyTest), ReadRefusals))]
async fn read_policy_test(
    State(app): State<App>,
    _actor: ReadActor<Policy>,
    Path(id): Path<PolicyTestId>,
) -> Result<Versioned<PolicyTest>, ApiError> {
    let mut snapshot = app.store.snapshot().await?;
    store::policy_tests::find(&mut snapshot, id).await?.ok_or_else(ApiError::not_found)
}

/// Replaces a policy test by one that must hold.
#[utoipa::path(put, path = "/v1/policy-tests/{id}", tag = "policies",
    security(("api_token" = ["policies:write"])),
    params(("id" = PolicyTestId, Path), ReasonQuery, IfMatchHeader), request_body = PolicyTestWrite,
    responses((status = 200, description = "Found.", body = PolicyTest), GuardedReplaceRefusals))]
async fn replace_policy_test(
    State(app): State<App>,
    actor: WriteActor<Policy>,
    Path(id): Path<PolicyTestId>,
    Query(query): Query<ReasonQuery>,
    if_match: IfMatch,
    Json(write): Json<PolicyTestWrite>,
) -> Result<Versioned<PolicyTest>, ApiError> {
    let (reason, matches) = (query.reason.as_deref(), |version| if_match.require(version));
    app::policy_tests::replace(&app, actor.into(), id, write, reason, matches).await
}

/// Deletes a policy test.
#[utoipa::path(delete, path = "/v1/policy-tests/{id}", tag = "policies",
    security(("api_token" = ["policies:write"])),
    params(("id" = PolicyTestId, Path), ReasonQuery, IfMatchHeader),
    responses((status = 204, description = "It is gone."), RemoveRefusals))]
async fn delete_policy_test(
    State(app): State<App>,
    actor: WriteActor<Policy>,
    Path(id): Path<PolicyTestId>,
    Query(query): Query<ReasonQuery>,
    if_match: IfMatch,
) -> Result<StatusCode, ApiError> {
    let (reason, matches) = (query.reason.as_deref(), |version| if_match.check(version));
    app::policy_tests::remove(&app, actor.into(), id, reason, matches).await?;
    Ok(StatusCode::NO_CONTENT)
}

/// Runs every policy test against the policies of this moment.
#[utoipa::path(post, path = "/v1/policy-tests/run", tag = "policies",
    security(("api_token" = ["policies:read"])),
    responses((status = 200, description = "They were run.", body = PolicyTestRun), ReadRefusals))]
async fn run_policy_tests(
    State(app): State<App>,
    _actor: ReadActor<Policy>,
) -> Result<Response, ApiError> {
    Ok(json(&app::policy_tests::run(&app).await?))
}
