//! `/v1/devices`

use adit_proto::{
    DeviceId, UserId,
    api::{Device, DeviceState, Page, WireguardDeviceWrite},
};
use axum::{
    extract::State,
    http::{HeaderValue, StatusCode, header},
    response::{IntoResponse as _, Response},
};
use serde::Deserialize;
use utoipa::IntoParams;
use utoipa_axum::{router::OpenApiRouter, routes};

use super::{
    authentication::{Approval, ReadActor, WriteActor},
    problem::{
        ActionRefusals, CreateRefusals, FileRefusals, ListRefusals, ReadRefusals, RemoveRefusals,
    },
    request::{IdempotencyHeader, IfMatch, IfMatchHeader, Json, Path, Query, limit, read_cursor},
    response::page,
};
use crate::{
    app::{self, App},
    error::ApiError,
    store::{self, Created, Versioned, devices::DeviceFilter},
};

pub(super) fn router() -> OpenApiRouter<App> {
    OpenApiRouter::new()
        .routes(routes!(list_devices, create_device))
        .routes(routes!(read_device, delete_device))
        .routes(routes!(approve_device))
        .routes(routes!(revoke_device))
        .routes(routes!(read_wireguard_config))
}

#[derive(Debug, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
struct DeviceQuery {
    /// How many objects a page holds at most; 50 unless said.
    #[param(minimum = 1, maximum = 200)]
    limit: Option<u32>,
    /// `next_cursor` of the page before.
    #[param(min_length = 1, max_length = 200)]
    cursor: Option<String>,
    /// Only devices with exactly this name.
    name: Option<String>,
    /// Only devices of this user.
    user_id: Option<UserId>,
    /// Only devices in this state.
    #[param(inline)]
    state: Option<DeviceState>,
}

/// Lists devices, oldest first.
#[utoipa::path(get, path = "/v1/devices", tag = "devices",
    security(("api_token" = ["devices:read"])), params(DeviceQuery),
    responses((status = 200, description = "Found.", body = Page<Device>), ListRefusals))]
async fn list_devices(
    State(app): State<App>,
    _actor: ReadActor<Device>,
    Query(query): Query<DeviceQuery>,
) -> Result<Response, ApiError> {
    let limit = limit(query.limit)?;
    let after = query.cursor.as_deref().map(read_cursor).transpose()?;
    let filter = DeviceFilter { name: query.name, user_id: query.user_id, state: query.state };
    let mut snapshot = app.store.snapshot().await?;
    let records = store::devices::list(&mut snapshot, &filter, after, limit + 1).await?;
    let devices = records.into_iter().map(|record| record.device).collect();
    Ok(page(devices, limit, |device: &Device| device.id))
}

/// Registers a plain WireGuard device: a router, a phone, whatever speaks WireGuard.
#[utoipa::path(post, path = "/v1/devices", tag = "devices",
    security(("api_token" = ["devices:write"])), params(IdempotencyHeader),
    request_body = WireguardDeviceWrite,
    responses((status = 201, description = "Created.", body = Device), CreateRefusals))]
async fn create_device(
    State(app): State<App>,
    actor: WriteActor<Device>,
    Json(write): Json<WireguardDeviceWrite>,
) -> Result<Created, ApiError> {
    app::devices::create(&app, actor.into(), write).await
}

/// Reads a device.
#[utoipa::path(get, path = "/v1/devices/{id}", tag = "devices",
    security(("api_token" = ["devices:read"])), params(("id" = DeviceId, Path)),
    responses((status = 200, description = "Found.", body = Device), ReadRefusals))]
async fn read_device(
    State(app): State<App>,
    _actor: ReadActor<Device>,
    Path(id): Path<DeviceId>,
) -> Result<Versioned<Device>, ApiError> {
    let mut snapshot = app.store.snapshot().await?;
    let record = store::devices::find(&mut snapshot, id).await?.ok_or_else(ApiError::not_found)?;
    Ok(Versioned { version: record.version, object: record.device })
}

/// Deletes a device and cuts what it does.
#[utoipa::path(delete, path = "/v1/devices/{id}", tag = "devices",
    security(("api_token" = ["devices:write"])), params(("id" = DeviceId, Path), IfMatchHeader),
    responses((status = 204, description = "It is gone."), RemoveRefusals))]
async fn delete_device(
    State(app): State<App>,
    actor: WriteActor<Device>,
    Path(id): Path<DeviceId>,
    if_match: IfMatch,
) -> Result<StatusCode, ApiError> {
    app::devices::remove(&app, actor.into(), id, |version| if_match.check(version)).await?;
    Ok(StatusCode::NO_CONTENT)
}

/// Lets a device connect that waits, or that was revoked.
#[utoipa::path(post, path = "/v1/devices/{id}/approve", tag = "devices",
    security(("api_token" = ["approvals:write"])), params(("id" = DeviceId, Path), IfMatchHeader),
    responses((status = 200, description = "Found.", body = Device), ActionRefusals))]
async fn approve_device(
    State(app): State<App>,
    actor: WriteActor<Approval>,
    Path(id): Path<DeviceId>,
    if_match: IfMatch,
) -> Result<Versioned<Device>, ApiError> {
    app::devices::approve(&app, actor.into(), id, |version| if_match.check(version)).await
}

/// Cuts what a device does and refuses it until it is approved anew.
#[utoipa::path(post, path = "/v1/devices/{id}/revoke", tag = "devices",
    security(("api_token" = ["approvals:write"])), params(("id" = DeviceId, Path), IfMatchHeader),
    responses((status = 200, description = "Found.", body = Device), ActionRefusals))]
async fn revoke_device(
    State(app): State<App>,
    actor: WriteActor<Approval>,
    Path(id): Path<DeviceId>,
    if_match: IfMatch,
) -> Result<Versioned<Device>, ApiError> {
    app::devices::revoke(&app, actor.into(), id, |version| if_match.check(version)).await
}

/// Reads the file that `wg-quick` takes. Its owner adds the private key.
#[utoipa::path(get, path = "/v1/devices/{id}/wireguard-config", tag = "devices",
    security(("api_token" = ["devices:read"])), params(("id" = DeviceId, Path)),
    responses(
        (status = 200, description = "Found.", body = String, content_type = "text/plain"),
        FileRefusals,
    ))]
async fn read_wireguard_config(
    State(app): State<App>,
    _actor: ReadActor<Device>,
    Path(id): Path<DeviceId>,
) -> Result<Response, ApiError> {
    let text = app::devices::configuration_file(&app, id).await?;
    let content_type = HeaderValue::from_static("text/plain; charset=utf-8");
    Ok(([(header::CONTENT_TYPE, content_type)], text).into_response())
}
