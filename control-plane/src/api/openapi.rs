//! The description of the API: OpenAPI 3.1, made from the code, and `/v1/openapi.json`.

use std::collections::BTreeSet;

use adit_proto::api::Problem;
use axum::response::Response;
use serde_json::Value;
use utoipa::{
    PartialSchema as _, ToSchema,
    openapi::{
        InfoBuilder, OpenApi, PathItem, RefOr,
        path::Operation,
        security::{ApiKey, ApiKeyValue, HttpAuthScheme, HttpBuilder, SecurityScheme},
    },
};
use utoipa_axum::{router::OpenApiRouter, routes};

use super::{problem::PublicRefusals, response::json};
use crate::app::App;

/// The name of the scheme of people and programs.
const API_TOKEN: &str = "api_token";

/// The name of the scheme of devices and connectors.
const ASSERTION: &str = "assertion";

pub(super) fn router() -> OpenApiRouter<App> {
    OpenApiRouter::new().routes(routes!(read_openapi))
}

/// Describes this API.
#[utoipa::path(get, path = "/v1/openapi.json", tag = "health", security(()),
    responses((status = 200, description = "OpenAPI 3.1.", body = Object), PublicRefusals))]
async fn read_openapi() -> Response {
    json(&super::openapi())
}

/// Adds what no operation says by itself.
pub(super) fn complete(mut openapi: OpenApi) -> OpenApi {
    openapi.info = InfoBuilder::new()
        .title("Adit")
        .version(env!("CARGO_PKG_VERSION"))
        .description(Some(
            "The control plane of Adit. Every answer that is no success is a problem detail \
             (RFC 9457) with a stable `code`. Objects bear an `ETag`; send it as `If-Match` when \
             you change them. `RateLimit` (draft-ietf-httpapi-ratelimit-headers) says how many \
             requests may follow; 429 bears `Retry-After`.",
        ))
        .build();
    openapi.servers = None;

    let components = openapi.components.get_or_insert_default();
    let mut schemas = vec![(Problem::name().into_owned(), Problem::schema())];
    Problem::schemas(&mut schemas);
    components.schemas.extend(schemas);
    let bearer = HttpBuilder::new()
        .scheme(HttpAuthScheme::Bearer)
        .description(Some("An API token, `adit_pat_…`."))
        .build();
    components.add_security_scheme(API_TOKEN, SecurityScheme::Http(bearer));
    let assertion = ApiKeyValue::with_description(
        "Authorization",
        "`Adit <assertion>`: a token of one minute, bound to the request, signed by the key of the \
         device or connector.",
    );
    components.add_security_scheme(ASSERTION, SecurityScheme::ApiKey(ApiKey::Header(assertion)));

    for item in openapi.paths.paths.values_mut() {
        for operation in operations(item) {
            say_what_is_needed(operation);
        }
    }
    openapi
}

/// 403 names the scope.
fn say_what_is_needed(operation: &mut Operation) {
    let Some(scope) = needed_scope(operation) else { return };
    if let Some(RefOr::T(response)) = operation.responses.responses.get_mut("403") {
        response.description = format!("The API token has not the scope `{scope}`.");
    }
}

/// The scope that an API token must have.
fn needed_scope(operation: &Operation) -> Option<String> {
    let scopes = security(operation)?.get(API_TOKEN)?.clone();
    Some(scopes.get(0)?.as_str()?.to_owned())
}

/// The paths on which every operation asks for an assertion.
pub(super) fn signed_routes(mut openapi: OpenApi) -> BTreeSet<String> {
    let asks = |operation: &mut Operation| {
        security(operation).is_some_and(|security| security.get(ASSERTION).is_some())
    };
    let paths = openapi.paths.paths.iter_mut();
    paths.filter_map(|(path, item)| operations(item).all(asks).then(|| path.clone())).collect()
}

/// What an operation demands, by the name of the scheme.
fn security(operation: &Operation) -> Option<Value> {
    let mut requirements = serde_json::to_value(operation.security.as_ref()?).ok()?;
    requirements.get_mut(0).map(Value::take)
}

fn operations(item: &mut PathItem) -> impl Iterator<Item = &mut Operation> {
    [&mut item.get, &mut item.put, &mut item.post, &mut item.delete, &mut item.patch]
        .into_iter()
        .filter_map(Option::as_mut)
}
