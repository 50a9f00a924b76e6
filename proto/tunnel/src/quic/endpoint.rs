//! All connections of one socket.

use std::{
    collections::{BTreeSet, HashMap, VecDeque},
    net::SocketAddr,
    ops::AddAssign,
    sync::Arc,
    time::{Duration, Instant},
};

use adit_proto::{
    Pin,
    http3::{Http3Code, RequestHead},
};
use bytes::BytesMut;
use quinn_proto::{
    ConnectionHandle, DatagramEvent, EcnCodepoint, Endpoint as Quic, EndpointEvent, Incoming,
    StreamId, VarInt,
};
use tokio::sync::oneshot;

use super::{
    IncomingRequest, QuicConnection, QuicError, QuicResponder,
    answers::Answers,
    config,
    connection::{CREDIT, Connection, Requested},
    initial::Initial,
    mailbox::{Command, Mailbox},
    newcomers::Newcomers,
    packets::PacketLosses,
    retry::{TokenKey, Unproven},
    strangers::Strangers,
};
use crate::{Datagram, Ecn, Endpoint, Frame, KeyPair, PeerId, SendOutcome, UdpSocket, Waker};

/// Names a connection of one [`QuicEndpoint`]; never reused.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct QuicConnectionId {
    pub(super) place: usize,
    pub(super) serial: u64,
}

/// Names a request of one [`QuicEndpoint`]; never reused.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct QuicStreamId {
    pub(super) connection: QuicConnectionId,
    pub(super) stream: u64,
}

impl QuicStreamId {
    /// The connection that it is of.
    pub const fn connection(&self) -> QuicConnectionId {
        self.connection
    }

    fn id(&self) -> StreamId {
        VarInt::from_u64(self.stream).unwrap_or_default().into()
    }
}

/// What happened.
#[derive(Debug)]
pub enum QuicEvent {
    /// A client asks for something.
    Request(Box<IncomingRequest>),
    /// A peer whose packets are carried is at another address than before.
    Roamed {
        /// Which.
        peer: PeerId,
        /// Where it is.
        remote: SocketAddr,
    },
    /// The packets of a peer are no longer carried by its request, which has ended.
    Detached {
        /// Whose.
        peer: PeerId,
    },
}

/// What a connection is used for, the least first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum QuicUse {
    /// Nothing.
    Nothing,
    /// Requests.
    Requests,
    /// Packets of a peer, and perhaps other requests.
    Packets,
}

/// What was counted.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct QuicCounters {
    /// Connections that there are.
    pub connections: usize,
    /// Requests to prove an address (RFC 9000 §8.1.2).
    pub retries: u64,
    /// Handshakes that were begun.
    pub handshakes: u64,
    /// Connections that were turned away.
    pub refused: u64,
    /// Datagrams that the network did not take.
    pub unsent: u64,
    /// Packets for which the congestion window had no room.
    pub congestion: u64,
    /// Packets that were longer than the path takes.
    pub too_big: u64,
}

impl AddAssign for QuicCounters {
    fn add_assign(&mut self, others: Self) {
        self.connections += others.connections;
        self.retries += others.retries;
        self.handshakes += others.handshakes;
        self.refused += others.refused;
        self.unsent += others.unsent;
        self.congestion += others.congestion;
        self.too_big += others.too_big;
    }
}

