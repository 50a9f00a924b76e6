//! How often one address may ask, one API token may ask, and one address may guess secrets.

use std::{
    hash::{BuildHasher as _, Hash, RandomState},
    net::IpAddr,
    num::NonZeroU32,
    sync::atomic::{AtomicU64, Ordering},
    time::Duration,
};

use governor::{
    Quota, RateLimiter,
    clock::{Clock, MonotonicClock, Reference as _},
    middleware::StateInformationMiddleware,
    state::{InMemoryState, NotKeyed, StateStore},
};
use ipnet::IpNet;

use crate::app::network::Network;

/// Requests a minute. A client asks for its configuration twice a minute, or twelve times while no
/// site concerns it, and a connector keeps one stream open: an office of 30,000 laptops may share
/// an address.
#[derive(Debug, Clone, clap::Args)]
pub(crate) struct Limits {
    /// Requests a minute from one address; IPv6 addresses count by /64.
    #[arg(long, value_name = "N", default_value = "60000")]
    pub(crate) requests_per_address: NonZeroU32,
    /// Requests a minute with one API token.
    #[arg(long, value_name = "N", default_value = "6000")]
    pub(crate) requests_per_token: NonZeroU32,
    /// Wrong API tokens and secrets to join with a minute from one address.
    #[arg(long, value_name = "N", default_value = "30")]
    pub(crate) failures_per_address: NonZeroU32,
    /// A proxy whose X-Forwarded-For is believed; every other peer counts by its own address. May
    /// be repeated.
    #[arg(long = "trusted-proxy", value_name = "NETWORK")]
    pub(crate) trusted_proxies: Vec<IpNet>,
}

/// What is left of a limit after a request, in the words of draft-ietf-httpapi-ratelimit-headers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Allowance {
    /// Whose limit it is.
    pub(crate) policy: &'static str,
    /// Requests a minute.
    pub(crate) quota: NonZeroU32,
    /// Requests that may follow at once.
    pub(crate) remaining: u32,
    /// Until all of the quota is there again or, when refused, until a request is let in.
    pub(crate) reset: Duration,
    /// Whether this request is one too many.
    pub(crate) refused: bool,
}

/// All limits of the process.
#[derive(Debug)]
pub(crate) struct RateLimits<C: Clock = MonotonicClock> {
    addresses: RateLimit<C>,
    tokens: RateLimit<C>,
    failures: RateLimit<C>,
    /// For each slot of `failures`, until when guesses are refused unseen, in milliseconds since
    /// `start`.
    blocked_until: Box<[AtomicU64]>,
    clock: C,
    start: C::Instant,
    /// Drawn at random, so that nobody can choose whose slot to share.
    hasher: RandomState,
    trusted_proxies: Vec<IpNet>,
}

impl RateLimits {
    pub(crate) fn new(limits: &Limits) -> Self {
        Self::with_clock(limits, MonotonicClock)
    }
}

impl<C: Clock + Clone> RateLimits<C> {
    fn with_clock(limits: &Limits, clock: C) -> Self {
        let limit = |policy, quota| RateLimit::new(policy, quota, clock.clone());
        Self {
            addresses: limit("address", limits.requests_per_address),
            tokens: limit("token", limits.requests_per_token),
            failures: limit("failures", limits.failures_per_address),
            blocked_until: (0..SLOTS).map(|_| AtomicU64::new(0)).collect(),
            start: clock.now(),
            clock,
            hasher: RandomState::new(),
            trusted_proxies: limits.trusted_proxies.clone(),
        }
    }

    /// Whose request it is: the peer's or, when that is a trusted proxy, of the last address in
    /// X-Forwarded-For that is none.
    pub(crate) fn client_address(&self, peer: IpAddr, forwarded_for: &str) -> IpAddr {
        let is_trusted =
            |address: &IpAddr| self.trusted_proxies.iter().any(|network| network.contains(address));
        let peer = peer.to_canonical();
        if !is_trusted(&peer) {
            return peer;
        }
        let hops = forwarded_for.rsplit(',');
        hops.map_while(|hop| hop.trim().parse::<IpAddr>().ok())
            .map(|address| address.to_canonical())
            .find(|address| !is_trusted(address))
            .unwrap_or(peer)
    }

