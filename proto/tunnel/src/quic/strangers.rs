//! Connections of those who have not shown a credential yet.

use std::{
    collections::{BTreeMap, HashMap},
    net::SocketAddr,
    time::{Duration, Instant},
};

use super::QuicConnectionId;
use crate::source::Source;

/// Strangers: few, and for a short time.
#[derive(Default)]
pub(super) struct Strangers {
    /// By the serial numbers of their connections, and so the oldest first.
    all: BTreeMap<u64, Stranger>,
    by_source: BTreeMap<Source, usize>,
    by_address: HashMap<SocketAddr, Expected>,
}

#[derive(Clone, Copy)]
struct Stranger {
    id: QuicConnectionId,
    from: SocketAddr,
    until: Instant,
}

/// What may come from an address with strangers.
#[derive(Default)]
struct Expected {
    strangers: usize,
    initials: usize,
}

/// Connections that may be without a credential at one time.
const MAX: usize = 1024;

/// Within which a connection has to be admitted.
const TIME: Duration = Duration::from_secs(10);

/// Initial packets that a client sends once its handshake has begun: the rest of its first words,
/// acknowledgements, and all of them again.
const INITIALS: usize = 8;

impl Strangers {
    pub(super) fn len(&self) -> usize {
        self.all.len()
    }

    /// Takes one in; returns who has to go for it, which is the oldest one of the source that has
    /// most.
    pub(super) fn insert(
        &mut self,
        id: QuicConnectionId,
        from: SocketAddr,
        now: Instant,
    ) -> Option<QuicConnectionId> {
        let evicted = if self.all.len() >= MAX { self.oldest_of_busiest() } else { None };
        if let Some(evicted) = evicted {
            self.remove(evicted);
        }
        self.all.insert(id.serial, Stranger { id, from, until: now + TIME });
        *self.by_source.entry(from.ip().into()).or_default() += 1;
        let expected = self.by_address.entry(from).or_default();
        expected.strangers += 1;
        expected.initials += INITIALS;
        evicted
    }

    /// Takes one out who is a stranger no longer, or gone.
    pub(super) fn remove(&mut self, id: QuicConnectionId) {
        let Some(Stranger { from, .. }) = self.all.remove(&id.serial) else { return };
        let source = from.ip().into();
        if let Some(count) = self.by_source.get_mut(&source) {
            *count -= 1;
            if *count == 0 {
                self.by_source.remove(&source);
            }
        }
        if let Some(expected) = self.by_address.get_mut(&from) {
            expected.strangers -= 1;
            if expected.strangers == 0 {
                self.by_address.remove(&from);
            }
        }
    }

    /// Whether an Initial packet from an address may be one of a handshake that has begun. Each
    /// handshake has few, so that nobody gets more looked at than it had to ask for.
    pub(super) fn expect_initial(&mut self, from: SocketAddr) -> bool {
        let Some(expected) = self.by_address.get_mut(&from) else { return false };
        let is_expected = expected.initials > 0;
        expected.initials = expected.initials.saturating_sub(1);
        is_expected
    }

    /// Takes out the next one who has had its time.
    pub(super) fn pop_late(&mut self, now: Instant) -> Option<QuicConnectionId> {
        let (_serial, oldest) = self.all.first_key_value()?;
        let id = oldest.id;
        (oldest.until <= now).then(|| {
            self.remove(id);
            id
        })
    }

    pub(super) fn poll_timeout(&self) -> Option<Instant> {
        self.all.first_key_value().map(|(_serial, oldest)| oldest.until)
    }

    fn oldest_of_busiest(&self) -> Option<QuicConnectionId> {
        let (busiest, _count) = self.by_source.iter().max_by_key(|(_source, count)| **count)?;
        let mut all = self.all.values();
        let oldest = all.find(|stranger| Source::from(stranger.from.ip()) == *busiest);
        oldest.map(|stranger| stranger.id)
    }
}

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;

    use super::*;

    fn from(source: u32) -> SocketAddr {
        (Ipv4Addr::from(source), 4433).into()
    }

    fn id(serial: u64) -> QuicConnectionId {
        QuicConnectionId { place: 0, serial }
    }

    #[test]
    fn who_is_alone_stays_and_the_oldest_of_the_busiest_source_goes() {
        let (mut strangers, now) = (Strangers::default(), Instant::now());
        assert_eq!(strangers.insert(id(0), from(1), now), None);
        for serial in 1..MAX as u64 {
            assert_eq!(strangers.insert(id(serial), from(2), now), None);
        }
        assert_eq!(strangers.insert(id(MAX as u64), from(3), now), Some(id(1)));
        assert_eq!(strangers.len(), MAX);
    }

    #[test]
    fn time_is_up_for_the_oldest_first() {
        let (mut strangers, now) = (Strangers::default(), Instant::now());
        strangers.insert(id(1), from(1), now);
        strangers.insert(id(2), from(1), now);
        strangers.insert(id(3), from(1), now + TIME);
        strangers.remove(id(1));
        assert_eq!(strangers.poll_timeout(), Some(now + TIME));
        assert_eq!(strangers.pop_late(now), None);
        assert_eq!(strangers.pop_late(now + TIME), Some(id(2)));
        assert_eq!(strangers.pop_late(now + TIME), None);
        assert_eq!(strangers.len(), 1);
    }

    #[test]
    fn few_initial_packets_are_expected_and_only_where_a_stranger_is() {
        let (mut strangers, now) = (Strangers::default(), Instant::now());
        assert!(!strangers.expect_initial(from(1)));
        strangers.insert(id(1), from(1), now);
        strangers.insert(id(2), from(1), now);
        for _ in 0..2 * INITIALS {
            assert!(strangers.expect_initial(from(1)));
        }
        assert!(!strangers.expect_initial(from(1)));
        strangers.remove(id(1));
        strangers.remove(id(2));
        strangers.remove(id(2));
        assert!(strangers.by_address.is_empty() && strangers.by_source.is_empty());
    }
}
