use std::time::{Duration, Instant};

/// What one path delivers, and how much may be on it for that. Knows neither packets nor clocks.
///
/// [`handle_delivered`](Self::handle_delivered), [`handle_lost`](Self::handle_lost) and
/// [`handle_mark`](Self::handle_mark) say what became of packets, and
/// [`handle_end_of_acks`](Self::handle_end_of_acks) that all of one message were said.
#[derive(Debug, Clone)]
pub(super) struct Delivery {
    mtu: u64,
    round: Round,
    /// Bytes a second of the last rounds that say something, in a ring.
    rates: [f64; ROUNDS],
    next_rate: usize,
    /// The shortest round trip, and when it was seen.
    shortest: Option<(Duration, Instant)>,
    /// Whether the path may take far more than it was given so far.
    growth: Growth,
    /// How much of the usual bound the path is left, because it has too much.
    share: f64,
    /// Less is sent to see how long the path itself takes.
    is_draining: bool,
    window: u64,
}

/// About one round trip.
#[derive(Debug, Clone, Copy)]
struct Round {
    began: Instant,
    /// The last packet that was sent before it.
    last_before: u64,
    delivered: u64,
    lost: u64,
    is_marked: bool,
    /// There was nothing to be sent for some time.
    is_limited: bool,
    shortest: Duration,
}

/// So many rounds remember the best rate: a round in which a sender pauses says nothing of the path.
const ROUNDS: usize = 10;

/// Less time than that measures how threads take turns.
const SHORTEST_ROUND: Duration = Duration::from_millis(4);

/// What may wait beside that, since no path is even: radio takes turns, and so do threads.
const UNEVENNESS: Duration = Duration::from_millis(20);

/// No more than that, however fast: more than a train for each of the threads that take turns.
const MAX_UNEVENNESS_LEN: f64 = (2 << 20) as f64;

/// What may be on the path, as a multiple of what it holds: one share that is delivered while the
/// word of the other comes back. With less, nobody learns that a path takes more.
const GAIN: f64 = 2.0;

/// As long as the path delivers more each time: what lets flows that double do so.
const GROWING_GAIN: f64 = 3.0;

/// While the path is drained: less than it holds, so that nothing waits.
const DRAINING_GAIN: f64 = 0.75;

/// A shortest round trip that old may be another path's.
const TRIP_LIFETIME: Duration = Duration::from_secs(10);

/// Radio loses so much without being congested, and more only seldom.
const TOLERATED_LOSS: f64 = 0.15;

/// What each round with a mark, or with more loss, leaves of the bound, and the least that is left:
/// what makes up for a fifth that is lost, whatever the reason.
const DECREASE: f64 = 0.85;
const SMALLEST_SHARE: f64 = 0.65;

/// What each other round gives back.
const INCREASE: f64 = 0.02;

impl Delivery {
    pub(super) fn new(mtu: u16, now: Instant) -> Self {
        let mtu = u64::from(mtu);
        let mut delivery = Self {
            mtu,
            round: Round::new(0, now),
            rates: [0.0; ROUNDS],
            next_rate: 0,
            shortest: None,
            growth: Growth::default(),
            share: 1.0,
            is_draining: false,
            window: 0,
        };
        delivery.window = delivery.initial_window();
        delivery
    }

    /// RFC 9002 §7.2 has ten; what a super-packet is cut into waits for room anyway.
    pub(super) const fn initial_window(&self) -> u64 {
        self.mtu * 32
    }

    pub(super) const fn window(&self) -> u64 {
        self.window
    }

    pub(super) fn set_mtu(&mut self, mtu: u16) {
        self.mtu = mtu.into();
        self.window = self.window.max(self.initial_window());
    }

    /// A packet has arrived, so long after it was sent.
    pub(super) fn handle_delivered(&mut self, bytes: u64, round_trip: Duration) {
        self.round.delivered += bytes;
        self.round.shortest = self.round.shortest.min(round_trip);
    }

    pub(super) fn handle_lost(&mut self, bytes: u64) {
        self.round.lost += bytes;
    }

    /// A router has marked a packet (RFC 9002 §7.1). Nobody but us learns it (RFC 9484 §9.2).
    pub(super) fn handle_mark(&mut self) {
        self.round.is_marked = true;
    }

    /// Nothing was delivered for so long that nothing is known of the path.
    pub(super) fn begin_anew(&mut self, now: Instant) {
        self.round = Round::new(self.round.last_before, now);
        self.rates = [0.0; ROUNDS];
        self.shortest = None;
        self.growth = Growth::default();
        self.share = 1.0;
        self.is_draining = false;
        // RFC 9002 §7.6.2.
        self.window = self.mtu * 2;
    }

