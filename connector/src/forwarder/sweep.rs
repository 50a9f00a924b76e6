//! Where in the row of flows one is to look next.

use std::time::{Duration, Instant};

/// Goes round and round, so that who changes something often keeps no place from its turn.
#[derive(Debug)]
pub(super) struct Sweep {
    place: usize,
    /// How many places the round still has.
    left: usize,
    due: Instant,
    next_round: Instant,
}

/// How often silent flows are looked for.
const ROUND: Duration = Duration::from_secs(1);
/// How long packets have between two slices of a round.
const PAUSE: Duration = Duration::from_millis(2);

impl Sweep {
    pub(super) fn new(now: Instant) -> Self {
        Self { place: 0, left: 0, due: now + ROUND, next_round: now + ROUND }
    }

    pub(super) const fn due(&self) -> Instant {
        self.due
    }

    /// Every place is to be looked at from now on.
    pub(super) const fn start_round(&mut self, row_len: usize, now: Instant) {
        if self.left == 0 {
            self.due = now;
        }
        self.left = row_len;
    }

    /// Begins a slice.
    pub(super) fn start_slice(&mut self, row_len: usize, now: Instant) {
        if now >= self.next_round {
            self.left = row_len;
            self.next_round = now + ROUND;
        }
    }

    /// The place to look at next, unless the round is over.
    pub(super) const fn next_place(&mut self, row_len: usize) -> Option<usize> {
        if self.left == 0 {
            return None;
        }
        if self.place >= row_len {
            self.place = 0;
        }
        let place = self.place;
        self.place += 1;
        self.left -= 1;
        Some(place)
    }

    /// Ends a slice.
    pub(super) fn end_slice(&mut self, now: Instant) {
        self.due = if self.left == 0 { self.next_round } else { now + PAUSE };
    }
}