    /// Counts a request from this address.
    pub(crate) fn count_address(&self, address: IpAddr) -> Allowance {
        self.addresses.count(self.slot(&Network::of(address)), &self.clock)
    }

    /// Counts a request that shows this API token, valid or not.
    pub(crate) fn count_token(&self, token: &[u8]) -> Allowance {
        self.tokens.count(self.slot(&token), &self.clock)
    }

    /// How long guesses from this address are refused unseen, after too many wrong ones.
    pub(crate) fn blocked_for(&self, address: IpAddr) -> Option<Duration> {
        let until = self.blocked_until.get(self.slot(&Network::of(address)))?;
        let wait = until.load(Ordering::Relaxed).checked_sub(self.millis())?;
        (wait > 0).then(|| Duration::from_millis(wait))
    }

    /// Counts a wrong secret from this address.
    pub(crate) fn count_failure(&self, address: IpAddr) {
        let slot = self.slot(&Network::of(address));
        let allowance = self.failures.count(slot, &self.clock);
        if allowance.remaining > 0 {
            return;
        }
        let wait = if allowance.refused { allowance.reset } else { self.failures.interval() };
        let wait = u64::try_from(wait.as_millis()).unwrap_or(u64::MAX).max(1);
        if let Some(until) = self.blocked_until.get(slot) {
            until.fetch_max(self.millis().saturating_add(wait), Ordering::Relaxed);
        }
    }

    fn millis(&self) -> u64 {
        self.clock.now().duration_since(self.start).as_u64() / 1_000_000
    }

    fn slot(&self, key: &impl Hash) -> usize {
        usize::try_from(self.hasher.hash_one(key) % SLOTS as u64).unwrap_or(0)
    }
}

/// Strangers cannot fill memory: there are this many counters of each kind, and whoever is counted
/// falls on one by a hash. Two that share one share its limit, which is rare and harmless.
const SLOTS: usize = 1 << 16;

/// The counters of one kind.
#[derive(Debug)]
struct Slots(Box<[InMemoryState]>);

impl StateStore for Slots {
    type Key = usize;

    fn measure_and_replace<T, F, E>(&self, slot: &usize, f: F) -> Result<T, E>
    where
        F: Fn(Option<governor::nanos::Nanos>) -> Result<(T, governor::nanos::Nanos), E>,
    {
        match self.0.get(*slot) {
            Some(state) => state.measure_and_replace(&NotKeyed::NonKey, f),
            // Never: a slot is a remainder. Counted by nobody, it is judged as the first of many.
            None => f(None).map(|(measured, _state)| measured),
        }
    }
}

/// One limit: a bucket for each slot that holds a minute's requests, filled evenly (GCRA).
#[derive(Debug)]
struct RateLimit<C: Clock> {
    policy: &'static str,
    quota: NonZeroU32,
    limiter: RateLimiter<usize, Slots, C, StateInformationMiddleware>,
}

impl<C: Clock> RateLimit<C> {
    fn new(policy: &'static str, quota: NonZeroU32, clock: C) -> Self {
        let slots = Slots((0..SLOTS).map(|_| InMemoryState::default()).collect());
        Self { policy, quota, limiter: RateLimiter::new(Quota::per_minute(quota), slots, clock) }
    }

    fn count(&self, slot: usize, clock: &C) -> Allowance {
        let (remaining, reset, refused) = match self.limiter.check_key(&slot) {
            Ok(state) => {
                let remaining = state.remaining_burst_capacity();
                let missing = self.quota.get().saturating_sub(remaining);
                (remaining, self.interval().saturating_mul(missing), false)
            }
            Err(until) => (0, until.wait_time_from(clock.now()), true),
        };
        Allowance { policy: self.policy, quota: self.quota, remaining, reset, refused }
    }

    /// After which one more request may come.
    fn interval(&self) -> Duration {
        Duration::from_mins(1) / self.quota.get()
    }
}

#[cfg(test)]
mod tests {
    use governor::clock::FakeRelativeClock;

    use super::*;
    use crate::fixture::limits;

    fn start(limits: &Limits) -> (RateLimits<FakeRelativeClock>, FakeRelativeClock) {
        let clock = FakeRelativeClock::default();
        (RateLimits::with_clock(limits, clock.clone()), clock)
    }

    fn ip(text: &str) -> IpAddr {
        text.parse().unwrap()
    }

