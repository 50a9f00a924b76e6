//! `/v1/policy-set`

use adit_proto::api::{Policy, PolicySet, PolicySetChange};
use axum::extract::State;
use utoipa_axum::{router::OpenApiRouter, routes};

use super::{
    authentication::{ReadActor, WriteActor},
    problem::{GuardedReplaceRefusals, ReadRefusals},
    request::{IfMatch, IfMatchHeader, IntentQuery, Json, Query},
};
use crate::{
    app::{self, App, policies::Intent},
    error::ApiError,
    store::Versioned,
};

pub(super) fn router() -> OpenApiRouter<App> {
    OpenApiRouter::new().routes(routes!(read_policy_set, replace_policy_set))
}

/// Reads all policies and policy tests as one document. Its ETag is their version in the history.
#[utoipa::path(get, path = "/v1/policy-set", tag = "policies",
    security(("api_token" = ["policies:read"])),
    responses((status = 200, description = "Found.", body = PolicySet), ReadRefusals))]
async fn read_policy_set(
    State(app): State<App>,
    _actor: ReadActor<Policy>,
) -> Result<Versioned<PolicySet>, ApiError> {
    app::policy_set::read(&app).await
}

/// Makes all policies and policy tests those of a document, at once or not at all; flows are decided
/// anew at once. A dry run needs no If-Match.
#[utoipa::path(put, path = "/v1/policy-set", tag = "policies",
    security(("api_token" = ["policies:write"])),
    params(IntentQuery, IfMatchHeader), request_body = PolicySet,
    responses((status = 200, description = "What was done.", body = PolicySetChange),
        GuardedReplaceRefusals))]
async fn replace_policy_set(
    State(app): State<App>,
    actor: WriteActor<Policy>,
    Query(intent): Query<IntentQuery>,
    if_match: IfMatch,
    Json(set): Json<PolicySet>,
) -> Result<Versioned<PolicySetChange>, ApiError> {
    let intent: Intent = intent.into();
    let is_dry_run = intent.dry_run;
    let matches =
        |version| if is_dry_run { if_match.check(version) } else { if_match.require(version) };
    let change = app::policy_set::replace(&app, actor.into(), set, intent, matches).await?;
    Ok(versioned(change))
}

/// An answer whose ETag is that of the policy set.
pub(super) fn versioned(change: PolicySetChange) -> Versioned<PolicySetChange> {
    Versioned { version: change.version, object: change }
}
