use std::{
    io::{ErrorKind, IoSliceMut},
    net::{SocketAddr, UdpSocket},
    os::fd::AsFd as _,
};

use anyhow::Context as _;
use nix::{
    poll::{PollFd, PollFlags, PollTimeout, poll},
    sys::socket::{setsockopt, sockopt},
};
use quinn_udp::{BATCH_SIZE, RecvMeta, UdpSocketState};

use super::datagram::{HEADER_LEN, Header, Kind};
use crate::{Bind, event};

/// Enough for whatever arrives while another process has the processor.
const RECEIVE_BUFFER: usize = 16 << 20;

#[derive(clap::Args)]
pub(crate) struct Args {
    #[command(flatten)]
    bind: Bind,
}

/// Counts datagrams, says how many came when asked, and sends back what asks for that.
///
/// Takes trains as the kernel merged them, many at a time, so that it is not the bound of what is
/// measured.
pub(crate) fn run(args: &Args) -> anyhow::Result<()> {
    let socket = UdpSocket::bind((args.bind.bind, args.bind.port))
        .with_context(|| format!("failed to bind {}", args.bind.bind))?;
    // Without privileges the kernel grants less.
    let _ = setsockopt(&socket, sockopt::RcvBufForce, &RECEIVE_BUFFER);
    let state = UdpSocketState::new((&socket).into()).context("failed to set options")?;
    event::print_listening(socket.local_addr().context("failed to read the port")?);

    let train_len = state.gro_segments().max(1) * 1_500;
    let mut buffers = vec![vec![0; train_len.max(65_536)]; BATCH_SIZE];
    let mut counter = Counter::default();
    loop {
        let mut waiting = [PollFd::new(socket.as_fd(), PollFlags::POLLIN)];
        poll(&mut waiting, PollTimeout::NONE).context("failed to wait")?;
        let mut metas = [RecvMeta::default(); BATCH_SIZE];
        let mut slices: Vec<_> = buffers.iter_mut().map(|buffer| IoSliceMut::new(buffer)).collect();
        let received = match state.recv((&socket).into(), &mut slices, &mut metas) {
            Ok(received) => received,
            Err(error) if error.kind() == ErrorKind::WouldBlock => continue,
            Err(error) => return Err(error).context("failed to receive"),
        };
        for (buffer, meta) in buffers.iter().zip(&metas).take(received) {
            for datagram in buffer[..meta.len].chunks(meta.stride.max(1)) {
                counter.handle(datagram, meta.addr, &socket);
            }
        }
    }
}

/// What came of the trial that runs.
#[derive(Default)]
struct Counter {
    trial: u32,
    received: u64,
}

impl Counter {
    fn handle(&mut self, datagram: &[u8], from: SocketAddr, socket: &UdpSocket) {
        let Some(header) = Header::read(datagram) else { return };
        match header.kind {
            Kind::Load => {
                if header.trial > self.trial {
                    *self = Self { trial: header.trial, received: 0 };
                }
                self.received += u64::from(header.trial == self.trial);
            }
            Kind::Report => {
                let received = if header.trial == self.trial { self.received } else { 0 };
                let mut answer = [0; HEADER_LEN];
                Header { value: received, ..header }.write(&mut answer);
                // Who asks, asks again.
                let _ = socket.send_to(&answer, from);
            }
            // A lost answer is one that does not come.
            Kind::Echo => drop(socket.send_to(datagram, from)),
        }
    }
}