    #[test]
    fn a_minute_of_requests_may_come_at_once_and_then_one_at_a_time() {
        let (limits, clock) = start(&limits(6, 1, 1));
        let ask = || limits.count_address(ip("192.0.2.1"));
        for remaining in (0..6).rev() {
            let allowance = ask();
            assert_eq!((allowance.remaining, allowance.refused), (remaining, false));
            let missing = u64::from(6 - remaining);
            assert_eq!(allowance.reset, Duration::from_secs(10) * u32::try_from(missing).unwrap());
        }
        let refused = ask();
        assert!(refused.refused && refused.remaining == 0);
        assert_eq!(refused.reset, Duration::from_secs(10));
        clock.advance(refused.reset);
        assert!(!ask().refused);
        assert!(ask().refused);
        assert!(!limits.count_address(ip("192.0.2.2")).refused);
    }

    #[test]
    fn all_addresses_of_a_host_count_together() {
        let (limits, _clock) = start(&limits(1, 1, 1));
        assert!(!limits.count_address(ip("2001:db8::1")).refused);
        assert!(limits.count_address(ip("2001:db8::ffff:1")).refused);
        assert!(!limits.count_address(ip("2001:db8:0:1::1")).refused);
        assert!(!limits.count_address(ip("192.0.2.1")).refused);
        assert!(limits.count_address(ip("::ffff:192.0.2.1")).refused);
    }

    #[test]
    fn tokens_count_apart_from_addresses() {
        let (limits, _clock) = start(&limits(1, 1, 1));
        assert!(!limits.count_token(b"adit_pat_a").refused);
        assert!(limits.count_token(b"adit_pat_a").refused);
        assert!(!limits.count_token(b"adit_pat_b").refused);
        assert!(!limits.count_address(ip("192.0.2.1")).refused);
    }

    #[test]
    fn whoever_guesses_too_often_is_blocked_for_a_while() {
        let (limits, clock) = start(&limits(1, 1, 3));
        let (guesser, other) = (ip("192.0.2.1"), ip("192.0.2.2"));
        for _ in 0..3 {
            assert_eq!(limits.blocked_for(guesser), None);
            limits.count_failure(guesser);
        }
        assert_eq!(limits.blocked_for(guesser), Some(Duration::from_secs(20)));
        assert_eq!(limits.blocked_for(other), None);
        // Those that were already under way count as well.
        limits.count_failure(guesser);
        assert!(limits.blocked_for(guesser).unwrap() <= Duration::from_secs(20));
        clock.advance(Duration::from_secs(20));
        assert_eq!(limits.blocked_for(guesser), None);
        limits.count_failure(guesser);
        assert!(limits.blocked_for(guesser).is_some());
    }

    #[test]
    fn only_a_trusted_proxy_may_say_for_whom_it_asks() {
        let trusted_proxies = vec!["10.0.0.0/8".parse().unwrap(), "fd00::/8".parse().unwrap()];
        let (limits, _clock) = start(&Limits { trusted_proxies, ..limits(1, 1, 1) });
        for (peer, forwarded_for, expected) in [
            ("192.0.2.1", "", "192.0.2.1"),
            ("192.0.2.1", "198.51.100.1", "192.0.2.1"),
            ("10.0.0.1", "", "10.0.0.1"),
            ("10.0.0.1", "198.51.100.1", "198.51.100.1"),
            ("::ffff:10.0.0.1", "198.51.100.1", "198.51.100.1"),
            ("10.0.0.1", "203.0.113.9, 198.51.100.1, 10.0.0.2", "198.51.100.1"),
            ("fd00::1", "2001:db8::7", "2001:db8::7"),
            ("10.0.0.1", "198.51.100.1, unknown", "10.0.0.1"),
            ("10.0.0.1", "10.0.0.3", "10.0.0.1"),
        ] {
            let found = limits.client_address(ip(peer), forwarded_for);
            assert_eq!(found, ip(expected), "{peer} {forwarded_for}");
        }
    }

    #[test]
    fn a_million_strangers_take_no_more_memory_than_one() {
        let (limits, _clock) = start(&limits(1000, 1000, 1000));
        for number in 0..1_000_000_u32 {
            limits.count_address(IpAddr::from(number.to_be_bytes()));
        }
        assert_eq!(limits.addresses.limiter.into_state_store().0.len(), SLOTS);
    }
}
