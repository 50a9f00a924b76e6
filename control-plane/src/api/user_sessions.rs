//! `/v1/sessions`

use adit_proto::{
    DeviceId, UserId, UserSessionId,
    api::{Page, UserSession},
};
use axum::{extract::State, response::Response};
use serde::Deserialize;
use utoipa::IntoParams;
use utoipa_axum::{router::OpenApiRouter, routes};

use super::{
    authentication::{ReadActor, WriteActor},
    problem::{ActionRefusals, ListRefusals, ReadRefusals},
    request::{IfMatch, IfMatchHeader, Path, Query, limit, read_cursor},
    response::page,
};
use crate::{
    app::{self, App},
    error::ApiError,
    store::{self, Versioned, user_sessions::UserSessionFilter},
};

pub(super) fn router() -> OpenApiRouter<App> {
    OpenApiRouter::new()
        .routes(routes!(list_sessions))
        .routes(routes!(read_session))
        .routes(routes!(end_session))
}

#[derive(Debug, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
struct SessionQuery {
    /// How many objects a page holds at most; 50 unless said.
    #[param(minimum = 1, maximum = 200)]
    limit: Option<u32>,
    /// `next_cursor` of the page before.
    #[param(min_length = 1, max_length = 200)]
    cursor: Option<String>,
    /// Only sessions of this user.
    user_id: Option<UserId>,
    /// Only the session on this device.
    device_id: Option<DeviceId>,
}

/// Lists the latest session of each device that someone signed in on, oldest first.
#[utoipa::path(get, path = "/v1/sessions", tag = "sessions",
    security(("api_token" = ["sessions:read"])), params(SessionQuery),
    responses((status = 200, description = "Found.", body = Page<UserSession>), ListRefusals))]
async fn list_sessions(
    State(app): State<App>,
    _actor: ReadActor<UserSession>,
    Query(query): Query<SessionQuery>,
) -> Result<Response, ApiError> {
    let limit = limit(query.limit)?;
    let after = query.cursor.as_deref().map(read_cursor).transpose()?;
    let filter = UserSessionFilter { user_id: query.user_id, device_id: query.device_id };
    let mut snapshot = app.store.snapshot().await?;
    let sessions = store::user_sessions::list(&mut snapshot, filter, after, limit + 1).await?;
    Ok(page(sessions, limit, |session| session.id))
}

/// Reads a session.
#[utoipa::path(get, path = "/v1/sessions/{id}", tag = "sessions",
    security(("api_token" = ["sessions:read"])),
    params(("id" = UserSessionId, Path)),
    responses((status = 200, description = "Found.", body = UserSession), ReadRefusals))]
async fn read_session(
    State(app): State<App>,
    _actor: ReadActor<UserSession>,
    Path(id): Path<UserSessionId>,
) -> Result<Versioned<UserSession>, ApiError> {
    let mut snapshot = app.store.snapshot().await?;
    store::user_sessions::find(&mut snapshot, id).await?.ok_or_else(ApiError::not_found)
}

/// Ends a session and cuts what its device does, until its user signs in again.
#[utoipa::path(post, path = "/v1/sessions/{id}/end", tag = "sessions",
    security(("api_token" = ["sessions:write"])),
    params(("id" = UserSessionId, Path), IfMatchHeader),
    responses((status = 200, description = "It has ended.", body = UserSession), ActionRefusals))]
async fn end_session(
    State(app): State<App>,
    actor: WriteActor<UserSession>,
    Path(id): Path<UserSessionId>,
    if_match: IfMatch,
) -> Result<Versioned<UserSession>, ApiError> {
    app::user_sessions::end(&app, actor.into(), id, |version| if_match.check(version)).await
}
