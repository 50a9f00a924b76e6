//! The REST API: HTTP only, one file per resource.

use axum::{Router, middleware};
use utoipa::openapi::OpenApi;
use utoipa_axum::router::OpenApiRouter;

use crate::app::App;

mod authentication;
mod body;
mod problem;
mod request;
mod response;
mod users;

/// Every operation, with its description.
fn operations() -> OpenApiRouter<App> {
    OpenApiRouter::new().merge(users::router())
}

/// The service that answers requests.
pub(crate) fn router(app: App) -> Router {
    let (router, _openapi) = operations().split_for_parts();
    router
        .fallback(problem::no_such_path)
        .method_not_allowed_fallback(problem::no_such_method)
        .layer(middleware::from_fn(body::buffer))
        .with_state(app)
}

/// The description of the API.
pub(crate) fn openapi() -> OpenApi {
    operations().into_openapi()
}
