//! `/v1/audit-events`

use adit_proto::api::{AuditEvent, Page, SignedToken};
use axum::{extract::State, response::Response};
use serde::Deserialize;
use utoipa::IntoParams;
use utoipa_axum::{router::OpenApiRouter, routes};

use super::{
    authentication::ReadActor,
    problem::{ListRefusals, ReadRefusals},
    request::{Query, limit, read_cursor},
    response::{json, page},
};
use crate::{
    app::{self, App},
    error::ApiError,
    store::audit,
};

pub(super) fn router() -> OpenApiRouter<App> {
    OpenApiRouter::new().routes(routes!(list_audit_events)).routes(routes!(read_audit_head))
}

/// Parameters of the audit log.
#[derive(Debug, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
struct AuditQuery {
    /// How many events a page holds at most; 50 unless said.
    #[param(minimum = 1, maximum = 200)]
    limit: Option<u32>,
    /// `next_cursor` of the page before.
    #[param(min_length = 1, max_length = 200)]
    cursor: Option<String>,
    /// Only changes by this API token, device or connector.
    actor: Option<String>,
    /// Only changes of this kind, such as `policy.create`.
    operation: Option<String>,
    /// Only changes of this object.
    object_id: Option<String>,
}

/// Lists changes, newest first.
///
/// `hash` is the SHA-256, base64url without padding, of the previous event's hash (nothing for the
/// first), a line feed, and the JSON array of sequence, at, actor, operation, object_id and object,
/// without white space and with members in alphabetical order.
#[utoipa::path(get, path = "/v1/audit-events", tag = "audit-events",
    security(("api_token" = ["audit-events:read"])), params(AuditQuery),
    responses((status = 200, description = "Found.", body = Page<AuditEvent>), ListRefusals))]
async fn list_audit_events(
    State(app): State<App>,
    _actor: ReadActor<AuditEvent>,
    Query(query): Query<AuditQuery>,
) -> Result<Response, ApiError> {
    let limit = limit(query.limit)?;
    let before = query.cursor.as_deref().map(read_cursor).transpose()?;
    let filter = audit::Filter {
        actor: query.actor,
        operation: query.operation,
        object_id: query.object_id,
    };
    let mut snapshot = app.store.snapshot().await?;
    let events = audit::list(&mut snapshot, &filter, before, limit + 1).await?;
    Ok(page(events, limit, |event| event.sequence))
}

/// Reads the signed head of the log: keep it elsewhere, and `adit-control audit verify --head` shows
/// whether the log was cut or rewritten since.
#[utoipa::path(get, path = "/v1/audit-events/head", tag = "audit-events",
    security(("api_token" = ["audit-events:read"])),
    responses((status = 200, description = "Found.", body = SignedToken), ReadRefusals))]
async fn read_audit_head(
    State(app): State<App>,
    _actor: ReadActor<AuditEvent>,
) -> Result<Response, ApiError> {
    let (_sequence, head) = app::audit::sign_head(&app).await?.ok_or_else(ApiError::not_found)?;
    Ok(json(&head))
}