    /// Everything up to the packet `acked` was spoken of; `last_sent` is the last one so far.
    pub(super) fn handle_end_of_acks(
        &mut self,
        acked: u64,
        last_sent: u64,
        is_limited: bool,
        now: Instant,
    ) {
        self.round.is_limited |= is_limited;
        let lasted = now.saturating_duration_since(self.round.began);
        if acked <= self.round.last_before || lasted < SHORTEST_ROUND {
            return;
        }
        let round = std::mem::replace(&mut self.round, Round::new(last_sent, now));
        self.learn_round_trip(&round, now);
        self.learn_rate(&round, lasted);
        self.learn_share(&round);
        let Some((shortest, _seen)) = self.shortest else { return };
        let rate = self.best_rate();
        let holds = rate * shortest.as_secs_f64();
        let usual = if self.growth.has_ended() { GAIN } else { GROWING_GAIN };
        let window = if self.is_draining {
            holds * DRAINING_GAIN
        } else {
            let uneven = (rate * UNEVENNESS.as_secs_f64()).min(MAX_UNEVENNESS_LEN);
            (holds * usual + uneven) * self.share
        };
        #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "saturates")]
        let window = window as u64;
        self.window = window.max(self.initial_window());
    }

    fn learn_round_trip(&mut self, round: &Round, now: Instant) {
        let is_shorter = self.shortest.is_none_or(|(shortest, _seen)| round.shortest <= shortest);
        let has_expired = self.shortest.is_some_and(|(_shortest, seen)| now - seen > TRIP_LIFETIME);
        if is_shorter || self.is_draining || (has_expired && round.is_limited) {
            self.shortest = Some((round.shortest, now));
            self.is_draining = false;
        } else if has_expired {
            // What waits on the path may be what makes it long, as long as there is no gap.
            self.is_draining = true;
        }
    }

    fn learn_rate(&mut self, round: &Round, lasted: Duration) {
        let rate = round.delivered as f64 / lasted.as_secs_f64();
        // Whoever has nothing to send says only that the path is not slower.
        if !round.is_limited || rate > self.best_rate() {
            if let Some(slot) = self.rates.get_mut(self.next_rate) {
                *slot = rate;
            }
            self.next_rate = (self.next_rate + 1) % ROUNDS;
        }
        if !round.is_limited {
            self.growth.handle_rate(rate);
        }
    }

    fn learn_share(&mut self, round: &Round) {
        let all = (round.delivered + round.lost).max(1);
        let is_too_much = round.is_marked || round.lost as f64 > TOLERATED_LOSS * all as f64;
        // A few packets are no sample.
        let is_sample = round.is_marked || all > self.initial_window();
        self.share = match (is_too_much && is_sample, is_sample) {
            (true, _) => (self.share * DECREASE).max(SMALLEST_SHARE),
            (false, true) => (self.share + INCREASE).min(1.0),
            (false, false) => self.share,
        };
    }

    fn best_rate(&self) -> f64 {
        self.rates.iter().copied().fold(0.0, f64::max)
    }
}

/// Whether a path that is given more delivers more.
#[derive(Debug, Clone, Copy, Default)]
struct Growth {
    best: f64,
    rounds_without: u32,
}

impl Growth {
    fn handle_rate(&mut self, rate: f64) {
        if rate >= self.best * 1.25 {
            *self = Self { best: rate, rounds_without: 0 };
        } else {
            self.rounds_without = self.rounds_without.saturating_add(1);
        }
    }

    /// One round may say little, three do not.
    fn has_ended(self) -> bool {
        self.rounds_without >= 3
    }
}

