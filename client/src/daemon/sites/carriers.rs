//! Which carriers there are to one connector, and which of them carries.

use std::time::{Duration, Instant};

use super::HANDSHAKE_PATIENCE;
use crate::carrier::{Carrier, CarrierChoice};

/// How long a better carrier is tried alone before the next is tried beside it (RFC 8305 §5).
const HEAD_START: Duration = Duration::from_millis(300);

/// A carrier that failed is tried again after this time, and twice as much each time up to the
/// longest.
const FIRST_RETRY: Duration = Duration::from_secs(1);
const LONGEST_RETRY: Duration = Duration::from_secs(15);

/// A worse carrier is kept so long beside a better one, lest that goes away again.
const LINGER: Duration = Duration::from_secs(5);

/// What is to be done about a carrier.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum CarrierStep {
    /// Try it.
    Open(Carrier),
    /// Find out whether it still carries.
    Probe(Carrier),
    /// Give it up.
    Close(Carrier),
    /// Packets go by it from here on.
    Use(Carrier),
}

/// The carriers to one connector: a state machine without input and output.
#[derive(Debug)]
pub(super) struct Carriers {
    choice: CarrierChoice,
    /// Worked last in the network where the search begins, so it is tried first.
    remembered: Option<Carrier>,
    attempts: [Attempt; Carrier::ALL.len()],
    current: Option<Carrier>,
}

/// How far a carrier has come.
#[derive(Debug, Clone, Copy, Default)]
struct Attempt {
    state: State,
    failures: u32,
}

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
enum State {
    /// Not wanted.
    #[default]
    Idle,
    /// To be tried then.
    Due(Instant),
    /// Being tried; if nothing has come of it by then, it is tried again.
    Opening(Instant),
    /// Packets can pass.
    Up,
    /// Packets can pass, but a better one carries them; closed then.
    Lingering(Instant),
}

impl Carriers {
    pub(super) fn new(choice: CarrierChoice, remembered: Option<Carrier>, now: Instant) -> Self {
        let mut new = Self { choice, remembered, attempts: Default::default(), current: None };
        new.seek(now);
        new
    }

    /// What carries packets.
    pub(super) const fn current(&self) -> Option<Carrier> {
        self.current
    }

    /// Whether a carrier was tried in vain, while none carries.
    pub(super) fn is_in_trouble(&self) -> bool {
        self.current.is_none() && self.attempts.iter().any(|attempt| attempt.failures > 0)
    }

    pub(super) const fn choice(&self) -> CarrierChoice {
        self.choice
    }

    /// Other carriers are allowed than before.
    pub(super) fn set_choice(&mut self, choice: CarrierChoice, now: Instant) -> Vec<CarrierStep> {
        self.choice = choice;
        let mut steps = Vec::new();
        for carrier in Carrier::ALL {
            if !choice.allows(carrier) {
                steps.extend(self.close(carrier));
            }
        }
        if self.current.is_some_and(|current| !choice.allows(current)) {
            self.current = None;
        }
        self.settle(&mut steps, now);
        self.seek(now);
        steps
    }

    /// The connector has admitted us anew, perhaps after a restart.
    pub(super) fn handle_readmitted(&self) -> Vec<CarrierStep> {
        let is_up = |carrier: &Carrier| {
            matches!(self.attempts[place(*carrier)].state, State::Up | State::Lingering(_))
        };
        Carrier::ALL.into_iter().filter(is_up).map(CarrierStep::Probe).collect()
    }

    /// Packets can pass by a carrier.
    pub(super) fn handle_up(&mut self, carrier: Carrier, now: Instant) -> Vec<CarrierStep> {
        let mut steps = Vec::new();
        if !self.choice.allows(carrier) {
            return steps;
        }
        let attempt = self.attempt(carrier);
        attempt.failures = 0;
        if !matches!(attempt.state, State::Lingering(_)) {
            attempt.state = State::Up;
        }
        self.settle(&mut steps, now);
        steps
    }

    /// Packets can no longer pass by a carrier, or it did not come about.
    pub(super) fn handle_down(&mut self, carrier: Carrier, now: Instant) -> Vec<CarrierStep> {
        let mut steps = Vec::new();
        let choice = self.choice;
        let attempt = self.attempt(carrier);
        attempt.failures = attempt.failures.saturating_add(1);
        let wait = FIRST_RETRY * 2_u32.saturating_pow(attempt.failures.min(8) - 1);
        attempt.state = if choice.allows(carrier) {
            State::Due(now + wait.min(LONGEST_RETRY))
        } else {
            State::Idle
        };
        if self.current == Some(carrier) {
            self.current = None;
            self.settle(&mut steps, now);
        }
        if self.current.is_none() {
            // The head start is over for all.
            for other in Carrier::ALL {
                if other != carrier && choice.allows(other) {
                    let attempt = self.attempt(other);
                    if matches!(attempt.state, State::Idle | State::Due(_)) {
                        attempt.state = State::Due(now);
                    }
                }
            }
        }
        steps
    }

