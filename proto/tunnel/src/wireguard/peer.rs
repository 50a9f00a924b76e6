//! One peer: its keys and timers are boringtun's, everything that keeps them safe is here.

use std::{
    net::{IpAddr, SocketAddr},
    time::{Duration, Instant},
};

use adit_proto::{PresharedKey, WireguardPublicKey};
use boringtun::noise::{Tunn, TunnResult, errors::WireGuardError};
use ipnet::IpNet;

use super::{
    DropReason, PeerId, TunnelEvent,
    message::{DATA_OVERHEAD, MAX_DATAGRAM_LEN, MIN_BUFFER_LEN},
    outbox::Outbox,
    path_mtu::{PathMessage, PathMtu},
    waiting::WaitingPackets,
};
use crate::Endpoint;

/// boringtun's clock moves only in `update_timers`, so that runs at least this often, and before
/// the first use after idling.
pub(super) const TICK: Duration = Duration::from_millis(250);

/// How many ticks a removed peer is heard out for, five seconds in all: some round trips of a slow
/// path, and what a busy thread has left lying.
const TICKS_TO_LEAVE: u8 = 20;

/// How long the first handshake with a peer waits for an answer before it is sent again. Somebody
/// waits for it; boringtun repeats one after [`REKEY_TIMEOUT`], and repeats all of them from then on.
const FIRST_REPEAT: Duration = Duration::from_secs(1);

/// WireGuard whitepaper §6.1: how long a handshake waits for an answer.
const REKEY_TIMEOUT: Duration = Duration::from_secs(5);

/// WireGuard whitepaper §6.1: after so long without an answer, waiting packets are given up.
const REKEY_ATTEMPT_TIME: Duration = Duration::from_secs(90);

/// What is known of a peer at a moment.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PeerStatus {
    /// Who it is.
    pub public_key: WireguardPublicKey,
    /// Where it was last, or where it is said to be.
    pub endpoint: Option<Endpoint>,
    /// When the last handshake was confirmed.
    pub last_handshake: Option<Instant>,
    /// When it last said something that is authentic.
    pub last_heard: Option<Instant>,
    /// Whether packets can go to it at once.
    pub established: bool,
    /// Whether a preshared key is part of its handshakes.
    pub has_preshared_key: bool,
    /// Inner packets from it.
    pub received_packets: u64,
    /// Inner bytes from it.
    pub received_bytes: u64,
    /// Inner packets to it.
    pub sent_packets: u64,
    /// Inner bytes to it.
    pub sent_bytes: u64,
}

/// What opening a datagram of data gave.
pub(super) enum Opened<'a> {
    Packet { packet: &'a mut [u8], source: IpAddr },
    Keepalive,
    Dropped(DropReason),
}

/// What sealing a packet gave.
pub(super) enum SealedByPeer<'a> {
    Datagram { to: Endpoint, bytes: &'a mut [u8] },
    Waiting,
    Dropped(DropReason),
}

pub(super) struct Peer {
    id: PeerId,
    public_key: WireguardPublicKey,
    allowed_ips: Vec<IpNet>,
    shared_ips: Vec<IpNet>,
    tunn: Tunn,
    preshared_key: Option<PresharedKey>,
    endpoint: Option<Endpoint>,
    /// The endpoint as last configured: only another one overrides what the peer proved.
    configured_endpoint: Option<SocketAddr>,
    keepalive: Option<Duration>,
    path_mtu: PathMtu,
    /// Whether boringtun has keys to send with. INVARIANT: while this is false nothing is handed
    /// to `Tunn::encapsulate`, whose own queue counts packets, not bytes.
    established: bool,
    /// Our indexes of the confirmed sessions, the newest first.
    sessions: [Option<u32>; 2],
    last_handshake: Option<Instant>,
    last_heard: Option<Instant>,
    /// Since when a handshake is wanted that has not come about.
    trying_since: Option<Instant>,
    /// When an authentic handshake of its was last answered.
    answered: Option<Instant>,
    /// When a cookie last made us try again at once.
    cookie_used: Option<Instant>,
    waiting: WaitingPackets,
    last_sent: Instant,
    last_used: Instant,
    ticked_at: Instant,
    /// How many ticks are left, once it is removed.
    leaving: Option<u8>,
    received_packets: u64,
    received_bytes: u64,
    sent_packets: u64,
    sent_bytes: u64,
}

