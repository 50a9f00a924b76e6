//! Well-formed packets for tests.

use std::net::IpAddr;

use super::{
    ip::{ICMP, ICMPV6, TCP, UDP},
    refusal::assemble,
};

pub(crate) fn udp(source: &str, destination: &str, ports: (u16, u16), payload: &[u8]) -> Vec<u8> {
    let len = u16::try_from(8 + payload.len()).unwrap();
    let mut body = [ports.0, ports.1, len, 0].map(u16::to_be_bytes).concat();
    body.extend_from_slice(payload);
    packet(source, destination, UDP, body)
}

pub(crate) fn tcp(
    source: &str,
    destination: &str,
    ports: (u16, u16),
    (sequence, acknowledgment, flags): (u32, u32, u8),
    payload: &[u8],
) -> Vec<u8> {
    let mut body = [ports.0, ports.1].map(u16::to_be_bytes).concat();
    body.extend_from_slice(&sequence.to_be_bytes());
    body.extend_from_slice(&acknowledgment.to_be_bytes());
    body.extend_from_slice(&[0x50, flags, 0xff, 0xff, 0, 0, 0, 0]);
    body.extend_from_slice(payload);
    packet(source, destination, TCP, body)
}

pub(crate) fn echo(source: &str, destination: &str, is_request: bool, identifier: u16) -> Vec<u8> {
    let is_ipv4 = source.parse::<IpAddr>().unwrap().is_ipv4();
    let (protocol, kind) = match (is_ipv4, is_request) {
        (true, true) => (ICMP, 8),
        (true, false) => (ICMP, 0),
        (false, true) => (ICMPV6, 128),
        (false, false) => (ICMPV6, 129),
    };
    let [high, low] = identifier.to_be_bytes();
    packet(
        source,
        destination,
        protocol,
        vec![kind, 0, 0, 0, high, low, 0, 1, b'p', b'i', b'n', b'g'],
    )
}

pub(crate) fn packet(source: &str, destination: &str, protocol: u8, body: Vec<u8>) -> Vec<u8> {
    assemble(source.parse().unwrap(), destination.parse().unwrap(), protocol, body).unwrap()
}
