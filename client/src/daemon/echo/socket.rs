//! A raw socket of ICMP on the tunnel's interface.

use std::{
    ffi::OsString,
    net::{IpAddr, SocketAddr, UdpSocket as StdUdpSocket},
    os::fd::AsRawFd as _,
};

use anyhow::Context as _;
use nix::sys::socket::{
    AddressFamily, SockFlag, SockProtocol, SockType, SockaddrStorage, bind, setsockopt, socket,
    sockopt,
};
use tokio::net::UdpSocket;

/// Sees the messages of one interface to one address.
///
/// The type is that of UDP, whose calls are those of any socket of datagrams; a port is zero.
pub(super) struct EchoSocket(UdpSocket);

impl EchoSocket {
    pub(super) fn try_open(source: IpAddr, interface: &str) -> anyhow::Result<Self> {
        let (family, protocol) = match source {
            IpAddr::V4(_) => (AddressFamily::Inet, SockProtocol::Icmp),
            IpAddr::V6(_) => (AddressFamily::Inet6, SockProtocol::IcmpV6),
        };
        let flags = SockFlag::SOCK_CLOEXEC | SockFlag::SOCK_NONBLOCK;
        let descriptor = socket(family, SockType::Raw, flags, protocol)
            .context("failed to open a socket for ICMP")?;
        setsockopt(&descriptor, sockopt::BindToDevice, &OsString::from(interface))
            .with_context(|| format!("failed to use {interface}"))?;
        bind(descriptor.as_raw_fd(), &SockaddrStorage::from(SocketAddr::new(source, 0)))
            .with_context(|| format!("failed to speak from {source}"))?;
        let socket = UdpSocket::from_std(StdUdpSocket::from(descriptor))
            .context("failed to watch a socket")?;
        Ok(Self(socket))
    }

    pub(super) async fn send(&self, message: &[u8], to: IpAddr) -> anyhow::Result<()> {
        self.0.send_to(message, (to, 0)).await.context("failed to send the echo")?;
        Ok(())
    }

    /// The next packet: its length and who sent it.
    ///
    /// # Cancel safety
    ///
    /// Nothing is lost when the future is dropped.
    pub(super) async fn receive(&self, buffer: &mut [u8]) -> anyhow::Result<(usize, IpAddr)> {
        let (len, from) = self.0.recv_from(buffer).await.context("failed to receive")?;
        Ok((len, from.ip()))
    }
}