impl Peer {
    pub(super) fn new(
        id: PeerId,
        public_key: WireguardPublicKey,
        tunn: Tunn,
        longest_packet: usize,
        now: Instant,
    ) -> Self {
        Self {
            id,
            public_key,
            allowed_ips: Vec::new(),
            shared_ips: Vec::new(),
            tunn,
            preshared_key: None,
            endpoint: None,
            configured_endpoint: None,
            keepalive: None,
            path_mtu: PathMtu::new(longest_packet),
            established: false,
            sessions: [None; 2],
            last_handshake: None,
            last_heard: None,
            trying_since: None,
            answered: None,
            cookie_used: None,
            waiting: WaitingPackets::default(),
            last_sent: now,
            last_used: now,
            ticked_at: now,
            leaving: None,
            received_packets: 0,
            received_bytes: 0,
            sent_packets: 0,
            sent_bytes: 0,
        }
    }

    pub(super) const fn id(&self) -> PeerId {
        self.id
    }

    pub(super) const fn public_key(&self) -> WireguardPublicKey {
        self.public_key
    }

    pub(super) const fn preshared_key(&self) -> Option<&PresharedKey> {
        self.preshared_key.as_ref()
    }

    /// Forgets the sessions, which were made without this key.
    pub(super) fn begin_anew(&mut self, tunn: Tunn, preshared_key: PresharedKey) {
        self.tunn = tunn;
        self.preshared_key = Some(preshared_key);
        self.established = false;
        self.sessions = [None; 2];
        self.last_handshake = None;
        self.trying_since = None;
        self.answered = None;
        self.cookie_used = None;
    }

    pub(super) fn allowed_ips(&self) -> &[IpNet] {
        &self.allowed_ips
    }

    /// The longest packet that gets through, as far as is known.
    pub(super) const fn max_packet_len(&self) -> usize {
        self.path_mtu.limit()
    }

    /// The network did not take a datagram because of its length.
    pub(super) fn handle_too_big(&mut self, scratch: &mut [u8], out: &mut Outbox, now: Instant) {
        self.path_mtu.handle_too_big(now);
        self.send_probes(scratch, out, now);
    }

    pub(super) fn is_allowed(&self, source: IpAddr) -> bool {
        self.allowed_ips.iter().any(|prefix| prefix.contains(&source))
    }

    pub(super) fn set_shared_ips(&mut self, prefixes: Vec<IpNet>) {
        self.shared_ips = prefixes;
    }

    /// Whether it may send from an address that another peer owns.
    pub(super) fn shares(&self, source: IpAddr) -> bool {
        self.shared_ips.iter().any(|prefix| prefix.contains(&source))
    }

    /// Whether it was removed and is only heard out.
    pub(super) const fn is_leaving(&self) -> bool {
        self.leaving.is_some()
    }

    /// From here on nothing is begun any more. What is under way on the sessions goes on for a
    /// while, both ways; returns false when there is none.
    pub(super) fn leave(&mut self) -> bool {
        self.leaving = Some(TICKS_TO_LEAVE);
        self.waiting = WaitingPackets::default();
        self.established
    }

    /// Counts a tick of a peer that leaves; returns whether it is gone.
    pub(super) const fn has_left(&mut self) -> bool {
        match self.leaving {
            None => false,
            Some(0) => true,
            Some(left) => {
                self.leaving = Some(left - 1);
                false
            }
        }
    }

    pub(super) const fn status(&self) -> PeerStatus {
        PeerStatus {
            public_key: self.public_key,
            endpoint: self.endpoint,
            last_handshake: self.last_handshake,
            last_heard: self.last_heard,
            established: self.established,
            has_preshared_key: self.preshared_key.is_some(),
            received_packets: self.received_packets,
            received_bytes: self.received_bytes,
            sent_packets: self.sent_packets,
            sent_bytes: self.sent_bytes,
        }
    }

