//! `/v1/sign-ins`

use std::time::SystemTime;

use adit_proto::{
    SignInId,
    api::{Page, SignIn, SignInApproval, SignInState},
};
use axum::{extract::State, response::Response};
use serde::Deserialize;
use utoipa::IntoParams;
use utoipa_axum::{router::OpenApiRouter, routes};

use super::{
    authentication::{Approval, ReadActor, WriteActor},
    problem::{DecideRefusals, ListRefusals, ReadRefusals, RemoveRefusals},
    request::{Json, Path, Query, limit, read_cursor},
    response::{json, page},
};
use crate::{
    app::{self, App},
    error::ApiError,
    store,
};

pub(super) fn router() -> OpenApiRouter<App> {
    OpenApiRouter::new()
        .routes(routes!(list_sign_ins))
        .routes(routes!(read_sign_in))
        .routes(routes!(approve_sign_in))
        .routes(routes!(deny_sign_in))
}

#[derive(Debug, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
struct SignInQuery {
    /// How many objects a page holds at most; 50 unless said.
    #[param(minimum = 1, maximum = 200)]
    limit: Option<u32>,
    /// `next_cursor` of the page before.
    #[param(min_length = 1, max_length = 200)]
    cursor: Option<String>,
    /// Only those in this state.
    #[param(inline)]
    state: Option<SignInState>,
}

/// Lists sign-ins that have not expired, oldest first.
#[utoipa::path(get, path = "/v1/sign-ins", tag = "sign-ins",
    security(("api_token" = ["approvals:read"])), params(SignInQuery),
    responses((status = 200, description = "Found.", body = Page<SignIn>), ListRefusals))]
async fn list_sign_ins(
    State(app): State<App>,
    _actor: ReadActor<Approval>,
    Query(query): Query<SignInQuery>,
) -> Result<Response, ApiError> {
    let limit = limit(query.limit)?;
    let after = query.cursor.as_deref().map(read_cursor).transpose()?;
    let now = SystemTime::now().into();
    let mut snapshot = app.store.snapshot().await?;
    let sign_ins = store::sign_ins::list(&mut snapshot, query.state, now, after, limit + 1).await?;
    Ok(page(sign_ins, limit, |sign_in| sign_in.id))
}

/// Reads a sign-in.
#[utoipa::path(get, path = "/v1/sign-ins/{id}", tag = "sign-ins",
    security(("api_token" = ["approvals:read"])),
    params(("id" = SignInId, Path)),
    responses((status = 200, description = "Found.", body = SignIn), ReadRefusals))]
async fn read_sign_in(
    State(app): State<App>,
    _actor: ReadActor<Approval>,
    Path(id): Path<SignInId>,
) -> Result<Response, ApiError> {
    let mut snapshot = app.store.snapshot().await?;
    let found = store::sign_ins::find(&mut snapshot, id).await?.ok_or_else(ApiError::not_found)?;
    Ok(json(&found.sign_in))
}

/// Signs a user in. Compare the code with the one that the device shows to its user.
#[utoipa::path(post, path = "/v1/sign-ins/{id}/approve", tag = "sign-ins",
    security(("api_token" = ["approvals:write"])),
    params(("id" = SignInId, Path)), request_body = SignInApproval,
    responses((status = 200, description = "Approved.", body = SignIn), DecideRefusals))]
async fn approve_sign_in(
    State(app): State<App>,
    actor: WriteActor<Approval>,
    Path(id): Path<SignInId>,
    Json(approval): Json<SignInApproval>,
) -> Result<Response, ApiError> {
    let sign_in = app::sign_ins::approve(&app, actor.into(), id, approval).await?;
    Ok(json(&sign_in))
}

/// Refuses a sign-in.
#[utoipa::path(post, path = "/v1/sign-ins/{id}/deny", tag = "sign-ins",
    security(("api_token" = ["approvals:write"])),
    params(("id" = SignInId, Path)),
    responses((status = 200, description = "Denied.", body = SignIn), RemoveRefusals))]
async fn deny_sign_in(
    State(app): State<App>,
    actor: WriteActor<Approval>,
    Path(id): Path<SignInId>,
) -> Result<Response, ApiError> {
    let sign_in = app::sign_ins::deny(&app, actor.into(), id).await?;
    Ok(json(&sign_in))
}
