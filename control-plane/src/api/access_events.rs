//! `/v1/access-events`

use adit_proto::{AccessEvent, DeviceId, ResourceId, Timestamp, UserId, Verdict, api::Page};
use axum::{extract::State, response::Response};
use serde::Deserialize;
use utoipa::IntoParams;
use utoipa_axum::{router::OpenApiRouter, routes};

use super::{
    authentication::ReadActor,
    problem::ListRefusals,
    request::{Query, limit, read_cursor},
    response::page,
};
use crate::{
    app::App,
    error::ApiError,
    store::{
        self,
        access_events::{AccessEventCursor, AccessEventFilter},
    },
};

pub(super) fn router() -> OpenApiRouter<App> {
    OpenApiRouter::new().routes(routes!(list_access_events))
}

#[derive(Debug, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
struct AccessEventQuery {
    /// How many objects a page holds at most; 50 unless said.
    #[param(minimum = 1, maximum = 200)]
    limit: Option<u32>,
    /// `next_cursor` of the page before.
    #[param(min_length = 1, max_length = 200)]
    cursor: Option<String>,
    /// Only events of this device.
    device_id: Option<DeviceId>,
    /// Only events of this user's devices.
    user_id: Option<UserId>,
    /// Only events about this resource.
    resource_id: Option<ResourceId>,
    /// Only events with this verdict.
    #[param(inline)]
    verdict: Option<Verdict>,
    /// Only events at or after this time.
    since: Option<Timestamp>,
    /// Only events before this time.
    until: Option<Timestamp>,
}

/// Lists what was decided of flows, newest first. The newest million events are kept.
#[utoipa::path(get, path = "/v1/access-events", tag = "access-events",
    security(("api_token" = ["access-events:read"])), params(AccessEventQuery),
    responses((status = 200, description = "Found.", body = Page<AccessEvent>), ListRefusals))]
async fn list_access_events(
    State(app): State<App>,
    _actor: ReadActor<AccessEvent>,
    Query(query): Query<AccessEventQuery>,
) -> Result<Response, ApiError> {
    let limit = limit(query.limit)?;
    let after: Option<AccessEventCursor> = query.cursor.as_deref().map(read_cursor).transpose()?;
    let filter = AccessEventFilter {
        device_id: query.device_id,
        user_id: query.user_id,
        resource_id: query.resource_id,
        verdict: query.verdict,
        since: query.since,
        until: query.until,
    };
    let mut snapshot = app.store.snapshot().await?;
    let events = store::access_events::list(&mut snapshot, &filter, after, limit + 1).await?;
    Ok(page(events, limit, |event| AccessEventCursor { at: event.at, id: event.id }))
}
