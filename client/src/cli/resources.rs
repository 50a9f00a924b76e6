//! `adit resources`.

use std::{path::Path, time::Duration};

use adit_proto::api::PortFilter;
use clap::Args;

use super::{
    CliError, Format, Verdict, connection, print, print_json,
    table::{Table, printable},
};
use crate::ipc::{Request, ResourceOnStatus, Response};

#[derive(Debug, Args)]
pub(crate) struct Arguments {
    #[command(flatten)]
    format: Format,
}

pub(super) async fn run(arguments: Arguments, socket: &Path) -> Result<Verdict, CliError> {
    let answer = connection::ask(&Request::Resources, socket, Duration::ZERO).await?;
    if arguments.format.json {
        print_json(&answer);
        return Ok(Verdict::Yes);
    }
    let Response::Resources { resources } = answer.response else {
        return Err(connection::unexpected());
    };
    print(&to_text(&resources));
    Ok(Verdict::Yes)
}

fn to_text(resources: &[ResourceOnStatus]) -> String {
    if resources.is_empty() {
        return "No policy lets you reach anything yet; ask an administrator for access.\n"
            .to_owned();
    }
    let mut table = Table::new(&["NAME", "ADDRESSES", "PORTS", "SITE", "CONNECTOR"]);
    for resource in resources {
        let addresses: Vec<String> = resource.addresses.iter().map(address).collect();
        table.push(vec![
            printable(&resource.name),
            addresses.join(","),
            ports(&resource.filters),
            printable(&resource.site_name),
            resource.connector_name.as_deref().map_or_else(|| "-".to_owned(), printable),
        ]);
    }
    table.to_text("")
}

fn address(prefix: &ipnet::IpNet) -> String {
    if prefix.prefix_len() == prefix.max_prefix_len() {
        prefix.addr().to_string()
    } else {
        prefix.to_string()
    }
}

fn ports(filters: &[PortFilter]) -> String {
    if filters.is_empty() {
        return "all".to_owned();
    }
    let one = |filter: &PortFilter| {
        let ports: Vec<String> = filter.ports.iter().map(ToString::to_string).collect();
        if ports.is_empty() {
            filter.protocol.to_string()
        } else {
            format!("{}/{}", filter.protocol, ports.join(","))
        }
    };
    filters.iter().map(one).collect::<Vec<_>>().join(" ")
}

#[cfg(test)]
mod tests {
    use adit_proto::Protocol;

    use super::*;

    #[test]
    fn ports_read_as_protocol_and_ranges() {
        let filters = [
            PortFilter {
                protocol: Protocol::Tcp,
                ports: vec!["443".parse().unwrap(), "8000-8100".parse().unwrap()],
            },
            PortFilter { protocol: Protocol::Icmp, ports: Vec::new() },
        ];
        assert_eq!(ports(&filters), "tcp/443,8000-8100 icmp");
    }

    #[test]
    fn a_lone_address_has_no_prefix_length() {
        assert_eq!(address(&"10.9.0.2/32".parse().unwrap()), "10.9.0.2");
        assert_eq!(address(&"10.9.0.0/24".parse().unwrap()), "10.9.0.0/24");
    }
}
