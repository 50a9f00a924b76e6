//! Whether a carrier still carries: what was sent is answered by something, or a probe is.

use std::time::{Duration, Instant};

/// How long nothing may come, after something came or was sent, before it is asked for.
pub(super) const SUSPICION: Duration = Duration::from_millis(500);

/// The same, when another connector could take over.
pub(super) const SUSPICION_WITH_STANDBY: Duration = Duration::from_millis(250);

/// How long a probe may take: longer than the round trip by a satellite.
const PATIENCE: Duration = Duration::from_millis(750);

/// Who has just answered a probe is not probed again sooner: streams of one direction and those with
/// pauses would else be probed for ever.
const TRUST: Duration = Duration::from_secs(5);

/// What comes at so many looks in a row is a stream that somebody waits for.
const STEADY: u32 = 2;

/// What is counted of one peer and one carrier.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Traffic {
    pub(super) sent: u64,
    pub(super) heard: u64,
    /// A sign of life that is not counted.
    pub(super) last_sign: Option<Instant>,
}

/// What is to be done.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Finding {
    /// Nothing.
    Well,
    /// Make the other end answer.
    Probe,
    /// It has answered, or was heard at least.
    Answered,
    /// Nothing passes any more.
    Silent,
}

/// One peer, looked at now and then.
#[derive(Debug, Default)]
pub(super) struct Silence {
    before: Traffic,
    /// Since when something was sent and nothing heard.
    since: Option<Instant>,
    /// Since when an answer is waited for.
    probed: Option<Instant>,
    /// When it was asked last.
    asked: Option<Instant>,
    trusted_until: Option<Instant>,
    /// Whether what was heard last was no answer to a probe: then what is sent is answered.
    answers: bool,
    heard_in_a_row: u32,
}

impl Silence {
    /// Probes what was not heard of for as long as `suspicion`.
    pub(super) fn look(&mut self, traffic: Traffic, suspicion: Duration, now: Instant) -> Finding {
        let before = std::mem::replace(&mut self.before, traffic);
        if traffic.heard != before.heard || traffic.last_sign != before.last_sign {
            let was_asked = self.probed.take().is_some();
            if was_asked {
                self.trusted_until = Some(now + TRUST);
            }
            self.answers = !was_asked;
            self.heard_in_a_row += 1;
            if self.heard_in_a_row >= STEADY {
                self.trusted_until = None;
            }
            // What stops to come may be asked for, since whoever only receives sends nothing.
            self.since = self.suspects(now).then_some(now);
            return if was_asked { Finding::Answered } else { Finding::Well };
        }
        self.heard_in_a_row = 0;
        if traffic.sent != before.sent && (self.answers || self.suspects(now)) {
            self.since.get_or_insert(now);
        }
        match (self.since, self.probed) {
            (_, Some(probed)) if now >= probed + PATIENCE => {
                *self = Self { before: traffic, ..Self::default() };
                Finding::Silent
            }
            (Some(since), None) if now >= since + suspicion => {
                self.probed = Some(now);
                self.asked = Some(now);
                Finding::Probe
            }
            _ => Finding::Well,
        }
    }

    /// The other end is to be asked for another reason, whatever has come before; says whether it
    /// was not asked a moment ago.
    pub(super) fn handle_asked(&mut self, traffic: Traffic, now: Instant) -> bool {
        /// Handshakes that follow each other sooner are not answered.
        const MOMENT: Duration = Duration::from_millis(50);

        if self.asked.is_some_and(|asked| now < asked + MOMENT) {
            return false;
        }
        if self.probed.is_none() {
            self.before = traffic;
        }
        self.probed.get_or_insert(now);
        self.asked = Some(now);
        true
    }

    /// Whether an answer is waited for.
    pub(super) const fn is_waiting(&self) -> bool {
        self.probed.is_some()
    }