    /// Does what is due.
    pub(super) fn handle_timeout(&mut self, now: Instant) -> Vec<CarrierStep> {
        let mut steps = Vec::new();
        for carrier in Carrier::ALL {
            let current = self.current;
            let attempt = self.attempt(carrier);
            match attempt.state {
                State::Due(at) if at <= now => {
                    if current.is_none_or(|current| carrier < current) {
                        attempt.state = State::Opening(now + HANDSHAKE_PATIENCE);
                        steps.push(CarrierStep::Open(carrier));
                    } else {
                        attempt.state = State::Idle;
                    }
                }
                State::Opening(until) if until <= now => {
                    attempt.failures = attempt.failures.saturating_add(1);
                    attempt.state = State::Opening(now + HANDSHAKE_PATIENCE);
                    steps.push(CarrierStep::Open(carrier));
                }
                State::Lingering(until) if until <= now => steps.extend(self.close(carrier)),
                State::Idle
                | State::Due(_)
                | State::Opening(_)
                | State::Up
                | State::Lingering(_) => {}
            }
        }
        steps
    }

    pub(super) fn poll_timeout(&self) -> Option<Instant> {
        self.attempts
            .iter()
            .filter_map(|attempt| match attempt.state {
                State::Due(at) | State::Opening(at) | State::Lingering(at) => Some(at),
                State::Idle | State::Up => None,
            })
            .min()
    }

    /// Gives all up.
    pub(super) fn close_all(&mut self) -> Vec<CarrierStep> {
        Carrier::ALL.into_iter().filter_map(|carrier| self.close(carrier)).collect()
    }

    /// Plans the allowed ones that are better than what carries, each with its head start: the
    /// remembered one before the others.
    fn seek(&mut self, now: Instant) {
        let (choice, current, remembered) = (self.choice, self.current, self.remembered);
        let others = Carrier::ALL.into_iter().filter(|carrier| Some(*carrier) != remembered);
        let wanted = remembered.into_iter().chain(others).filter(|carrier| {
            choice.allows(*carrier) && current.is_none_or(|current| *carrier < current)
        });
        for (carrier, place) in wanted.zip(0_u32..) {
            let attempt = self.attempt(carrier);
            if matches!(attempt.state, State::Idle | State::Due(_)) {
                attempt.state = State::Due(now + HEAD_START * place);
            }
        }
    }

    /// Uses the best that is up; the worse ones linger.
    fn settle(&mut self, steps: &mut Vec<CarrierStep>, now: Instant) {
        let is_up = |carrier: &Carrier| {
            matches!(self.attempts[place(*carrier)].state, State::Up | State::Lingering(_))
        };
        let Some(best) = Carrier::ALL.into_iter().find(is_up) else { return };
        for carrier in Carrier::ALL {
            let attempt = self.attempt(carrier);
            attempt.state = match attempt.state {
                State::Up | State::Lingering(_) if carrier == best => State::Up,
                State::Up if carrier > best => State::Lingering(now + LINGER),
                state @ (State::Idle
                | State::Due(_)
                | State::Opening(_)
                | State::Up
                | State::Lingering(_)) => state,
            };
        }
        if self.current != Some(best) {
            self.current = Some(best);
            steps.push(CarrierStep::Use(best));
        }
    }

    fn close(&mut self, carrier: Carrier) -> Option<CarrierStep> {
        let attempt = self.attempt(carrier);
        let Attempt { state, failures } = std::mem::take(attempt);
        match state {
            State::Opening(_) | State::Up | State::Lingering(_) => {
                Some(CarrierStep::Close(carrier))
            }
            // One that fell silent may still be there.
            State::Due(_) if failures > 0 => Some(CarrierStep::Close(carrier)),
            State::Idle | State::Due(_) => None,
        }
    }

    const fn attempt(&mut self, carrier: Carrier) -> &mut Attempt {
        &mut self.attempts[place(carrier)]
    }
}