/// QUIC connections behind one socket, as a state machine.
///
/// - [`handle_datagram`](Self::handle_datagram) and [`handle_timeout`](Self::handle_timeout) put
///   something in, and so does everything that sends, and
///   [`begin_handshake`](Self::begin_handshake), which whoever serves calls when there is time;
/// - after them [`poll_packet`](Self::poll_packet) until there is none, then
///   [`flush`](Self::flush), then [`poll_event`](Self::poll_event) until there is none, then sleep
///   until [`poll_timeout`](Self::poll_timeout) or until the waker is used.
pub struct QuicEndpoint {
    quic: Quic,
    identity: KeyPair,
    /// Of a server.
    tokens: Option<TokenKey>,
    mtu: u16,
    mailbox: Arc<Mailbox>,
    connections: Vec<Option<Box<Connection>>>,
    count: usize,
    newcomers: Newcomers,
    strangers: Strangers,
    serial: u64,
    by_peer: HashMap<PeerId, QuicConnectionId>,
    /// Whose requests are ended then, the first one first.
    leaving: VecDeque<(Instant, PeerId)>,
    /// Have something to be done.
    dirty: VecDeque<usize>,
    /// May have packets.
    receiving: VecDeque<usize>,
    timeouts: BTreeSet<(Instant, usize)>,
    events: VecDeque<QuicEvent>,
    answers: Answers,
    requested: Vec<Requested>,
    /// For what goes out.
    buffer: Vec<u8>,
    scratch: Box<[u8]>,
    counters: QuicCounters,
    /// Of connections that have ended.
    losses: PacketLosses,
}

/// With so many newcomers and strangers, whoever comes has to prove its address first.
const BUSY: usize = 64;

/// Events that wait for their reader; it reads after each turn.
const MAX_EVENTS: usize = 1024;

/// Bytes that are taken from a task at one time.
const SCRATCH_LEN: usize = 64 << 10;

impl QuicEndpoint {
    /// Bytes of our memory that the peer of a connection may use as long as nothing else is said.
    pub const LEAST_MEMORY: u32 = config::STRANGERS_WINDOW;
    /// More than this is of no use to one connection.
    pub const MOST_MEMORY: u32 = config::LARGEST_WINDOW;

    /// For a connector: answers those who connect. The lane is one of so many, and the waker that
    /// of its thread; `mtu` is that of the longest link.
    pub fn server(identity: KeyPair, mtu: u16, lane: u8, lanes: u8, waker: Waker) -> Self {
        let server = config::server(&identity, mtu);
        let endpoint = Arc::new(config::endpoint(&identity, lane, lanes));
        let tokens = TokenKey::new(&identity);
        let quic = Quic::new(endpoint, Some(server), true, None);
        Self { tokens: Some(tokens), ..Self::new(quic, identity, mtu, waker) }
    }

    /// For a client: connects, and answers nobody.
    pub fn client(identity: KeyPair, mtu: u16, waker: Waker) -> Self {
        let endpoint = Arc::new(config::endpoint(&identity, 0, 1));
        Self::new(Quic::new(endpoint, None, true, None), identity, mtu, waker)
    }

    fn new(quic: Quic, identity: KeyPair, mtu: u16, waker: Waker) -> Self {
        Self {
            quic,
            identity,
            tokens: None,
            mtu,
            mailbox: Mailbox::new(waker),
            connections: Vec::new(),
            count: 0,
            newcomers: Newcomers::default(),
            strangers: Strangers::default(),
            serial: 0,
            by_peer: HashMap::new(),
            leaving: VecDeque::new(),
            dirty: VecDeque::new(),
            receiving: VecDeque::new(),
            timeouts: BTreeSet::new(),
            events: VecDeque::new(),
            answers: Answers::default(),
            requested: Vec::new(),
            buffer: Vec::new(),
            scratch: vec![0; SCRATCH_LEN].into_boxed_slice(),
            counters: QuicCounters::default(),
            losses: PacketLosses::default(),
        }
    }

    /// Begins a connection to the connector with this pin; what became of it is told when it is
    /// known.
    pub fn connect(
        &mut self,
        to: SocketAddr,
        pin: Pin,
        dialled: oneshot::Sender<Result<QuicConnection, QuicError>>,
        now: Instant,
    ) {
        let config = config::client(&self.identity, pin, self.mtu);
        match self.quic.connect(now, config, to, &to.ip().to_string()) {
            Ok((handle, quic)) => {
                let id = self.next_id(handle);
                let mailbox = Arc::clone(&self.mailbox);
                self.insert(Connection::new(id, quic, mailbox, Some(dialled)));
            }
            Err(error) => {
                // Whoever dialled may have gone.
                let _ = dialled.send(Err(QuicError::Lost { reason: error.to_string() }));
            }
        }
    }