    fn suspects(&self, now: Instant) -> bool {
        self.trusted_until.is_none_or(|until| until <= now)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn look(silence: &mut Silence, traffic: Traffic, now: Instant) -> Finding {
        silence.look(traffic, SUSPICION, now)
    }

    fn sent(sent: u64) -> Traffic {
        Traffic { sent, ..Traffic::default() }
    }

    #[test]
    fn a_path_that_swallows_everything_is_noticed_within_two_seconds() {
        let (mut silence, start) = (Silence::default(), Instant::now());
        let mut findings = Vec::new();
        for tick in 0..=6_u32 {
            let now = start + tick * Duration::from_millis(250);
            findings.push(look(&mut silence, sent(tick.into()), now));
        }
        assert_eq!(findings.iter().filter(|it| **it == Finding::Probe).count(), 1);
        assert_eq!(findings.last(), Some(&Finding::Silent), "{findings:?}");
    }

    #[test]
    fn who_sends_nothing_hears_nothing() {
        let (mut silence, start) = (Silence::default(), Instant::now());
        for tick in 0..100 {
            let now = start + tick * Duration::from_millis(250);
            assert_eq!(look(&mut silence, sent(0), now), Finding::Well);
        }
    }

    #[test]
    fn who_only_receives_notices_that_nothing_comes() {
        let (mut silence, start) = (Silence::default(), Instant::now());
        let mut findings = Vec::new();
        for tick in 0..=7_u32 {
            let now = start + tick * Duration::from_millis(250);
            let heard = u64::from(tick.min(2));
            findings.push(look(&mut silence, Traffic { heard, ..Traffic::default() }, now));
        }
        assert_eq!(findings.last(), Some(&Finding::Silent), "{findings:?}");
    }

    #[test]
    fn who_is_asked_answers_or_is_silent() {
        let start = Instant::now();
        let (mut silence, later) = (Silence::default(), start + PATIENCE);
        let before = Traffic { heard: 1, ..Traffic::default() };
        assert!(silence.handle_asked(before, start));
        assert!(!silence.handle_asked(before, start), "it was asked a moment ago");
        assert!(silence.is_waiting());
        assert_eq!(
            look(&mut silence, before, start),
            Finding::Well,
            "what came before is no answer"
        );
        let heard = Traffic { heard: 2, ..Traffic::default() };
        assert_eq!(look(&mut silence, heard, start), Finding::Answered);
        assert_eq!(look(&mut silence, heard, later), Finding::Well);
        assert!(silence.handle_asked(heard, later));
        assert_eq!(look(&mut silence, heard, later + PATIENCE), Finding::Silent);
    }

    #[test]
    fn who_answers_without_being_asked_is_soon_missed() {
        let start = Instant::now();
        let (mut silence, tick) = (Silence::default(), Duration::from_millis(250));
        silence.handle_asked(Traffic::default(), start);
        let answered = Traffic { heard: 1, ..Traffic::default() };
        assert_eq!(look(&mut silence, answered, start), Finding::Answered);
        // A pause, and then a question that is answered by itself.
        assert_eq!(look(&mut silence, answered, start + tick), Finding::Well);
        let again = Traffic { sent: 1, heard: 2, ..Traffic::default() };
        assert_eq!(look(&mut silence, again, start + tick * 2), Finding::Well);
        // The next one is not.
        let unanswered = Traffic { sent: 2, ..again };
        let findings = [3, 4, 5].map(|ticks| look(&mut silence, unanswered, start + tick * ticks));
        assert_eq!(findings.last(), Some(&Finding::Probe), "{findings:?}");
    }

    #[test]
    fn an_answer_to_a_probe_is_enough_for_a_while() {
        let (mut silence, start) = (Silence::default(), Instant::now());
        let mut probes = 0;
        let mut last_sign = None;
        for tick in 0..40_u32 {
            let now = start + tick * Duration::from_millis(250);
            let traffic = Traffic { sent: tick.into(), heard: 0, last_sign };
            match look(&mut silence, traffic, now) {
                Finding::Well | Finding::Answered => {}
                Finding::Probe => {
                    probes += 1;
                    last_sign = Some(now);
                }
                Finding::Silent => panic!("it is not silent"),
            }
        }
        assert_eq!(probes, 2);
    }
}
