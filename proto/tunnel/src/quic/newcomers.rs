//! Those whose handshakes wait to be begun.

use std::{
    collections::{BTreeMap, VecDeque},
    time::{Duration, Instant},
};

use bytes::BytesMut;
use quinn_proto::ConnectionId;

use crate::{Datagram, Ecn, Endpoint, source::Source};

/// Newcomers, fair by source: each source has its turn, and gives way to others when there are too
/// many. It holds what was sent as it came, for a handshake costs a thousand times as much.
#[derive(Default)]
pub(super) struct Newcomers {
    by_source: BTreeMap<Source, VecDeque<Newcomer>>,
    /// Each source that is there once, in the order of their turns.
    turns: VecDeque<Source>,
    count: usize,
    dropped: u64,
}

/// Who has sent the first datagrams of a handshake.
pub(super) struct Newcomer {
    pub(super) from: Endpoint,
    /// By what it calls us.
    to_id: ConnectionId,
    pub(super) datagrams: Vec<(Ecn, BytesMut)>,
    since: Instant,
}

/// A client's first words are two datagrams, for the key of ML-KEM is long, and may be repeated.
const MAX_DATAGRAMS: usize = 4;

/// Of one source: behind an address there may be an office that has just got back its network.
const MAX_OF_SOURCE: usize = 128;

/// In all, with 6 MB at most.
const MAX: usize = 1024;

/// Who has waited so long has asked again, or given up.
const MAX_WAIT: Duration = Duration::from_secs(3);

impl Newcomers {
    pub(super) const fn len(&self) -> usize {
        self.count
    }

    /// Those whose handshakes will not be begun.
    pub(super) const fn dropped(&self) -> u64 {
        self.dropped
    }

    /// Takes a datagram of one who waits; false: nobody of that name does.
    pub(super) fn join(&mut self, datagram: &Datagram<'_>, to_id: &ConnectionId) -> bool {
        let source = Source::from(datagram.from.remote().ip());
        let waiting = self.by_source.get_mut(&source).into_iter().flatten();
        let mut known =
            waiting.filter(|newcomer| newcomer.from == datagram.from && newcomer.to_id == *to_id);
        let Some(newcomer) = known.next() else { return false };
        if newcomer.datagrams.len() < MAX_DATAGRAMS {
            newcomer.datagrams.push((datagram.ecn, datagram.bytes.into()));
        }
        true
    }

    /// Lets one wait, for whom perhaps the oldest one of its own or of the busiest source goes.
    pub(super) fn push(&mut self, datagram: &Datagram<'_>, to_id: ConnectionId, now: Instant) {
        let source = Source::from(datagram.from.remote().ip());
        if self.by_source.get(&source).is_some_and(|own| own.len() >= MAX_OF_SOURCE) {
            self.drop_oldest(source);
        } else if self.count >= MAX
            && let Some(busiest) = self.busiest()
        {
            self.drop_oldest(busiest);
        }
        let own = self.by_source.entry(source).or_insert_with(|| {
            self.turns.push_back(source);
            VecDeque::new()
        });
        own.push_back(Newcomer {
            from: datagram.from,
            to_id,
            datagrams: vec![(datagram.ecn, datagram.bytes.into())],
            since: now,
        });
        self.count += 1;
    }

    /// The next one whose turn it is.
    pub(super) fn pop(&mut self, now: Instant) -> Option<Newcomer> {
        loop {
            let source = self.turns.pop_front()?;
            let newcomer = self.take(source);
            if self.by_source.contains_key(&source) {
                self.turns.push_back(source);
            }
            if let Some(newcomer) = newcomer {
                if now.saturating_duration_since(newcomer.since) <= MAX_WAIT {
                    return Some(newcomer);
                }
                self.dropped += 1;
            }
        }
    }

    fn busiest(&self) -> Option<Source> {
        let busiest = self.by_source.iter().max_by_key(|(_source, own)| own.len());
        busiest.map(|(source, _own)| *source)
    }

    fn drop_oldest(&mut self, source: Source) {
        self.dropped += u64::from(self.take(source).is_some());
        if !self.by_source.contains_key(&source) {
            self.turns.retain(|turn| *turn != source);
        }
    }

    /// Takes the oldest one of a source, and the source if it was the last.
    fn take(&mut self, source: Source) -> Option<Newcomer> {
        let own = self.by_source.get_mut(&source)?;
        let newcomer = own.pop_front()?;
        if own.is_empty() {
            self.by_source.remove(&source);
        }
        self.count -= 1;
        Some(newcomer)
    }
}

