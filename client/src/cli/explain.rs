//! `adit explain`.

use std::{net::IpAddr, path::Path, str::FromStr, time::Duration};

use adit_proto::Protocol;
use anyhow::{Context as _, anyhow};
use clap::Args;

use super::{CliError, Format, Verdict, connection, print, print_json, table::printable};
use crate::ipc::{Answer, Explanation, Request, Response};

/// As many addresses of one name are asked for.
const MAX_ADDRESSES: usize = 8;

#[derive(Debug, Args)]
pub(crate) struct Arguments {
    /// HOST:PORT, such as intranet.example:443 or 10.9.0.2:22; an IPv6 address stands in brackets,
    /// and the port may be left out for ICMP.
    #[arg(value_name = "HOST:PORT")]
    target: Target,
    /// tcp, udp or icmp.
    #[arg(long, default_value = "tcp")]
    protocol: Protocol,
    #[command(flatten)]
    format: Format,
}

/// What was typed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Target {
    host: String,
    port: Option<u16>,
}

impl FromStr for Target {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        if let Ok(address) = text.parse::<IpAddr>() {
            return Ok(Self { host: address.to_string(), port: None });
        }
        let (host, port) = match text.strip_prefix('[') {
            Some(rest) => {
                let (host, rest) = rest.split_once(']').ok_or("`]` is missing")?;
                (host, rest.strip_prefix(':').or(rest.is_empty().then_some("")))
            }
            None => match text.rsplit_once(':') {
                Some((host, port)) => (host, Some(port)),
                None => (text, Some("")),
            },
        };
        let port = match port.ok_or("expected `:` and a port after `]`")? {
            "" if !text.ends_with(':') => None,
            port => Some(port.parse().map_err(|_error| "expected a port from 1 to 65535")?),
        };
        if host.is_empty() {
            return Err("the host is missing".to_owned());
        }
        if port == Some(0) {
            return Err("expected a port from 1 to 65535".to_owned());
        }
        Ok(Self { host: host.to_owned(), port })
    }
}

pub(super) async fn run(arguments: Arguments, socket: &Path) -> Result<Verdict, CliError> {
    let Arguments { target, protocol, format } = arguments;
    let port = match (protocol, target.port) {
        (Protocol::Icmp, _) => 0,
        (Protocol::Tcp | Protocol::Udp, Some(port)) => port,
        (Protocol::Tcp | Protocol::Udp, None) => {
            let host = &target.host;
            return Err(CliError::Local(anyhow!(
                "the port is missing\n  next: adit explain {host}:443 (or {host} --protocol icmp)"
            )));
        }
    };
    let addresses = resolve(&target.host).await.map_err(CliError::Local)?;

    let mut best: Option<(Answer, Explanation)> = None;
    for destination in addresses {
        let request = Request::Explain { destination, port, protocol };
        let answer = match connection::ask(&request, socket, Duration::ZERO).await {
            Ok(answer) => answer,
            // One address of a name is enough.
            Err(_error) if best.is_some() => continue,
            Err(error) => return Err(error),
        };
        let Response::Explanation(explanation) = &answer.response else {
            return Err(connection::unexpected());
        };
        let explanation = Explanation::clone(explanation);
        // Programs try each address of a name; the one that passes counts, then the one that
        // someone has an opinion of.
        let rank =
            |explanation: &Explanation| (explanation.allowed, explanation.connector_id.is_some());
        if best.as_ref().is_none_or(|(_, best)| rank(&explanation) > rank(best)) {
            best = Some((answer, explanation));
        }
    }
    let (answer, explanation) =
        best.ok_or_else(|| CliError::Local(anyhow!("{} has no address", target.host)))?;

    if format.json {
        print_json(&answer);
    } else {
        print(&to_text(&explanation, &target.host));
    }
    Ok(if explanation.allowed { Verdict::Yes } else { Verdict::No })
}

