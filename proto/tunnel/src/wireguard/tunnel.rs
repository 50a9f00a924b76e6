//! All peers of one UDP socket.

use std::{
    fmt,
    net::{IpAddr, SocketAddr},
    sync::Arc,
    time::{Duration, Instant},
};

use adit_proto::{PresharedKey, WireguardPublicKey};
use boringtun::noise::{Tunn, rate_limiter::RateLimiter};
use ipnet::IpNet;
use x25519_dalek::PublicKey;

use super::{
    DropCounters, DropReason, PeerId, PeerStatus, Transmit, TunnelEvent, WireguardSecret,
    allowed_ips::AllowedIps,
    handshake_filter::{Filtered, HandshakeFilter, Initiation, Shared},
    lane::Lane,
    message::{DATA_OVERHEAD, Message},
    outbox::Outbox,
    peer::{Opened, Peer, SealedByPeer, TICK},
    peers::Peers,
};
use crate::{Endpoint, MAX_PACKET_LEN, Packet as InnerPacket, Transport};

/// What a peer is allowed and where it is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PeerConfig {
    /// Who it is.
    pub public_key: WireguardPublicKey,
    /// The inner addresses that are its own, or that are reached through it.
    pub allowed_ips: Vec<IpNet>,
    /// Where to send handshakes, if we are to start them.
    pub endpoint: Option<SocketAddr>,
    /// How long to be silent at most, so that NATs on the way remember us.
    pub keepalive: Option<Duration>,
}

/// Why a peer cannot be configured so.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum UpsertError {
    /// Another peer owns exactly this prefix; two owners would read each other's traffic.
    #[error("{prefix} already belongs to {owner}")]
    PrefixTaken {
        /// Of which prefix.
        prefix: IpNet,
        /// Whose it is.
        owner: PeerId,
    },
    /// The public key is our own.
    #[error("the public key is this tunnel's own")]
    OwnKey,
    /// As many peers as there is room for among the indexes.
    #[error("too many peers")]
    TooManyPeers,
    /// The operating system has no randomness to give.
    #[error("failed to draw an index")]
    Randomness(#[from] getrandom::Error),
}

/// What came of a datagram.
#[derive(Debug)]
pub enum Received<'a> {
    /// An authentic packet whose source address belongs to `peer`.
    Packet {
        /// Who sent it.
        peer: PeerId,
        /// Its bytes; they begin like an IP packet, but are not parsed yet.
        packet: &'a mut [u8],
    },
    /// A handshake message or a keepalive.
    Consumed,
    /// An initiation for the filter, which works elsewhere: see [`Tunnel::lanes`].
    Initiation,
    /// Nothing; the drop is already counted.
    Dropped {
        /// Why.
        reason: DropReason,
        /// From whom, where that is authentic.
        peer: Option<PeerId>,
        /// The inner packet of [`DropReason::SourceSpoofed`], else nothing.
        packet: &'a [u8],
    },
}

/// What came of a packet to be sealed.
#[derive(Debug)]
pub enum Sealed<'a> {
    /// A datagram to be sent.
    Datagram {
        /// Where to.
        to: Endpoint,
        /// All of it.
        bytes: &'a mut [u8],
    },
    /// The packet waits for a handshake that is under way.
    Waiting,
    /// Nothing; the drop is already counted.
    Dropped(DropReason),
}

/// All WireGuard peers behind one UDP socket, as a state machine without input and output.
///
/// - `handle_datagram`, `seal`, `handle_timeout`, `upsert` and `remove` put something in;
/// - after any of them, [`poll_transmit`](Self::poll_transmit) until it is empty and send that,
///   then [`poll_event`](Self::poll_event), then sleep until
///   [`poll_timeout`](Self::poll_timeout).
pub struct Tunnel {
    lane: Lane,
    secret: WireguardSecret,
    public_key: WireguardPublicKey,
    peers: Peers,
    allowed_ips: AllowedIps<PeerId>,
    /// The source that the last packet had, and who may send from it: most packets have the same.
    last_source: Option<(IpAddr, PeerId)>,
    /// The longest packet that there will be: the MTU of the interface.
    longest_packet: usize,
    /// None: it works elsewhere.
    filter: Option<HandshakeFilter>,
    shared_with_filter: Arc<Shared>,
    /// For boringtun, which would else limit once more what has passed the filter.
    no_limiter: Arc<RateLimiter>,
    next_tick: Instant,
    ticks: u32,
    scratch: Box<[u8]>,
    out: Outbox,
}

