//! `/v1/enrollment-keys`

use adit_proto::{
    EnrollmentKeyId, UserId,
    api::{EnrollmentKey, EnrollmentKeyCreated, EnrollmentKeyWrite, Page},
};
use axum::{extract::State, http::StatusCode, response::Response};
use serde::Deserialize;
use utoipa::IntoParams;
use utoipa_axum::{router::OpenApiRouter, routes};

use super::{
    authentication::{ReadActor, WriteActor},
    problem::{CreateRefusals, ListRefusals, ReadRefusals, RemoveRefusals},
    request::{IdempotencyHeader, IfMatch, IfMatchHeader, Json, Path, Query, limit, read_cursor},
    response::page,
};
use crate::{
    app::{self, App},
    error::ApiError,
    store::{self, Created, Versioned},
};

pub(super) fn router() -> OpenApiRouter<App> {
    OpenApiRouter::new()
        .routes(routes!(list_enrollment_keys, create_enrollment_key))
        .routes(routes!(read_enrollment_key, delete_enrollment_key))
}

#[derive(Debug, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
struct EnrollmentKeyQuery {
    /// How many objects a page holds at most; 50 unless said.
    #[param(minimum = 1, maximum = 200)]
    limit: Option<u32>,
    /// `next_cursor` of the page before.
    #[param(min_length = 1, max_length = 200)]
    cursor: Option<String>,
    /// Only keys with exactly this name.
    name: Option<String>,
    /// Only keys of this user.
    user_id: Option<UserId>,
}

/// Lists enrolment keys, oldest first.
#[utoipa::path(get, path = "/v1/enrollment-keys", tag = "enrollment-keys",
    security(("api_token" = ["enrollment-keys:read"])), params(EnrollmentKeyQuery),
    responses((status = 200, description = "Found.", body = Page<EnrollmentKey>), ListRefusals))]
async fn list_enrollment_keys(
    State(app): State<App>,
    _actor: ReadActor<EnrollmentKey>,
    Query(query): Query<EnrollmentKeyQuery>,
) -> Result<Response, ApiError> {
    let limit = limit(query.limit)?;
    let after = query.cursor.as_deref().map(read_cursor).transpose()?;
    let (name, user_id) = (query.name.as_deref(), query.user_id);
    let mut snapshot = app.store.snapshot().await?;
    let keys = store::enrollment_keys::list(&mut snapshot, name, user_id, after, limit + 1).await?;
    Ok(page(keys, limit, |key| key.id))
}

/// Creates a key with which devices join. Only this answer holds it.
#[utoipa::path(post, path = "/v1/enrollment-keys", tag = "enrollment-keys",
    security(("api_token" = ["enrollment-keys:write"])), params(IdempotencyHeader), request_body = EnrollmentKeyWrite,
    responses(
        (status = 201, description = "Created.", body = EnrollmentKeyCreated),
        CreateRefusals,
    ))]
async fn create_enrollment_key(
    State(app): State<App>,
    actor: WriteActor<EnrollmentKey>,
    Json(write): Json<EnrollmentKeyWrite>,
) -> Result<Created, ApiError> {
    app::enrollment_keys::create(&app, actor.into(), write).await
}

/// Reads an enrolment key, without its secret.
#[utoipa::path(get, path = "/v1/enrollment-keys/{id}", tag = "enrollment-keys",
    security(("api_token" = ["enrollment-keys:read"])), params(("id" = EnrollmentKeyId, Path)),
    responses((status = 200, description = "Found.", body = EnrollmentKey), ReadRefusals))]
async fn read_enrollment_key(
    State(app): State<App>,
    _actor: ReadActor<EnrollmentKey>,
    Path(id): Path<EnrollmentKeyId>,
) -> Result<Versioned<EnrollmentKey>, ApiError> {
    let mut snapshot = app.store.snapshot().await?;
    store::enrollment_keys::find(&mut snapshot, id).await?.ok_or_else(ApiError::not_found)
}

/// Deletes an enrolment key, so that no device joins with it. Those that did stay.
#[utoipa::path(delete, path = "/v1/enrollment-keys/{id}", tag = "enrollment-keys",
    security(("api_token" = ["enrollment-keys:write"])), params(("id" = EnrollmentKeyId, Path), IfMatchHeader),
    responses((status = 204, description = "It is gone."), RemoveRefusals))]
async fn delete_enrollment_key(
    State(app): State<App>,
    actor: WriteActor<EnrollmentKey>,
    Path(id): Path<EnrollmentKeyId>,
    if_match: IfMatch,
) -> Result<StatusCode, ApiError> {
    app::enrollment_keys::remove(&app, actor.into(), id, |version| if_match.check(version)).await?;
    Ok(StatusCode::NO_CONTENT)
}
