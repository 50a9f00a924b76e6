use std::net::{IpAddr, SocketAddr};

use anyhow::{Context as _, bail};
use serde_json::json;

use crate::{event, packet_socket::PacketSocket};

#[derive(clap::Args)]
pub(crate) struct Args {
    /// Interface to send by; it must have no link-layer addresses (TUN, WireGuard, loopback).
    #[arg(long)]
    interface: String,
    /// Source address and port.
    #[arg(long)]
    from: SocketAddr,
    /// Destination address and port.
    #[arg(long)]
    to: SocketAddr,
    /// What the datagram carries.
    #[arg(long, default_value = "spoofed")]
    payload: String,
    /// Send the SYN of a TCP connection instead of a datagram.
    #[arg(long)]
    syn: bool,
}

/// What an IP packet carries.
#[derive(Clone, Copy)]
enum Content<'a> {
    Udp(&'a [u8]),
    Syn,
}

pub(crate) fn run(args: &Args) -> anyhow::Result<()> {
    let content = if args.syn { Content::Syn } else { Content::Udp(args.payload.as_bytes()) };
    let packet = packet(args.from, args.to, content)?;
    let socket = PacketSocket::without_link_layer().context("failed to open a packet socket")?;
    let protocol = if args.to.is_ipv4() { libc::ETH_P_IP } else { libc::ETH_P_IPV6 };
    socket
        .send(&args.interface, protocol, &packet)
        .with_context(|| format!("failed to send by {}", args.interface))?;
    event::print("sent", json!({ "bytes": packet.len() }));

    Ok(())
}

/// Builds an IP packet.
fn packet(from: SocketAddr, to: SocketAddr, content: Content<'_>) -> anyhow::Result<Vec<u8>> {
    let mut segment = [from.port().to_be_bytes(), to.port().to_be_bytes()].concat();
    let (protocol, checksum_at) = match content {
        Content::Udp(payload) => {
            let length = u16::try_from(8 + payload.len()).context("the payload is too long")?;
            segment.extend(length.to_be_bytes());
            segment.extend([0, 0]);
            segment.extend(payload);
            (17, 6)
        }
        Content::Syn => {
            segment.extend([0, 0, 0, 1, 0, 0, 0, 0, 0x50, 0x02, 0xff, 0xff, 0, 0, 0, 0]);
            (6, 16)
        }
    };
    let length = u16::try_from(segment.len()).context("the payload is too long")?;

    let (addresses, mut packet) = match (from.ip(), to.ip()) {
        (IpAddr::V4(from), IpAddr::V4(to)) => {
            let addresses = [from.octets(), to.octets()].concat();
            let mut header = vec![0x45, 0];
            header.extend((20 + length).to_be_bytes());
            header.extend([0, 0, 0x40, 0, 64, protocol, 0, 0]);
            header.extend(&addresses);
            let sum = checksum(&header);
            header[10..12].copy_from_slice(&sum.to_be_bytes());
            (addresses, header)
        }
        (IpAddr::V6(from), IpAddr::V6(to)) => {
            let addresses = [from.octets(), to.octets()].concat();
            let mut header = vec![0x60, 0, 0, 0];
            header.extend(length.to_be_bytes());
            header.extend([protocol, 64]);
            header.extend(&addresses);
            (addresses, header)
        }
        (IpAddr::V4(_), IpAddr::V6(_)) | (IpAddr::V6(_), IpAddr::V4(_)) => {
            bail!("source and destination must be of the same family");
        }
    };
    let pseudo_header = [&addresses[..], &[0, protocol], &length.to_be_bytes()].concat();
    let sum = match checksum(&[&pseudo_header[..], &segment].concat()) {
        0 => 0xffff,
        sum => sum,
    };
    segment[checksum_at..checksum_at + 2].copy_from_slice(&sum.to_be_bytes());
    packet.extend(segment);

    Ok(packet)
}

/// The internet checksum (RFC 1071).
fn checksum(bytes: &[u8]) -> u16 {
    let mut sum: u32 = bytes
        .chunks(2)
        .map(|pair| u32::from(pair[0]) << 8 | pair.get(1).map_or(0, |low| u32::from(*low)))
        .sum();
    while sum > 0xffff {
        sum = (sum & 0xffff) + (sum >> 16);
    }

    !u16::try_from(sum).expect("the carries were folded in")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_packet_with_its_checksum_sums_to_zero() {
        let [from, to] = ["10.0.0.1:1000", "10.0.0.2:53"].map(|text| text.parse().unwrap());
        let packet = packet(from, to, Content::Udp(b"odd")).unwrap();

        assert_eq!(packet.len(), 20 + 8 + 3);
        assert_eq!(checksum(&packet[..20]), 0);
        let pseudo_header = [&packet[12..20], &[0, 17, 0, 11], &packet[20..]].concat();
        assert_eq!(checksum(&pseudo_header), 0);
    }
}
