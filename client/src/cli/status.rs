//! `adit status`.

use std::{path::Path, time::Duration, time::SystemTime};

use adit_proto::{Timestamp, Verdict as FlowVerdict};
use clap::Args;

use super::{
    CliError, Format, Verdict, connection, print, print_json,
    table::{Table, printable},
};
use crate::ipc::{
    DenialOnStatus, Request, Response, SessionOnStatus, StandbyOnStatus, StateName, Status,
};

/// As many denials as fit on a screen; `--json` shows all that are remembered.
const SHOWN_DENIALS: usize = 5;

#[derive(Debug, Args)]
pub(crate) struct Arguments {
    #[command(flatten)]
    format: Format,
    /// Exits with 0 only if connected.
    #[arg(long)]
    check: bool,
}

pub(super) async fn run(arguments: Arguments, socket: &Path) -> Result<Verdict, CliError> {
    let answer = connection::ask(&Request::Status, socket, Duration::ZERO).await?;
    let Response::Status(status) = &answer.response else {
        return Err(connection::unexpected());
    };
    if arguments.format.json {
        print_json(&answer);
    } else {
        print(&to_text(status, SystemTime::now().into()));
    }
    if arguments.check && status.state != StateName::Connected {
        return Ok(Verdict::No);
    }
    Ok(Verdict::Yes)
}

fn to_text(status: &Status, now: Timestamp) -> String {
    let mut text = String::new();
    let mut line = |name: &str, value: &str| {
        text.push_str(&format!("{name:<14} {value}\n"));
    };

    let state = format!("{} since {}", status.state.as_str(), ago(status.since, now));
    line("State", &state);
    if let Some(problem) = &status.problem {
        line("Problem", &printable(&problem.message));
        line("Next", &printable(&problem.next));
    }
    if let Some(organisation) = &status.organisation {
        line("Organisation", &printable(organisation));
    }
    if let Some(user) = &status.user {
        line("User", &printable(user));
    }
    match &status.device {
        Some(device) => {
            let name = device.name.as_deref().unwrap_or("(name not known yet)");
            line("Device", &format!("{} ({})", printable(name), device.id));
        }
        None => {
            line("Device", "not enrolled; next: adit login URL, or adit enroll --key-file FILE")
        }
    }
    if !status.addresses.is_empty() {
        let addresses: Vec<String> = status.addresses.iter().map(ToString::to_string).collect();
        let interface = status.interface.as_deref().map(|name| format!(" on {name}"));
        line("Addresses", &format!("{}{}", addresses.join(", "), interface.unwrap_or_default()));
    }
    if let Some(expires_at) = status.credential_expires_at {
        line("Credential", &expiry(expires_at, now));
    }
    if let Some(ends_at) = status.session_ends_at {
        line("Signed in", &expiry(ends_at, now));
    }
    if let Some(control_plane) = &status.control_plane {
        let since = control_plane.since.map(|since| ago(since, now)).unwrap_or_default();
        let reachable = match control_plane.reachable {
            None => "not asked yet".to_owned(),
            Some(true) => format!("reachable since {since}"),
            Some(false) => {
                let error = control_plane.error.as_deref().unwrap_or("no answer");
                format!("not reachable since {since}: {}", printable(error))
            }
        };
        line("Control plane", &format!("{}, {reachable}", control_plane.url));
    }
    for warning in &status.warnings {
        line("Warning", &printable(warning));
    }

    if !status.sessions.is_empty() {
        text.push_str("\nSessions\n");
        text.push_str(&sessions(&status.sessions, now));
    }
    if !status.recent_denials.is_empty() {
        text.push_str("\nRecent denials\n");
        for denial in status.recent_denials.iter().take(SHOWN_DENIALS) {
            text.push_str(&denial_text(denial, now));
        }
    }
    text
}

fn sessions(sessions: &[SessionOnStatus], now: Timestamp) -> String {
    let mut table = Table::new(&[
        "SITE",
        "CONNECTOR",
        "STATE",
        "CARRIER",
        "ENDPOINT",
        "RTT",
        "SINCE",
        "HANDSHAKE",
        "RECEIVED",
        "SENT",
    ]);
    let mut notes = String::new();
    for session in sessions {
        let or_dash = |text: Option<String>| text.unwrap_or_else(|| "-".to_owned());
        table.push(vec![
            printable(&session.site_name),
            or_dash(session.connector_name.as_deref().map(printable)),
            session.state.as_str().to_owned(),
            or_dash(session.carrier.map(|carrier| carrier.to_string())),
            or_dash(session.endpoint.map(|endpoint| endpoint.to_string())),
            or_dash(session.round_trip_ms.map(round_trip)),
            or_dash(session.since.map(|since| ago(since, now))),
            or_dash(session.last_handshake.map(|at| ago(at, now))),
            bytes(session.bytes_received),
            bytes(session.bytes_sent),
        ]);
        if let Some(standby) = &session.standby {
            notes.push_str(&format!("  {}\n", standby_text(standby)));
        }
        if let Some(key_exchange) = &session.key_exchange {
            notes.push_str(&format!("  keys: {}\n", printable(key_exchange)));
        }
        if let Some(problem) = &session.problem {
            let site = printable(&session.site_name);
            notes.push_str(&format!("  {site}: {}\n", printable(problem)));
        }
    }
    table.to_text("  ") + &notes
}

