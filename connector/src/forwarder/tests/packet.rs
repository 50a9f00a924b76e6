//! Packets to send.

use std::net::IpAddr;

pub(super) const SYN: u8 = 0x02;
pub(super) const ACK: u8 = 0x10;
pub(super) const SYN_ACK: u8 = 0x12;
pub(super) const FIN_ACK: u8 = 0x11;
pub(super) const RST: u8 = 0x04;

pub(super) fn address(text: &str) -> IpAddr {
    text.parse().unwrap()
}

pub(super) fn tcp(from: &str, to: &str, from_port: u16, to_port: u16, flags: u8) -> Vec<u8> {
    segment(from, to, (from_port, to_port), (100, 100, flags), &[])
}

pub(super) fn segment(
    from: &str,
    to: &str,
    ports: (u16, u16),
    (sequence, acknowledged, flags): (u32, u32, u8),
    payload: &[u8],
) -> Vec<u8> {
    let mut body = [ports.0, ports.1].map(u16::to_be_bytes).concat();
    body.extend_from_slice(&sequence.to_be_bytes());
    body.extend_from_slice(&acknowledged.to_be_bytes());
    body.extend_from_slice(&[0x50, flags, 0xff, 0xff, 0, 0, 0, 0]);
    body.extend_from_slice(payload);
    ip(from, to, 6, &body)
}

pub(super) fn udp(from: &str, to: &str, from_port: u16, to_port: u16) -> Vec<u8> {
    let mut body = [from_port, to_port, 12, 0].map(u16::to_be_bytes).concat();
    body.extend_from_slice(b"data");
    ip(from, to, 17, &body)
}

pub(super) fn echo(from: &str, to: &str, is_request: bool) -> Vec<u8> {
    ip(from, to, 1, &[if is_request { 8 } else { 0 }, 0, 0, 0, 0, 7, 0, 1])
}

pub(super) fn icmp_error(from: &str, to: &str, about: &[u8]) -> Vec<u8> {
    let mut body = vec![3, 3, 0, 0, 0, 0, 0, 0];
    body.extend_from_slice(about);
    ip(from, to, 1, &body)
}

/// Checksums stay zero: nothing here looks at them.
pub(super) fn ip(from: &str, to: &str, protocol: u8, body: &[u8]) -> Vec<u8> {
    let len = |header: usize| u16::try_from(header + body.len()).unwrap().to_be_bytes();
    let mut packet = match (address(from), address(to)) {
        (IpAddr::V4(from), IpAddr::V4(to)) => {
            let [high, low] = len(20);
            let mut header = vec![0x45, 0, high, low, 0, 0, 0x40, 0, 64, protocol, 0, 0];
            header.extend_from_slice(&from.octets());
            header.extend_from_slice(&to.octets());
            header
        }
        (IpAddr::V6(from), IpAddr::V6(to)) => {
            let [high, low] = len(0);
            let mut header = vec![0x60, 0, 0, 0, high, low, protocol, 64];
            header.extend_from_slice(&from.octets());
            header.extend_from_slice(&to.octets());
            header
        }
        (from, to) => panic!("{from} and {to} are of different families"),
    };
    packet.extend_from_slice(body);
    packet
}
