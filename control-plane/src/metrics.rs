//! Counters, in the text format of Prometheus.

use std::{
    collections::BTreeMap,
    fmt::Write as _,
    sync::{
        Mutex, PoisonError,
        atomic::{AtomicI64, Ordering},
    },
    time::Duration,
};

use axum::http::{Method, StatusCode};

use crate::app::App;

/// Upper bounds of the histogram of durations, in seconds.
const BOUNDS: [f64; 8] = [0.001, 0.005, 0.025, 0.1, 0.5, 1.0, 5.0, 30.0];

/// What is counted while the process runs.
#[derive(Debug, Default)]
pub(crate) struct Metrics {
    requests: Mutex<BTreeMap<Label, Durations>>,
    connections: AtomicI64,
}

/// Bounded: known methods, routes of the API, statuses that it gives.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
struct Label {
    method: &'static str,
    route: String,
    status: u16,
}

#[derive(Debug, Clone, Default)]
struct Durations {
    below: [u64; BOUNDS.len()],
    count: u64,
    sum: Duration,
}

/// Counts as an open connection until dropped.
#[derive(Debug)]
pub(crate) struct OpenConnection<'a>(&'a Metrics);

impl Drop for OpenConnection<'_> {
    fn drop(&mut self) {
        self.0.connections.fetch_sub(1, Ordering::Relaxed);
    }
}

impl Metrics {
    pub(crate) fn open_connection(&self) -> OpenConnection<'_> {
        self.connections.fetch_add(1, Ordering::Relaxed);
        OpenConnection(self)
    }

    /// `route` is the route's pattern, and empty when there is none.
    pub(crate) fn count_request(
        &self,
        method: &Method,
        route: &str,
        status: StatusCode,
        elapsed: Duration,
    ) {
        let label =
            Label { method: method_name(method), route: route.to_owned(), status: status.as_u16() };
        let mut requests = self.requests.lock().unwrap_or_else(PoisonError::into_inner);
        let durations = requests.entry(label).or_default();
        durations.count += 1;
        durations.sum += elapsed;
        for (below, bound) in durations.below.iter_mut().zip(BOUNDS) {
            *below += u64::from(elapsed.as_secs_f64() <= bound);
        }
    }

    /// All metrics as text.
    pub(crate) fn render(&self, app: &App) -> String {
        let mut text = String::new();
        let version = env!("CARGO_PKG_VERSION");
        gauge(&mut text, "adit_build_info", "The version that runs.");
        line(&mut text, "adit_build_info", &format!("version=\"{version}\""), 1);
        gauge(&mut text, "adit_uptime_seconds", "How long the process runs.");
        line(&mut text, "adit_uptime_seconds", "", app.started_at.elapsed().as_secs());
        gauge(&mut text, "adit_sequence", "The sequence of the last change.");
        line(&mut text, "adit_sequence", "", *app.store.changes().borrow());
        gauge(&mut text, "adit_connections", "Open connections of the API.");
        line(&mut text, "adit_connections", "", self.connections.load(Ordering::Relaxed));
        gauge(&mut text, "adit_store_writable", "Whether the last write succeeded.");
        line(&mut text, "adit_store_writable", "", u8::from(app.store.is_writable()));

        let name = "adit_http_request_duration_seconds";
        let _ = writeln!(text, "# HELP {name} How long requests took.\n# TYPE {name} histogram");
        let requests = self.requests.lock().unwrap_or_else(PoisonError::into_inner).clone();
        for (Label { method, route, status }, durations) in requests {
            let labels = format!("method=\"{method}\",route=\"{route}\",status=\"{status}\"");
            for (below, bound) in durations.below.iter().zip(BOUNDS) {
                let _ = writeln!(text, "{name}_bucket{{{labels},le=\"{bound}\"}} {below}");
            }
            let count = durations.count;
            let sum = durations.sum.as_secs_f64();
            let _ = writeln!(text, "{name}_bucket{{{labels},le=\"+Inf\"}} {count}");
            let _ = writeln!(text, "{name}_sum{{{labels}}} {sum}");
            let _ = writeln!(text, "{name}_count{{{labels}}} {count}");
        }
        text
    }
}

fn gauge(text: &mut String, name: &str, help: &str) {
    let _ = writeln!(text, "# HELP {name} {help}\n# TYPE {name} gauge");
}

fn line(text: &mut String, name: &str, labels: &str, value: impl std::fmt::Display) {
    let _ = match labels {
        "" => writeln!(text, "{name} {value}"),
        labels => writeln!(text, "{name}{{{labels}}} {value}"),
    };
}

/// A method that a stranger makes up must not become a label.
fn method_name(method: &Method) -> &'static str {
    match method.as_str() {
        "GET" => "GET",
        "HEAD" => "HEAD",
        "PUT" => "PUT",
        "POST" => "POST",
        "DELETE" => "DELETE",
        _ => "other",
    }
}
