use std::{
    io::{self, ErrorKind, Write as _},
    net::SocketAddr,
};

use adit_tests::monotonic_ns;
use serde_json::{Value, json};

/// Prints an event as one line of JSON: its name, the monotonic clock, and `fields`.
pub(crate) fn print(name: &str, fields: Value) {
    print_at(monotonic_ns(), name, fields);
}

/// As [`print()`], for something that happened at `t`.
pub(crate) fn print_at(t: u64, name: &str, fields: Value) {
    let mut line = json!({ "event": name, "t": t });
    if let (Value::Object(line), Value::Object(fields)) = (&mut line, fields) {
        line.extend(fields);
    }

    // Whoever wanted to know is gone if this fails.
    let mut stdout = io::stdout().lock();
    let _ = writeln!(stdout, "{line}").and_then(|()| stdout.flush());
}

/// Prints where a server listens.
pub(crate) fn print_listening(address: SocketAddr) {
    print("listening", json!({ "address": address.to_string(), "port": address.port() }));
}

/// Names an error of a connection, in words that tests compare with.
pub(crate) fn name_of(error: &io::Error) -> String {
    // The kernel's answer to ICMP "administratively prohibited": EHOSTUNREACH for IPv4, EACCES
    // for IPv6.
    let names = [
        (ErrorKind::ConnectionRefused, "refused"),
        (ErrorKind::ConnectionReset, "reset"),
        (ErrorKind::BrokenPipe, "reset"),
        (ErrorKind::TimedOut, "timeout"),
        (ErrorKind::WouldBlock, "timeout"),
        (ErrorKind::HostUnreachable, "unreachable"),
        (ErrorKind::NetworkUnreachable, "unreachable"),
        (ErrorKind::PermissionDenied, "prohibited"),
    ];
    let name = names.iter().find(|(kind, _)| *kind == error.kind());

    name.map_or_else(|| error.to_string(), |(_, name)| (*name).to_owned())
}
