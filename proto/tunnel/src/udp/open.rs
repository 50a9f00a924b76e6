//! Options of the socket.

use std::{
    io,
    net::{IpAddr, Ipv4Addr, SocketAddr, UdpSocket as StdUdpSocket},
    os::fd::AsFd,
};

use nix::sys::socket::{
    AddressFamily, SetSockOpt, SockFlag, SockType, SockaddrStorage, bind, setsockopt, socket,
    sockopt,
};
use quinn_udp::UdpSocketState;
use tracing::{info, warn};

use super::{Sharing, UdpSocket, train::MAX_DATAGRAMS};
use crate::Offloads;

/// About 30 ms of 4 Gbit/s in each direction: what a busy thread may leave lying.
const RECEIVE_BUFFER_LEN: usize = 16 * 1024 * 1024;
const SEND_BUFFER_LEN: usize = 4 * 1024 * 1024;

pub(super) fn open(
    address: SocketAddr,
    offloads: Offloads,
    sharing: Sharing,
) -> io::Result<UdpSocket> {
    match open_exactly(address, offloads, sharing) {
        Err(error)
            if error.raw_os_error() == Some(libc::EAFNOSUPPORT)
                && address.is_ipv6()
                && address.ip().is_unspecified() =>
        {
            info!(%address, "Host has no IPv6, listening on IPv4 only");
            let address = SocketAddr::new(IpAddr::V4(Ipv4Addr::UNSPECIFIED), address.port());
            open_exactly(address, offloads, sharing)
        }
        result => result,
    }
}

fn open_exactly(
    address: SocketAddr,
    offloads: Offloads,
    sharing: Sharing,
) -> io::Result<UdpSocket> {
    let family = match address {
        SocketAddr::V4(_) => AddressFamily::Inet,
        SocketAddr::V6(_) => AddressFamily::Inet6,
    };
    let descriptor = socket(family, SockType::Datagram, SockFlag::SOCK_CLOEXEC, None)?;
    if address.is_ipv6() {
        setsockopt(&descriptor, sockopt::Ipv6V6Only, &false)?;
    }
    if sharing == Sharing::Lanes {
        setsockopt(&descriptor, sockopt::ReusePort, &true)?;
    }
    bind(std::os::fd::AsRawFd::as_raw_fd(&descriptor), &SockaddrStorage::from(address))?;
    let socket = StdUdpSocket::from(descriptor);
    let state = state_of(&socket, offloads.gro)?;
    let max_segments = if offloads.gso { state.max_gso_segments().min(MAX_DATAGRAMS) } else { 1 };

    enlarge(&socket, sockopt::RcvBufForce, sockopt::RcvBuf, RECEIVE_BUFFER_LEN)?;
    enlarge(&socket, sockopt::SndBufForce, sockopt::SndBuf, SEND_BUFFER_LEN)?;
    let local_address = socket.local_addr()?;
    let receive_buffer = state.recv_buffer_size((&socket).into())?;
    let send_buffer = state.send_buffer_size((&socket).into())?;
    if state.may_fragment() {
        warn!(%local_address, "Kernel may fragment datagrams of this socket");
    }
    info!(
        %local_address,
        receive_buffer,
        send_buffer,
        datagrams_at_once = max_segments,
        "Listening on UDP"
    );
    Ok(UdpSocket { socket, state, local_address, gro: offloads.gro, max_segments })
}

/// Sets the options of a socket that `quinn-udp` works with.
pub(super) fn state_of(socket: &StdUdpSocket, gro: bool) -> io::Result<UdpSocketState> {
    let state = UdpSocketState::new(socket.into())?;
    // The kernel would put the time into a buffer that then has no room for the marks of
    // congestion, and read the clock for every packet of this host.
    setsockopt(socket, sockopt::ReceiveTimestampns, &false)?;
    if !gro {
        // A kernel without it has it off.
        let _ = setsockopt(socket, sockopt::UdpGroSegment, &false);
    }
    Ok(state)
}

/// As much as was asked for if we are privileged, else as much as the kernel allows.
fn enlarge(
    socket: &impl AsFd,
    force: impl SetSockOpt<Val = usize>,
    ask: impl SetSockOpt<Val = usize>,
    len: usize,
) -> nix::Result<()> {
    setsockopt(socket, force, &len).or_else(|_error| setsockopt(socket, ask, &len))
}
