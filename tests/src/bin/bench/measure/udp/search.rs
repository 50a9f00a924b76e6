use std::time::Duration;

use crate::contender::Tunnel;

/// What counts as free of loss: one datagram in a thousand may be lost to what else the machine
/// does.
const TOLERATED_LOSS: f64 = 0.001;

/// What the search never asks for: more than any program sends.
const MAX_RATE: f64 = 20e6;

/// The rate below which a tunnel carries nothing worth the name, in datagrams a second.
const MIN_RATE: f64 = 100.0;

/// How near to each other a rate that passed and one that did not end the search.
const PRECISION: f64 = 1.02;

/// How many trials it usually takes.
pub(super) const USUAL_TRIALS: u32 = 12;

/// What was sent and what arrived.
pub(in crate::measure) struct Count {
    pub(in crate::measure) sent: f64,
    pub(in crate::measure) received: f64,
    /// How long was sent.
    pub(in crate::measure) seconds: f64,
}

/// What came of sending at one rate.
pub(super) struct Trial {
    /// Datagrams a second that were sent.
    sent: f64,
    /// Datagrams a second that arrived.
    pub(super) received: f64,
    /// Share of the datagrams that did not.
    loss: f64,
    pub(super) cpu_s_per_gbit: Option<f64>,
}

impl Trial {
    /// Sends datagrams of this length, and watches what the tunnel spends on them.
    #[track_caller]
    pub(super) fn watch(tunnel: &Tunnel, length: u32, send: impl FnOnce() -> Count) -> Self {
        let before = tunnel.processor_time();
        let count = send();
        let spent = tunnel.processor_time().zip(before).map(|(after, before)| after - before);

        Self::new(&count, spent, length)
    }

    fn new(count: &Count, spent: Option<Duration>, length: u32) -> Self {
        let Count { sent, received, seconds } = *count;
        let gbit = received * f64::from(length) * 8.0 / 1e9;

        Self {
            sent: sent / seconds,
            received: received / seconds,
            loss: 1.0 - received / sent,
            cpu_s_per_gbit: spent.filter(|_| gbit > 0.0).map(|spent| spent.as_secs_f64() / gbit),
        }
    }

    fn passes(&self) -> bool {
        self.loss <= TOLERATED_LOSS
    }
}

/// Searches for the highest rate at which next to nothing is lost; none if there is no such rate.
///
/// Begins with what arrives when as much is sent as can be. That says little about the rate: who
/// is flooded may have no time left to deliver, so from there it looks both ways, by doubling or
/// halving, until one rate has passed and another has not, and then between the two.
#[track_caller]
pub(super) fn highest_rate(mut attempt: impl FnMut(f64) -> Trial) -> Option<Trial> {
    let flood = attempt(MAX_RATE);
    if flood.passes() {
        return Some(flood);
    }

    let (mut low, mut high) = (None, None);
    let mut rate = flood.received.clamp(MIN_RATE, flood.sent.max(MIN_RATE));
    let mut best: Option<Trial> = None;
    loop {
        match attempt_twice(&mut attempt, rate) {
            Some(trial) => {
                low = Some(rate);
                // A sender that does not reach a rate does not reach a higher one.
                let bound = trial.sent < rate * 0.97;
                if best.as_ref().is_none_or(|best| best.received < trial.received) {
                    best = Some(trial);
                }
                if bound {
                    return best;
                }
            }
            None => high = Some(rate),
        }
        rate = match (low, high) {
            (Some(low), Some(high)) if high / low < PRECISION => return best,
            (Some(low), Some(high)) => f64::sqrt(low * high),
            (Some(low), None) => low * 2.0,
            (None, Some(high)) => high / 2.0,
            (None, None) => return best,
        };
        if rate < MIN_RATE {
            return best;
        }
    }
}

/// Attempts a rate again if it does not pass, so that one hiccup of the machine does not halve the
/// result.
fn attempt_twice(attempt: &mut impl FnMut(f64) -> Trial, rate: f64) -> Option<Trial> {
    let first = attempt(rate);
    if first.passes() {
        return Some(first);
    }

    Some(attempt(rate)).filter(Trial::passes)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Sends up to `fastest`, of which a tunnel carries `capacity`, or a share of anything more.
    fn search(fastest: f64, capacity: f64, share: f64) -> Option<f64> {
        let best = highest_rate(|rate| {
            let sent = rate.min(fastest);
            let received = if sent <= capacity { sent } else { sent * share };
            Trial::new(&Count { sent, received, seconds: 1.0 }, None, 1350)
        });

        best.map(|best| best.received)
    }

    #[track_caller]
    fn assert_near(found: Option<f64>, expected: f64) {
        let found = found.expect("there is such a rate");
        assert!(found <= expected && found > expected / 1.03, "{found} is not near {expected}");
    }

    #[test]
    fn a_tunnel_that_loses_only_what_is_too_much_is_found() {
        assert_near(search(400e3, 100e3, 0.25), 100e3);
    }

    #[test]
    fn a_tunnel_that_delivers_little_when_flooded_is_found() {
        assert_near(search(400e3, 100e3, 0.001), 100e3);
        assert_near(search(400e3, 100e3, 0.0), 100e3);
    }

    #[test]
    fn a_tunnel_that_delivers_more_when_flooded_than_free_of_loss_is_found() {
        assert_near(search(400e3, 20e3, 0.9), 20e3);
    }

    #[test]
    fn a_sender_slower_than_the_tunnel_is_the_bound() {
        assert_near(search(90e3, 100e3, 0.0), 90e3);
    }

    #[test]
    fn a_tunnel_that_always_loses_has_no_rate() {
        assert_eq!(search(400e3, 1.0, 0.0), None);
    }
}