const fn place(carrier: Carrier) -> usize {
    carrier as usize
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(start: Instant, millis: u64) -> Instant {
        start + Duration::from_millis(millis)
    }

    #[test]
    fn the_next_carrier_is_tried_after_a_head_start_and_the_better_one_wins() {
        let start = Instant::now();
        let mut carriers = Carriers::new(CarrierChoice::Auto, None, start);
        assert_eq!(carriers.handle_timeout(start), [CarrierStep::Open(Carrier::Wireguard)]);
        assert_eq!(carriers.poll_timeout(), Some(at(start, 300)));
        let now = at(start, 300);
        assert_eq!(carriers.handle_timeout(now), [CarrierStep::Open(Carrier::Quic)]);
        assert_eq!(carriers.handle_up(Carrier::Quic, now), [CarrierStep::Use(Carrier::Quic)]);
        let now = at(start, 400);
        let steps = carriers.handle_up(Carrier::Wireguard, now);
        assert_eq!(steps, [CarrierStep::Use(Carrier::Wireguard)]);
        assert_eq!(carriers.handle_timeout(now + LINGER), [CarrierStep::Close(Carrier::Quic)]);
        assert_eq!(carriers.poll_timeout(), None);
    }

    #[test]
    fn a_carrier_that_works_at_once_is_the_only_one_tried() {
        let start = Instant::now();
        let mut carriers = Carriers::new(CarrierChoice::Auto, None, start);
        carriers.handle_timeout(start);
        carriers.handle_up(Carrier::Wireguard, at(start, 10));
        assert_eq!(carriers.handle_timeout(at(start, 300)), []);
        assert_eq!(carriers.current(), Some(Carrier::Wireguard));
    }

    #[test]
    fn when_the_best_goes_down_the_others_are_tried_at_once_and_it_again_later() {
        let start = Instant::now();
        let mut carriers = Carriers::new(CarrierChoice::Auto, None, start);
        carriers.handle_timeout(start);
        carriers.handle_up(Carrier::Wireguard, start);
        let now = at(start, 1000);
        assert_eq!(carriers.handle_down(Carrier::Wireguard, now), []);
        assert_eq!(carriers.current(), None);
        let opened = [Carrier::Quic, Carrier::Http2].map(CarrierStep::Open);
        assert_eq!(carriers.handle_timeout(now), opened);
        carriers.handle_up(Carrier::Quic, at(start, 1100));
        let steps = carriers.handle_timeout(at(start, 2000));
        assert_eq!(steps, [CarrierStep::Open(Carrier::Wireguard)]);
        assert_eq!(carriers.current(), Some(Carrier::Quic));
    }

    #[test]
    fn the_remembered_carrier_is_tried_first_and_better_ones_after_it() {
        let start = Instant::now();
        let mut carriers = Carriers::new(CarrierChoice::Auto, Some(Carrier::Http2), start);
        assert_eq!(carriers.handle_timeout(start), [CarrierStep::Open(Carrier::Http2)]);
        let steps = carriers.handle_up(Carrier::Http2, at(start, 50));
        assert_eq!(steps, [CarrierStep::Use(Carrier::Http2)]);
        let steps = carriers.handle_timeout(at(start, 300));
        assert_eq!(steps, [CarrierStep::Open(Carrier::Wireguard)]);
        let steps = carriers.handle_timeout(at(start, 600));
        assert_eq!(steps, [CarrierStep::Open(Carrier::Quic)]);
        let steps = carriers.handle_up(Carrier::Wireguard, at(start, 700));
        assert_eq!(steps, [CarrierStep::Use(Carrier::Wireguard)]);
    }

    #[test]
    fn a_remembered_carrier_that_fails_ends_its_head_start() {
        let start = Instant::now();
        let mut carriers = Carriers::new(CarrierChoice::Auto, Some(Carrier::Http2), start);
        carriers.handle_timeout(start);
        let now = at(start, 10);
        assert_eq!(carriers.handle_down(Carrier::Http2, now), []);
        let opened = [Carrier::Wireguard, Carrier::Quic].map(CarrierStep::Open);
        assert_eq!(carriers.handle_timeout(now), opened);
    }

    #[test]
    fn a_remembered_carrier_that_is_not_allowed_is_not_tried() {
        let start = Instant::now();
        let mut carriers = Carriers::new(CarrierChoice::Quic, Some(Carrier::Http2), start);
        assert_eq!(carriers.handle_timeout(start), [CarrierStep::Open(Carrier::Quic)]);
        assert_eq!(carriers.handle_timeout(at(start, 1000)), []);
    }

    #[test]
    fn a_choice_closes_what_it_does_not_allow() {
        let start = Instant::now();
        let mut carriers = Carriers::new(CarrierChoice::Auto, None, start);
        carriers.handle_timeout(start);
        carriers.handle_up(Carrier::Wireguard, start);
        let steps = carriers.set_choice(CarrierChoice::Quic, start);
        assert_eq!(steps, [CarrierStep::Close(Carrier::Wireguard)]);
        assert_eq!(carriers.handle_timeout(start), [CarrierStep::Open(Carrier::Quic)]);
        let steps = carriers.handle_up(Carrier::Quic, start);
        assert_eq!(steps, [CarrierStep::Use(Carrier::Quic)]);
        assert_eq!(carriers.handle_up(Carrier::Wireguard, start), []);
    }
}
