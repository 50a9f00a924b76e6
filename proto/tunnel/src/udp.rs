//! The UDP socket: datagrams to and from the network, many for each system call.

mod batch;
mod fragmentation;
mod open;
mod reuse_port;
#[cfg(test)]
mod tests;
mod train;

use std::{
    io,
    net::{IpAddr, SocketAddr, UdpSocket as StdUdpSocket},
    os::fd::{AsFd, BorrowedFd},
};

use quinn_udp::{Transmit, UdpSocketState};
use tracing::{debug, trace, warn};

pub use self::{
    batch::{Datagram, ReceiveBatch},
    train::{Heading, Train},
};
use crate::{Ecn, Endpoint, Offloads};

/// Why there is no UDP socket.
#[derive(Debug, thiserror::Error)]
pub enum UdpError {
    /// Another process listens there.
    #[error("udp port {} is in use on {}; stop the program that holds it or choose another port", .address.port(), .address.ip())]
    InUse {
        /// Where.
        address: SocketAddr,
    },
    /// Ports below 1024 are for the privileged.
    #[error("no permission to listen on udp {address}; run as root or with CAP_NET_BIND_SERVICE")]
    Privileges {
        /// Where.
        address: SocketAddr,
    },
    /// The address is no address of this host.
    #[error("{} is not an address of this host", .address.ip())]
    NotLocal {
        /// Where.
        address: SocketAddr,
    },
    /// Anything else.
    #[error("failed to listen on udp {address}")]
    Io {
        /// Where.
        address: SocketAddr,
        /// What the kernel says.
        source: io::Error,
    },
}

impl UdpError {
    fn new(address: SocketAddr, source: io::Error) -> Self {
        match source.raw_os_error() {
            Some(libc::EADDRINUSE) => Self::InUse { address },
            Some(libc::EPERM | libc::EACCES) => Self::Privileges { address },
            Some(libc::EADDRNOTAVAIL) => Self::NotLocal { address },
            _ => Self::Io { address, source },
        }
    }
}

/// Whether a socket has its port for itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Sharing {
    Alone,
    /// With others of this process.
    Lanes,
}

/// What became of a datagram that was to be sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum SendOutcome {
    /// The kernel took it.
    Sent,
    /// The socket is full; the datagram is dropped.
    Full,
    /// It is longer than the path allows; the datagram is dropped.
    TooBig,
    /// The network says no, for now at least; the datagram is dropped.
    Unreachable,
}

/// A UDP socket that never blocks, and whose datagrams stay whole unless they may be cut.
#[derive(Debug)]
pub struct UdpSocket {
    socket: StdUdpSocket,
    state: UdpSocketState,
    local_address: SocketAddr,
    /// Whether datagrams may come in trains.
    gro: bool,
    /// How many datagrams go out at once.
    max_segments: usize,
}

impl UdpSocket {
    /// Listens on `address`. `[::]` means IPv4 too; where the host has no IPv6, it means IPv4.
    ///
    /// # Errors
    ///
    /// [`UdpError`] says what is in the way and what to do about it.
    pub fn try_bind(address: SocketAddr, offloads: Offloads) -> Result<Self, UdpError> {
        open::open(address, offloads, Sharing::Alone)
            .map_err(|source| UdpError::new(address, source))
    }

    /// As [`Self::try_bind`], a socket for each of so many lanes; fewer where the kernel cannot tell
    /// their datagrams apart.
    ///
    /// # Errors
    ///
    /// As of [`Self::try_bind`].
    pub fn try_bind_lanes(
        address: SocketAddr,
        offloads: Offloads,
        lanes: u8,
    ) -> Result<Vec<Self>, UdpError> {
        if lanes <= 1 {
            return Ok(vec![Self::try_bind(address, offloads)?]);
        }
        let mut sockets: Vec<Self> = Vec::new();
        for _ in 0..lanes {
            let address = sockets.first().map_or(address, Self::local_address);
            let socket = open::open(address, offloads, Sharing::Lanes);
            sockets.push(socket.map_err(|source| UdpError::new(address, source))?);
        }
        let steered = sockets.first().map(|first| reuse_port::steer(&first.socket, lanes));
        if let Some(Err(error)) = steered {
            warn!(%error, "Kernel does not tell lanes apart, so there is one");
            sockets.truncate(1);
        }
        Ok(sockets)
    }

    /// Another handle on the same socket, for another thread.
    ///
    /// # Errors
    ///
    /// When the process has no descriptors left.
    pub fn try_clone(&self) -> io::Result<Self> {
        let socket = self.socket.try_clone()?;
        let state = open::state_of(&socket, self.gro)?;
        Ok(Self { socket, state, ..*self })
    }

    /// Where it listens, with the port that the kernel chose if none was asked for.
    pub const fn local_address(&self) -> SocketAddr {
        self.local_address
    }

    /// Fills `batch` with what waits. False: nothing waits.
    ///
    /// # Errors
    ///
    /// Only when the socket itself is broken. Errors that the network reports, such as an
    /// unreachable port, belong to some datagram sent before and do not stop the reader.
    pub fn receive(&self, batch: &mut ReceiveBatch) -> io::Result<bool> {
        /// Each error takes one report from the socket; a flood of them must not hold the caller.
        const MAX_ERRORS: usize = 16;

        for _ in 0..MAX_ERRORS {
            match batch.receive(&self.state, (&self.socket).into(), self.answers_from_local()) {
                Ok(()) => return Ok(true),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(false),
                Err(error) => match error.raw_os_error() {
                    Some(libc::EBADF | libc::ENOTSOCK | libc::EFAULT | libc::EINVAL) => {
                        return Err(error);
                    }
                    _ => trace!(%error, "Network reported an error"),
                },
            }
        }
        Ok(false)
    }