fn standby_text(standby: &StandbyOnStatus) -> String {
    let name = printable(&standby.connector_name);
    let carrier = standby.carrier.map(|carrier| format!(" by {carrier}"));
    let carrier = carrier.unwrap_or_else(|| ", no carrier yet".to_owned());
    let away = standby.round_trip_ms.map(|it| format!(", {} away", round_trip(it)));
    format!("standby: {name}{carrier} at {}{}", standby.endpoint, away.unwrap_or_default())
}

fn round_trip(millis: f64) -> String {
    if millis < 10.0 { format!("{millis:.1} ms") } else { format!("{millis:.0} ms") }
}

fn denial_text(denial: &DenialOnStatus, now: Timestamp) -> String {
    let flow = &denial.flow;
    let verb = match denial.verdict {
        FlowVerdict::Cut => "cut",
        FlowVerdict::Deny | FlowVerdict::Allow | FlowVerdict::Closed => "denied",
    };
    let destination = match flow.protocol {
        adit_proto::Protocol::Icmp => flow.destination.to_string(),
        adit_proto::Protocol::Tcp | adit_proto::Protocol::Udp => {
            std::net::SocketAddr::new(flow.destination, flow.destination_port).to_string()
        }
    };
    let resource = denial.resource_name.as_deref().map(|name| format!(" ({})", printable(name)));
    let times = if denial.count > 1 { format!(", {} times", denial.count) } else { String::new() };
    format!(
        "  {}  {verb} {} {destination}{}: {}{times}\n    {}\n",
        ago(denial.at, now),
        flow.protocol,
        resource.unwrap_or_default(),
        denial.reason,
        denial.remedy,
    )
}

fn ago(then: Timestamp, now: Timestamp) -> String {
    format!("{} ago", span(now.saturating_duration_since(then)))
}

fn expiry(at: Timestamp, now: Timestamp) -> String {
    if at <= now {
        format!("expired {}", ago(at, now))
    } else {
        format!("valid for {}", span(at.saturating_duration_since(now)))
    }
}

fn span(duration: Duration) -> String {
    let seconds = duration.as_secs();
    match seconds {
        0..60 => format!("{seconds} s"),
        60..3600 => format!("{} min", seconds / 60),
        3600..86_400 => format!("{} h {} min", seconds / 3600, seconds % 3600 / 60),
        86_400.. => format!("{} d {} h", seconds / 86_400, seconds % 86_400 / 3600),
    }
}

fn bytes(count: u64) -> String {
    const UNITS: [&str; 5] = ["KiB", "MiB", "GiB", "TiB", "PiB"];
    if count < 1024 {
        return format!("{count} B");
    }
    let mut tenths = u128::from(count) * 10 / 1024;
    let mut unit = UNITS[0];
    for next in UNITS.iter().skip(1) {
        if tenths < 10_240 {
            break;
        }
        tenths /= 1024;
        unit = next;
    }
    format!("{}.{} {unit}", tenths / 10, tenths % 10)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn spans_read_at_a_glance() {
        let text = |seconds| span(Duration::from_secs(seconds));
        assert_eq!(text(59), "59 s");
        assert_eq!(text(61), "1 min");
        assert_eq!(text(3600 + 5 * 60), "1 h 5 min");
        assert_eq!(text(2 * 86_400 + 3600), "2 d 1 h");
    }

    #[test]
    fn bytes_have_the_unit_that_fits() {
        assert_eq!(bytes(1023), "1023 B");
        assert_eq!(bytes(1536), "1.5 KiB");
        assert_eq!(bytes(5 << 20), "5.0 MiB");
        assert_eq!(bytes(u64::MAX), "16383.9 PiB");
    }

    #[test]
    fn a_device_that_has_not_joined_is_told_how() {
        let status = Status {
            carrier_choice: crate::carrier::CarrierChoice::Auto,
            state: StateName::Disconnected,
            since: Timestamp::from_millis(0),
            wanted: false,
            problem: None,
            version: "0".to_owned(),
            organisation: None,
            user: None,
            device: None,
            addresses: Vec::new(),
            interface: None,
            sessions: Vec::new(),
            credential_expires_at: None,
            session_ends_at: None,
            control_plane: None,
            warnings: Vec::new(),
            recent_denials: Vec::new(),
        };
        let text = to_text(&status, Timestamp::from_millis(5000));
        assert!(text.contains("disconnected since 5 s ago"), "{text}");
        assert!(text.contains("adit enroll --key-file"), "{text}");
    }
}