/// Peers that are not in use have their turn every so many ticks: with ten thousand of them a tick
/// for all would hold up packets for ten milliseconds.
const IDLE_TICKS: u32 = 4;

impl Tunnel {
    /// The buffer that [`Self::seal`] needs for a packet of any length, and
    /// [`Self::handle_datagram`] for a datagram of any length.
    pub const BUFFER_LEN: usize = MAX_PACKET_LEN + DATA_OVERHEAD;

    /// Half of the 24-bit indexes, so that drawing a free one at random stays quick.
    const MAX_PEERS: usize = 1 << 23;

    /// A tunnel without peers, behind an interface with this MTU.
    pub fn new(secret: WireguardSecret, mtu: u16, now: Instant) -> Self {
        let shared = Arc::<Shared>::default();
        let filter = HandshakeFilter::new(secret.clone(), Arc::clone(&shared), now);
        Self::with(secret, mtu, Lane::ALONE, shared, Some(filter), now)
    }

    /// A tunnel for each of so many lanes, and the filter for all of them, which is to work in a
    /// thread of its own: an initiation comes back from [`Self::handle_datagram`] as
    /// [`Received::Initiation`], and what passes the filter is for [`Self::handle_initiation`] of
    /// its peer's lane.
    pub fn lanes(
        secret: &WireguardSecret,
        mtu: u16,
        count: u8,
        now: Instant,
    ) -> (Vec<Self>, HandshakeFilter) {
        let shared = Arc::<Shared>::default();
        let filter = HandshakeFilter::new(secret.clone(), Arc::clone(&shared), now);
        let lane = |lane| Self::with(secret.clone(), mtu, lane, Arc::clone(&shared), None, now);
        (Lane::all(count).map(lane).collect(), filter)
    }

    fn with(
        secret: WireguardSecret,
        mtu: u16,
        lane: Lane,
        shared: Arc<Shared>,
        filter: Option<HandshakeFilter>,
        now: Instant,
    ) -> Self {
        let x25519_public = PublicKey::from(secret.as_x25519());
        Self {
            lane,
            filter,
            shared_with_filter: shared,
            public_key: secret.public_key(),
            secret,
            peers: Peers::default(),
            allowed_ips: AllowedIps::new(),
            last_source: None,
            longest_packet: mtu.into(),
            no_limiter: Arc::new(RateLimiter::new(&x25519_public, u64::MAX)),
            next_tick: now + TICK,
            ticks: 0,
            scratch: vec![0; Self::BUFFER_LEN].into_boxed_slice(),
            out: Outbox::default(),
        }
    }

    /// Our own public key.
    pub const fn public_key(&self) -> WireguardPublicKey {
        self.public_key
    }

    /// Adds a peer, or changes what is configured of it; its session and its id stay. So they do
    /// when it is removed and still heard out.
    ///
    /// # Errors
    ///
    /// [`UpsertError`]; nothing has changed then.
    pub fn upsert(&mut self, config: PeerConfig, now: Instant) -> Result<PeerId, UpsertError> {
        let PeerConfig { public_key, allowed_ips, endpoint, keepalive } = config;
        if public_key == self.public_key {
            return Err(UpsertError::OwnKey);
        }
        let allowed_ips: Vec<IpNet> = allowed_ips.iter().map(IpNet::trunc).collect();
        let known = self.peers.with_key(&public_key).map(|peer| peer.id());
        for prefix in &allowed_ips {
            if let Some(owner) = self.allowed_ips.owner_of_prefix(*prefix)
                && Some(owner) != known
            {
                return Err(UpsertError::PrefixTaken { prefix: *prefix, owner });
            }
        }
        let id = match known {
            Some(id) => id,
            None => self.add(public_key, now)?,
        };
        let peer = self.peers.living_or_leaving(id).expect("every known key has its peer");
        self.last_source = None;
        self.allowed_ips.replace(id, peer.allowed_ips(), &allowed_ips);
        peer.configure(allowed_ips, endpoint, keepalive);
        Ok(id)
    }

    /// Lets a peer send from addresses that another peer owns, as when several lead to the same
    /// network: packets go there by the owner alone, and come by each. Replaces what was said before.
    pub fn set_shared_ips(&mut self, peer: PeerId, prefixes: Vec<IpNet>) {
        self.last_source = None;
        if let Some(peer) = self.peers.living(peer) {
            peer.set_shared_ips(prefixes);
        }
    }