    /// Sends one datagram.
    pub fn send(&self, to: Endpoint, datagram: &[u8]) -> SendOutcome {
        self.transmit(to, &Transmit { ecn: None, segment_size: None, ..self.blank(to, datagram) })
    }

    /// Sends a train and empties it.
    ///
    /// Where its datagrams go out one by one, the worst outcome of them.
    pub fn send_train(&mut self, train: &mut Train) -> SendOutcome {
        let Some(heading) = train.heading() else { return SendOutcome::Sent };
        let outcome = if heading.may_be_cut {
            // Rare: a call for each option costs less than a second socket would be in the way.
            fragmentation::allow(&self.socket);
            let (ecn, len) = (heading.ecn, train.segment_len());
            let outcome = self.send_singly(heading.to, ecn, len, train.bytes());
            fragmentation::forbid(&self.socket);
            outcome
        } else {
            self.send_segments(heading.to, heading.ecn, train.segment_len(), train.bytes())
        };
        train.clear();
        outcome
    }

    /// How many datagrams of this length go out by one system call.
    pub fn max_segments(&self, segment_len: usize) -> usize {
        self.max_segments.min(train::MAX_LEN / segment_len.max(1)).max(1)
    }

    /// Sends what lies one behind the other: datagrams of one length, but for a shorter last one.
    ///
    /// Where they go out one by one, the worst outcome of them.
    pub fn send_segments(
        &mut self,
        to: Endpoint,
        ecn: Ecn,
        segment_len: usize,
        bytes: &[u8],
    ) -> SendOutcome {
        let count = bytes.len().div_ceil(segment_len.max(1));
        if count > self.max_segments.max(1) {
            return self.send_singly(to, ecn, segment_len, bytes);
        }
        let transmit = Transmit {
            ecn: train::codepoint(ecn),
            segment_size: Some(segment_len),
            ..self.blank(to, bytes)
        };
        let Err(error) = self.try_transmit(to, &transmit) else {
            return SendOutcome::Sent;
        };
        let is_refusal = matches!(error.raw_os_error(), Some(libc::EIO | libc::EINVAL));
        if count == 1 || !is_refusal {
            return outcome_of(to, &error);
        }
        // Cards without checksum offload and some drivers find out only now. Old kernels also say
        // so of datagrams that are too big.
        let outcome = self.send_singly(to, ecn, segment_len, bytes);
        if outcome == SendOutcome::Sent {
            warn!(%error, "Network takes no trains, sending datagrams one by one");
            self.max_segments = 1;
        }
        outcome
    }

    fn send_singly(&self, to: Endpoint, ecn: Ecn, segment_len: usize, bytes: &[u8]) -> SendOutcome {
        let outcomes = bytes.chunks(segment_len.max(1)).map(|datagram| {
            let blank = self.blank(to, datagram);
            self.transmit(to, &Transmit { ecn: train::codepoint(ecn), ..blank })
        });
        outcomes.max().unwrap_or(SendOutcome::Sent)
    }

    fn blank<'a>(&self, to: Endpoint, contents: &'a [u8]) -> Transmit<'a> {
        let destination = match (self.local_address, to.remote()) {
            (SocketAddr::V6(_), SocketAddr::V4(remote)) => {
                SocketAddr::new(IpAddr::V6(remote.ip().to_ipv6_mapped()), remote.port())
            }
            (_, remote) => remote,
        };
        Transmit { destination, ecn: None, contents, segment_size: None, src_ip: to.local() }
    }

    fn transmit(&self, to: Endpoint, transmit: &Transmit<'_>) -> SendOutcome {
        match self.try_transmit(to, transmit) {
            Ok(()) => SendOutcome::Sent,
            Err(error) => outcome_of(to, &error),
        }
    }

    fn try_transmit(&self, to: Endpoint, transmit: &Transmit<'_>) -> io::Result<()> {
        match self.state.try_send((&self.socket).into(), transmit) {
            Err(error) if to.local().is_some() && is_about_address(&error) => {
                // The address may be gone; then the kernel's choice is as good as any.
                let transmit = Transmit { src_ip: None, ..transmit.clone() };
                self.state.try_send((&self.socket).into(), &transmit)
            }
            result => result,
        }
    }

    /// A socket on all addresses must answer from the one that was asked, or NATs and firewalls on
    /// the way drop the answer.
    const fn answers_from_local(&self) -> bool {
        self.local_address.ip().is_unspecified()
    }
}

fn outcome_of(to: Endpoint, error: &io::Error) -> SendOutcome {
    match error.raw_os_error() {
        Some(libc::EAGAIN | libc::ENOBUFS | libc::ENOMEM) => SendOutcome::Full,
        Some(libc::EMSGSIZE) => SendOutcome::TooBig,
        _ => {
            debug!(dst = %to, %error, "Failed to send");
            SendOutcome::Unreachable
        }
    }
}

/// Whether another source address may help.
fn is_about_address(error: &io::Error) -> bool {
    !matches!(
        error.raw_os_error(),
        Some(libc::EAGAIN | libc::ENOBUFS | libc::ENOMEM | libc::EMSGSIZE | libc::EIO)
    )
}

impl AsFd for UdpSocket {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}
