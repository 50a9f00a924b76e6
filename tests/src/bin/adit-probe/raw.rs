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
}

pub(crate) fn run(args: &Args) -> anyhow::Result<()> {
    let packet = udp_packet(args.from, args.to, args.payload.as_bytes())?;
    let socket = PacketSocket::without_link_layer().context("failed to open a packet socket")?;
    let protocol = if args.to.is_ipv4() { libc::ETH_P_IP } else { libc::ETH_P_IPV6 };
    socket
        .send(&args.interface, protocol, &packet)
        .with_context(|| format!("failed to send by {}", args.interface))?;
    event::print("sent", json!({ "bytes": packet.len() }));

    Ok(())
}

/// Builds an IP packet with a UDP datagram.
fn udp_packet(from: SocketAddr, to: SocketAddr, payload: &[u8]) -> anyhow::Result<Vec<u8>> {
    let length = u16::try_from(8 + payload.len()).context("the payload is too long")?;
    let mut udp = Vec::new();
    udp.extend(from.port().to_be_bytes());
    udp.extend(to.port().to_be_bytes());
    udp.extend(length.to_be_bytes());
    udp.extend([0, 0]);
    udp.extend(payload);

    let (addresses, mut packet) = match (from.ip(), to.ip()) {
        (IpAddr::V4(from), IpAddr::V4(to)) => {
            let addresses = [from.octets(), to.octets()].concat();
            let mut header = vec![0x45, 0];
            header.extend((20 + length).to_be_bytes());
            header.extend([0, 0, 0x40, 0, 64, 17, 0, 0]);
            header.extend(&addresses);
            let sum = checksum(&header);
            header[10..12].copy_from_slice(&sum.to_be_bytes());
            (addresses, header)
        }
        (IpAddr::V6(from), IpAddr::V6(to)) => {
            let addresses = [from.octets(), to.octets()].concat();
            let mut header = vec![0x60, 0, 0, 0];
            header.extend(length.to_be_bytes());
            header.extend([17, 64]);
            header.extend(&addresses);
            (addresses, header)
        }
        (IpAddr::V4(_), IpAddr::V6(_)) | (IpAddr::V6(_), IpAddr::V4(_)) => {
            bail!("source and destination must be of the same family");
        }
    };
    let pseudo_header = [&addresses[..], &[0, 17], &length.to_be_bytes()].concat();
    let sum = match checksum(&[&pseudo_header[..], &udp].concat()) {
        0 => 0xffff,
        sum => sum,
    };
    udp[6..8].copy_from_slice(&sum.to_be_bytes());
    packet.extend(udp);

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
        let packet =
            udp_packet("10.0.0.1:1000".parse().unwrap(), "10.0.0.2:53".parse().unwrap(), b"odd")
                .unwrap();

        assert_eq!(packet.len(), 20 + 8 + 3);
        assert_eq!(checksum(&packet[..20]), 0);
        let pseudo_header = [&packet[12..20], &[0, 17, 0, 11], &packet[20..]].concat();
        assert_eq!(checksum(&pseudo_header), 0);
    }
}
