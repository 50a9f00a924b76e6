//! What a handshake initiation has to pass before it costs much.

use std::{
    collections::{HashMap, HashSet},
    fmt,
    sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock},
    time::{Duration, Instant},
};

use adit_proto::WireguardPublicKey;
use boringtun::noise::{
    Packet, Tunn, TunnResult, errors::WireGuardError, handshake::parse_handshake_anon,
    rate_limiter::RateLimiter,
};
use x25519_dalek::PublicKey;

use super::{DropCounters, DropReason, WireguardSecret, message::INITIATION_LEN};
use crate::{Endpoint, source::Source};

/// An initiation under the key of a peer: from its owner, or recorded when it was.
pub struct Initiation {
    pub(super) from: Endpoint,
    pub(super) public_key: WireguardPublicKey,
    pub(super) bytes: [u8; INITIATION_LEN],
}

impl Initiation {
    /// Whose it is.
    pub const fn public_key(&self) -> &WireguardPublicKey {
        &self.public_key
    }
}

impl fmt::Debug for Initiation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Initiation").field("from", &self.from).finish_non_exhaustive()
    }
}

/// What came of an initiation.
#[derive(Debug)]
#[expect(clippy::large_enum_variant, reason = "lives on the stack, a queue holds the largest")]
pub enum Filtered<'a> {
    /// To be handed to [`Tunnel::handle_initiation`](super::Tunnel::handle_initiation).
    Passed(Initiation),
    /// To be sent back, for there are too many: whoever is really there tries again with it. The
    /// initiation is dropped and counted.
    Cookie(&'a [u8]),
    /// Nothing; the drop is already counted.
    Dropped(DropReason),
}

/// Takes initiations from anybody, at the cost of a hash for whoever does not know our key and of a
/// cookie for whoever does not read what is sent to him, and passes those of peers.
///
/// It belongs to a [`Tunnel`](super::Tunnel), or to many, and may work in another thread.
pub struct HandshakeFilter {
    secret: WireguardSecret,
    public_key: PublicKey,
    shared: Arc<Shared>,
    /// Checks the first MAC only.
    unloaded: RateLimiter,
    /// Wants a cookie of everybody.
    loaded: RateLimiter,
    window: Window,
    scratch: [u8; INITIATION_LEN],
}

/// What a tunnel and its filter both know.
#[derive(Default)]
pub(super) struct Shared {
    known: RwLock<HashSet<WireguardPublicKey>>,
    drops: Mutex<DropCounters>,
}

impl Shared {
    pub(super) fn insert(&self, public_key: WireguardPublicKey) {
        self.known.write().unwrap_or_else(PoisonError::into_inner).insert(public_key);
    }

    pub(super) fn remove(&self, public_key: &WireguardPublicKey) {
        self.known.write().unwrap_or_else(PoisonError::into_inner).remove(public_key);
    }

    pub(super) fn drops(&self) -> MutexGuard<'_, DropCounters> {
        self.drops.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn knows(&self, public_key: &WireguardPublicKey) -> bool {
        self.known.read().unwrap_or_else(PoisonError::into_inner).contains(public_key)
    }
}

/// How many initiations have come and been looked at within a second.
struct Window {
    since: Instant,
    /// Those that know our key.
    come: u32,
    /// Whether there were too many in the window before.
    was_loaded: bool,
    /// Those that were looked at, by source. INVARIANT: grows only with `first`, so that a flood does not
    /// fill the memory.
    sources: HashMap<Source, u32>,
    /// Those that were looked at as one of the first few of their source.
    first: u32,
    /// Those of the others that were a stranger's.
    strangers: u32,
    /// Those of the others that were a peer's.
    peers: u32,
}

impl Window {
    const LEN: Duration = Duration::from_secs(1);
    /// So many a second need no cookie: looking at them takes some 3 % of a core.
    const UNLOADED: u32 = 500;
    /// Behind one address there may be an office.
    const FEW: u32 = 10;
    /// Of the first few of each source; who comes new finds room here whatever others do.
    const MAX_FIRST: u32 = 1_000;
    /// Of all the others.
    const MAX_STRANGERS: u32 = 1_000;
    /// Of all the others: ten thousand devices behind one address come back from an outage in three
    /// seconds.
    const MAX_PEERS: u32 = 4_000;

    fn new(now: Instant) -> Self {
        Self {
            since: now,
            come: 0,
            was_loaded: false,
            sources: HashMap::new(),
            first: 0,
            strangers: 0,
            peers: 0,
        }
    }

    fn roll_on(&mut self, now: Instant) {
        if now.saturating_duration_since(self.since) < Self::LEN {
            return;
        }
        let was_loaded = self.come > Self::UNLOADED;
        let mut sources = std::mem::take(&mut self.sources);
        sources.clear();
        *self = Self { was_loaded, sources, ..Self::new(now) };
    }

    const fn is_loaded(&self) -> bool {
        self.was_loaded || self.come >= Self::UNLOADED
    }

    /// Takes a place for an initiation, if there is one.
    fn take_place(&mut self, source: Source) -> Option<Place> {
        if self.sources.get(&source).is_some_and(|seen| *seen >= Self::FEW) {
            let is_room = self.strangers < Self::MAX_STRANGERS && self.peers < Self::MAX_PEERS;
            return is_room.then_some(Place::OneOfMany);
        }
        if self.first >= Self::MAX_FIRST {
            return None;
        }
        self.first += 1;
        *self.sources.entry(source).or_default() += 1;
        Some(Place::Reserved)
    }