#[cfg(test)]
mod tests {
    use std::net::{Ipv4Addr, SocketAddr};

    use super::*;

    fn at(number: u32) -> Endpoint {
        SocketAddr::from((Ipv4Addr::from(number), 4433)).into()
    }

    fn id(number: u32) -> ConnectionId {
        ConnectionId::new(&number.to_be_bytes())
    }

    fn push(newcomers: &mut Newcomers, source: u32, number: u32, now: Instant) {
        let datagram = Datagram { from: at(source), ecn: Ecn::NotCapable, bytes: b"hello" };
        newcomers.push(&datagram, id(number), now);
    }

    /// Sources and numbers, in the order of their turns.
    fn drain(newcomers: &mut Newcomers, now: Instant) -> Vec<(Endpoint, ConnectionId)> {
        let all = std::iter::from_fn(|| newcomers.pop(now));
        all.map(|newcomer| (newcomer.from, newcomer.to_id)).collect()
    }

    #[test]
    fn sources_take_turns() {
        let (mut newcomers, now) = (Newcomers::default(), Instant::now());
        for number in 0..3 {
            push(&mut newcomers, 1, number, now);
        }
        push(&mut newcomers, 2, 7, now);
        let order = drain(&mut newcomers, now);
        assert_eq!(order, [(at(1), id(0)), (at(2), id(7)), (at(1), id(1)), (at(1), id(2))]);
        assert_eq!((newcomers.len(), newcomers.dropped()), (0, 0));
    }

    #[test]
    fn a_source_that_asks_too_much_loses_its_oldest() {
        let (mut newcomers, now) = (Newcomers::default(), Instant::now());
        push(&mut newcomers, 2, 0, now);
        for number in 0..1000 {
            push(&mut newcomers, 1, number, now);
        }
        assert_eq!(newcomers.len(), MAX_OF_SOURCE + 1);
        assert_eq!(newcomers.dropped(), 1000 - MAX_OF_SOURCE as u64);
        let order = drain(&mut newcomers, now);
        assert_eq!(order[..2], [(at(2), id(0)), (at(1), id(1000 - MAX_OF_SOURCE as u32))]);
    }

    #[test]
    fn when_there_are_too_many_the_busiest_source_gives_way() {
        let (mut newcomers, now) = (Newcomers::default(), Instant::now());
        for number in 0..100 {
            push(&mut newcomers, 1, number, now);
        }
        for source in 2..3000 {
            push(&mut newcomers, source, 0, now);
        }
        assert_eq!(newcomers.len(), MAX);
        assert_eq!(newcomers.turns.len(), newcomers.by_source.len());
        assert_eq!(newcomers.dropped(), 100 + 2998 - MAX as u64);
        push(&mut newcomers, 5000, 0, now);
        assert!(drain(&mut newcomers, now).contains(&(at(5000), id(0))), "the newest is there");
    }

    #[test]
    fn further_datagrams_of_a_newcomer_are_kept_with_the_first() {
        let (mut newcomers, now) = (Newcomers::default(), Instant::now());
        push(&mut newcomers, 1, 1, now);
        let more = Datagram { from: at(1), ecn: Ecn::NotCapable, bytes: b"more" };
        assert!(!newcomers.join(&more, &id(2)), "another connection");
        assert!(!newcomers.join(&Datagram { from: at(2), ..more }, &id(1)), "another client");
        for _ in 0..10 {
            assert!(newcomers.join(&more, &id(1)));
        }
        let newcomer = newcomers.pop(now).unwrap();
        assert_eq!(newcomer.datagrams.len(), MAX_DATAGRAMS);
        assert_eq!(newcomer.datagrams[1].1, b"more"[..]);
        assert!(!newcomers.join(&more, &id(1)), "it waits no longer");
    }

    #[test]
    fn who_has_waited_too_long_is_dropped() {
        let (mut newcomers, start) = (Newcomers::default(), Instant::now());
        push(&mut newcomers, 1, 1, start);
        push(&mut newcomers, 1, 2, start + MAX_WAIT);
        let order = drain(&mut newcomers, start + MAX_WAIT + Duration::from_millis(1));
        assert_eq!(order, [(at(1), id(2))]);
        assert_eq!(newcomers.dropped(), 1);
    }
}
