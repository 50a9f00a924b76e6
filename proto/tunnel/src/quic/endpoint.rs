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
    ConnectionHandle, DatagramEvent, EcnCodepoint, Endpoint as Quic, Incoming, StreamId, VarInt,
};
use tokio::sync::oneshot;

use super::{
    IncomingRequest, QuicConnection, QuicError, QuicResponder, config,
    connection::{Connection, Requested},
    mailbox::{Command, Mailbox},
    packets::PacketLosses,
};
use crate::{Datagram, Ecn, Endpoint, Frame, KeyPair, PeerId, SendOutcome, UdpSocket, Waker};

/// Names a connection of one [`QuicEndpoint`]; never reused.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct QuicConnectionId {
    place: usize,
    serial: u64,
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

/// What was counted.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct QuicCounters {
    /// Connections that there are.
    pub connections: usize,
    /// Requests to prove an address (RFC 9000 §8.1.2).
    pub retries: u64,
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
        self.refused += others.refused;
        self.unsent += others.unsent;
        self.congestion += others.congestion;
        self.too_big += others.too_big;
    }
}

/// QUIC connections behind one socket, as a state machine.
///
/// - [`handle_datagram`](Self::handle_datagram) and [`handle_timeout`](Self::handle_timeout) put
///   something in, and so does everything that sends;
/// - after them [`poll_packet`](Self::poll_packet) until there is none, then
///   [`flush`](Self::flush), then [`poll_event`](Self::poll_event) until there is none, then sleep
///   until [`poll_timeout`](Self::poll_timeout) or until the waker is used.
pub struct QuicEndpoint {
    quic: Quic,
    identity: KeyPair,
    mtu: u16,
    mailbox: Arc<Mailbox>,
    connections: Vec<Option<Box<Connection>>>,
    count: usize,
    /// Not admitted yet, oldest first.
    strangers: VecDeque<(Instant, QuicConnectionId)>,
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
    /// Answers that no connection sends.
    answers: Vec<(Endpoint, Vec<u8>)>,
    requested: Vec<Requested>,
    /// For what goes out.
    buffer: Vec<u8>,
    scratch: Box<[u8]>,
    counters: QuicCounters,
    /// Of connections that have ended.
    losses: PacketLosses,
}

/// Connections that may be without a credential at one time; more are turned away.
const MAX_STRANGERS: usize = 1024;

/// With so many strangers, whoever comes has to prove its address first.
const BUSY_STRANGERS: usize = 64;

/// Within which a connection has to be admitted.
const STRANGERS_TIME: Duration = Duration::from_secs(10);

/// Events that wait for their reader; it reads after each turn.
const MAX_EVENTS: usize = 1024;

/// Bytes that are taken from a task at one time.
const SCRATCH_LEN: usize = 64 << 10;