    /// Takes a datagram from the network. Whoever is returned has to be asked for a proof of its
    /// address, for which a [`RetrySource`](crate::RetrySource) is there; that may be left undone.
    #[must_use]
    pub fn handle_datagram(&mut self, datagram: &Datagram<'_>, now: Instant) -> Option<Unproven> {
        if self.tokens.is_some() && Initial::leads(datagram.bytes) {
            return self.handle_initial(datagram, now);
        }
        if let Some(incoming) = self.handle(datagram.from, datagram.ecn, datagram.bytes, now) {
            self.quic.ignore(incoming);
        }
        None
    }

    fn handle_initial(&mut self, datagram: &Datagram<'_>, now: Instant) -> Option<Unproven> {
        let Datagram { from, ecn, bytes } = *datagram;
        let initial = Initial::try_parse(bytes)?;
        if self.newcomers.join(datagram, &initial.to) {
            return None;
        }
        if self.strangers.expect_initial(from.remote()) {
            match self.handle(from, ecn, bytes, now) {
                None => return None,
                // It begins another connection.
                Some(incoming) => self.quic.ignore(incoming),
            }
        }
        let is_busy = self.newcomers.len() + self.strangers.len() >= BUSY;
        let is_proven =
            self.tokens.as_ref().is_some_and(|tokens| tokens.is_of(initial.token, from.remote()));
        if is_busy && !is_proven {
            self.counters.retries += 1;
            return Some(Unproven { from, to_id: initial.to, from_id: initial.from });
        }
        self.newcomers.push(datagram, initial.to, now);
        None
    }

    /// Gives a datagram to its connection; one that begins another is returned.
    fn handle(
        &mut self,
        from: Endpoint,
        ecn: Ecn,
        bytes: impl Into<BytesMut>,
        now: Instant,
    ) -> Option<Incoming> {
        let bytes = bytes.into();
        let len = bytes.len();
        let ecn = EcnCodepoint::from_bits(ecn.bits());
        let mut answer = Vec::new();
        let event = self.quic.handle(now, from.remote(), from.local(), ecn, bytes, &mut answer);
        match event? {
            DatagramEvent::ConnectionEvent(handle, event) => {
                if let Some(connection) = slot(&mut self.connections, handle.0) {
                    connection.handle_datagram(event, len, now);
                    self.mark(handle.0);
                    if self.receiving.back() != Some(&handle.0) {
                        self.receiving.push_back(handle.0);
                    }
                }
            }
            DatagramEvent::NewConnection(incoming) => return Some(incoming),
            DatagramEvent::Response(_transmit) => self.answers.push(from, answer, now),
        }
        None
    }

    /// Whether somebody waits for [`Self::begin_handshake`].
    pub const fn has_newcomers(&self) -> bool {
        self.newcomers.len() > 0
    }

    /// Begins one handshake, which takes some 300 µs, and again as much when the client answers.
    pub fn begin_handshake(&mut self, now: Instant) {
        let Some(newcomer) = self.newcomers.pop(now) else { return };
        let mut datagrams = newcomer.datagrams.into_iter();
        let first = datagrams.next();
        let len = first.as_ref().map_or(0, |(_ecn, bytes)| bytes.len());
        if let Some((ecn, bytes)) = first
            && let Some(incoming) = self.handle(newcomer.from, ecn, bytes, now)
            && self.accept(incoming, len, now)
        {
            for (ecn, bytes) in datagrams {
                if let Some(incoming) = self.handle(newcomer.from, ecn, bytes, now) {
                    self.quic.ignore(incoming);
                }
            }
        }
    }

    /// Accepts a connection whose first datagram has this length.
    fn accept(&mut self, incoming: Incoming, len: usize, now: Instant) -> bool {
        let credit = (!incoming.remote_address_validated()).then_some(CREDIT * len);
        let from = Endpoint::new(incoming.remote_address(), incoming.local_ip());
        let mut answer = Vec::new();
        self.counters.handshakes += 1;
        match self.quic.accept(incoming, now, &mut answer, None) {
            Ok((handle, quic)) => {
                let id = self.next_id(handle);
                if let Some(evicted) = self.strangers.insert(id, from.remote(), now) {
                    self.counters.refused += 1;
                    self.forget(evicted, now);
                }
                let mut connection = Connection::new(id, quic, Arc::clone(&self.mailbox), None);
                connection.credit = credit;
                self.insert(connection);
                true
            }
            Err(error) => {
                tracing::debug!(peer = %from, error = %error.cause, "Turned a connection away");
                if error.response.is_some() {
                    self.answers.push(from, answer, now);
                }
                false
            }
        }
    }