    /// Mixes a key that both ends have into the handshakes with a peer. Another one than before ends
    /// its sessions, and the next handshake begins anew.
    pub fn set_preshared_key(&mut self, peer: PeerId, key: &PresharedKey) {
        let Some(known) = self.peers.living(peer) else { return };
        if known.preshared_key() == Some(key) {
            return;
        }
        let public_key = known.public_key();
        let tunn = self.tunn(public_key, peer, Some(key));
        if let Some(peer) = self.peers.living(peer) {
            peer.begin_anew(tunn, key.clone());
        }
    }

    /// Removes a peer: its addresses are free and it gets no new session.
    ///
    /// What is under way on its sessions is heard out for five seconds, as far as it carries no
    /// data, and may be answered: whoever is cut off may have to be told, and what tells it lies
    /// behind everything that was sent before. False: there is no such peer any more.
    pub fn remove(&mut self, peer: PeerId) -> bool {
        let Some(removed) = self.peers.living(peer) else { return false };
        self.last_source = None;
        self.allowed_ips.remove(peer, removed.allowed_ips());
        self.out.forget(peer);
        if !removed.leave() {
            self.forget(peer);
        }
        true
    }

    /// The peer with this key.
    pub fn peer_of(&self, public_key: &WireguardPublicKey) -> Option<PeerId> {
        self.peers.with_key(public_key).filter(|peer| !peer.is_leaving()).map(Peer::id)
    }

    /// The peer that owns an inner address: the one with the longest prefix around it.
    pub fn owner_of(&self, address: IpAddr) -> Option<PeerId> {
        self.allowed_ips.owner_of(address)
    }

    /// Whether a peer may send from an inner address, as its owner or as one who shares it, for
    /// packets that come by another carrier.
    pub fn may_send_from(&mut self, peer: PeerId, source: IpAddr) -> bool {
        if self.last_source == Some((source, peer)) {
            return true;
        }
        let Some(owner) = self.allowed_ips.owner_of(source) else { return false };
        let may = owner == peer || self.peers.find(peer).is_some_and(|peer| peer.shares(source));
        if may {
            self.last_source = Some((source, peer));
        }
        may
    }

    /// What is known of a peer.
    pub fn status(&self, peer: PeerId) -> Option<PeerStatus> {
        self.peers.find(peer).filter(|peer| !peer.is_leaving()).map(Peer::status)
    }

