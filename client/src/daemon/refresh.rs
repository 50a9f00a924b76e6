//! When to ask the control plane for configuration and credential.

use std::time::{Duration, Instant};

use super::backoff::{Backoff, Jitter};

/// How often the configuration is asked for; by its tag, so that an answer is mostly empty.
///
/// Connectors tell of changes at once. A device that no site concerns has none to tell it, and a
/// person who waits for a first permit.
pub(crate) const fn config_interval(has_sites: bool) -> Duration {
    Duration::from_secs(if has_sites { 30 } else { 5 })
}

/// Clients that are told together to refresh do not ask together.
const REFRESH_SPREAD: Duration = Duration::from_millis(250);

const FIRST_RETRY: Duration = Duration::from_millis(500);

/// Also how long an approval or a return of the control plane may go unnoticed.
const LONGEST_RETRY: Duration = Duration::from_secs(10);

/// What to ask for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Fetch {
    Config,
    Credential,
}

/// Timers of both questions; at most one of each kind is under way.
///
/// Call [`Self::poll_fetch`] after any other method and whenever [`Self::poll_timeout`] is over;
/// each fetch ends with [`Self::handle_fetched`] or [`Self::handle_failed`].
#[derive(Debug)]
pub(crate) struct Refresh {
    config: Timer,
    credential: Timer,
}

#[derive(Debug)]
struct Timer {
    due: Instant,
    in_flight: bool,
    /// What is under way was asked before the wish to refresh.
    stale: bool,
    backoff: Backoff,
}

impl Refresh {
    /// Both are due at once.
    pub(crate) fn new(now: Instant) -> Self {
        Self { config: Timer::new(now), credential: Timer::new(now) }
    }

    /// Both become due, in a moment.
    pub(crate) fn handle_refresh_now(&mut self, jitter: &mut Jitter, now: Instant) {
        let due = now + jitter.up_to(REFRESH_SPREAD);
        self.config.advance(due);
        self.credential.advance(due);
    }

    /// Both become due at once: a person waits.
    pub(crate) fn handle_impatience(&mut self, now: Instant) {
        self.config.advance(now);
        self.credential.advance(now);
    }

    /// The control plane answered; `good_for` is how long a new credential lives, or the
    /// [`config_interval`].
    pub(crate) fn handle_fetched(
        &mut self,
        fetch: Fetch,
        good_for: Duration,
        jitter: &mut Jitter,
        now: Instant,
    ) {
        let wait = match fetch {
            Fetch::Credential => jitter.spread(good_for / 2, 0.1),
            Fetch::Config => jitter.spread(good_for, 0.2),
        };
        let timer = self.timer(fetch);
        timer.backoff.reset();
        timer.finish(wait.max(FIRST_RETRY), jitter, now);
    }

    /// The control plane did not answer, or refused.
    pub(crate) fn handle_failed(&mut self, fetch: Fetch, jitter: &mut Jitter, now: Instant) {
        let timer = self.timer(fetch);
        let wait = timer.backoff.next(jitter);
        timer.finish(wait, jitter, now);
    }

    pub(crate) fn poll_fetch(&mut self, now: Instant) -> Option<Fetch> {
        [Fetch::Credential, Fetch::Config].into_iter().find(|fetch| {
            let timer = self.timer(*fetch);
            let start = !timer.in_flight && timer.due <= now;
            timer.in_flight |= start;
            start
        })
    }

    pub(crate) fn poll_timeout(&self) -> Option<Instant> {
        [&self.config, &self.credential]
            .into_iter()
            .filter(|timer| !timer.in_flight)
            .map(|timer| timer.due)
            .min()
    }

    fn timer(&mut self, fetch: Fetch) -> &mut Timer {
        match fetch {
            Fetch::Config => &mut self.config,
            Fetch::Credential => &mut self.credential,
        }
    }
}

impl Timer {
    fn new(due: Instant) -> Self {
        let backoff = Backoff::new(FIRST_RETRY, LONGEST_RETRY);
        Self { due, in_flight: false, stale: false, backoff }
    }

    fn advance(&mut self, due: Instant) {
        if self.in_flight {
            self.stale = true;
        } else {
            self.due = self.due.min(due);
        }
    }

    fn finish(&mut self, wait: Duration, jitter: &mut Jitter, now: Instant) {
        self.in_flight = false;
        let wait = if self.stale { wait.min(jitter.up_to(REFRESH_SPREAD)) } else { wait };
        self.stale = false;
        self.due = now + wait;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn started() -> (Refresh, Jitter, Instant) {
        let now = Instant::now();
        let mut refresh = Refresh::new(now);
        assert_eq!(refresh.poll_fetch(now), Some(Fetch::Credential));
        assert_eq!(refresh.poll_fetch(now), Some(Fetch::Config));
        assert_eq!(refresh.poll_fetch(now), None);
        (refresh, Jitter::from_seed(3), now)
    }

    #[test]
    fn a_credential_is_refreshed_at_half_of_its_life() {
        let (mut refresh, mut jitter, now) = started();
        let hour = Duration::from_secs(3600);
        refresh.handle_fetched(Fetch::Credential, hour, &mut jitter, now);

        assert_eq!(refresh.poll_fetch(now + Duration::from_secs(1619)), None);
        assert_eq!(refresh.poll_fetch(now + Duration::from_secs(1981)), Some(Fetch::Credential));
    }

    #[test]
    fn a_device_that_no_site_concerns_asks_more_often() {
        let (mut refresh, mut jitter, now) = started();
        refresh.handle_fetched(Fetch::Config, config_interval(true), &mut jitter, now);
        assert_eq!(refresh.poll_fetch(now + Duration::from_secs(20)), None);

        let (mut refresh, mut jitter, now) = started();
        refresh.handle_fetched(Fetch::Config, config_interval(false), &mut jitter, now);
        assert_eq!(refresh.poll_fetch(now + Duration::from_secs(6)), Some(Fetch::Config));
    }

    #[test]
    fn a_failure_is_tried_again_soon_and_then_later() {
        let (mut refresh, mut jitter, mut now) = started();
        refresh.handle_fetched(Fetch::Credential, Duration::MAX / 4, &mut jitter, now);
        let mut waits = Vec::new();
        for _ in 0..8 {
            refresh.handle_failed(Fetch::Config, &mut jitter, now);
            let due = refresh.poll_timeout().unwrap();
            waits.push(due - now);
            now = due;
            assert_eq!(refresh.poll_fetch(now), Some(Fetch::Config));
        }
        assert!(waits[0] <= Duration::from_millis(600), "{waits:?}");
        assert!(waits[7] >= Duration::from_secs(8), "{waits:?}");
    }

    #[test]
    fn a_wish_to_refresh_that_meets_a_question_under_way_asks_again() {
        let (mut refresh, mut jitter, now) = started();
        refresh.handle_refresh_now(&mut jitter, now);
        refresh.handle_fetched(Fetch::Config, config_interval(true), &mut jitter, now);

        assert_eq!(refresh.poll_fetch(now + REFRESH_SPREAD), Some(Fetch::Config));
    }
}
