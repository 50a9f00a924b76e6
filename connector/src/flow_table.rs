//! Flows that are being let through.

use std::{
    collections::HashMap,
    ops::AddAssign,
    time::{Duration, Instant},
};

use adit_policy::Authorization;
use adit_proto::{FlowTuple, Protocol};
use adit_tunnel::{PeerId, TcpFlags};

/// Packets in one direction, and the bytes of them with all their headers.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Volume {
    pub(crate) packets: u64,
    pub(crate) bytes: u64,
}

impl Volume {
    /// Of a lone packet.
    #[cfg(test)]
    pub(crate) fn of(packet: &adit_tunnel::Packet<'_>) -> Self {
        Self { packets: 1, bytes: u64::try_from(packet.bytes().len()).unwrap_or(u64::MAX) }
    }
}

impl AddAssign for Volume {
    fn add_assign(&mut self, more: Self) {
        self.packets += more.packets;
        self.bytes += more.bytes;
    }
}

/// One direction of a flow.
#[derive(Debug, Default)]
pub(crate) struct Direction {
    pub(crate) volume: Volume,
    /// TCP: the sequence number behind the newest segment.
    pub(crate) next_sequence: Option<u32>,
    finished: bool,
}

/// A flow, from the packet that opened it.
#[derive(Debug)]
pub(crate) struct Flow {
    pub(crate) tuple: FlowTuple,
    pub(crate) peer: PeerId,
    pub(crate) authorization: Authorization,
    /// The generation of policy and subject that `authorization` was decided under.
    pub(crate) generation: u64,
    pub(crate) started: Instant,
    pub(crate) last_seen: Instant,
    pub(crate) from_device: Direction,
    pub(crate) to_device: Direction,
    reset: bool,
    /// Where this flow stands in its peer's list.
    place: usize,
}

impl Flow {
    pub(crate) fn new(
        tuple: FlowTuple,
        peer: PeerId,
        authorization: Authorization,
        generation: u64,
        now: Instant,
    ) -> Self {
        Self {
            tuple,
            peer,
            authorization,
            generation,
            started: now,
            last_seen: now,
            from_device: Direction::default(),
            to_device: Direction::default(),
            reset: false,
            place: 0,
        }
    }

    /// Notes the flags of a TCP segment of this flow.
    pub(crate) fn note_flags(&mut self, flags: TcpFlags, from_device: bool) {
        self.reset |= flags.rst();
        let direction = if from_device { &mut self.from_device } else { &mut self.to_device };
        direction.finished |= flags.fin();
    }

    /// Whether both ends have said that they are done, or one has reset.
    pub(crate) const fn is_finished(&self) -> bool {
        self.reset || (self.from_device.finished && self.to_device.finished)
    }

    /// How long this flow may be silent.
    pub(crate) fn idle_limit(&self) -> Duration {
        /// Until the last acknowledgements are through.
        const FINISHED: Duration = Duration::from_secs(10);
        /// No answer yet.
        const TCP_OPENING: Duration = Duration::from_secs(60);
        /// RFC 5382 §5: not less than 2 hours 4 minutes.
        const TCP: Duration = Duration::from_secs(7_440);
        /// RFC 4787 §4.3: not less than 2 minutes.
        const UDP: Duration = Duration::from_secs(180);
        /// RFC 5508 §3.2: not less than 60 seconds.
        const ICMP: Duration = Duration::from_secs(60);

        match self.tuple.protocol {
            Protocol::Tcp if self.is_finished() => FINISHED,
            Protocol::Tcp if self.to_device.volume.packets == 0 => TCP_OPENING,
            Protocol::Tcp => TCP,
            Protocol::Udp => UDP,
            Protocol::Icmp => ICMP,
        }
    }

    pub(crate) fn is_idle(&self, now: Instant) -> bool {
        now.saturating_duration_since(self.last_seen) >= self.idle_limit()
    }
}

/// Where a flow is in the table; valid until it is removed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Slot(usize);

/// How many flows there may be.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Limits {
    pub(crate) flows: usize,
    pub(crate) flows_per_peer: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Self { flows: 262_144, flows_per_peer: 16_384 }
    }
}

/// All flows: by tuple, by peer, and in a row to be swept.
#[derive(Debug, Default)]
pub(crate) struct FlowTable {
    slots: Vec<Option<Flow>>,
    free: Vec<Slot>,
    by_tuple: HashMap<FlowTuple, Slot>,
    by_peer: HashMap<PeerId, Vec<Slot>>,
    limits: Limits,
}

/// There is no room for another flow, of this peer or at all.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Full;

impl FlowTable {
    pub(crate) fn new(limits: Limits) -> Self {
        Self { limits, ..Self::default() }
    }

    pub(crate) fn len(&self) -> usize {
        self.by_tuple.len()
    }

    /// How many places a sweep has to look at.
    pub(crate) fn slots(&self) -> usize {
        self.slots.len()
    }

    /// The slot at a place of the sweep, if a flow is there.
    pub(crate) fn slot_at(&self, place: usize) -> Option<Slot> {
        self.slots.get(place)?.as_ref()?;
        Some(Slot(place))
    }

    pub(crate) fn find(&self, tuple: &FlowTuple) -> Option<Slot> {
        self.by_tuple.get(tuple).copied()
    }

    /// The newest flow of a peer.
    pub(crate) fn newest_of(&self, peer: PeerId) -> Option<Slot> {
        self.by_peer.get(&peer)?.last().copied()
    }

    pub(crate) fn flow(&self, slot: Slot) -> &Flow {
        self.slots[slot.0].as_ref().expect("a slot is valid until its flow is removed")
    }

    pub(crate) fn flow_mut(&mut self, slot: Slot) -> &mut Flow {
        self.slots[slot.0].as_mut().expect("a slot is valid until its flow is removed")
    }

    /// Adds a flow that is not in the table yet.
    ///
    /// # Errors
    ///
    /// [`Full`] when there is no room for another flow of this peer, or at all.
    pub(crate) fn insert(&mut self, mut flow: Flow) -> Result<Slot, Full> {
        let is_full = self.len() >= self.limits.flows;
        let of_peer = self.by_peer.entry(flow.peer).or_default();
        if is_full || of_peer.len() >= self.limits.flows_per_peer {
            return Err(Full);
        }
        flow.place = of_peer.len();
        let tuple = flow.tuple;
        let slot = match self.free.pop() {
            Some(slot) => {
                self.slots[slot.0] = Some(flow);
                slot
            }
            None => {
                self.slots.push(Some(flow));
                Slot(self.slots.len() - 1)
            }
        };
        of_peer.push(slot);
        self.by_tuple.insert(tuple, slot);
        Ok(slot)
    }

    pub(crate) fn remove(&mut self, slot: Slot) -> Flow {
        let flow = self.slots[slot.0].take().expect("a slot is valid until its flow is removed");
        self.by_tuple.remove(&flow.tuple);
        self.free.push(slot);
        let of_peer =
            self.by_peer.get_mut(&flow.peer).expect("a peer with a flow has a list of flows");
        of_peer.swap_remove(flow.place);
        if let Some(moved) = of_peer.get(flow.place).copied() {
            self.flow_mut(moved).place = flow.place;
        } else if of_peer.is_empty() {
            self.by_peer.remove(&flow.peer);
        }
        flow
    }
}
