//! `adit ping`.

use std::{net::IpAddr, path::Path, time::Duration};

use adit_proto::Protocol;
use anyhow::anyhow;
use clap::Args;
use serde::Serialize;
use tokio::time::{Instant, sleep_until};

use super::{CliError, Verdict, connection, explain::resolve, print, table::printable};
use crate::ipc::{Explanation, PathOnPing, Ping, PingOutcome, Request, Response, SCHEMA_VERSION};

#[derive(Debug, Args)]
pub(crate) struct Arguments {
    /// A name or an address of something behind the tunnel.
    #[arg(value_name = "HOST")]
    host: String,
    /// How many echoes are sent; 0: until Ctrl-C.
    #[arg(short, long, value_name = "N", default_value_t = 5)]
    count: u64,
    /// The time from one echo to the next.
    #[arg(
        long, value_name = "MS", default_value_t = 1000,
        value_parser = clap::value_parser!(u64).range(10..=3_600_000)
    )]
    interval_ms: u64,
    /// How long to wait for each answer.
    #[arg(
        long, value_name = "MS", default_value_t = 2000,
        value_parser = clap::value_parser!(u64).range(1..=20_000)
    )]
    timeout_ms: u64,
    /// Prints one JSON object a line, with `schema_version`; the last one sums up.
    #[arg(long)]
    json: bool,
}

pub(super) async fn run(arguments: Arguments, socket: &Path) -> Result<Verdict, CliError> {
    let mut addresses = resolve(&arguments.host).await.map_err(CliError::Local)?.into_iter();
    let mut destination = addresses
        .next()
        .ok_or_else(|| CliError::Local(anyhow!("{} has no address", arguments.host)))?;
    let mut statistics = Statistics::default();
    let mut path_before: Option<PathOnPing> = None;
    let interval = Duration::from_millis(arguments.interval_ms);
    let mut sequence: u16 = 0;
    let mut next = Instant::now();
    loop {
        let asked = ask(destination, sequence, arguments.timeout_ms, socket);
        let (ping, explanation) = tokio::select! {
            asked = asked => asked?,
            _ = tokio::signal::ctrl_c() => break,
        };
        if ping.outcome == PingOutcome::NotBehindTunnel
            && statistics.sent == 0
            && let Some(other) = addresses.next()
        {
            destination = other;
            continue;
        }
        let is_in_vain = ping.outcome == PingOutcome::NotBehindTunnel;
        statistics.count(&ping.outcome);
        let changed_from = path_before
            .take_if(|before| ping.path.as_ref().is_some_and(|path| !same(before, path)));
        if arguments.json {
            print_line(&Line {
                schema_version: SCHEMA_VERSION,
                kind: "ping",
                ping: &ping,
                path_before: changed_from.as_ref(),
                explanation: explanation.as_ref(),
            });
        } else {
            if let Some(before) = &changed_from {
                print(&format!("path changed: was {}\n", way(before)));
            }
            print(&to_text(&ping, explanation.as_ref()));
        }
        if ping.path.is_some() {
            path_before = ping.path;
        }
        if is_in_vain || statistics.sent == arguments.count {
            break;
        }
        sequence = sequence.wrapping_add(1);
        next = (next + interval).max(Instant::now());
        tokio::select! {
            () = sleep_until(next) => {}
            _ = tokio::signal::ctrl_c() => break,
        }
    }
    let summary = statistics.summary();
    if arguments.json {
        print_line(&summary);
    } else {
        print(&summary.to_text(&arguments.host));
    }
    Ok(if summary.received > 0 { Verdict::Yes } else { Verdict::No })
}

/// Sends an echo; if it is not answered, asks why.
async fn ask(
    destination: IpAddr,
    sequence: u16,
    timeout_ms: u64,
    socket: &Path,
) -> Result<(Ping, Option<Explanation>), CliError> {
    let request = Request::Ping { destination, sequence, timeout_ms };
    let takes = Duration::from_millis(timeout_ms);
    let answer = connection::ask(&request, socket, takes).await?;
    let Response::Ping(ping) = answer.response else {
        return Err(connection::unexpected());
    };
    let explanation = match ping.outcome {
        PingOutcome::Refused { .. } | PingOutcome::NoAnswer { .. } => {
            explain(destination, socket).await
        }
        PingOutcome::Answered { .. }
        | PingOutcome::NotBehindTunnel
        | PingOutcome::NoCarrier { .. }
        | PingOutcome::Unsendable { .. } => None,
    };
    Ok((*ping, explanation))
}

