//! One line of log and one count for each request, without what is secret.

use std::time::Instant;

use axum::{
    extract::{MatchedPath, Request, State},
    middleware::Next,
    response::Response,
};
use tracing::{Instrument as _, debug, debug_span};

use crate::app::App;

pub(super) async fn trace(State(app): State<App>, request: Request, next: Next) -> Response {
    let started = Instant::now();
    let method = request.method().clone();
    let route = request.extensions().get::<MatchedPath>().cloned();
    let span = debug_span!("request", %method, path = request.uri().path());
    let response = next.run(request).instrument(span.clone()).await;

    let elapsed = started.elapsed();
    let route = route.as_ref().map_or("", MatchedPath::as_str);
    app.metrics.count_request(&method, route, response.status(), elapsed);
    span.in_scope(|| debug!(status = response.status().as_u16(), ?elapsed, "Answered request"));
    response
}
