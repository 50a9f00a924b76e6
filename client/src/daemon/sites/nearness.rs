//! Whether the standby is so much nearer that it should take over.

use std::time::{Duration, Instant};

/// A standby takes over if it costs less than two thirds, and less by this at least, so many times
/// in a row; but not again so soon.
const NEARER_BY: Duration = Duration::from_millis(5);
const NEARER_TIMES: u32 = 3;
const STICKS_FOR: Duration = Duration::from_secs(300);

/// Compares what two connectors cost. A state machine without input and output.
#[derive(Debug, Default)]
pub(super) struct Nearness {
    /// How often in a row the standby was found nearer.
    nearer: u32,
    moved: Option<Instant>,
}

impl Nearness {
    /// Notes what both cost.
    pub(super) fn compare(&mut self, active: Duration, standby: Duration) {
        let is_nearer = standby * 3 < active * 2 && standby + NEARER_BY < active;
        self.nearer = if is_nearer { self.nearer + 1 } else { 0 };
    }

    /// The standby has taken over.
    pub(super) const fn handle_moved(&mut self, now: Instant) {
        self.nearer = 0;
        self.moved = Some(now);
    }

    pub(super) fn calls_for_move(&self, now: Instant) -> bool {
        self.nearer >= NEARER_TIMES && self.moved.is_none_or(|at| now >= at + STICKS_FOR)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const FAR: Duration = Duration::from_millis(40);
    const NEAR: Duration = Duration::from_millis(10);

    #[test]
    fn the_standby_has_to_be_nearer_several_times_in_a_row() {
        let (mut nearness, now) = (Nearness::default(), Instant::now());
        for _ in 1..NEARER_TIMES {
            nearness.compare(FAR, NEAR);
        }
        nearness.compare(NEAR, NEAR);
        assert!(!nearness.calls_for_move(now));
        for _ in 0..NEARER_TIMES {
            assert!(!nearness.calls_for_move(now));
            nearness.compare(FAR, NEAR);
        }
        assert!(nearness.calls_for_move(now));
    }

    #[test]
    fn a_small_difference_is_none() {
        let (mut nearness, now) = (Nearness::default(), Instant::now());
        for (active, standby) in [(3000, 2500), (7, 3)] {
            for _ in 0..NEARER_TIMES {
                nearness.compare(Duration::from_millis(active), Duration::from_millis(standby));
            }
            assert!(!nearness.calls_for_move(now), "{active} and {standby} ms");
        }
    }

    #[test]
    fn it_does_not_move_again_so_soon() {
        let (mut nearness, start) = (Nearness::default(), Instant::now());
        nearness.handle_moved(start);
        for _ in 0..NEARER_TIMES {
            nearness.compare(FAR, NEAR);
        }
        assert!(!nearness.calls_for_move(start));
        assert!(nearness.calls_for_move(start + STICKS_FOR));
    }
}
