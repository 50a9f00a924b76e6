//! Several sockets on one port, each of which gets the datagrams of its own lane.

use std::{
    io,
    net::UdpSocket,
    os::fd::{AsFd as _, AsRawFd as _},
};

/// Lets the kernel choose the socket by the index of the receiver or the connection id, which say
/// the lane: see [`Lane`](crate::Lane). What has none goes anywhere.
///
/// The program is of the classic Berkeley Packet Filter; it sees the payload of the datagram. The
/// sockets are numbered as they were bound.
#[expect(unsafe_code, reason = "no crate has this option")]
pub(super) fn steer(socket: &UdpSocket, lanes: u8) -> io::Result<()> {
    const LOAD_BYTE: u32 = libc::BPF_LD | libc::BPF_B | libc::BPF_ABS;
    const JUMP_IF_EQUAL: u32 = libc::BPF_JMP | libc::BPF_JEQ | libc::BPF_K;
    const JUMP_IF_SET: u32 = libc::BPF_JMP | libc::BPF_JSET | libc::BPF_K;
    const JUMP: u32 = libc::BPF_JMP | libc::BPF_JA;
    const MODULO: u32 = libc::BPF_ALU | libc::BPF_MOD | libc::BPF_K;
    const RETURN: u32 = libc::BPF_RET | libc::BPF_A;
    /// WireGuard's kind of message that names its sender before its receiver.
    const RESPONSE: u32 = 2;
    /// The second byte of the index; the first one counts the sessions of a peer.
    const RECEIVER: u32 = 5;
    const RECEIVER_OF_RESPONSE: u32 = 9;
    /// QUIC's fixed bit, and that of its long headers (RFC 9000 §17).
    const IS_QUIC: u32 = 0x40;
    const IS_LONG: u32 = 0x80;
    /// The first byte of the connection id.
    const CONNECTION: u32 = 1;
    const CONNECTION_OF_LONG: u32 = 6;

    let step = |code: u32, if_true, k| libc::sock_filter {
        code: u16::try_from(code).unwrap_or_default(),
        jt: if_true,
        jf: 0,
        k,
    };
    let mut program = [
        step(LOAD_BYTE, 0, 0),
        step(JUMP_IF_SET, 5, IS_QUIC),
        step(JUMP_IF_EQUAL, 2, RESPONSE),
        step(LOAD_BYTE, 0, RECEIVER),
        step(JUMP, 0, 6),
        step(LOAD_BYTE, 0, RECEIVER_OF_RESPONSE),
        step(JUMP, 0, 4),
        step(JUMP_IF_SET, 2, IS_LONG),
        step(LOAD_BYTE, 0, CONNECTION),
        step(JUMP, 0, 1),
        step(LOAD_BYTE, 0, CONNECTION_OF_LONG),
        step(MODULO, 0, lanes.max(1).into()),
        step(RETURN, 0, 0),
    ];
    let len = u16::try_from(program.len()).unwrap_or_default();
    let program = libc::sock_fprog { len, filter: program.as_mut_ptr() };
    let program_len = libc::socklen_t::try_from(size_of::<libc::sock_fprog>()).unwrap_or_default();
    // SAFETY: the descriptor is open, and program and steps live as long as the call and are as long
    // as they are said to be.
    let result = unsafe {
        libc::setsockopt(
            socket.as_fd().as_raw_fd(),
            libc::SOL_SOCKET,
            libc::SO_ATTACH_REUSEPORT_CBPF,
            std::ptr::from_ref(&program).cast(),
            program_len,
        )
    };
    if result == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}