    /// Makes the packets of a request a peer's, and those for the peer this request's. False: the
    /// request has ended.
    pub fn attach(&mut self, stream: QuicStreamId, peer: PeerId, now: Instant) -> bool {
        self.detach(peer);
        // Whoever was to leave has come back.
        self.leaving.retain(|(_until, leaving)| *leaving != peer);
        let place = stream.connection.place;
        let Some(connection) = self.connection(stream.connection) else { return false };
        let before = connection.tunnel().map(|tunnel| tunnel.peer);
        let is_attached = connection.attach(stream.id(), peer, now);
        if is_attached {
            if let Some(before) = before {
                self.by_peer.remove(&before);
            }
            self.by_peer.insert(peer, stream.connection);
            self.strangers.remove(stream.connection);
            self.mark(place);
        }
        is_attached
    }

    /// Ends the request that carries packets of a peer.
    pub fn detach(&mut self, peer: PeerId) {
        let Some(id) = self.by_peer.remove(&peer) else { return };
        if let Some(connection) = self.connection(id) {
            if let Some(stream) = connection.tunnel().map(|tunnel| tunnel.stream) {
                connection.abandon(stream, Http3Code::RequestCancelled);
            }
            self.mark(id.place);
        }
    }

    /// Takes no more packets of a peer, and ends its request in a moment: whoever is cut off may have
    /// to be told, and what tells it lies behind everything that was sent before.
    pub fn leave(&mut self, peer: PeerId, now: Instant) {
        /// Longer than what waits takes on most paths.
        const HEARD_OUT: Duration = Duration::from_secs(1);

        let Some(id) = self.by_peer.get(&peer).copied() else { return };
        let until = now + HEARD_OUT;
        if let Some(connection) = self.connection(id) {
            connection.leave(until);
            self.leaving.push_back((until, peer));
        }
    }

    /// What a connection is used for; none: there is no such connection.
    pub fn use_of(&mut self, id: QuicConnectionId) -> Option<QuicUse> {
        let connection = self.connection(id)?;
        Some(match connection.tunnel() {
            Some(_tunnel) => QuicUse::Packets,
            None if connection.has_requests() => QuicUse::Requests,
            None => QuicUse::Nothing,
        })
    }

    /// Lets the peer of a connection use so many bytes of our memory: for what it has sent and we
    /// cannot take yet, and a third as much for what it has not acknowledged.
    pub fn set_memory(&mut self, id: QuicConnectionId, bytes: u32) {
        if let Some(connection) = self.connection(id) {
            connection.set_memory(bytes);
            self.mark(id.place);
        }
    }

    /// Closes a connection.
    pub fn close(&mut self, id: QuicConnectionId, now: Instant) {
        if let Some(connection) = self.connection(id) {
            connection.close(now);
            self.mark(id.place);
        }
    }

    /// Whether packets for a peer can be carried.
    pub fn carries(&self, peer: PeerId) -> bool {
        self.by_peer.contains_key(&peer)
    }

    /// Where a peer whose packets are carried is.
    pub fn remote_of(&mut self, peer: PeerId) -> Option<SocketAddr> {
        let id = *self.by_peer.get(&peer)?;
        self.connection(id).map(|connection| connection.remote)
    }

    /// Whether a frame for a peer is too long for its path, and then what to tell its sender.
    pub fn refused_mtu(&mut self, peer: PeerId, frame: &Frame<'_>, now: Instant) -> Option<u16> {
        let id = *self.by_peer.get(&peer)?;
        self.connection(id)?.refused_mtu(frame, now)
    }