/// What policy says, if anyone can say.
async fn explain(destination: IpAddr, socket: &Path) -> Option<Explanation> {
    let request = Request::Explain { destination, port: 0, protocol: Protocol::Icmp };
    let answer = connection::ask(&request, socket, Duration::ZERO).await.ok()?;
    match answer.response {
        Response::Explanation(explanation) => Some(*explanation),
        Response::Done { .. }
        | Response::LoginBegun(_)
        | Response::Status(_)
        | Response::Resources { .. }
        | Response::Ping(_)
        | Response::Netcheck(_)
        | Response::Failure(_) => None,
    }
}

/// Whether packets go the same way.
fn same(one: &PathOnPing, other: &PathOnPing) -> bool {
    one.connector_id == other.connector_id
        && one.endpoint == other.endpoint
        && one.carrier == other.carrier
}

/// One echo, for programs.
#[derive(Serialize)]
struct Line<'a> {
    schema_version: u32,
    #[serde(rename = "type")]
    kind: &'static str,
    #[serde(flatten)]
    ping: &'a Ping,
    /// The path of the echo before, if it was another.
    path_before: Option<&'a PathOnPing>,
    /// What policy says of an echo that was not answered.
    explanation: Option<&'a Explanation>,
}

/// What came of all.
#[derive(Debug, Serialize)]
struct Summary {
    schema_version: u32,
    #[serde(rename = "type")]
    kind: &'static str,
    sent: u64,
    received: u64,
    min_ms: Option<f64>,
    median_ms: Option<f64>,
    max_ms: Option<f64>,
}

#[derive(Debug, Default)]
struct Statistics {
    sent: u64,
    received: u64,
    /// The last ones, which is all unless someone pings for days.
    round_trips_ms: Vec<f64>,
}

impl Statistics {
    fn count(&mut self, outcome: &PingOutcome) {
        const MAX_ROUND_TRIPS: usize = 1 << 16;

        self.sent += 1;
        if let PingOutcome::Answered { round_trip_ms } = outcome {
            self.received += 1;
            if self.round_trips_ms.len() == MAX_ROUND_TRIPS {
                self.round_trips_ms.remove(0);
            }
            self.round_trips_ms.push(*round_trip_ms);
        }
    }

    fn summary(&self) -> Summary {
        let mut sorted = self.round_trips_ms.clone();
        sorted.sort_by(f64::total_cmp);
        Summary {
            schema_version: SCHEMA_VERSION,
            kind: "summary",
            sent: self.sent,
            received: self.received,
            min_ms: sorted.first().copied(),
            median_ms: sorted.get(sorted.len() / 2).copied(),
            max_ms: sorted.last().copied(),
        }
    }
}

impl Summary {
    fn to_text(&self, host: &str) -> String {
        let Self { sent, received, .. } = self;
        let times = self.min_ms.zip(self.median_ms).zip(self.max_ms);
        let times = times.map(|((min, median), max)| {
            format!("; min/median/max {min:.1}/{median:.1}/{max:.1} ms")
        });
        let host = printable(host);
        format!("\n{host}: {sent} sent, {received} received{}\n", times.unwrap_or_default())
    }
}

fn print_line(line: &impl Serialize) {
    let mut text = serde_json::to_string(line).expect("lines are representable in JSON");
    text.push('\n');
    print(&text);
}

fn to_text(ping: &Ping, explanation: Option<&Explanation>) -> String {
    let destination = ping.destination;
    let by = ping.path.as_ref().map(|path| format!(" by {}", way(path))).unwrap_or_default();
    let mut text = match &ping.outcome {
        PingOutcome::Answered { round_trip_ms } => {
            let away = ping.path.as_ref().and_then(|path| path.connector_round_trip_ms);
            let away = away.map(|away| format!(" (connector {away:.1} ms away)"));
            let away = away.unwrap_or_default();
            format!("{destination}: {round_trip_ms:.1} ms{by}{away}\n")
        }
        PingOutcome::Refused { by: from, icmp } => {
            format!("{destination}: {icmp}, says {from}{by}\n")
        }
        PingOutcome::NoAnswer { waited_ms } => {
            format!("{destination}: no answer within {waited_ms} ms{by}\n")
        }
        PingOutcome::NotBehindTunnel => format!(
            "{destination}: not behind the tunnel: no site has it\n  next: adit resources (lists \
             what is)\n"
        ),
        PingOutcome::NoCarrier { problem } => {
            let site = ping.path.as_ref().map(|path| printable(&path.site_name));
            let site = site.unwrap_or_default();
            let problem = printable(problem);
            format!(
                "{destination}: no way to site {site}: {problem}\n  next: adit netcheck (finds \
                 out what is blocked)\n"
            )
        }
        PingOutcome::Unsendable { problem } => {
            format!("{destination}: not sent: {}\n", printable(problem))
        }
    };
    if let Some(explanation) = explanation {
        let Explanation { reason, remedy, .. } = explanation;
        if explanation.allowed {
            text.push_str("  allowed by policy; look at the destination itself\n");
        } else {
            text.push_str(&format!("  denied by policy: {reason}\n  next: {remedy}\n"));
        }
    }
    text
}

