//! All connections of one socket.

mod arrivals;
mod turn;

use std::{
    collections::{HashMap, VecDeque},
    net::SocketAddr,
    sync::Arc,
    time::{Duration, Instant},
};

use adit_proto::{Pin, http3::Http3Code};
use quinn_proto::{ConnectionHandle, Endpoint as Quic, EndpointEvent};
use tokio::sync::oneshot;

use super::{
    QuicConnection, QuicConnectionId, QuicCounters, QuicError, QuicEvent, QuicStreamId,
    answers::Answers,
    config,
    connection::{Connection, Requested},
    connections::Connections,
    mailbox::Mailbox,
    newcomers::Newcomers,
    packets::PacketLosses,
    retry::TokenKey,
    strangers::Strangers,
};
use crate::{Frame, KeyPair, PeerId, Waker};

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

/// QUIC connections behind one socket, as a state machine.
///
/// - [`handle_datagram`](Self::handle_datagram) and [`handle_timeout`](Self::handle_timeout) put
///   something in, and so does everything that sends; whoever serves takes datagrams by
///   [`handle_client_datagram`](Self::handle_client_datagram), and calls
///   [`begin_handshake`](Self::begin_handshake) when there is time;
/// - after them [`poll_packet`](Self::poll_packet) until there is none, then
///   [`flush`](Self::flush), then [`poll_event`](Self::poll_event) until there is none, then sleep
///   until [`poll_timeout`](Self::poll_timeout) or until the waker is used.
pub struct QuicEndpoint {
    quic: Quic,
    identity: KeyPair,
    /// Of a server.
    tokens: Option<TokenKey>,
    packet_mtu: u16,
    mailbox: Arc<Mailbox>,
    connections: Connections,
    newcomers: Newcomers,
    strangers: Strangers,
    by_peer: HashMap<PeerId, QuicConnectionId>,
    /// Whose requests are ended then, the first one first.
    leaving: VecDeque<(Instant, PeerId)>,
    events: VecDeque<QuicEvent>,
    answers: Answers,
    requested: Vec<Requested>,
    /// For what goes out.
    buffer: Vec<u8>,
    counters: QuicCounters,
}

/// Events that wait for their reader; it reads after each turn.
const MAX_EVENTS: usize = 1024;

impl QuicEndpoint {
    /// Bytes of our memory that the peer of a connection may use as long as nothing else is said.
    pub const LEAST_MEMORY: u32 = config::STRANGERS_WINDOW;
    /// More than this is of no use to one connection.
    pub const MOST_MEMORY: u32 = config::LARGEST_WINDOW;

    /// For a connector: answers those who connect. The lane is one of so many, and the waker that
    /// of its thread; `packet_mtu` is the length of the longest packet that is ever carried.
    pub fn server(identity: KeyPair, packet_mtu: u16, lane: u8, lanes: u8, waker: Waker) -> Self {
        let server = config::server(&identity, packet_mtu);
        let endpoint = Arc::new(config::endpoint(&identity, lane, lanes));
        let tokens = TokenKey::new(&identity);
        let quic = Quic::new(endpoint, Some(server), true, None);
        Self { tokens: Some(tokens), ..Self::new(quic, identity, packet_mtu, waker) }
    }

    /// For a client: connects, and answers nobody.
    pub fn client(identity: KeyPair, packet_mtu: u16, waker: Waker) -> Self {
        let endpoint = Arc::new(config::endpoint(&identity, 0, 1));
        Self::new(Quic::new(endpoint, None, true, None), identity, packet_mtu, waker)
    }

