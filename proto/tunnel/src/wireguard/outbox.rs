//! What a tunnel wants sent and told, until its owner asks for it.

use std::collections::VecDeque;

use super::{DropCounters, DropReason, PeerId};
use crate::Endpoint;

/// A datagram to be sent.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Transmit {
    /// Where to.
    pub to: Endpoint,
    /// All of it.
    pub bytes: Vec<u8>,
}

/// Something that happened to a peer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TunnelEvent {
    /// A handshake is complete, the first or a later one, and confirmed by the other end.
    Established {
        /// Whose.
        peer: PeerId,
    },
    /// The peer proved to be at another endpoint than before.
    Roamed {
        /// Which.
        peer: PeerId,
        /// Where it is.
        endpoint: Endpoint,
    },
}

/// Queues and counters that all peers of a tunnel share.
#[derive(Default)]
pub(super) struct Outbox {
    /// With the peer that each is for; a cookie is for none.
    transmits: VecDeque<(Option<PeerId>, Transmit)>,
    events: VecDeque<TunnelEvent>,
    drops: DropCounters,
}

/// Emptied after every batch of datagrams, so only a forgetful owner ever meets these.
const MAX_TRANSMITS: usize = 8192;
const MAX_EVENTS: usize = 8192;

impl Outbox {
    pub(super) fn transmit(&mut self, peer: Option<PeerId>, to: Endpoint, bytes: &[u8]) {
        if self.transmits.len() >= MAX_TRANSMITS {
            self.drops.count(DropReason::TransmitQueueFull);
            return;
        }
        self.transmits.push_back((peer, Transmit { to, bytes: bytes.to_vec() }));
    }

    pub(super) fn event(&mut self, event: TunnelEvent) {
        if self.events.len() >= MAX_EVENTS {
            self.events.pop_front();
        }
        self.events.push_back(event);
    }

    pub(super) fn count(&mut self, reason: DropReason) {
        self.drops.count(reason);
    }

    pub(super) fn forget(&mut self, removed: PeerId) {
        self.transmits.retain(|(peer, _transmit)| *peer != Some(removed));
        self.events.retain(|event| match event {
            TunnelEvent::Established { peer } => *peer != removed,
            TunnelEvent::Roamed { peer, .. } => *peer != removed,
        });
    }

    pub(super) fn poll_transmit(&mut self) -> Option<Transmit> {
        self.transmits.pop_front().map(|(_peer, transmit)| transmit)
    }

    pub(super) fn poll_event(&mut self) -> Option<TunnelEvent> {
        self.events.pop_front()
    }

    pub(super) const fn drops(&self) -> &DropCounters {
        &self.drops
    }
}
