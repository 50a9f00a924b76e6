//! Opens datagrams one behind the other and merges what was in them.

use std::time::Instant;

use super::{DropReason, PeerId, Received, Tunnel};
use crate::{
    Datagram, Merger, Run,
    packet::{clamp_segment_size, decapsulate_ecn},
};

/// What came of a datagram.
#[derive(Debug)]
pub enum Opened<'a> {
    /// A packet, or nothing that its receiver has to know of: see [`Inbound::poll_run`].
    Kept,
    /// A handshake initiation: see [`Received::Initiation`].
    Initiation,
    /// Nothing; the drop is already counted.
    Dropped {
        /// Why.
        reason: DropReason,
        /// From whom, where that is authentic.
        peer: Option<PeerId>,
        /// The inner packet of [`DropReason::SourceSpoofed`], else nothing.
        packet: &'a [u8],
    },
}

/// The way from the network: packets of one peer and one flow become runs.
///
/// After each [`open`](Self::open), [`poll_run`](Self::poll_run) until there is none; when no more
/// datagrams wait, [`finish`](Self::finish) gives the last run.
pub struct Inbound {
    merger: Merger,
    /// Whose the run in the merger is, if there is one.
    owner: Option<PeerId>,
    /// The packet in the merger's slot, which is in no run yet.
    opened: Option<(PeerId, usize)>,
}

impl Inbound {
    /// With buffers of its own, about 200 KiB.
    pub fn new() -> Self {
        Self { merger: Merger::new(), owner: None, opened: None }
    }

    /// Opens a datagram.
    pub fn open(
        &mut self,
        tunnel: &mut Tunnel,
        datagram: &Datagram<'_>,
        now: Instant,
    ) -> Opened<'_> {
        let slot = self.merger.slot();
        match tunnel.handle_datagram(datagram.from, datagram.bytes, slot, now) {
            Received::Packet { peer, packet } => {
                if !decapsulate_ecn(datagram.ecn, packet) {
                    let reason = DropReason::CongestionExperienced;
                    tunnel.count_drop(reason);
                    return Opened::Dropped { reason, peer: Some(peer), packet: &[] };
                }
                if let Some(len) = tunnel.short_path(peer) {
                    clamp_segment_size(packet, len);
                }
                self.opened = Some((peer, packet.len()));
                Opened::Kept
            }
            Received::Consumed => Opened::Kept,
            Received::Initiation => Opened::Initiation,
            Received::Dropped { reason, peer, packet } => Opened::Dropped { reason, peer, packet },
        }
    }

    /// Where the next packet is to be copied that comes by another carrier, for [`Self::take`].
    pub fn slot(&mut self) -> &mut [u8] {
        self.merger.slot()
    }

    /// Takes the packet of `len` bytes in the slot, which is a peer's.
    ///
    /// The caller has made sure that its source address belongs to the peer.
    pub fn take(&mut self, peer: PeerId, len: usize) {
        self.opened = Some((peer, len));
    }

    /// The run that the packet opened last does not continue, and whose it is.
    pub fn poll_run(&mut self) -> Option<(PeerId, Run<'_>)> {
        let (peer, len) = self.opened?;
        if self.owner == Some(peer) && self.merger.try_extend(len) {
            self.opened = None;
            return None;
        }
        if self.owner.is_some() {
            return self.finish();
        }
        self.opened = None;
        self.merger.begin(len);
        self.owner = Some(peer);
        None
    }

    /// The run so far.
    pub fn finish(&mut self) -> Option<(PeerId, Run<'_>)> {
        let owner = self.owner.take()?;
        self.merger.take().map(|run| (owner, run))
    }
}

impl Default for Inbound {
    fn default() -> Self {
        Self::new()
    }
}
