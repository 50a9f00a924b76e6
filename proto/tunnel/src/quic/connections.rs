//! The connections that there are, and for which of them there is something to be done.

use std::{
    collections::{BTreeSet, VecDeque},
    ops::Range,
    time::Instant,
};

use super::{QuicConnectionId, connection::Connection, packets::PacketLosses};
use crate::PeerId;

/// Connections, each at the place by which quinn calls it.
#[derive(Default)]
pub(super) struct Connections {
    all: Vec<Option<Box<Connection>>>,
    count: usize,
    serial: u64,
    /// Have something to be done.
    dirty: VecDeque<usize>,
    /// May have packets.
    receiving: VecDeque<usize>,
    timeouts: BTreeSet<(Instant, usize)>,
    /// Of connections that have ended.
    losses: PacketLosses,
}

impl Connections {
    pub(super) const fn len(&self) -> usize {
        self.count
    }

    /// The places where connections may be.
    pub(super) fn places(&self) -> Range<usize> {
        0..self.all.len()
    }

    /// Names the connection that comes to a place.
    pub(super) const fn next_id(&mut self, place: usize) -> QuicConnectionId {
        self.serial += 1;
        QuicConnectionId { place, serial: self.serial }
    }

    pub(super) fn insert(&mut self, connection: Connection) {
        let place = connection.id().place;
        if self.all.len() <= place {
            self.all.resize_with(place + 1, || None);
        }
        if let Some(slot) = self.all.get_mut(place) {
            *slot = Some(Box::new(connection));
            self.count += 1;
        }
        self.mark(place);
    }

    pub(super) fn remove(&mut self, place: usize) -> Option<QuicConnectionId> {
        let connection = self.all.get_mut(place).and_then(Option::take)?;
        self.count -= 1;
        self.losses.congestion += connection.losses().congestion;
        self.losses.too_big += connection.losses().too_big;
        Some(connection.id())
    }

    pub(super) fn at(&mut self, place: usize) -> Option<&mut Connection> {
        self.all.get_mut(place)?.as_deref_mut()
    }

    pub(super) fn find(&mut self, id: QuicConnectionId) -> Option<&mut Connection> {
        self.at(id.place).filter(|connection| connection.id() == id)
    }

    /// Notes that there is something to be done for a connection.
    pub(super) fn mark(&mut self, place: usize) {
        if let Some(connection) = self.at(place)
            && !std::mem::replace(&mut connection.is_dirty, true)
        {
            self.dirty.push_back(place);
        }
    }

    /// As [`Self::mark`], for one to which a datagram has come.
    pub(super) fn mark_receiving(&mut self, place: usize) {
        self.mark(place);
        if self.receiving.back() != Some(&place) {
            self.receiving.push_back(place);
        }
    }

    /// The next one for which there is something to be done.
    pub(super) fn pop_marked(&mut self) -> Option<usize> {
        self.dirty.pop_front()
    }

    /// The next packet, copied to the start of `slot`: from whom, and its length.
    pub(super) fn poll_packet(&mut self, slot: &mut [u8], now: Instant) -> Option<(PeerId, usize)> {
        while let Some(place) = self.receiving.front().copied() {
            if let Some(connection) = self.at(place)
                && let Some(packet) = connection.poll_packet(slot, now)
            {
                return Some(packet);
            }
            self.receiving.pop_front();
        }
        None
    }

    pub(super) fn set_timeout(&mut self, place: usize, timeout: Option<Instant>) {
        let Some(connection) = self.at(place) else { return };
        let before = std::mem::replace(&mut connection.timeout, timeout);
        if before == timeout {
            return;
        }
        if let Some(before) = before {
            self.timeouts.remove(&(before, place));
        }
        if let Some(timeout) = timeout {
            self.timeouts.insert((timeout, place));
        }
    }

    pub(super) fn handle_timeout(&mut self, now: Instant) {
        while let Some((at, place)) = self.timeouts.first().copied()
            && at <= now
        {
            self.timeouts.pop_first();
            if let Some(connection) = self.at(place) {
                connection.timeout = None;
                connection.quic().handle_timeout(now);
                self.mark(place);
            }
        }
    }

    pub(super) fn poll_timeout(&self) -> Option<Instant> {
        self.timeouts.first().map(|(at, _place)| *at)
    }

    /// Of those that there are, and of those that have ended.
    pub(super) fn losses(&self) -> PacketLosses {
        let live = self.all.iter().flatten().map(|connection| connection.losses());
        live.fold(self.losses, |sum, losses| PacketLosses {
            congestion: sum.congestion + losses.congestion,
            too_big: sum.too_big + losses.too_big,
        })
    }
}