    /// Sends all packets that a frame stands for to a peer.
    pub fn send_frame(&mut self, peer: PeerId, frame: Frame<'_>, now: Instant) {
        let Some(id) = self.by_peer.get(&peer).copied() else { return };
        if let Some(connection) = self.connection(id) {
            connection.send_frame(frame, now);
            self.mark(id.place);
        }
    }

    /// Sends one packet to a peer.
    pub fn send_packet(&mut self, peer: PeerId, packet: &[u8]) {
        let Some(id) = self.by_peer.get(&peer).copied() else { return };
        if let Some(connection) = self.connection(id) {
            connection.send_packet(packet);
            self.mark(id.place);
        }
    }

    /// The next packet, copied to the start of `slot`: from whom, and its length.
    pub fn poll_packet(&mut self, slot: &mut [u8], now: Instant) -> Option<(PeerId, usize)> {
        while let Some(place) = self.receiving.front().copied() {
            if let Some(connection) = self::slot(&mut self.connections, place)
                && let Some(packet) = connection.poll_packet(slot, now)
            {
                return Some(packet);
            }
            self.receiving.pop_front();
        }
        None
    }

    /// Does what has become due.
    pub fn handle_timeout(&mut self, now: Instant) {
        while let Some((at, place)) = self.timeouts.first().copied()
            && at <= now
        {
            self.timeouts.pop_first();
            if let Some(connection) = slot(&mut self.connections, place) {
                connection.timeout = None;
                connection.quic().handle_timeout(now);
                self.mark(place);
            }
        }
        while let Some((until, peer)) = self.leaving.front().copied()
            && until <= now
        {
            self.leaving.pop_front();
            self.detach(peer);
            self.tell(QuicEvent::Detached { peer });
        }
        while let Some(late) = self.strangers.pop_late(now) {
            let Some(connection) = self.connection(late) else { continue };
            if connection.quic().is_handshaking() {
                // quinn's last word would go beyond three times what a false address has sent.
                self.forget(late, now);
            } else {
                self.close(late, now);
            }
        }
    }

    /// When [`Self::handle_timeout`] is due.
    pub fn poll_timeout(&self) -> Option<Instant> {
        let timeout = self.timeouts.first().map(|(at, _place)| *at);
        let stranger = self.strangers.poll_timeout();
        let leaving = self.leaving.front().map(|(until, _peer)| *until);
        timeout.into_iter().chain(stranger).chain(leaving).min()
    }

    /// What has happened.
    pub fn poll_event(&mut self) -> Option<QuicEvent> {
        self.events.pop_front()
    }

    /// What was counted so far.
    pub fn counters(&self) -> QuicCounters {
        let live = self.connections.iter().flatten().map(|connection| connection.losses());
        let all = live.chain([self.losses]);
        let (congestion, too_big) = all.fold((0, 0), |(congestion, too_big), losses| {
            (congestion + losses.congestion, too_big + losses.too_big)
        });
        let refused = self.counters.refused + self.newcomers.dropped();
        QuicCounters { connections: self.count, refused, congestion, too_big, ..self.counters }
    }

    /// How many datagrams of QUIC were sent to a peer whose packets are carried, and have come.
    pub fn datagrams_of(&mut self, peer: PeerId) -> Option<(u64, u64)> {
        let id = *self.by_peer.get(&peer)?;
        let stats = self.connection(id)?.quic().stats();
        Some((stats.udp_tx.datagrams, stats.udp_rx.datagrams))
    }

    /// When something last came from a peer whose packets are carried.
    pub fn last_heard(&mut self, peer: PeerId) -> Option<Instant> {
        let id = *self.by_peer.get(&peer)?;
        self.connection(id)?.last_heard()
    }

    /// Asks a peer whose packets are carried whether it is still there.
    pub fn probe(&mut self, peer: PeerId) {
        let Some(id) = self.by_peer.get(&peer).copied() else { return };
        if let Some(connection) = self.connection(id) {
            connection.quic().ping();
            self.mark(id.place);
        }
    }

    /// Our own address has changed, or may have.
    pub fn handle_address_changed(&mut self) {
        for place in 0..self.connections.len() {
            if let Some(connection) = slot(&mut self.connections, place) {
                connection.quic().local_address_changed();
                self.mark(place);
            }
        }
    }