/// As `wireguard to office-1 at 198.51.100.7:443`.
fn way(path: &PathOnPing) -> String {
    let carrier = path.carrier.map_or("no carrier", |carrier| carrier.as_str());
    let connector = path.connector_name.as_deref().map_or("nobody".to_owned(), printable);
    let endpoint = path.endpoint.map(|endpoint| format!(" at {endpoint}")).unwrap_or_default();
    format!("{carrier} to {connector}{endpoint}")
}

#[cfg(test)]
mod tests {
    use adit_proto::Reason;

    use super::*;
    use crate::carrier::Carrier;

    fn path() -> PathOnPing {
        PathOnPing {
            site_id: "site_00000000000000000000000000000001".parse().unwrap(),
            site_name: "office".to_owned(),
            connector_id: None,
            connector_name: Some("office-1".to_owned()),
            endpoint: Some("198.51.100.7:443".parse().unwrap()),
            carrier: Some(Carrier::Wireguard),
            connector_round_trip_ms: Some(1.1),
        }
    }

    fn ping(outcome: PingOutcome) -> Ping {
        let destination = "10.9.0.2".parse().unwrap();
        Ping { destination, sequence: 0, outcome, path: Some(path()) }
    }

    #[test]
    fn an_answer_shows_its_path() {
        let text = to_text(&ping(PingOutcome::Answered { round_trip_ms: 1.84 }), None);
        assert_eq!(
            text,
            "10.9.0.2: 1.8 ms by wireguard to office-1 at 198.51.100.7:443 (connector 1.1 ms \
             away)\n"
        );
    }

    #[test]
    fn a_denial_says_reason_and_remedy() {
        let explanation = Explanation {
            destination: "10.9.0.2".parse().unwrap(),
            port: 0,
            protocol: Protocol::Icmp,
            allowed: false,
            reason: Reason::NoPolicyPermits,
            remedy: Reason::NoPolicyPermits.remedy().to_owned(),
            resource_id: None,
            resource_name: None,
            policy_id: None,
            policy_name: None,
            site_id: None,
            site_name: None,
            connector_id: None,
            connector_name: None,
        };
        let refused = PingOutcome::Refused {
            by: "10.9.0.2".parse().unwrap(),
            icmp: "administratively prohibited".to_owned(),
        };
        let text = to_text(&ping(refused), Some(&explanation));
        assert!(text.starts_with("10.9.0.2: administratively prohibited"), "{text}");
        assert!(text.contains("no-policy-permits"), "{text}");
        assert!(text.contains("next: No policy permits this"), "{text}");
    }

    #[test]
    fn another_carrier_is_another_path_and_another_round_trip_is_not() {
        let before = path();
        assert!(same(&before, &PathOnPing { connector_round_trip_ms: None, ..path() }));
        assert!(!same(&before, &PathOnPing { carrier: Some(Carrier::Http2), ..path() }));
        let elsewhere = Some("198.51.100.8:443".parse().unwrap());
        assert!(!same(&before, &PathOnPing { endpoint: elsewhere, ..path() }));
    }

    #[test]
    fn the_summary_counts_what_was_lost() {
        let mut statistics = Statistics::default();
        for round_trip_ms in [3.0, 1.0, 2.0] {
            statistics.count(&PingOutcome::Answered { round_trip_ms });
        }
        statistics.count(&PingOutcome::NoAnswer { waited_ms: 1000 });
        let text = statistics.summary().to_text("intranet");
        assert_eq!(text, "\nintranet: 4 sent, 3 received; min/median/max 1.0/2.0/3.0 ms\n");
        let none = Statistics::default().summary().to_text("intranet");
        assert_eq!(none, "\nintranet: 0 sent, 0 received\n");
    }

    #[test]
    fn a_line_of_json_has_its_outcome_beside_its_path() {
        let ping = ping(PingOutcome::Answered { round_trip_ms: 1.84 });
        let line = Line {
            schema_version: SCHEMA_VERSION,
            kind: "ping",
            ping: &ping,
            path_before: None,
            explanation: None,
        };
        let json = serde_json::to_value(&line).unwrap();
        assert_eq!(json["type"], "ping");
        assert_eq!(json["outcome"], "answered");
        assert_eq!(json["path"]["carrier"], "wireguard");
    }
}