    const fn note(&mut self, place: Place, is_peer: bool) {
        match place {
            Place::Reserved => {}
            Place::OneOfMany if is_peer => self.peers += 1,
            Place::OneOfMany => self.strangers += 1,
        }
    }
}

/// What an initiation is looked at as.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Place {
    /// One of the first few of its source.
    Reserved,
    /// A later one.
    OneOfMany,
}

impl HandshakeFilter {
    pub(super) fn new(secret: WireguardSecret, shared: Arc<Shared>, now: Instant) -> Self {
        let public_key = PublicKey::from(secret.as_x25519());
        Self {
            secret,
            shared,
            unloaded: RateLimiter::new(&public_key, u64::MAX),
            loaded: RateLimiter::new(&public_key, 0),
            public_key,
            window: Window::new(now),
            scratch: [0; INITIATION_LEN],
        }
    }

    /// Looks at an initiation.
    pub fn check(&mut self, from: Endpoint, datagram: &[u8], now: Instant) -> Filtered<'_> {
        let Self { secret, public_key, shared, unloaded, loaded, window, scratch } = self;
        window.roll_on(now);
        let limiter = if window.is_loaded() { loaded } else { unloaded };
        let reason = match limiter.verify_packet(Some(from.remote().ip()), datagram, scratch) {
            Ok(Packet::HandshakeInit(_)) => {
                window.come += 1;
                match window.take_place(from.remote().ip().into()) {
                    Some(place) => {
                        let identified = identify(secret, public_key, shared, from, datagram);
                        window.note(place, identified.is_ok());
                        match identified {
                            Ok(initiation) => return Filtered::Passed(initiation),
                            Err(reason) => reason,
                        }
                    }
                    None => DropReason::SourceTooBusy,
                }
            }
            Err(TunnResult::WriteToNetwork(cookie)) => {
                window.come += 1;
                shared.drops().count(DropReason::UnderLoad);
                return Filtered::Cookie(cookie);
            }
            Err(TunnResult::Err(WireGuardError::InvalidMac)) => DropReason::MacInvalid,
            Ok(_) | Err(_) => DropReason::Malformed,
        };
        shared.drops().count(reason);
        Filtered::Dropped(reason)
    }
}

/// Finds out whose an initiation is, which takes a Diffie-Hellman exchange of some 50 µs.
fn identify(
    secret: &WireguardSecret,
    our_public_key: &PublicKey,
    shared: &Shared,
    from: Endpoint,
    datagram: &[u8],
) -> Result<Initiation, DropReason> {
    let bytes = datagram.try_into().map_err(|_error| DropReason::Malformed)?;
    let Ok(Packet::HandshakeInit(initiation)) = Tunn::parse_incoming_packet(datagram) else {
        return Err(DropReason::Malformed);
    };
    let half = parse_handshake_anon(secret.as_x25519(), our_public_key, &initiation)
        .map_err(|_error| DropReason::HandshakeInvalid)?;
    let public_key = WireguardPublicKey::try_from_bytes(half.peer_static_public)
        .map_err(|_error| DropReason::PeerUnknown)?;
    if !shared.knows(&public_key) {
        return Err(DropReason::PeerUnknown);
    }
    Ok(Initiation { from, public_key, bytes })
}

impl fmt::Debug for HandshakeFilter {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("HandshakeFilter").finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn source(number: u32) -> Source {
        Source::V4(number)
    }

    /// How many of so many are looked at.
    fn looked_at(
        window: &mut Window,
        sources: impl Iterator<Item = u32>,
        are_peers: bool,
    ) -> usize {
        let places = sources.filter_map(|number| {
            window.take_place(source(number)).map(|place| {
                window.note(place, are_peers);
            })
        });
        places.count()
    }

    #[test]
    fn a_busy_source_leaves_room_for_a_new_one() {
        for (are_peers, most) in [(false, 1_010), (true, 4_010)] {
            let mut window = Window::new(Instant::now());
            assert_eq!(looked_at(&mut window, std::iter::repeat_n(1, 10_000), are_peers), most);
            assert_eq!(window.take_place(source(2)), Some(Place::Reserved));
        }
    }

    #[test]
    fn many_sources_take_a_bounded_number_of_places() {
        let mut window = Window::new(Instant::now());
        assert_eq!(looked_at(&mut window, 0..10_000, false), 1_000);
        assert_eq!(window.sources.len(), 1_000);
    }

    #[test]
    fn a_second_later_there_is_room_again_but_still_load() {
        let start = Instant::now();
        let mut window = Window::new(start);
        window.come = Window::UNLOADED + 1;
        looked_at(&mut window, std::iter::repeat_n(1, 10_000), false);
        assert_eq!(window.take_place(source(1)), None);
        window.roll_on(start + Window::LEN);
        assert!(window.is_loaded());
        assert_eq!(window.take_place(source(1)), Some(Place::Reserved));
        window.roll_on(start + 2 * Window::LEN);
        assert!(!window.is_loaded());
    }
}
