//! Where a connector is found: `host:port`.

use std::net::{Ipv4Addr, Ipv6Addr};

/// Most endpoints of one connector.
pub(crate) const MAX_ENDPOINTS: usize = 20;

/// Whether the text is `192.0.2.1:443`, `[2001:db8::1]:443` or `name.example:443`.
///
/// INVARIANT: what passes holds no white space and no line feed, since it is written into
/// configuration files.
pub(crate) fn is_endpoint(text: &str) -> bool {
    let Some((host, port)) = text.rsplit_once(':') else { return false };
    let port_fits = !port.is_empty()
        && port.bytes().all(|byte| byte.is_ascii_digit())
        && port.parse::<u16>().is_ok_and(|port| port != 0);
    port_fits && is_host(host)
}

fn is_host(host: &str) -> bool {
    if let Some(inner) = host.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')) {
        return inner.parse::<Ipv6Addr>().is_ok();
    }
    // What ends in a number is an IPv4 address or nothing (WHATWG URL, "ends in a number").
    let last_label = host.rsplit('.').next().unwrap_or_default();
    if last_label.bytes().all(|byte| byte.is_ascii_digit()) {
        return host.parse::<Ipv4Addr>().is_ok();
    }
    host.len() <= 253 && host.split('.').all(is_label)
}

fn is_label(label: &str) -> bool {
    (1..=63).contains(&label.len())
        && !label.starts_with('-')
        && !label.ends_with('-')
        && label.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-' || byte == b'_')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_and_names_with_a_port_are_endpoints() {
        for text in ["192.0.2.1:443", "[2001:db8::1]:443", "edge.example:51820", "edge:1"] {
            assert!(is_endpoint(text), "{text}");
        }
    }

    #[test]
    fn nonsense_and_line_feeds_are_refused() {
        for text in [
            "",
            ":443",
            "edge",
            "edge:",
            "edge:0",
            "edge:65536",
            "edge:+1",
            "2001:db8::1:443",
            "[edge]:443",
            "1.2.3:443",
            "1.2.3.256:443",
            "edge:443\nPostUp = reboot",
            "a b:443",
            "-edge:443",
            "edge..example:443",
            "edge\n:443",
        ] {
            assert!(!is_endpoint(text), "{text:?}");
        }
    }
}
