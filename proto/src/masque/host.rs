//! Hosts and ports, as requests name them.

use std::net::{IpAddr, Ipv6Addr};

/// Longest name of DNS, in bytes, without the dot at its end.
const MAX_NAME_LEN: usize = 253;

/// Longest label of a name of DNS, in bytes.
const MAX_LABEL_LEN: usize = 63;

/// Whether this is an address without brackets, or a name.
pub(super) fn is_host(text: &str) -> bool {
    text.parse::<IpAddr>().is_ok() || is_name(text)
}

/// Whether this is a name that DNS can have, and that no resolver takes for an address: the last
/// label is no number, since `127.1` and `0x7f000001` are addresses to many.
pub(super) fn is_name(text: &str) -> bool {
    let name = text.strip_suffix('.').unwrap_or(text);
    let is_label = |label: &str| {
        (1..=MAX_LABEL_LEN).contains(&label.len())
            && label.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-_".contains(&byte))
    };
    let last = name.rsplit('.').next().unwrap_or_default().to_ascii_lowercase();
    let is_number = last.bytes().all(|byte| byte.is_ascii_digit())
        || last
            .strip_prefix("0x")
            .is_some_and(|digits| digits.bytes().all(|byte| byte.is_ascii_hexdigit()));
    name.len() <= MAX_NAME_LEN && name.split('.').all(is_label) && !is_number
}

/// A port: a number from 1 to 65535, in digits alone.
pub(super) fn port(text: &str) -> Option<u16> {
    if !text.bytes().all(|byte| byte.is_ascii_digit()) {
        return None;
    }
    text.parse().ok().filter(|port| *port != 0)
}

/// Parts an authority that names a host and a port (RFC 9110 §7.2). The host comes without brackets.
pub(super) fn split_authority(authority: &str) -> Option<(&str, u16)> {
    let (host, port_text) = authority.rsplit_once(':')?;
    let port = port(port_text)?;
    let bracketed = host.strip_prefix('[').and_then(|host| host.strip_suffix(']'));
    match bracketed {
        Some(address) => address.parse::<Ipv6Addr>().is_ok().then_some((address, port)),
        None => (is_host(host) && !host.contains(':')).then_some((host, port)),
    }
}

/// Puts an authority together (RFC 9110 §7.2).
pub(super) fn join_authority(host: &str, port: u16) -> String {
    if host.contains(':') { format!("[{host}]:{port}") } else { format!("{host}:{port}") }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_of_dns_are_names() {
        for name in ["localhost", "db.example", "db.example.", "_srv.a-b.example", "4.example"] {
            assert!(is_name(name), "{name}");
        }
    }

    #[test]
    fn what_a_resolver_takes_for_an_address_is_no_name() {
        for text in ["127.1", "2130706433", "0x7f000001", "0X7F.0.0.0x1", "192.0.2.1", "a.1."] {
            assert!(!is_name(text), "{text}");
        }
    }

    #[test]
    fn other_text_is_no_name() {
        let long = "a".repeat(64);
        for text in ["", ".", "a..b", "a b", "a/b", "a@b", "*", "fe80::1%eth0", "é", &long] {
            assert!(!is_host(text), "{text}");
        }
        assert!(is_name(&"a.".repeat(127)));
        assert!(!is_name(&"a.".repeat(128)));
    }

    #[test]
    fn an_authority_needs_host_and_port() {
        assert_eq!(split_authority("db.example:5432"), Some(("db.example", 5432)));
        assert_eq!(split_authority("[2001:db8::1]:22"), Some(("2001:db8::1", 22)));
        for text in [
            "db.example",
            "db.example:",
            "db.example:0",
            "db.example:65536",
            "db.example:+1",
            ":80",
            "2001:db8::1",
            "[192.0.2.1]:80",
            "[2001:db8::1]",
            "user@db.example:80",
        ] {
            assert_eq!(split_authority(text), None, "{text}");
        }
    }
}
