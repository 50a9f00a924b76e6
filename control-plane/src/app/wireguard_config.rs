//! The file that makes any implementation of WireGuard a device: what `wg-quick` takes.

use std::{collections::BTreeSet, fmt::Write as _};

use adit_proto::{ClientConfig, api::Device};
use ipnet::IpNet;

/// The smallest that IPv6 allows. With at most 80 bytes around it, it passes every path of 1,360
/// bytes or more, mobile networks and PPPoE among them; a plain device has no way to learn more.
const MTU: u16 = 1280;

/// Seconds. Most NATs forget a UDP mapping after 30 (RFC 4787 asks for 120).
const PERSISTENT_KEEPALIVE_S: u16 = 25;

/// Writes the file for a device that sees `config`.
///
/// One connector serves each site, since WireGuard lets only one peer own a prefix: the first that
/// can be found.
pub(crate) fn wireguard_config(device: &Device, config: &ClientConfig) -> String {
    let mut text = String::new();
    let mut line = |line: std::fmt::Arguments<'_>| {
        writeln!(text, "{line}").expect("writing to a string cannot fail");
    };
    line(format_args!("# {} of {}", comment(&device.name), comment(&config.organisation_name)));
    line(format_args!("[Interface]"));
    line(format_args!(
        "# The private half of {}, which only you have:",
        device.wireguard_public_key
    ));
    line(format_args!("# PrivateKey = "));
    line(format_args!("Address = {}", join(device.addresses.iter().map(|ip| IpNet::from(*ip)))));
    line(format_args!("MTU = {MTU}"));

    let mut owned: BTreeSet<IpNet> = BTreeSet::new();
    for site in &config.sites {
        let prefixes: BTreeSet<IpNet> = config
            .resources
            .iter()
            .filter(|resource| resource.site_id == site.id)
            .flat_map(|resource| &resource.addresses)
            .map(IpNet::trunc)
            .filter(|prefix| !owned.contains(prefix))
            .collect();
        let found = site
            .connectors
            .iter()
            .find_map(|connector| Some((connector, connector.endpoints.first()?)));
        line(format_args!(""));
        line(format_args!("# Site {}", comment(&site.name)));
        let Some((connector, endpoint)) = found else {
            line(format_args!("# No connector of this site can be found."));
            continue;
        };
        if prefixes.is_empty() {
            line(format_args!("# Its prefixes belong to a site above."));
            continue;
        }
        line(format_args!("[Peer]"));
        line(format_args!("PublicKey = {}", connector.wireguard_public_key));
        line(format_args!("Endpoint = {endpoint}"));
        line(format_args!("AllowedIPs = {}", join(prefixes.iter().copied())));
        line(format_args!("PersistentKeepalive = {PERSISTENT_KEEPALIVE_S}"));
        owned.extend(prefixes);
    }
    text
}

fn join(prefixes: impl Iterator<Item = IpNet>) -> String {
    let texts: Vec<String> = prefixes.map(|prefix| prefix.to_string()).collect();
    texts.join(", ")
}

/// A name as it may stand in a comment: a line feed in it would begin a line that `wg-quick` obeys.
fn comment(name: &str) -> String {
    name.chars().map(|char| if char.is_control() { ' ' } else { char }).collect()
}
