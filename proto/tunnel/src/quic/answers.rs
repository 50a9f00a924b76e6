//! Answers that no connection gives.

use std::time::{Duration, Instant};

use crate::Endpoint;

/// What goes to those of whom nothing is known: that a connection is gone, or that another version
/// is spoken here. They are few, for what asks for them costs its sender less than us.
#[derive(Default)]
pub(super) struct Answers {
    queue: Vec<(Endpoint, Vec<u8>)>,
    since: Option<Instant>,
    count: u32,
}

/// Of [`WINDOW`], which takes some 1 % of it.
const MAX: u32 = 250;

const WINDOW: Duration = Duration::from_millis(100);

impl Answers {
    /// Lets an answer wait for [`Self::take`], or drops it.
    pub(super) fn push(&mut self, to: Endpoint, bytes: Vec<u8>, now: Instant) {
        if self.since.is_none_or(|since| now.saturating_duration_since(since) >= WINDOW) {
            self.since = Some(now);
            self.count = 0;
        }
        if self.count < MAX {
            self.count += 1;
            self.queue.push((to, bytes));
        }
    }

    /// Takes all that wait.
    pub(super) fn take(&mut self) -> Vec<(Endpoint, Vec<u8>)> {
        std::mem::take(&mut self.queue)
    }
}

#[cfg(test)]
mod tests {
    use std::net::{Ipv4Addr, SocketAddr};

    use super::*;

    #[test]
    fn there_are_so_many_answers_within_a_moment() {
        let (mut answers, start) = (Answers::default(), Instant::now());
        let to = Endpoint::from(SocketAddr::from((Ipv4Addr::LOCALHOST, 443)));
        let mut given = |now| {
            (0..2 * MAX).for_each(|_| answers.push(to, Vec::new(), now));
            answers.take().len()
        };
        assert_eq!(given(start), 250);
        assert_eq!(given(start + WINDOW / 2), 0);
        assert_eq!(given(start + WINDOW), 250);
    }
}