impl Round {
    const fn new(last_before: u64, began: Instant) -> Self {
        Self {
            began,
            last_before,
            delivered: 0,
            lost: 0,
            is_marked: false,
            is_limited: false,
            shortest: Duration::MAX,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MTU: u16 = 1_250;
    const MS: Duration = Duration::from_millis(1);

    /// A path that takes so many packets each millisecond and lets others wait.
    struct Path {
        delivery: Delivery,
        now: Instant,
        packets_per_ms: usize,
        trip: Duration,
        /// Of a hundred, spread evenly.
        lost: u64,
        sent: u64,
        /// Packets on the way: their number, when sent, when heard of.
        on_the_way: std::collections::VecDeque<(u64, Instant, Instant)>,
        delivered: u64,
        idle_at: Instant,
    }

    impl Path {
        fn new(packets_per_ms: usize, trip: Duration, lost: u64) -> Self {
            let now = Instant::now();
            Self {
                delivery: Delivery::new(MTU, now),
                now,
                packets_per_ms,
                trip,
                lost,
                sent: 0,
                on_the_way: std::collections::VecDeque::new(),
                delivered: 0,
                idle_at: now,
            }
        }

        /// Sends what the window allows, but no more than `offered` packets a millisecond.
        fn run(&mut self, time: Duration, offered: usize) {
            let until = self.now + time;
            while self.now < until {
                let mut acked = 0;
                while let Some((number, sent, due)) = self.on_the_way.front().copied()
                    && due <= self.now
                {
                    self.on_the_way.pop_front();
                    // As many of each hundred, at places that do not line up with rounds.
                    if (number * 37) % 100 < self.lost {
                        self.delivery.handle_lost(MTU.into());
                    } else {
                        self.delivery.handle_delivered(MTU.into(), self.now - sent);
                        self.delivered += 1;
                        acked = number;
                    }
                }
                let mut is_limited = true;
                let mut count = 0;
                while count < offered {
                    let in_flight = self.on_the_way.len() as u64 * u64::from(MTU);
                    if in_flight + u64::from(MTU) > self.delivery.window() {
                        is_limited = false;
                        break;
                    }
                    self.sent += 1;
                    count += 1;
                    self.idle_at = self.idle_at.max(self.now) + MS / self.packets_per_ms as u32;
                    self.on_the_way.push_back((self.sent, self.now, self.idle_at + self.trip));
                }
                if acked > 0 {
                    self.delivery.handle_end_of_acks(acked, self.sent, is_limited, self.now);
                }
                self.now += MS;
            }
        }

        /// How much of what the path takes was delivered in this time.
        fn use_of(&mut self, time: Duration) -> f64 {
            let before = self.delivered;
            self.run(time, usize::MAX);
            (self.delivered - before) as f64
                / (time.as_millis() as f64 * self.packets_per_ms as f64)
        }

        /// How many packets the path holds by itself.
        fn holds(&self) -> u64 {
            self.trip.as_millis() as u64 * self.packets_per_ms as u64
        }
    }

    #[test]
    fn a_clean_path_is_filled_and_little_waits_for_it() {
        let mut path = Path::new(10, 40 * MS, 0);
        path.run(1_000 * MS, usize::MAX);

        assert!(path.use_of(5_000 * MS) > 0.99);
        let window = path.delivery.window() / u64::from(MTU);
        assert!((path.holds()..=path.holds() * 26 / 10).contains(&window), "{window}");
    }

    #[test]
    fn random_loss_takes_only_what_it_loses() {
        for lost in [1, 5, 10] {
            let mut path = Path::new(10, 80 * MS, lost);
            path.run(2_000 * MS, usize::MAX);

            let used = path.use_of(20_000 * MS);

            assert!(used > 0.98 * (100 - lost) as f64 / 100.0, "{lost} % lost: {used}");
        }
    }

    #[test]
    fn much_loss_leaves_a_connection_that_goes_on() {
        let mut path = Path::new(10, 80 * MS, 20);
        path.run(2_000 * MS, usize::MAX);

        assert!(path.use_of(20_000 * MS) > 0.5);
    }

    #[test]
    fn marks_leave_less_on_the_path() {
        let mut path = Path::new(10, 40 * MS, 0);
        path.run(1_000 * MS, usize::MAX);
        let before = path.delivery.window();
        for _ in 0..20 {
            path.delivery.handle_mark();
            path.run(100 * MS, usize::MAX);
        }

        assert!(path.delivery.window() < before * 7 / 10);
        assert!(path.use_of(1_000 * MS) > 0.95);
    }

    #[test]
    fn a_pause_forgets_nothing() {
        let mut path = Path::new(10, 40 * MS, 0);
        path.run(2_000 * MS, usize::MAX);
        let before = path.delivery.window();
        path.run(30_000 * MS, 1);

        assert_eq!(path.delivery.window(), before);
    }

    #[test]
    fn a_path_that_became_longer_is_noticed_and_filled() {
        let mut path = Path::new(10, 10 * MS, 0);
        path.run(2_000 * MS, usize::MAX);
        path.trip = 100 * MS;
        path.run(30_000 * MS, usize::MAX);

        assert!(path.use_of(5_000 * MS) > 0.9);
    }

    #[test]
    fn persistent_congestion_begins_anew() {
        let mut path = Path::new(10, 40 * MS, 0);
        path.run(2_000 * MS, usize::MAX);
        path.delivery.begin_anew(path.now);

        assert_eq!(path.delivery.window(), 2 * u64::from(MTU));
    }
}
