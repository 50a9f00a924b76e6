use std::{
    cmp::{Ordering, Reverse},
    collections::BinaryHeap,
    time::Duration,
};

use adit_tests::{Impaired, Impairment, Random, Rate};

use crate::packet_socket::FrameBatch;

/// One direction of a bad path: which frames arrive, when, and in which order. Does no I/O.
///
/// [`handle_frame`](Self::handle_frame) puts one in. [`poll_frames`](Self::poll_frames) takes those
/// out that have arrived, and [`poll_timeout`](Self::poll_timeout) says when the next one does.
/// Time is what has gone by since any fixed moment.
pub(super) struct Line {
    impairment: Impairment,
    random: Random,
    /// When everything that was put in before has left for the way.
    idle_at: Duration,
    /// When the last one arrives that is not held back.
    last_due: Duration,
    serial: u64,
    on_the_way: BinaryHeap<Reverse<OnTheWay>>,
    impaired: Impaired,
}

/// More frames than that are on no path; they would be a loop.
const MAX_ON_THE_WAY: usize = 1 << 17;

/// Length of an Ethernet header.
const ETHERNET_LEN: usize = 14;

struct OnTheWay {
    due: Duration,
    /// Keeps the order of those that are due at one time.
    serial: u64,
    frame: Vec<u8>,
}

impl Line {
    pub(super) fn new(impairment: Impairment, random: Random) -> Self {
        Self {
            impairment,
            random,
            idle_at: Duration::ZERO,
            last_due: Duration::ZERO,
            serial: 0,
            on_the_way: BinaryHeap::new(),
            impaired: Impaired::default(),
        }
    }

    /// Takes a frame that was sent at this time.
    pub(super) fn handle_frame(&mut self, mut frame: Vec<u8>, now: Duration) {
        self.impaired.came += 1;
        // Losing these would cost seconds, as on no real path.
        let is_spared = is_address_resolution(&frame);
        let Some(departs) = self.departure(frame.len(), now) else {
            self.impaired.overflowed += 1;
            return;
        };
        if !is_spared && self.impairment.loss.takes(&mut self.random) {
            self.impaired.lost += 1;
            return;
        }
        if !is_spared && self.impairment.corrupt.takes(&mut self.random) {
            self.corrupt(&mut frame);
        }
        let jitter = self.impairment.jitter.mul_f64(self.fraction());
        let mut due = (departs + self.impairment.delay + jitter).max(self.last_due);
        if !is_spared && self.impairment.reorder.takes(&mut self.random) {
            self.impaired.overtaken += 1;
            due += self.impairment.reorder_by;
        } else {
            self.last_due = due;
        }
        if !is_spared && self.impairment.duplicate.takes(&mut self.random) {
            self.impaired.duplicated += 1;
            self.push(due, frame.clone());
        }
        self.push(due, frame);
    }

    /// When a frame of this length has left for the way; none: too much waits for that.
    fn departure(&mut self, len: usize, now: Duration) -> Option<Duration> {
        let Some(Rate { bits_per_second, queue }) = self.impairment.rate else { return Some(now) };
        let takes = |bytes: u64| {
            Duration::from_secs_f64(bytes as f64 * 8.0 / bits_per_second.max(1) as f64)
        };
        if self.idle_at.saturating_sub(now) > takes(queue) {
            return None;
        }
        self.idle_at = self.idle_at.max(now) + takes(len as u64);
        Some(self.idle_at)
    }

    /// Turns one bit of what is in the frame.
    fn corrupt(&mut self, frame: &mut [u8]) {
        let Some(packet) = frame.get_mut(ETHERNET_LEN..).filter(|packet| !packet.is_empty()) else {
            return;
        };
        let bit = self.random.below(packet.len() * 8);
        packet[bit / 8] ^= 1 << (bit % 8);
        self.impaired.corrupted += 1;
    }

    /// Any number from 0 to 1.
    fn fraction(&mut self) -> f64 {
        (self.random.number() >> 11) as f64 / (1_u64 << 53) as f64
    }

    fn push(&mut self, due: Duration, frame: Vec<u8>) {
        if self.on_the_way.len() >= MAX_ON_THE_WAY {
            self.impaired.overflowed += 1;
            return;
        }
        self.serial += 1;
        self.on_the_way.push(Reverse(OnTheWay { due, serial: self.serial, frame }));
    }

    /// Moves frames that have arrived to `batch`, as long as it has room, and returns how many.
    pub(super) fn poll_frames(&mut self, now: Duration, batch: &mut FrameBatch) -> usize {
        let mut count = 0;
        while batch.has_room()
            && self.on_the_way.peek().is_some_and(|Reverse(next)| next.due <= now)
            && let Some(Reverse(next)) = self.on_the_way.pop()
        {
            batch.push(next.frame);
            count += 1;
        }
        self.impaired.passed += count as u64;

        count
    }

    /// When the next frame arrives.
    pub(super) fn poll_timeout(&self) -> Option<Duration> {
        self.on_the_way.peek().map(|Reverse(next)| next.due)
    }

    /// What has happened so far.
    pub(super) fn impaired(&self) -> Impaired {
        self.impaired
    }
}

impl Ord for OnTheWay {
    fn cmp(&self, other: &Self) -> Ordering {
        (self.due, self.serial).cmp(&(other.due, other.serial))
    }
}

