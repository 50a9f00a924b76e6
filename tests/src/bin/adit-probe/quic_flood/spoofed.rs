//! First words of clients that are not there.

use std::{
    io::ErrorKind,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket},
};

use adit_proto::Pin;
use adit_tests::Random;
use anyhow::{Context as _, ensure};
use ipnet::IpNet;
use nix::sys::socket::{setsockopt, sockopt};
use quinn_udp::{Transmit, UdpSocketState};

use super::{Count, Flood, attempts::Client};

/// Different clients; more of them make no difference once each has to prove its address.
const CLIENTS: usize = 1024;

/// Sends from addresses that belong to others. For IPv6 the host must allow it
/// (`net.ipv6.ip_nonlocal_bind`).
pub(super) struct Spoofed {
    to: SocketAddr,
    socket: UdpSocket,
    state: UdpSocketState,
    networks: Vec<IpNet>,
    words: Vec<Vec<u8>>,
    next: usize,
    random: Random,
}

impl Spoofed {
    pub(super) fn new(to: SocketAddr, pin: Pin, networks: &[IpNet]) -> anyhow::Result<Self> {
        let is_same_family =
            networks.iter().all(|network| network.addr().is_ipv4() == to.is_ipv4());
        ensure!(is_same_family, "the networks are of the family of the connector");
        let any: IpAddr = match to {
            SocketAddr::V4(_) => Ipv4Addr::UNSPECIFIED.into(),
            SocketAddr::V6(_) => Ipv6Addr::UNSPECIFIED.into(),
        };
        let socket = UdpSocket::bind((any, 0)).context("failed to bind")?;
        if to.is_ipv4() {
            setsockopt(&socket, sockopt::IpTransparent, &true).context("failed to spoof")?;
        }
        let state = UdpSocketState::new((&socket).into()).context("failed to set options")?;
        let mut client = Client::new(to, pin)?;
        let mut words = Vec::new();
        for _ in 0..CLIENTS {
            words.extend(client.first_words()?);
        }
        let networks = networks.to_vec();

        Ok(Self { to, socket, state, networks, words, next: 0, random: Random::from_seed(1) })
    }

    fn any_source(&mut self) -> IpAddr {
        let (network, number) = (*self.random.pick(&self.networks), self.random.number());
        match network {
            IpNet::V4(network) => {
                let host = number as u32 & network.hostmask().to_bits();
                Ipv4Addr::from_bits(network.network().to_bits() | host).into()
            }
            IpNet::V6(network) => {
                let host = u128::from(number) & network.hostmask().to_bits();
                Ipv6Addr::from_bits(network.network().to_bits() | host).into()
            }
        }
    }
}

impl Flood for Spoofed {
    fn send(&mut self, at_least: u64, count: &mut Count) -> anyhow::Result<()> {
        for _ in 0..at_least {
            let source = self.any_source();
            self.next = (self.next + 1) % self.words.len();
            let transmit = Transmit {
                destination: self.to,
                ecn: None,
                contents: &self.words[self.next],
                segment_size: None,
                src_ip: Some(source),
            };
            match self.state.try_send((&self.socket).into(), &transmit) {
                Ok(()) => count.sent += 1,
                // A full queue is the flood's own.
                Err(error) if error.kind() == ErrorKind::WouldBlock => {}
                Err(error) => return Err(error).context("failed to spoof"),
            }
        }

        Ok(())
    }

    /// Whatever comes goes to others.
    fn read(&mut self, _count: &mut Count) -> anyhow::Result<()> {
        Ok(())
    }
}