pub(super) async fn resolve(host: &str) -> anyhow::Result<Vec<IpAddr>> {
    if let Ok(address) = host.parse() {
        return Ok(vec![address]);
    }
    let found = tokio::net::lookup_host((host, 0))
        .await
        .with_context(|| format!("failed to find the address of {host}"))?;
    let mut addresses: Vec<IpAddr> = Vec::new();
    for address in found {
        if !addresses.contains(&address.ip()) {
            addresses.push(address.ip());
        }
    }
    addresses.truncate(MAX_ADDRESSES);
    Ok(addresses)
}

fn to_text(explanation: &Explanation, host: &str) -> String {
    let verdict = if explanation.allowed { "Allowed" } else { "Denied" };
    let destination = match explanation.protocol {
        Protocol::Icmp => explanation.destination.to_string(),
        Protocol::Tcp | Protocol::Udp => {
            std::net::SocketAddr::new(explanation.destination, explanation.port).to_string()
        }
    };
    let name = if host.parse::<IpAddr>().is_ok() { String::new() } else { format!(" ({host})") };
    let named = |name: &Option<String>, id: Option<String>, otherwise: &str| match (name, id) {
        (Some(name), Some(id)) => format!("{} ({id})", printable(name)),
        (Some(name), None) => printable(name),
        (None, Some(id)) => id,
        (None, None) => otherwise.to_owned(),
    };

    let mut text = format!("{verdict}: {} {destination}{name}\n", explanation.protocol);
    let mut line = |name: &str, value: &str| text.push_str(&format!("  {name:<10} {value}\n"));
    line("Reason", explanation.reason.code());
    let id = explanation.resource_id.map(|id| id.to_string());
    line("Resource", &named(&explanation.resource_name, id, "none"));
    let id = explanation.site_id.map(|id| id.to_string());
    line("Site", &named(&explanation.site_name, id, "none"));
    let id = explanation.connector_id.map(|id| id.to_string());
    let otherwise = "none: such packets do not enter the tunnel";
    line("Connector", &named(&explanation.connector_name, id, otherwise));
    let id = explanation.policy_id.map(|id| id.to_string());
    line("Policy", &named(&explanation.policy_name, id, "none"));
    line("Next", &explanation.remedy);
    text
}

#[cfg(test)]
mod tests {
    use adit_proto::Reason;

    use super::*;

    fn target(host: &str, port: Option<u16>) -> Target {
        Target { host: host.to_owned(), port }
    }

    #[test]
    fn targets_are_read_as_people_write_them() {
        assert_eq!("intranet:443".parse(), Ok(target("intranet", Some(443))));
        assert_eq!("10.9.0.2:22".parse(), Ok(target("10.9.0.2", Some(22))));
        assert_eq!("[fd00::2]:22".parse(), Ok(target("fd00::2", Some(22))));
        assert_eq!("fd00::2".parse(), Ok(target("fd00::2", None)));
        assert_eq!("[fd00::2]".parse(), Ok(target("fd00::2", None)));
        assert_eq!("intranet".parse(), Ok(target("intranet", None)));
    }

    #[test]
    fn targets_that_mean_nothing_are_refused() {
        for text in ["", ":80", "host:", "host:0", "host:65536", "[fd00::2", "[fd00::2]22"] {
            assert!(text.parse::<Target>().is_err(), "{text}");
        }
    }

    #[test]
    fn a_denial_says_reason_and_remedy() {
        let explanation = Explanation {
            destination: "10.9.0.2".parse().unwrap(),
            port: 22,
            protocol: Protocol::Tcp,
            allowed: false,
            reason: Reason::NoPolicyPermits,
            remedy: Reason::NoPolicyPermits.remedy().to_owned(),
            resource_id: None,
            resource_name: Some("ssh".to_owned()),
            policy_id: None,
            policy_name: None,
            site_id: None,
            site_name: None,
            connector_id: None,
            connector_name: None,
        };
        let text = to_text(&explanation, "10.9.0.2");
        assert!(text.starts_with("Denied: tcp 10.9.0.2:22\n"), "{text}");
        assert!(text.contains("no-policy-permits"), "{text}");
        assert!(text.contains("ask an administrator for access"), "{text}");
    }
}
