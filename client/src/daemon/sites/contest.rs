//! Which of two connectors still answers.

use std::time::{Duration, Instant};

/// How long the active connector may take to answer, beside two round trips to it.
const PATIENCE: Duration = Duration::from_millis(300);

/// What is left when a contest goes on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Verdict {
    /// Not known yet.
    Open,
    /// Ask both once more, since one question may be lost.
    AskAgain,
    /// The standby answers and the active connector does not.
    StandbyWins,
    /// Neither answers: it is the network.
    Nobody,
}

/// Both connectors are asked whether they are there, since the active one seems not to be. It ends
/// when the active one answers. A state machine without input and output.
#[derive(Debug)]
pub(super) struct Contest {
    again: Option<Instant>,
    until: Instant,
    standby_answered: bool,
}

impl Contest {
    /// Begins when both were asked.
    pub(super) fn new(round_trip: Option<Duration>, now: Instant) -> Self {
        let patience = PATIENCE + round_trip.unwrap_or_default() * 2;
        Self { again: Some(now + patience / 2), until: now + patience, standby_answered: false }
    }

    pub(super) const fn handle_standby_answered(&mut self) {
        self.standby_answered = true;
    }

    pub(super) fn handle_timeout(&mut self, now: Instant) -> Verdict {
        if now >= self.until {
            return if self.standby_answered { Verdict::StandbyWins } else { Verdict::Nobody };
        }
        match self.again.take_if(|again| *again <= now) {
            Some(_again) => Verdict::AskAgain,
            None => Verdict::Open,
        }
    }

    pub(super) fn poll_timeout(&self) -> Instant {
        self.again.unwrap_or(self.until)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_standby_wins_only_if_it_answered() {
        let start = Instant::now();
        for (answers, verdict) in [(true, Verdict::StandbyWins), (false, Verdict::Nobody)] {
            let mut contest = Contest::new(None, start);
            assert_eq!(contest.handle_timeout(start), Verdict::Open);
            if answers {
                contest.handle_standby_answered();
            }
            assert_eq!(contest.handle_timeout(contest.poll_timeout()), Verdict::AskAgain);
            assert_eq!(contest.handle_timeout(contest.poll_timeout()), verdict);
        }
    }

    #[test]
    fn a_connector_that_is_far_away_has_more_time() {
        let start = Instant::now();
        let far = Contest::new(Some(Duration::from_millis(300)), start);
        assert!(far.until - start > Duration::from_millis(600));
        assert!(Contest::new(None, start).until - start < Duration::from_millis(500));
    }
}