    fn new(quic: Quic, identity: KeyPair, packet_mtu: u16, waker: Waker) -> Self {
        Self {
            quic,
            identity,
            tokens: None,
            packet_mtu,
            mailbox: Mailbox::new(waker),
            connections: Connections::default(),
            newcomers: Newcomers::default(),
            strangers: Strangers::default(),
            by_peer: HashMap::new(),
            leaving: VecDeque::new(),
            events: VecDeque::new(),
            answers: Answers::default(),
            requested: Vec::new(),
            buffer: Vec::new(),
            counters: QuicCounters::default(),
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
        let config = config::client(&self.identity, pin, self.packet_mtu);
        match self.quic.connect(now, config, to, &to.ip().to_string()) {
            Ok((handle, quic)) => {
                let id = self.connections.next_id(handle.0);
                let mailbox = Arc::clone(&self.mailbox);
                self.connections.insert(Connection::new(id, quic, mailbox, Some(dialled)));
            }
            Err(error) => {
                // Whoever dialled may have gone.
                let _ = dialled.send(Err(QuicError::Lost { reason: error.to_string() }));
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
        let Some(connection) = self.connections.find(stream.connection) else { return false };
        let before = connection.tunnel().map(|tunnel| tunnel.peer);
        let is_attached = connection.attach(stream.id(), peer, now);
        if is_attached {
            if let Some(before) = before {
                self.by_peer.remove(&before);
            }
            self.by_peer.insert(peer, stream.connection);
            self.strangers.remove(stream.connection);
            self.connections.mark(place);
        }
        is_attached
    }

    /// Ends the request that carries packets of a peer.
    pub fn detach(&mut self, peer: PeerId) {
        let Some(id) = self.by_peer.remove(&peer) else { return };
        if let Some(connection) = self.connections.find(id) {
            if let Some(stream) = connection.tunnel().map(|tunnel| tunnel.stream) {
                connection.abandon(stream, Http3Code::RequestCancelled);
            }
            self.connections.mark(id.place);
        }
    }

    /// Takes no more packets of a peer, and ends its request in a moment: whoever is cut off may have
    /// to be told, and what tells it lies behind everything that was sent before.
    pub fn leave(&mut self, peer: PeerId, now: Instant) {
        /// Longer than what waits takes on most paths.
        const HEARD_OUT: Duration = Duration::from_secs(1);

        let Some(id) = self.by_peer.get(&peer).copied() else { return };
        let until = now + HEARD_OUT;
        if let Some(connection) = self.connections.find(id) {
            connection.leave(until);
            self.leaving.push_back((until, peer));
        }
    }

    /// What a connection is used for; none: there is no such connection.
    pub fn use_of(&mut self, id: QuicConnectionId) -> Option<QuicUse> {
        let connection = self.connections.find(id)?;
        Some(match connection.tunnel() {
            Some(_tunnel) => QuicUse::Packets,
            None if connection.has_requests() => QuicUse::Requests,
            None => QuicUse::Nothing,
        })
    }

    /// Lets the peer of a connection use so many bytes of our memory: for what it has sent and we
    /// cannot take yet, and a third as much for what it has not acknowledged.
    pub fn set_memory(&mut self, id: QuicConnectionId, bytes: u32) {
        if let Some(connection) = self.connections.find(id) {
            connection.set_memory(bytes);
            self.connections.mark(id.place);
        }
    }

    /// Closes a connection.
    pub fn close(&mut self, id: QuicConnectionId, now: Instant) {
        if let Some(connection) = self.connections.find(id) {
            connection.close(now);
            self.connections.mark(id.place);
        }
    }

    /// Whether packets for a peer can be carried.
    pub fn carries(&self, peer: PeerId) -> bool {
        self.by_peer.contains_key(&peer)
    }

    /// Where a peer whose packets are carried is.
    pub fn remote_of(&mut self, peer: PeerId) -> Option<SocketAddr> {
        let id = *self.by_peer.get(&peer)?;
        self.connections.find(id).map(|connection| connection.remote)
    }

    /// Whether a frame for a peer is too long for its path, and then what to tell its sender.
    pub fn refused_mtu(&mut self, peer: PeerId, frame: &Frame<'_>, now: Instant) -> Option<u16> {
        let id = *self.by_peer.get(&peer)?;
        self.connections.find(id)?.refused_mtu(frame, now)
    }

    /// Sends all packets that a frame stands for to a peer.
    pub fn send_frame(&mut self, peer: PeerId, frame: Frame<'_>, now: Instant) {
        let Some(id) = self.by_peer.get(&peer).copied() else { return };
        if let Some(connection) = self.connections.find(id) {
            connection.send_frame(frame, now);
            self.connections.mark(id.place);
        }
    }

    /// Sends one packet to a peer.
    pub fn send_packet(&mut self, peer: PeerId, packet: &[u8]) {
        let Some(id) = self.by_peer.get(&peer).copied() else { return };
        if let Some(connection) = self.connections.find(id) {
            connection.send_packet(packet);
            self.connections.mark(id.place);
        }
    }

    /// The next packet, copied to the start of `slot`: from whom, and its length.
    pub fn poll_packet(&mut self, slot: &mut [u8], now: Instant) -> Option<(PeerId, usize)> {
        self.connections.poll_packet(slot, now)
    }

    /// Does what has become due.
    pub fn handle_timeout(&mut self, now: Instant) {
        self.connections.handle_timeout(now);
        while let Some((until, peer)) = self.leaving.front().copied()
            && until <= now
        {
            self.leaving.pop_front();
            self.detach(peer);
            self.tell(QuicEvent::Detached { peer });
        }
        while let Some(late) = self.strangers.pop_late(now) {
            let Some(connection) = self.connections.find(late) else { continue };
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
        let timeout = self.connections.poll_timeout();
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
        let PacketLosses { congestion, too_big } = self.connections.losses();
        let connections = self.connections.len();
        let refused = self.counters.refused + self.newcomers.dropped();
        QuicCounters { connections, refused, congestion, too_big, ..self.counters }
    }

    /// How many datagrams of QUIC were sent to a peer whose packets are carried, and have come.
    pub fn datagrams_of(&mut self, peer: PeerId) -> Option<(u64, u64)> {
        let id = *self.by_peer.get(&peer)?;
        let stats = self.connections.find(id)?.quic().stats();
        Some((stats.udp_tx.datagrams, stats.udp_rx.datagrams))
    }

    /// When something last came from a peer whose packets are carried.
    pub fn last_heard(&mut self, peer: PeerId) -> Option<Instant> {
        let id = *self.by_peer.get(&peer)?;
        self.connections.find(id)?.last_heard()
    }

    /// Asks a peer whose packets are carried whether it is still there.
    pub fn probe(&mut self, peer: PeerId) {
        let Some(id) = self.by_peer.get(&peer).copied() else { return };
        if let Some(connection) = self.connections.find(id) {
            connection.quic().ping();
            self.connections.mark(id.place);
        }
    }

    /// Our own address has changed, or may have.
    pub fn handle_address_changed(&mut self) {
        for place in self.connections.places() {
            if let Some(connection) = self.connections.at(place) {
                connection.quic().local_address_changed();
                self.connections.mark(place);
            }
        }
    }

    fn tell(&mut self, event: QuicEvent) {
        // A request that is dropped is turned away.
        if self.events.len() < MAX_EVENTS {
            self.events.push_back(event);
        }
    }

    fn remove(&mut self, place: usize) {
        if let Some(id) = self.connections.remove(place) {
            self.strangers.remove(id);
        }
    }

    /// Removes a connection without a word to the peer, and without the time after it.
    fn forget(&mut self, id: QuicConnectionId, now: Instant) {
        let Some(connection) = self.connections.find(id) else { return };
        connection.close(now);
        self.connections.set_timeout(id.place, None);
        self.quic.handle_event(ConnectionHandle(id.place), EndpointEvent::drained());
        self.remove(id.place);
    }
}
