//! `AF_PACKET` sockets: every packet on an interface, and packets out of it as they are.

#![expect(unsafe_code, reason = "no safe wrapper reads packet statistics or binds by protocol")]

mod batch;

use std::{
    ffi::CString,
    io,
    mem::{size_of, zeroed},
    os::fd::{AsFd, AsRawFd as _, BorrowedFd, FromRawFd as _, OwnedFd},
    time::Duration,
};

pub(crate) use self::batch::FrameBatch;

/// Room for bursts of large packets while the reader searches earlier ones.
const RECEIVE_BUFFER: libc::c_int = 64 * 1024 * 1024;

pub(crate) struct PacketSocket(OwnedFd);

impl PacketSocket {
    /// Opens a socket that gets every packet of `interface`, in both directions.
    pub(crate) fn capture(interface: &str) -> io::Result<Self> {
        let socket = Self::open(libc::SOCK_RAW)?;
        socket.bind(interface)?;

        Ok(socket)
    }

    /// Opens a socket that gets what arrives at `interface`, and sends out of it.
    pub(crate) fn relay(interface: &str) -> io::Result<Self> {
        let socket = Self::open(libc::SOCK_RAW)?;
        socket.set_option(libc::SOL_PACKET, libc::PACKET_IGNORE_OUTGOING, 1)?;
        socket.set_option(libc::SOL_PACKET, libc::PACKET_QDISC_BYPASS, 1)?;
        socket.bind(interface)?;

        Ok(socket)
    }

    fn bind(&self, interface: &str) -> io::Result<()> {
        // The larger one needs privileges; the smaller is better than the default.
        let _ = self.set_option(libc::SOL_SOCKET, libc::SO_RCVBUF, RECEIVE_BUFFER);
        let _ = self.set_option(libc::SOL_SOCKET, libc::SO_RCVBUFFORCE, RECEIVE_BUFFER);
        let address = address(interface, libc::ETH_P_ALL)?;
        // SAFETY: `address` is a valid sockaddr_ll of the given length.
        check(unsafe {
            libc::bind(
                self.0.as_raw_fd(),
                (&raw const address).cast(),
                size_of::<libc::sockaddr_ll>() as libc::socklen_t,
            )
        })?;

        Ok(())
    }

    /// Opens a socket that sends IP packets out of interfaces without link-layer addresses.
    pub(crate) fn without_link_layer() -> io::Result<Self> {
        Self::open(libc::SOCK_DGRAM)
    }

    fn open(kind: libc::c_int) -> io::Result<Self> {
        // Protocol 0 receives nothing until the socket is bound.
        // SAFETY: creates a descriptor and touches no memory.
        let fd = check(unsafe { libc::socket(libc::AF_PACKET, kind | libc::SOCK_CLOEXEC, 0) })?;
        // SAFETY: the descriptor was just created and has no other owner.
        Ok(Self(unsafe { OwnedFd::from_raw_fd(fd) }))
    }

    /// Receives one packet, cut to the length of `buffer`; none after `timeout`.
    pub(crate) fn receive(
        &self,
        buffer: &mut [u8],
        timeout: Duration,
    ) -> io::Result<Option<usize>> {
        let mut poll = libc::pollfd { fd: self.0.as_raw_fd(), events: libc::POLLIN, revents: 0 };
        let timeout = libc::c_int::try_from(timeout.as_millis()).unwrap_or(libc::c_int::MAX);
        // SAFETY: `poll` is one valid pollfd.
        if check(unsafe { libc::poll(&raw mut poll, 1, timeout) })? == 0 {
            return Ok(None);
        }
        // SAFETY: the kernel writes at most `buffer.len()` bytes into `buffer`.
        let length = unsafe {
            libc::recv(
                self.0.as_raw_fd(),
                buffer.as_mut_ptr().cast(),
                buffer.len(),
                libc::MSG_DONTWAIT,
            )
        };

        match usize::try_from(length) {
            Ok(length) => Ok(Some(length)),
            Err(_) => match io::Error::last_os_error() {
                error if error.kind() == io::ErrorKind::WouldBlock => Ok(None),
                error => Err(error),
            },
        }
    }

    /// Sends one IP packet.
    pub(crate) fn send(&self, interface: &str, protocol: i32, packet: &[u8]) -> io::Result<()> {
        let address = address(interface, protocol)?;
        // SAFETY: `packet` and `address` are valid for the given lengths.
        let sent = unsafe {
            libc::sendto(
                self.0.as_raw_fd(),
                packet.as_ptr().cast(),
                packet.len(),
                0,
                (&raw const address).cast(),
                size_of::<libc::sockaddr_ll>() as libc::socklen_t,
            )
        };
        if sent < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
    }

    /// Returns how many packets the kernel dropped because the buffer was full, since last asked.
    pub(crate) fn dropped(&self) -> io::Result<u64> {
        // SAFETY: all-zero is a valid value of this plain C structure.
        let mut stats: libc::tpacket_stats = unsafe { zeroed() };
        let mut length = size_of::<libc::tpacket_stats>() as libc::socklen_t;
        // SAFETY: the kernel writes at most `length` bytes into `stats`.
        check(unsafe {
            libc::getsockopt(
                self.0.as_raw_fd(),
                libc::SOL_PACKET,
                libc::PACKET_STATISTICS,
                (&raw mut stats).cast(),
                &raw mut length,
            )
        })?;

        Ok(stats.tp_drops.into())
    }

    fn set_option(&self, level: i32, name: i32, value: libc::c_int) -> io::Result<()> {
        // SAFETY: `value` is valid for the given length.
        check(unsafe {
            libc::setsockopt(
                self.0.as_raw_fd(),
                level,
                name,
                (&raw const value).cast(),
                size_of::<libc::c_int>() as libc::socklen_t,
            )
        })?;

        Ok(())
    }
}

impl AsFd for PacketSocket {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

fn address(interface: &str, protocol: i32) -> io::Result<libc::sockaddr_ll> {
    let name = CString::new(interface)?;
    // SAFETY: `name` is a valid C string.
    let index = unsafe { libc::if_nametoindex(name.as_ptr()) };
    if index == 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: all-zero is a valid value of this plain C structure.
    let mut address: libc::sockaddr_ll = unsafe { zeroed() };
    address.sll_family = libc::AF_PACKET as libc::c_ushort;
    address.sll_protocol = (protocol as u16).to_be();
    address.sll_ifindex = index as libc::c_int;

    Ok(address)
}

fn check(result: libc::c_int) -> io::Result<libc::c_int> {
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(result) }
}
