//! Resets that are sent again, because the network may have lost them.

use std::{
    collections::VecDeque,
    time::{Duration, Instant},
};

use adit_proto::{DeviceId, FlowTuple};
use adit_tunnel::PeerId;

use super::Reset;

/// What devices are told again. Who only receives has nothing to send that could be refused, so a
/// reset that is lost would leave it waiting for ever.
#[derive(Debug, Default)]
pub(super) struct Reminders(VecDeque<Reminder>);

#[derive(Debug)]
struct Reminder {
    due: Instant,
    times_left: u8,
    tuple: FlowTuple,
    device_id: DeviceId,
    peer: PeerId,
    reset: Reset,
}

impl Reminders {
    /// A removed device is heard out for five seconds; the last reminder comes before.
    const INTERVAL: Duration = Duration::from_secs(1);
    const TIMES: u8 = 3;
    /// More flows than that are told once, some 100 bytes each.
    const MAX: usize = 4096;

    pub(super) fn insert(
        &mut self,
        tuple: FlowTuple,
        (device_id, peer): (DeviceId, PeerId),
        reset: Reset,
        now: Instant,
    ) {
        if self.0.len() < Self::MAX {
            let (due, times_left) = (now + Self::INTERVAL, Self::TIMES);
            self.0.push_back(Reminder { due, times_left, tuple, device_id, peer, reset });
        }
    }

    /// A device is another peer than before, and still has to be told.
    pub(super) fn handle_readmitted(&mut self, device_id: DeviceId, peer: PeerId) {
        for reminder in self.0.iter_mut().filter(|reminder| reminder.device_id == device_id) {
            reminder.peer = peer;
        }
    }

    /// When a reset is due.
    pub(super) fn next(&self) -> Option<Instant> {
        self.0.front().map(|reminder| reminder.due)
    }

    /// The next reset that is due, of a flow that does not live again.
    pub(super) fn pop_due(
        &mut self,
        now: Instant,
        is_live: impl Fn(&FlowTuple) -> bool,
    ) -> Option<(PeerId, Reset)> {
        loop {
            let reminder = self.0.pop_front_if(|reminder| reminder.due <= now)?;
            if is_live(&reminder.tuple) {
                continue;
            }
            let (peer, reset) = (reminder.peer, reminder.reset.clone());
            if let Some(times_left @ 1..) = reminder.times_left.checked_sub(1) {
                // INVARIANT: the interval is the same for all, so the first is the first due.
                self.0.push_back(Reminder { due: now + Self::INTERVAL, times_left, ..reminder });
            }
            return Some((peer, reset));
        }
    }
}