impl QuicEndpoint {
    /// For a connector: answers those who connect. The lane is one of so many, and the waker that
    /// of its thread; `mtu` is that of the longest link.
    pub fn server(identity: KeyPair, mtu: u16, lane: u8, lanes: u8, waker: Waker) -> Self {
        let server = config::server(&identity, mtu);
        let endpoint = Arc::new(config::endpoint(&identity, lane, lanes));
        Self::new(Quic::new(endpoint, Some(server), true, None), identity, mtu, waker)
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
            mtu,
            mailbox: Mailbox::new(waker),
            connections: Vec::new(),
            count: 0,
            strangers: VecDeque::new(),
            serial: 0,
            by_peer: HashMap::new(),
            leaving: VecDeque::new(),
            dirty: VecDeque::new(),
            receiving: VecDeque::new(),
            timeouts: BTreeSet::new(),
            events: VecDeque::new(),
            answers: Vec::new(),
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

    /// Takes a datagram from the network.
    pub fn handle_datagram(&mut self, datagram: &Datagram<'_>, now: Instant) {
        let from = datagram.from;
        let ecn = EcnCodepoint::from_bits(datagram.ecn.bits());
        let bytes = BytesMut::from(datagram.bytes);
        let mut answer = Vec::new();
        let event = self.quic.handle(now, from.remote(), from.local(), ecn, bytes, &mut answer);
        match event {
            Some(DatagramEvent::ConnectionEvent(handle, event)) => {
                if let Some(connection) = slot(&mut self.connections, handle.0) {
                    connection.handle_event(event);
                    self.mark(handle.0);
                    if self.receiving.back() != Some(&handle.0) {
                        self.receiving.push_back(handle.0);
                    }
                }
            }
            Some(DatagramEvent::NewConnection(incoming)) => self.handle_incoming(incoming, now),
            Some(DatagramEvent::Response(_transmit)) => self.answer(from, answer),
            None => {}
        }
    }

    fn handle_incoming(&mut self, incoming: Incoming, now: Instant) {
        let from = Endpoint::new(incoming.remote_address(), incoming.local_ip());
        let mut answer = Vec::new();
        self.forget_admitted_strangers();
        if self.strangers.len() >= MAX_STRANGERS {
            self.counters.refused += 1;
            self.quic.ignore(incoming);
            return;
        }
        if self.strangers.len() >= BUSY_STRANGERS && incoming.may_retry() {
            self.counters.retries += 1;
            if self.quic.retry(incoming, &mut answer).is_ok() {
                self.answer(from, answer);
            }
            return;
        }
        match self.quic.accept(incoming, now, &mut answer, None) {
            Ok((handle, quic)) => {
                let id = self.next_id(handle);
                self.strangers.push_back((now + STRANGERS_TIME, id));
                self.insert(Connection::new(id, quic, Arc::clone(&self.mailbox), None));
            }
            Err(error) => {
                tracing::debug!(peer = %from, error = %error.cause, "Turned a connection away");
                if error.response.is_some() {
                    self.answer(from, answer);
                }
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
        self.forget_admitted_strangers();
        while let Some((until, id)) = self.strangers.front().copied()
            && until <= now
        {
            self.strangers.pop_front();
            if let Some(connection) = self.connection(id)
                && !connection.is_admitted()
            {
                connection.close(now);
                self.mark(id.place);
            }
        }
    }

    /// When [`Self::handle_timeout`] is due.
    pub fn poll_timeout(&self) -> Option<Instant> {
        let timeout = self.timeouts.first().map(|(at, _place)| *at);
        let stranger = self.strangers.front().map(|(until, _id)| *until);
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
        QuicCounters { connections: self.count, congestion, too_big, ..self.counters }
    }

    /// How many datagrams of QUIC were sent to a peer whose packets are carried, and have come.
    pub fn datagrams_of(&mut self, peer: PeerId) -> Option<(u64, u64)> {
        let id = *self.by_peer.get(&peer)?;
        let stats = self.connection(id)?.quic().stats();
        Some((stats.udp_tx.datagrams, stats.udp_rx.datagrams))
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
        for (to, bytes) in std::mem::take(&mut self.answers) {
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
                        self.mark(id.place);
                    }
                }
                Command::Close { connection: id } => {
                    if let Some(connection) = self.connection(id) {
                        connection.close(now);
                        self.mark(id.place);
                    }
                }
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

    fn answer(&mut self, to: Endpoint, bytes: Vec<u8>) {
        /// More at once are a flood's.
        const MAX_ANSWERS: usize = 1024;

        if self.answers.len() < MAX_ANSWERS {
            self.answers.push((to, bytes));
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
            self.losses.congestion += connection.losses().congestion;
            self.losses.too_big += connection.losses().too_big;
        }
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

    /// Takes those off the front who are strangers no longer, or gone.
    fn forget_admitted_strangers(&mut self) {
        while let Some((_until, id)) = self.strangers.front().copied() {
            if self.connection(id).is_some_and(|connection| !connection.is_admitted()) {
                return;
            }
            self.strangers.pop_front();
        }
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
        if udp.send_segments(to, ecn, segment_len, bytes) != SendOutcome::Sent {
            counters.unsent += 1;
        }
    }
}