    pub(super) fn configure(
        &mut self,
        allowed_ips: Vec<IpNet>,
        endpoint: Option<SocketAddr>,
        keepalive: Option<Duration>,
    ) {
        self.leaving = None;
        self.allowed_ips = allowed_ips;
        self.keepalive = keepalive;
        if endpoint.is_some() && endpoint != self.configured_endpoint {
            self.endpoint = endpoint.map(Endpoint::from);
        }
        self.configured_endpoint = endpoint;
    }

    /// Answers an initiation whose static key is this peer's. The answer goes where the initiation
    /// came from; the endpoint stays.
    pub(super) fn handle_initiation(
        &mut self,
        from: Endpoint,
        datagram: &[u8],
        scratch: &mut [u8],
        out: &mut Outbox,
        now: Instant,
    ) -> Result<(), DropReason> {
        /// As in other implementations. A recording does not count, so it keeps nobody out.
        const INTERVAL: Duration = Duration::from_millis(20);

        if self.is_leaving() {
            return Err(DropReason::PeerUnknown);
        }
        let is_soon = |answered| now.saturating_duration_since(answered) < INTERVAL;
        if self.answered.is_some_and(is_soon) {
            return Err(DropReason::PeerTooBusy);
        }
        self.wake_up(scratch, out, now);
        match self.tunn.decapsulate(Some(from.remote().ip()), datagram, scratch) {
            TunnResult::WriteToNetwork(response) => {
                self.answered = Some(now);
                out.transmit(Some(self.id), from, response);
                Ok(())
            }
            TunnResult::Err(WireGuardError::WrongTai64nTimestamp) => {
                Err(DropReason::HandshakeReplayed)
            }
            TunnResult::Err(_) => Err(DropReason::HandshakeInvalid),
            TunnResult::Done
            | TunnResult::WriteToTunnelV4(..)
            | TunnResult::WriteToTunnelV6(..) => Err(DropReason::HandshakeInvalid),
        }
    }

    /// Completes a handshake of ours.
    pub(super) fn handle_response(
        &mut self,
        receiver: u32,
        from: Endpoint,
        datagram: &[u8],
        scratch: &mut [u8],
        out: &mut Outbox,
        now: Instant,
    ) -> Result<(), DropReason> {
        if self.is_leaving() {
            return Err(DropReason::IndexUnknown);
        }
        self.wake_up(scratch, out, now);
        match self.tunn.decapsulate(Some(from.remote().ip()), datagram, scratch) {
            // A keepalive that confirms the new keys to the other end.
            TunnResult::WriteToNetwork(keepalive) => {
                self.last_sent = now;
                if let Some(endpoint) = self.endpoint {
                    out.transmit(Some(self.id), endpoint, keepalive);
                }
                self.confirm_session(receiver, scratch, out, now);
                Ok(())
            }
            TunnResult::Err(_)
            | TunnResult::Done
            | TunnResult::WriteToTunnelV4(..)
            | TunnResult::WriteToTunnelV6(..) => Err(DropReason::HandshakeInvalid),
        }
    }

    pub(super) fn handle_cookie_reply(
        &mut self,
        datagram: &[u8],
        scratch: &mut [u8],
        out: &mut Outbox,
        now: Instant,
    ) -> Result<(), DropReason> {
        if self.is_leaving() {
            return Err(DropReason::IndexUnknown);
        }
        self.wake_up(scratch, out, now);
        match self.tunn.decapsulate(None, datagram, scratch) {
            TunnResult::Done => {
                self.try_again_with_cookie(scratch, out, now);
                Ok(())
            }
            TunnResult::Err(_)
            | TunnResult::WriteToNetwork(_)
            | TunnResult::WriteToTunnelV4(..)
            | TunnResult::WriteToTunnelV6(..) => Err(DropReason::HandshakeInvalid),
        }
    }

