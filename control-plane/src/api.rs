//! The REST API: HTTP only, one file per resource.

#![expect(unused_qualifications, reason = "`utoipa::path` qualifies the types of parameters")]

use std::sync::Arc;

use axum::{Router, middleware};
use utoipa::openapi::OpenApi;
use utoipa_axum::router::OpenApiRouter;

use crate::app::App;

use rate_limit::Limited;
pub(crate) use rate_limit::PeerAddress;

mod access_events;
mod api_tokens;
mod assertion;
mod audit_events;
mod authentication;
mod body;
#[cfg(test)]
mod bundle_tests;
mod client;
mod conditional;
mod connector;
mod connector_tokens;
mod connectors;
#[cfg(test)]
mod contract_tests;
mod device_authorization;
mod devices;
mod enrollment_keys;
mod explain;
#[cfg(test)]
mod explain_tests;
mod groups;
mod health;
mod identity_providers;
#[cfg(test)]
mod joining_tests;
mod openapi;
mod organisation;
mod policies;
mod policy_history;
mod policy_set;
#[cfg(test)]
mod policy_set_tests;
mod policy_tests;
#[cfg(test)]
mod population_tests;
mod problem;
#[cfg(test)]
mod provider_sign_in_tests;
mod rate_limit;
mod request;
mod resources;
mod response;
#[cfg(test)]
mod rights_tests;
#[cfg(test)]
mod secrecy_tests;
mod sign_in_page;
#[cfg(test)]
mod sign_in_tests;
mod sign_ins;
mod sites;
mod stream;
mod trace;
mod user_sessions;
mod users;

/// Every operation, with its description.
fn operations() -> OpenApiRouter<App> {
    OpenApiRouter::new()
        .merge(organisation::router())
        .merge(users::router())
        .merge(groups::router())
        .merge(sites::router())
        .merge(resources::router())
        .merge(policies::router())
        .merge(policy_tests::router())
        .merge(policy_set::router())
        .merge(policy_history::router())
        .merge(api_tokens::router())
        .merge(audit_events::router())
        .merge(health::router())
        .merge(openapi::router())
        .merge(client::router())
        .merge(connector::router())
        .merge(devices::router())
        .merge(connectors::router())
        .merge(connector_tokens::router())
        .merge(enrollment_keys::router())
        .merge(access_events::router())
        .merge(explain::router())
        .merge(device_authorization::router())
        .merge(sign_ins::router())
        .merge(user_sessions::router())
        .merge(identity_providers::router())
}

/// The service that answers requests.
pub(crate) fn router(app: App) -> Router {
    let (router, openapi) = operations().split_for_parts();
    let signed_routes = Arc::new(openapi::signed_routes(openapi));
    let limited = Limited { app: app.clone(), signed_routes };
    router
        .merge(sign_in_page::router())
        .fallback(problem::no_such_path)
        .method_not_allowed_fallback(problem::no_such_method)
        .layer(middleware::from_fn(body::buffer))
        .layer(middleware::from_fn_with_state(limited, rate_limit::limit))
        .layer(middleware::from_fn_with_state(app.clone(), trace::trace))
        .with_state(app)
}

/// The description of the API.
pub(crate) fn openapi() -> OpenApi {
    openapi::complete(operations().into_openapi())
}