    /// All peers, in no order.
    pub fn peers(&self) -> impl Iterator<Item = PeerId> + '_ {
        self.peers.iter().filter(|peer| !peer.is_leaving()).map(Peer::id)
    }

    /// Starts a handshake at once, even if one is under way.
    pub fn initiate_handshake(&mut self, peer: PeerId, now: Instant) {
        let Self { peers, scratch, out, .. } = self;
        if let Some(peer) = peers.living(peer) {
            peer.start_handshake(true, scratch, out, now);
        }
    }

    /// Tells a peer where we are, after our own address changed: by a keepalive if there is a
    /// session, and by a handshake if one is under way.
    pub fn announce(&mut self, peer: PeerId, now: Instant) {
        let Self { peers, scratch, out, .. } = self;
        if let Some(peer) = peers.living(peer) {
            peer.announce(scratch, out, now);
        }
    }

    /// Lets a peer hear of us; without a session by a handshake.
    pub fn send_keepalive(&mut self, peer: PeerId, now: Instant) {
        let Self { peers, scratch, out, .. } = self;
        if let Some(peer) = peers.living(peer) {
            peer.send_keepalive(scratch, out, now);
        }
    }

    /// Takes a datagram from the network, and opens it into `into` if it is data.
    ///
    /// `into` must be as long as the datagram; [`Self::BUFFER_LEN`] fits all.
    pub fn handle_datagram<'a>(
        &mut self,
        from: Endpoint,
        datagram: &[u8],
        into: &'a mut [u8],
        now: Instant,
    ) -> Received<'a> {
        let result = match Message::try_parse(datagram) {
            Ok(Message::Data { receiver }) => {
                return self.handle_data(receiver, from, datagram, into, now);
            }
            Ok(Message::Initiation) => return self.filter_initiation(from, datagram, now),
            Ok(Message::Response { receiver }) => {
                self.handle_response(receiver, from, datagram, now)
            }
            Ok(Message::CookieReply { receiver }) => {
                self.handle_cookie_reply(receiver, datagram, now)
            }
            Err(reason) => Err(reason),
        };
        match result {
            Ok(()) => Received::Consumed,
            Err(reason) => self.dropped(reason, None),
        }
    }

    /// Answers an initiation that has passed the filter, which takes three Diffie-Hellman exchanges
    /// unless it is an old recording.
    pub fn handle_initiation(
        &mut self,
        initiation: &Initiation,
        now: Instant,
    ) -> Received<'static> {
        let Initiation { from, public_key, bytes } = initiation;
        let Self { peers, scratch, out, .. } = self;
        let result = match peers.with_key_mut(public_key) {
            Some(peer) => peer.handle_initiation(*from, bytes, scratch, out, now),
            // Removed since it passed.
            None => Err(DropReason::PeerUnknown),
        };
        match result {
            Ok(()) => Received::Consumed,
            Err(reason) => self.dropped(reason, None),
        }
    }

    /// Seals a packet for a peer into `into`.
    ///
    /// `into` must be longer than the packet by [`DATA_OVERHEAD`], and no shorter than 148 bytes;
    /// [`Self::BUFFER_LEN`] fits all.
    pub fn seal<'a>(
        &mut self,
        peer: PeerId,
        packet: &[u8],
        into: &'a mut [u8],
        now: Instant,
    ) -> Sealed<'a> {
        let Self { peers, scratch, out, .. } = self;
        let sealed = match peers.living_or_leaving(peer) {
            Some(peer) => peer.seal(packet, into, scratch, out, now),
            None => SealedByPeer::Dropped(DropReason::PeerRemoved),
        };
        match sealed {
            SealedByPeer::Datagram { to, bytes } => Sealed::Datagram { to, bytes },
            SealedByPeer::Waiting => Sealed::Waiting,
            SealedByPeer::Dropped(reason) => {
                out.count(reason);
                Sealed::Dropped(reason)
            }
        }
    }

    /// Does what is due: handshakes again, keepalives, end of keys.
    pub fn handle_timeout(&mut self, now: Instant) {
        if now < self.next_tick {
            return;
        }
        self.next_tick = now + TICK;
        self.ticks = self.ticks.wrapping_add(1);
        let turn = self.ticks % IDLE_TICKS;
        let mut gone = Vec::new();
        for peer in self.peers.iter_mut() {
            if peer.is_leaving() {
                if peer.has_left() {
                    gone.push(peer.id());
                }
            } else if peer.id().index() % IDLE_TICKS == turn || peer.is_in_use(now) {
                peer.tick(&mut self.scratch, &mut self.out, now);
            }
        }
        for peer in gone {
            self.forget(peer);
        }
    }

    /// The next datagram to be sent.
    pub fn poll_transmit(&mut self) -> Option<Transmit> {
        self.out.poll_transmit()
    }

    /// The next thing to be told.
    pub fn poll_event(&mut self) -> Option<TunnelEvent> {
        self.out.poll_event()
    }

    /// When [`Self::handle_timeout`] is due; never without peers.
    pub fn poll_timeout(&self) -> Option<Instant> {
        (!self.peers.is_empty()).then_some(self.next_tick)
    }

    /// The longest packet that reaches a peer in one datagram, as far as is known.
    pub fn max_packet_len(&self, peer: PeerId) -> usize {
        self.peers.find(peer).map_or(self.longest_packet, Peer::max_packet_len)
    }

    /// The longest packet that reaches a peer, if the interface takes longer ones.
    pub(super) fn short_path(&self, peer: PeerId) -> Option<usize> {
        Some(self.max_packet_len(peer)).filter(|len| *len < self.longest_packet)
    }

    /// The network has not taken a datagram to this peer because of its length.
    pub fn handle_too_big(&mut self, peer: PeerId, now: Instant) {
        let Self { peers, scratch, out, .. } = self;
        if let Some(peer) = peers.living(peer) {
            peer.handle_too_big(scratch, out, now);
        }
    }

    /// Counts something that its owner had to drop.
    pub fn count_drop(&mut self, reason: DropReason) {
        self.out.count(reason);
    }

    /// How much was dropped, by reason; what the filter dropped is told by the first lane.
    pub fn drops(&self) -> DropCounters {
        let mut drops = self.out.drops().clone();
        if self.lane.number() == 0 {
            drops += &*self.shared_with_filter.drops();
        }
        drops
    }

    fn forget(&mut self, peer: PeerId) {
        if let Some(public_key) = self.peers.remove(peer) {
            self.shared_with_filter.remove(&public_key);
        }
    }

    fn tunn(&self, public_key: WireguardPublicKey, id: PeerId, key: Option<&PresharedKey>) -> Tunn {
        Tunn::new(
            self.secret.as_x25519().clone(),
            PublicKey::from(*public_key.as_bytes()),
            key.map(|key| *key.as_bytes()),
            None,
            id.index(),
            Some(Arc::clone(&self.no_limiter)),
        )
    }

    fn add(&mut self, public_key: WireguardPublicKey, now: Instant) -> Result<PeerId, UpsertError> {
        if self.peers.len() >= self.lane.share_of(Self::MAX_PEERS) {
            return Err(UpsertError::TooManyPeers);
        }
        // Drawn at random, so that an index does not tell how many peers there are.
        let index = loop {
            let index = getrandom::u32()? >> 8;
            if self.lane.owns(index) && !self.peers.has_index(index) {
                break index;
            }
        };
        let id = self.peers.next_id(index);
        let tunn = self.tunn(public_key, id, None);
        self.peers.insert(Peer::new(id, public_key, tunn, self.longest_packet, now));
        self.shared_with_filter.insert(public_key);
        Ok(id)
    }

    fn handle_data<'a>(
        &mut self,
        receiver: u32,
        from: Endpoint,
        datagram: &[u8],
        into: &'a mut [u8],
        now: Instant,
    ) -> Received<'a> {
        let Self { peers, scratch, out, .. } = self;
        let Some(peer) = peers.with_session(receiver) else {
            return self.dropped(DropReason::IndexUnknown, None);
        };
        let id = peer.id();
        match peer.handle_data(receiver, from, datagram, into, scratch, out, now) {
            Opened::Packet { packet, source } => {
                if self.last_source == Some((source, id)) {
                    return Received::Packet { peer: id, packet };
                }
                let is_leaving = peer.is_leaving();
                let owner = self.allowed_ips.owner_of(source);
                let may = match owner {
                    Some(owner) => owner == id || peer.shares(source),
                    None => is_leaving && peer.is_allowed(source),
                };
                if may && is_leaving && carries_data(packet) {
                    return self.dropped(DropReason::PeerRemoved, Some(id));
                }
                if may {
                    self.last_source = owner.map(|_owner| (source, id));
                    return Received::Packet { peer: id, packet };
                }
                self.out.count(DropReason::SourceSpoofed);
                Received::Dropped { reason: DropReason::SourceSpoofed, peer: Some(id), packet }
            }
            Opened::Keepalive => Received::Consumed,
            Opened::Dropped(reason) => self.dropped(reason, None),
        }
    }

    fn filter_initiation(
        &mut self,
        from: Endpoint,
        datagram: &[u8],
        now: Instant,
    ) -> Received<'static> {
        let Self { filter, out, .. } = self;
        let Some(filter) = filter else { return Received::Initiation };
        let reason = match filter.check(from, datagram, now) {
            Filtered::Passed(initiation) => return self.handle_initiation(&initiation, now),
            Filtered::Cookie(cookie) => {
                out.transmit(None, from, cookie);
                DropReason::UnderLoad
            }
            Filtered::Dropped(reason) => reason,
        };
        Received::Dropped { reason, peer: None, packet: &[] }
    }

    fn handle_response(
        &mut self,
        receiver: u32,
        from: Endpoint,
        datagram: &[u8],
        now: Instant,
    ) -> Result<(), DropReason> {
        let peer = self.peers.with_session(receiver).ok_or(DropReason::IndexUnknown)?;
        peer.handle_response(receiver, from, datagram, &mut self.scratch, &mut self.out, now)
    }

    fn handle_cookie_reply(
        &mut self,
        receiver: u32,
        datagram: &[u8],
        now: Instant,
    ) -> Result<(), DropReason> {
        let peer = self.peers.with_session(receiver).ok_or(DropReason::IndexUnknown)?;
        peer.handle_cookie_reply(datagram, &mut self.scratch, &mut self.out, now)
    }

    fn dropped<'a>(&mut self, reason: DropReason, peer: Option<PeerId>) -> Received<'a> {
        self.out.count(reason);
        Received::Dropped { reason, peer, packet: &[] }
    }
}

impl fmt::Debug for Tunnel {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Tunnel")
            .field("public_key", &self.public_key)
            .field("peers", &self.peers.len())
            .finish_non_exhaustive()
    }
}

/// Whether a packet is more than news of a connection, or of a packet that did not arrive.
fn carries_data(packet: &[u8]) -> bool {
    let Ok(packet) = InnerPacket::try_parse(packet) else { return true };
    match packet.transport() {
        Transport::Tcp(_) => packet.payload_len() > 0,
        Transport::IcmpError => false,
        Transport::Udp
        | Transport::IcmpEchoRequest
        | Transport::IcmpEchoReply
        | Transport::Unsupported { .. } => true,
    }
}
