//! Whether routers may cut the datagrams of a socket.

use std::{
    ffi::c_int,
    net::UdpSocket,
    os::fd::{AsFd as _, AsRawFd as _},
};

/// Lets the kernel and routers cut what does not fit. Routers of IPv6 do not, so that the kernel
/// cuts to what every link takes (RFC 8200 §5).
pub(super) fn allow(socket: &UdpSocket) {
    const MINIMUM_LINK_MTU: c_int = 1_280;

    set(socket, libc::IPPROTO_IP, libc::IP_MTU_DISCOVER, libc::IP_PMTUDISC_DONT);
    set(socket, libc::IPPROTO_IPV6, libc::IPV6_MTU_DISCOVER, libc::IPV6_PMTUDISC_DONT);
    set(socket, libc::IPPROTO_IPV6, libc::IPV6_DONTFRAG, 0);
    set(socket, libc::IPPROTO_IPV6, libc::IPV6_MTU, MINIMUM_LINK_MTU);
}

/// Forbids it again, as it is from the beginning.
pub(super) fn forbid(socket: &UdpSocket) {
    set(socket, libc::IPPROTO_IP, libc::IP_MTU_DISCOVER, libc::IP_PMTUDISC_PROBE);
    set(socket, libc::IPPROTO_IPV6, libc::IPV6_MTU_DISCOVER, libc::IPV6_PMTUDISC_PROBE);
    set(socket, libc::IPPROTO_IPV6, libc::IPV6_DONTFRAG, 1);
}

/// A socket that has no address of an IP version has none of its options, and needs none.
#[expect(unsafe_code, reason = "no crate has these options")]
fn set(socket: &UdpSocket, level: c_int, option: c_int, value: c_int) {
    const LEN: libc::socklen_t = 4;
    const { assert!(size_of::<c_int>() == 4) };

    // SAFETY: the descriptor is open, and the value lives as long as the call and is as long as it
    // is said to be.
    let _no_such_option = unsafe {
        let value = std::ptr::from_ref(&value).cast();
        libc::setsockopt(socket.as_fd().as_raw_fd(), level, option, value, LEN)
    };
}
