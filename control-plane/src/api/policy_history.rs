//! `/v1/policy-history`

use adit_proto::api::{Page, Policy, PolicySetChange, PolicyVersion, PolicyVersionContent};
use axum::{extract::State, response::Response};
use serde::Deserialize;
use utoipa::IntoParams;
use utoipa_axum::{router::OpenApiRouter, routes};

use super::{
    authentication::{ReadActor, WriteActor},
    policy_set::versioned,
    problem::{ActionRefusals, ListRefusals, ReadRefusals},
    request::{IfMatch, IfMatchHeader, IntentQuery, Path, Query, limit, read_cursor},
    response::{json, page},
};
use crate::{
    app::{self, App},
    error::ApiError,
    store::{self, Versioned},
};

pub(super) fn router() -> OpenApiRouter<App> {
    OpenApiRouter::new()
        .routes(routes!(list_policy_versions))
        .routes(routes!(read_policy_version))
        .routes(routes!(roll_back_policies))
}

/// Parameters of the list of versions.
#[derive(Debug, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
struct VersionQuery {
    /// How many versions a page holds at most; 50 unless said.
    #[param(minimum = 1, maximum = 200)]
    limit: Option<u32>,
    /// `next_cursor` of the page before.
    #[param(min_length = 1, max_length = 200)]
    cursor: Option<String>,
}

/// Lists the versions of the policy set, newest first. At least the last 1,000 are kept.
#[utoipa::path(get, path = "/v1/policy-history", tag = "policies",
    security(("api_token" = ["policies:read"])), params(VersionQuery),
    responses((status = 200, description = "Found.", body = Page<PolicyVersion>), ListRefusals))]
async fn list_policy_versions(
    State(app): State<App>,
    _actor: ReadActor<Policy>,
    Query(query): Query<VersionQuery>,
) -> Result<Response, ApiError> {
    let limit = limit(query.limit)?;
    let before = query.cursor.as_deref().map(read_cursor).transpose()?;
    let mut snapshot = app.store.snapshot().await?;
    let versions = store::policy_history::list(&mut snapshot, before, limit + 1).await?;
    Ok(page(versions, limit, |version| version.version))
}

/// Reads what the policy set was like at a version.
#[utoipa::path(get, path = "/v1/policy-history/{version}", tag = "policies",
    security(("api_token" = ["policies:read"])),
    params(("version" = u64, Path)),
    responses((status = 200, description = "Found.", body = PolicyVersionContent), ReadRefusals))]
async fn read_policy_version(
    State(app): State<App>,
    _actor: ReadActor<Policy>,
    Path(version): Path<u64>,
) -> Result<Response, ApiError> {
    Ok(json(&app::policy_set::read_version(&app, version).await?))
}

/// Makes all policies and policy tests those of a version, as a version of its own; flows are
/// decided anew at once. If-Match stands for the ETag of the policy set.
#[utoipa::path(post, path = "/v1/policy-history/{version}/rollback", tag = "policies",
    security(("api_token" = ["policies:write"])),
    params(("version" = u64, Path), IntentQuery, IfMatchHeader),
    responses((status = 200, description = "What was done.", body = PolicySetChange),
        ActionRefusals))]
async fn roll_back_policies(
    State(app): State<App>,
    actor: WriteActor<Policy>,
    Path(version): Path<u64>,
    Query(intent): Query<IntentQuery>,
    if_match: IfMatch,
) -> Result<Versioned<PolicySetChange>, ApiError> {
    let matches = |version| if_match.check(version);
    let intent = intent.into();
    let change = app::policy_set::roll_back(&app, actor.into(), version, intent, matches).await?;
    Ok(versioned(change))
}