    /// Does what tasks have asked for, turns the connections and sends what they have.
    pub fn flush(&mut self, udp: &mut UdpSocket, now: Instant) {
        self.take_mail(now);
        while let Some(place) = self.dirty.pop_front() {
            self.turn(place, udp, now);
        }
        for (to, bytes) in self.answers.take() {
            if udp.send(to, &bytes) != SendOutcome::Sent {
                self.counters.unsent += 1;
            }
        }
    }

    fn take_mail(&mut self, now: Instant) {
        let (commands, ready) = self.mailbox.take();
        for command in commands {
            match command {
                Command::Respond { stream, head, pipe } => {
                    if let Some(connection) = self.connection(stream.connection) {
                        connection.respond(stream.id(), &head, pipe);
                        self.turn_request(stream, now);
                    }
                }
                Command::Reject { stream } => {
                    if let Some(connection) = self.connection(stream.connection) {
                        connection.abandon(stream.id(), Http3Code::RequestRejected);
                        self.mark(stream.connection.place);
                    }
                }
                Command::Request { connection: id, head, reply } => {
                    self.request(id, &head, reply, now);
                }
                Command::Datagram { stream, payload } => {
                    if let Some(connection) = self.connection(stream.connection) {
                        connection.send_datagram(stream.id(), &payload);
                        self.mark(stream.connection.place);
                    }
                }
                Command::Admit { connection: id } => {
                    if let Some(connection) = self.connection(id) {
                        connection.admit();
                        self.strangers.remove(id);
                        self.mark(id.place);
                    }
                }
                Command::Close { connection } => self.close(connection, now),
            }
        }
        for stream in ready {
            self.turn_request(stream, now);
        }
    }

    fn request(
        &mut self,
        id: QuicConnectionId,
        head: &RequestHead,
        reply: super::mailbox::Reply,
        now: Instant,
    ) {
        let Some(connection) = self.connection(id) else {
            // Whoever asked may have gone.
            let _ = reply.send(Err(QuicError::Closed));
            return;
        };
        if let Some(stream) = connection.request(head, reply) {
            self.turn_request(QuicStreamId { connection: id, stream: stream.into() }, now);
        }
    }

    fn turn_request(&mut self, stream: QuicStreamId, now: Instant) {
        let Self { connections, requested, scratch, .. } = self;
        let Some(connection) = slot(connections, stream.connection.place) else { return };
        if connection.id() != stream.connection {
            return;
        }
        if let Err(error) = connection.turn_request(stream.id(), requested, scratch) {
            connection.fail(&error, now);
        }
        self.mark(stream.connection.place);
    }

    fn turn(&mut self, place: usize, udp: &mut UdpSocket, now: Instant) {
        let Self { connections, quic, requested, scratch, buffer, counters, .. } = self;
        let Some(connection) = slot(connections, place) else { return };
        connection.is_dirty = false;
        let peer = connection.tunnel().map(|tunnel| tunnel.peer);
        let remote = Endpoint::from(connection.quic().remote_address()).remote();
        let remote_before = std::mem::replace(&mut connection.remote, remote);
        if remote != remote_before {
            connection.handle_roamed(now);
        }
        connection.turn(requested, scratch, now);

        let mut has_drained = false;
        while let Some(event) = connection.quic().poll_endpoint_events() {
            has_drained |= event.is_drained();
            if let Some(event) = quic.handle_event(ConnectionHandle(place), event) {
                connection.handle_event(event);
            }
        }
        if !has_drained {
            send(connection, udp, buffer, counters, now);
            // What was sent may have changed what is to be said to the endpoint.
            while let Some(event) = connection.quic().poll_endpoint_events() {
                has_drained |= event.is_drained();
                if let Some(event) = quic.handle_event(ConnectionHandle(place), event) {
                    connection.handle_event(event);
                }
            }
        }
        let (remote, carries) = (connection.quic().remote_address(), connection.tunnel().is_some());
        let timeout = if has_drained { None } else { connection.quic().poll_timeout() };
        if timeout != connection.timeout {
            if let Some(before) = std::mem::replace(&mut connection.timeout, timeout) {
                self.timeouts.remove(&(before, place));
            }
            if let Some(timeout) = timeout {
                self.timeouts.insert((timeout, place));
            }
        }
        if let Some(peer) = peer.filter(|_peer| !carries || has_drained) {
            self.by_peer.remove(&peer);
            self.tell(QuicEvent::Detached { peer });
        } else if let Some(peer) = peer
            && remote != remote_before
        {
            self.tell(QuicEvent::Roamed { peer, remote });
        }
        for Requested { head, peer_pin, stream } in std::mem::take(&mut self.requested) {
            let mailbox = Arc::clone(&self.mailbox);
            let responder = QuicResponder::new(stream, mailbox);
            let request = IncomingRequest::over_quic(head, peer_pin, remote, responder);
            self.tell(QuicEvent::Request(Box::new(request)));
        }
        if has_drained {
            self.remove(place);
        }
    }