    /// Sends the initiation that was answered by a cookie again, not after boringtun's five seconds.
    fn try_again_with_cookie(&mut self, scratch: &mut [u8], out: &mut Outbox, now: Instant) {
        /// Whoever sees our initiations can make cookies, and must not set us running.
        const INTERVAL: Duration = Duration::from_secs(1);

        let is_soon = |used| now.saturating_duration_since(used) < INTERVAL;
        if !self.cookie_used.is_some_and(is_soon) {
            self.cookie_used = Some(now);
            self.start_handshake(true, scratch, out, now);
        }
    }

    /// Opens a datagram of data into `into`.
    #[expect(clippy::too_many_arguments, reason = "buffers and queues of the tunnel, not state")]
    pub(super) fn handle_data<'a>(
        &mut self,
        receiver: u32,
        from: Endpoint,
        datagram: &[u8],
        into: &'a mut [u8],
        scratch: &mut [u8],
        out: &mut Outbox,
        now: Instant,
    ) -> Opened<'a> {
        if into.len() < datagram.len() {
            return Opened::Dropped(DropReason::BufferTooSmall);
        }
        self.wake_up(scratch, out, now);
        let (packet, source) = match self.tunn.decapsulate(None, datagram, into) {
            TunnResult::WriteToTunnelV4(packet, source) if source.is_unspecified() => {
                let message = PathMessage::try_parse(packet);
                self.authenticated(receiver, from, scratch, out, now);
                let Some(message) = message else {
                    return Opened::Dropped(DropReason::InnerMalformed);
                };
                self.handle_path_message(message, scratch, out, now);
                return Opened::Keepalive;
            }
            TunnResult::WriteToTunnelV4(packet, source) => (packet, IpAddr::V4(source)),
            TunnResult::WriteToTunnelV6(packet, source) => (packet, IpAddr::V6(source)),
            TunnResult::Done => {
                self.authenticated(receiver, from, scratch, out, now);
                return Opened::Keepalive;
            }
            TunnResult::Err(error) => return Opened::Dropped(data_drop_reason(&error)),
            TunnResult::WriteToNetwork(_) => return Opened::Dropped(DropReason::Malformed),
        };
        self.authenticated(receiver, from, scratch, out, now);
        self.received_packets += 1;
        self.received_bytes += packet.len() as u64;
        Opened::Packet { packet, source }
    }

    /// Seals `packet` into `into`, or keeps it until a handshake is complete.
    pub(super) fn seal<'a>(
        &mut self,
        packet: &[u8],
        into: &'a mut [u8],
        scratch: &mut [u8],
        out: &mut Outbox,
        now: Instant,
    ) -> SealedByPeer<'a> {
        if packet.is_empty() {
            return SealedByPeer::Dropped(DropReason::InnerMalformed);
        }
        if packet.len() + DATA_OVERHEAD > MAX_DATAGRAM_LEN {
            return SealedByPeer::Dropped(DropReason::Oversize);
        }
        if into.len() < MIN_BUFFER_LEN.max(packet.len() + DATA_OVERHEAD) {
            return SealedByPeer::Dropped(DropReason::BufferTooSmall);
        }
        self.wake_up(scratch, out, now);
        let Some(to) = self.endpoint else {
            return SealedByPeer::Dropped(DropReason::EndpointUnknown);
        };
        if !self.established && self.is_leaving() {
            return SealedByPeer::Dropped(DropReason::PeerRemoved);
        }
        if !self.established {
            for _ in 0..self.waiting.push(packet) {
                out.count(DropReason::QueueFull);
            }
            self.start_handshake(false, scratch, out, now);
            return SealedByPeer::Waiting;
        }
        match self.tunn.encapsulate(packet, into) {
            TunnResult::WriteToNetwork(bytes) => {
                self.count_sent(packet.len(), now);
                SealedByPeer::Datagram { to, bytes }
            }
            TunnResult::Err(_)
            | TunnResult::Done
            | TunnResult::WriteToTunnelV4(..)
            | TunnResult::WriteToTunnelV6(..) => SealedByPeer::Dropped(DropReason::SessionUnknown),
        }
    }

    /// Starts a handshake; `again` does so even while one is under way.
    pub(super) fn start_handshake(
        &mut self,
        again: bool,
        scratch: &mut [u8],
        out: &mut Outbox,
        now: Instant,
    ) {
        let Some(endpoint) = self.endpoint else { return };
        self.trying_since.get_or_insert(now);
        if let TunnResult::WriteToNetwork(initiation) =
            self.tunn.format_handshake_initiation(scratch, again)
        {
            self.last_sent = now;
            out.transmit(Some(self.id), endpoint, initiation);
        }
    }

    /// Lets the peer hear of us; without a session by a handshake.
    pub(super) fn send_keepalive(&mut self, scratch: &mut [u8], out: &mut Outbox, now: Instant) {
        let Some(endpoint) = self.endpoint else { return };
        if !self.established {
            self.start_handshake(false, scratch, out, now);
            return;
        }
        if let TunnResult::WriteToNetwork(keepalive) = self.tunn.encapsulate(&[], scratch) {
            self.last_sent = now;
            out.transmit(Some(self.id), endpoint, keepalive);
        }
    }

    /// Tells the peer where we are, after our own address changed. A handshake whose messages may
    /// have been lost before that begins anew at once: boringtun repeats it after 5 s, and forgets
    /// every session when it has not come about after 90 s.
    pub(super) fn announce(&mut self, scratch: &mut [u8], out: &mut Outbox, now: Instant) {
        if self.established {
            self.send_keepalive(scratch, out, now);
        }
        if self.trying_since.is_some() {
            self.start_handshake(true, scratch, out, now);
        }
    }

    /// Moves boringtun's clock: expires keys, repeats handshakes, sends keepalives.
    pub(super) fn tick(&mut self, scratch: &mut [u8], out: &mut Outbox, now: Instant) {
        self.ticked_at = now;
        let result = self.tunn.update_timers(scratch);
        let is_expired = matches!(result, TunnResult::Err(WireGuardError::ConnectionExpired));
        if let (TunnResult::WriteToNetwork(datagram), Some(endpoint)) = (result, self.endpoint) {
            self.last_sent = now;
            out.transmit(Some(self.id), endpoint, datagram);
        }
        self.established = self.tunn.time_since_last_handshake().is_some();
        self.path_mtu.handle_timeout(self.sent_packets, now);
        self.send_probes(scratch, out, now);

        if is_expired && let Some(since) = self.trying_since {
            // boringtun also gives up an attempt that began on an old, idle peer; that one goes on.
            if now.saturating_duration_since(since) < REKEY_ATTEMPT_TIME {
                self.start_handshake(false, scratch, out, now);
            } else {
                self.trying_since = None;
                while self.waiting.pop().is_some() {
                    out.count(DropReason::HandshakeTimedOut);
                }
            }
        }
        let is_due = |interval| now.saturating_duration_since(self.last_sent) >= interval;
        let is_young = |since| now.saturating_duration_since(since) < REKEY_TIMEOUT;
        if !self.established && self.trying_since.is_some_and(is_young) && is_due(FIRST_REPEAT) {
            self.start_handshake(true, scratch, out, now);
        } else if self.keepalive.is_some_and(is_due) {
            self.send_keepalive(scratch, out, now);
        }
    }

    fn handle_path_message(
        &mut self,
        message: PathMessage,
        scratch: &mut [u8],
        out: &mut Outbox,
        now: Instant,
    ) {
        if let Some(answer) = self.path_mtu.handle_message(message, now) {
            self.send_path_message(answer, scratch, out, now);
        }
        self.send_probes(scratch, out, now);
    }

    fn send_probes(&mut self, scratch: &mut [u8], out: &mut Outbox, now: Instant) {
        while let Some(len) = self.path_mtu.poll_probe() {
            self.send_path_message(PathMessage::Probe { len }, scratch, out, now);
        }
    }

    fn send_path_message(
        &mut self,
        message: PathMessage,
        scratch: &mut [u8],
        out: &mut Outbox,
        now: Instant,
    ) {
        let (packet, datagram) = scratch.split_at_mut(scratch.len() / 2);
        let (true, Some(endpoint), Some(packet)) =
            (self.established, self.endpoint, message.write(packet))
        else {
            return;
        };
        if let TunnResult::WriteToNetwork(datagram) = self.tunn.encapsulate(packet, datagram) {
            self.last_sent = now;
            out.transmit(Some(self.id), endpoint, datagram);
        }
    }

    /// Whether its clock must be exact. The others' runs up to a second late, which no
    /// timer of WireGuard's minds, and [`Self::wake_up`] sets it right before it is used.
    pub(super) fn is_in_use(&self, now: Instant) -> bool {
        /// Longer than a search for the path's MTU takes.
        const RECENTLY: Duration = Duration::from_secs(5);

        self.trying_since.is_some()
            || self.keepalive.is_some()
            || now.saturating_duration_since(self.last_used) < RECENTLY
    }

    fn wake_up(&mut self, scratch: &mut [u8], out: &mut Outbox, now: Instant) {
        self.last_used = now;
        if !self.is_leaving() && now.saturating_duration_since(self.ticked_at) >= TICK {
            self.tick(scratch, out, now);
        }
    }

    /// Notes an authentic and fresh datagram of data: the one proof of where a peer is.
    fn authenticated(
        &mut self,
        receiver: u32,
        from: Endpoint,
        scratch: &mut [u8],
        out: &mut Outbox,
        now: Instant,
    ) {
        if self.is_leaving() {
            return;
        }
        self.last_heard = Some(now);
        if self.endpoint != Some(from) {
            self.endpoint = Some(from);
            self.path_mtu.start_again(now);
            self.send_probes(scratch, out, now);
            out.event(TunnelEvent::Roamed { peer: self.id, endpoint: from });
        }
        self.confirm_session(receiver, scratch, out, now);
    }

    fn confirm_session(
        &mut self,
        receiver: u32,
        scratch: &mut [u8],
        out: &mut Outbox,
        now: Instant,
    ) {
        if !self.sessions.contains(&Some(receiver)) {
            self.sessions = [Some(receiver), self.sessions[0]];
            self.last_handshake = Some(now);
            self.trying_since = None;
            out.event(TunnelEvent::Established { peer: self.id });
        }
        if self.established {
            return;
        }
        self.established = true;
        // Whoever was told where the peer is asks first.
        if self.configured_endpoint.is_some() {
            self.path_mtu.start(now);
            self.send_probes(scratch, out, now);
        }
        while let (Some(endpoint), Some(packet)) = (self.endpoint, self.waiting.pop()) {
            if let TunnResult::WriteToNetwork(datagram) = self.tunn.encapsulate(&packet, scratch) {
                out.transmit(Some(self.id), endpoint, datagram);
                self.count_sent(packet.len(), now);
            }
        }
    }

    fn count_sent(&mut self, len: usize, now: Instant) {
        self.last_sent = now;
        self.sent_packets += 1;
        self.sent_bytes += len as u64;
    }
}

fn data_drop_reason(error: &WireGuardError) -> DropReason {
    match error {
        WireGuardError::NoCurrentSession | WireGuardError::WrongIndex => DropReason::SessionUnknown,
        WireGuardError::InvalidCounter | WireGuardError::DuplicateCounter => {
            DropReason::CounterReplayed
        }
        WireGuardError::InvalidAeadTag => DropReason::AuthenticationFailed,
        // The outside of the datagram has been parsed, so only its inside is left.
        WireGuardError::InvalidPacket => DropReason::InnerMalformed,
        WireGuardError::DestinationBufferTooSmall
        | WireGuardError::IncorrectPacketLength
        | WireGuardError::UnexpectedPacket
        | WireGuardError::WrongPacketType
        | WireGuardError::WrongKey
        | WireGuardError::InvalidTai64nTimestamp
        | WireGuardError::WrongTai64nTimestamp
        | WireGuardError::InvalidMac
        | WireGuardError::LockFailed
        | WireGuardError::ConnectionExpired
        | WireGuardError::UnderLoad => DropReason::Malformed,
    }
}