impl PartialOrd for OnTheWay {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl PartialEq for OnTheWay {
    fn eq(&self, other: &Self) -> bool {
        self.cmp(other) == Ordering::Equal
    }
}

impl Eq for OnTheWay {}

/// Whether a frame asks who has an address, or answers that (RFC 826, RFC 4861 §4.3).
fn is_address_resolution(frame: &[u8]) -> bool {
    const ICMPV6: u8 = 58;

    match frame.get(12..ETHERNET_LEN) {
        Some([0x08, 0x06]) => true,
        Some([0x86, 0xdd]) => {
            let kind = frame.get(ETHERNET_LEN + 40);
            frame.get(ETHERNET_LEN + 6) == Some(&ICMPV6) && matches!(kind, Some(135 | 136))
        }
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MS: Duration = Duration::from_millis(1);

    #[test]
    fn a_delay_is_of_every_frame() {
        let mut line = line(Impairment::default().delay(10 * MS));
        line.handle_frame(numbered(1), Duration::ZERO);
        line.handle_frame(numbered(2), MS);

        assert!(arrived(&mut line, 9 * MS).is_empty());
        assert_eq!(line.poll_timeout(), Some(10 * MS));
        assert_eq!(arrived(&mut line, 10 * MS), [1_u32]);
        assert_eq!(arrived(&mut line, 11 * MS), [2_u32]);
        assert_eq!(line.poll_timeout(), None);
    }

    #[test]
    fn jitter_keeps_the_order() {
        let mut line = line(Impairment { jitter: 50 * MS, ..Impairment::default().delay(MS) });
        for number in 0..1_000 {
            line.handle_frame(numbered(number), MS * number / 10);
        }

        let all = arrived(&mut line, 1_000 * MS);

        assert!(all.is_sorted() && all.len() == 1_000, "{all:?}");
    }

    #[test]
    fn a_share_is_lost_and_the_same_seed_loses_the_same() {
        let lost = || {
            let mut line = line(Impairment::default().lose(5.0));
            (0..10_000).for_each(|number| line.handle_frame(numbered(number), Duration::ZERO));
            (line.impaired().lost, arrived(&mut line, MS))
        };

        let (count, left) = lost();

        assert!((400..600).contains(&count), "{count}");
        assert_eq!((count, left), lost());
    }

    #[test]
    fn those_that_are_held_back_are_overtaken_by_what_comes_meanwhile() {
        let mut line = line(Impairment::default().reorder(20.0, 5 * MS));
        for number in 0..1_000 {
            line.handle_frame(numbered(number), MS * number);
        }

        let all = arrived(&mut line, 2_000 * MS);

        let overtaken = (0..all.len()).filter(|at| all[at + 1..].iter().any(|b| *b < all[*at]));
        let late = all.windows(2).filter(|pair| pair[1] < pair[0]).count();
        assert!(overtaken.count() > 0 && (100..250).contains(&late), "{late}");
        assert!((150..250).contains(&line.impaired().overtaken));
        assert_eq!(all.len(), 1_000);
    }

    #[test]
    fn what_exceeds_the_rate_waits_and_then_is_lost() {
        // A frame of 1,000 bytes takes 1 ms, and 10 of them wait.
        let rate = Rate { bits_per_second: 8_000_000, queue: 10_000 };
        let mut line = line(Impairment { rate: Some(rate), ..Impairment::default() });
        let mut frame = vec![0; 1_000];
        frame[20] = 1;
        (0..20).for_each(|_| line.handle_frame(frame.clone(), Duration::ZERO));

        assert_eq!(line.impaired().overflowed, 9);
        assert_eq!(arrived(&mut line, 3 * MS).len(), 3);
        assert_eq!(arrived(&mut line, 100 * MS).len(), 8);
        line.handle_frame(frame, 100 * MS);
        assert_eq!(line.poll_timeout(), Some(101 * MS));
    }

    #[test]
    fn a_copy_arrives_beside_its_frame() {
        let all = adit_tests::Share::percent(100.0);
        let mut line = line(Impairment { duplicate: all, ..Impairment::default() });
        line.handle_frame(numbered(7), Duration::ZERO);

        assert_eq!(arrived(&mut line, Duration::ZERO), [7_u32, 7]);
    }

    #[test]
    fn a_damaged_frame_differs_in_one_bit_of_its_packet() {
        let all = adit_tests::Share::percent(100.0);
        let mut line = line(Impairment { corrupt: all, ..Impairment::default() });
        let mut batch = FrameBatch::new();
        line.handle_frame(vec![0; 100], Duration::ZERO);
        line.poll_frames(Duration::ZERO, &mut batch);

        let frame = batch.drain().next().unwrap();

        assert_eq!(frame[..ETHERNET_LEN], [0; ETHERNET_LEN]);
        assert_eq!(frame.iter().map(|byte| byte.count_ones()).sum::<u32>(), 1);
    }

    #[test]
    fn whoever_asks_for_an_address_is_heard() {
        let mut line = line(Impairment::default().lose(100.0));
        let mut arp = vec![0; 42];
        arp[12..14].copy_from_slice(&[0x08, 0x06]);
        line.handle_frame(arp, Duration::ZERO);
        line.handle_frame(numbered(1), Duration::ZERO);

        assert_eq!(line.impaired(), Impaired { came: 2, lost: 1, ..Impaired::default() });
        assert_eq!(line.poll_timeout(), Some(Duration::ZERO));
    }

    fn line(impairment: Impairment) -> Line {
        Line::new(impairment, Random::from_seed(1))
    }

    /// A frame of IPv4 that is told by what is in it.
    fn numbered(number: u32) -> Vec<u8> {
        let mut frame = vec![0; 60];
        frame[12] = 0x08;
        frame[20..24].copy_from_slice(&number.to_be_bytes());
        frame
    }

    fn arrived(line: &mut Line, now: Duration) -> Vec<u32> {
        let mut batch = FrameBatch::new();
        let mut all = Vec::new();
        while line.poll_frames(now, &mut batch) > 0 {
            let numbers = batch.drain().map(|frame| frame[20..24].try_into().unwrap());
            all.extend(numbers.map(u32::from_be_bytes));
        }
        all
    }
}