    fn tell(&mut self, event: QuicEvent) {
        // A request that is dropped is turned away.
        if self.events.len() < MAX_EVENTS {
            self.events.push_back(event);
        }
    }

    fn next_id(&mut self, handle: ConnectionHandle) -> QuicConnectionId {
        self.serial += 1;
        QuicConnectionId { place: handle.0, serial: self.serial }
    }

    fn insert(&mut self, connection: Connection) {
        let place = connection.id().place;
        if self.connections.len() <= place {
            self.connections.resize_with(place + 1, || None);
        }
        if let Some(slot) = self.connections.get_mut(place) {
            *slot = Some(Box::new(connection));
            self.count += 1;
        }
        self.mark(place);
    }

    fn remove(&mut self, place: usize) {
        if let Some(connection) = self.connections.get_mut(place).and_then(Option::take) {
            self.count -= 1;
            self.strangers.remove(connection.id());
            self.losses.congestion += connection.losses().congestion;
            self.losses.too_big += connection.losses().too_big;
        }
    }

    /// Removes a connection without a word to the peer, and without the time after it.
    fn forget(&mut self, id: QuicConnectionId, now: Instant) {
        let Some(connection) = self.connection(id) else { return };
        connection.close(now);
        if let Some(timeout) = connection.timeout.take() {
            self.timeouts.remove(&(timeout, id.place));
        }
        self.quic.handle_event(ConnectionHandle(id.place), EndpointEvent::drained());
        self.remove(id.place);
    }

    fn mark(&mut self, place: usize) {
        if let Some(connection) = slot(&mut self.connections, place)
            && !std::mem::replace(&mut connection.is_dirty, true)
        {
            self.dirty.push_back(place);
        }
    }

    fn connection(&mut self, id: QuicConnectionId) -> Option<&mut Connection> {
        slot(&mut self.connections, id.place).filter(|connection| connection.id() == id)
    }
}

fn slot(connections: &mut [Option<Box<Connection>>], place: usize) -> Option<&mut Connection> {
    connections.get_mut(place)?.as_deref_mut()
}

/// Sends everything that a connection may send at this moment.
fn send(
    connection: &mut Connection,
    udp: &mut UdpSocket,
    buffer: &mut Vec<u8>,
    counters: &mut QuicCounters,
    now: Instant,
) {
    loop {
        buffer.clear();
        let max_segments = udp.max_segments(connection.quic().current_mtu().into());
        let Some(transmit) = connection.quic().poll_transmit(now, max_segments, buffer) else {
            return;
        };
        let to = Endpoint::new(transmit.destination, transmit.src_ip);
        let ecn = transmit.ecn.map_or(Ecn::NotCapable, |ecn| Ecn::from_bits(ecn as u8));
        let bytes = buffer.get(..transmit.size).unwrap_or_default();
        let segment_len = transmit.segment_size.unwrap_or(transmit.size);
        if !connection.spend_credit(transmit.size) {
            // Sent again when the client has said more.
            counters.unsent += 1;
            continue;
        }
        if udp.send_segments(to, ecn, segment_len, bytes) != SendOutcome::Sent {
            counters.unsent += 1;
        }
    }
}
