//! Seals packets one behind the other and sends them in trains.

use std::{ops::AddAssign, time::Instant};

use super::{PeerId, Sealed, Tunnel};
use crate::{Ecn, Frame, Heading, SendOutcome, Train, UdpSocket, packet::clamp_segment_size};

/// Datagrams that the network did not take.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct SendLosses {
    /// A full socket did not take them.
    pub socket_full: u64,
    /// Longer than the path takes.
    pub too_big: u64,
    /// No route leads there.
    pub unreachable: u64,
}

impl AddAssign for SendLosses {
    fn add_assign(&mut self, others: Self) {
        self.socket_full += others.socket_full;
        self.too_big += others.too_big;
        self.unreachable += others.unreachable;
    }
}

/// The way to the network: what is sealed for one peer becomes trains.
///
/// Seal with [`seal_frame`](Self::seal_frame) and [`seal_packet`](Self::seal_packet), and
/// [`flush`](Self::flush) when nothing more waits to be sealed.
pub struct Outbound {
    train: Train,
    losses: SendLosses,
}

impl Outbound {
    /// With a buffer of its own, about 128 KiB.
    pub fn new() -> Self {
        Self { train: Train::new(), losses: SendLosses::default() }
    }

    /// Seals all packets that `frame` stands for.
    ///
    /// Those that are too long for the path go out in pieces: see [`Frame::fits`].
    ///
    /// Those that a drop ends, or a handshake holds, are counted or queued by the tunnel.
    pub fn seal_frame(
        &mut self,
        tunnel: &mut Tunnel,
        udp: &mut UdpSocket,
        peer: PeerId,
        frame: Frame<'_>,
        now: Instant,
    ) {
        let is_lone = frame.packet_count() == 1;
        let may_be_cut = frame.max_packet_len() > tunnel.max_packet_len(peer);
        let mut segments = frame.segments();
        while let Some(packet) = segments.next() {
            if is_lone && let Some(len) = tunnel.short_path(peer) {
                clamp_segment_size(packet, len);
            }
            self.seal(tunnel, udp, peer, packet, may_be_cut, now);
        }
        if self.train.is_bulky() {
            self.flush(tunnel, udp, now);
        }
    }

    /// Seals one packet of our own, which is short.
    pub fn seal_packet(
        &mut self,
        tunnel: &mut Tunnel,
        udp: &mut UdpSocket,
        peer: PeerId,
        packet: &[u8],
        now: Instant,
    ) {
        self.seal(tunnel, udp, peer, packet, false, now);
    }

    fn seal(
        &mut self,
        tunnel: &mut Tunnel,
        udp: &mut UdpSocket,
        peer: PeerId,
        packet: &[u8],
        may_be_cut: bool,
        now: Instant,
    ) {
        match tunnel.seal(peer, packet, self.train.slot(), now) {
            Sealed::Datagram { to, bytes } => {
                let len = bytes.len();
                let heading = Heading { peer, to, ecn: Ecn::of(packet), may_be_cut };
                if !self.train.try_append(heading, len) {
                    self.flush(tunnel, udp, now);
                    self.train.begin(heading, len);
                }
            }
            Sealed::Waiting => {}
            Sealed::Dropped(reason) => {
                tracing::trace!(%peer, %reason, "Dropped a packet to a peer");
            }
        }
    }

    /// Sends what has been sealed.
    pub fn flush(&mut self, tunnel: &mut Tunnel, udp: &mut UdpSocket, now: Instant) {
        let Some(heading) = self.train.heading() else { return };
        let count = u64::try_from(self.train.count()).unwrap_or(u64::MAX);
        match udp.send_train(&mut self.train) {
            SendOutcome::Sent => {}
            SendOutcome::Full => self.losses.socket_full += count,
            SendOutcome::Unreachable => self.losses.unreachable += count,
            SendOutcome::TooBig => {
                self.losses.too_big += count;
                tunnel.handle_too_big(heading.peer, now);
            }
        }
    }

    /// What was lost so far.
    pub const fn losses(&self) -> SendLosses {
        self.losses
    }
}

impl Default for Outbound {
    fn default() -> Self {
        Self::new()
    }
}
