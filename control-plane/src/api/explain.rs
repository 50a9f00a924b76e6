//! `/v1/policy/explain`

use adit_proto::api::{ExplainRequest, Explanation, Policy};
use axum::{extract::State, response::Response};
use utoipa_axum::{router::OpenApiRouter, routes};

use super::{authentication::ReadActor, problem::SimulateRefusals, request::Json, response::json};
use crate::{
    app::{self, App},
    error::ApiError,
};

pub(super) fn router() -> OpenApiRouter<App> {
    OpenApiRouter::new().routes(routes!(explain))
}

/// Says what would be decided of a flow, and by what. The connector decides by the same rules; what
/// is not known here, such as the device's outer address, is held against it.
#[utoipa::path(post, path = "/v1/policy/explain", tag = "policies",
    security(("api_token" = ["policies:read"])), request_body = ExplainRequest,
    responses((status = 200, description = "Explained.", body = Explanation), SimulateRefusals))]
async fn explain(
    State(app): State<App>,
    _actor: ReadActor<Policy>,
    Json(request): Json<ExplainRequest>,
) -> Result<Response, ApiError> {
    let explanation = app::evaluation::explain(&app, &request).await?;
    Ok(json(&explanation))
}
