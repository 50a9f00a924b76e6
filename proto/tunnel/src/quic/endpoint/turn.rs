//! What is done for connections before the thread sleeps.

use std::{sync::Arc, time::Instant};

use adit_proto::http3::{Http3Code, RequestHead};
use quinn_proto::{ConnectionHandle, Endpoint as Quic};

use super::QuicEndpoint;
use crate::{
    Ecn, Endpoint, IncomingRequest, SendOutcome, UdpSocket,
    quic::{
        QuicConnectionId, QuicCounters, QuicError, QuicEvent, QuicResponder, QuicStreamId,
        connection::{Connection, Requested},
        mailbox::{Command, Reply},
    },
};

impl QuicEndpoint {
    /// Does what tasks have asked for, turns the connections and sends what they have.
    pub fn flush(&mut self, udp: &mut UdpSocket, now: Instant) {
        self.take_mail(now);
        while let Some(place) = self.connections.pop_marked() {
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
                    if let Some(connection) = self.connections.find(stream.connection) {
                        connection.respond(stream.id(), &head, pipe);
                        self.turn_request(stream, now);
                    }
                }
                Command::Reject { stream } => {
                    if let Some(connection) = self.connections.find(stream.connection) {
                        connection.abandon(stream.id(), Http3Code::RequestRejected);
                        self.connections.mark(stream.connection.place);
                    }
                }
                Command::Request { connection: id, head, reply } => {
                    self.request(id, &head, reply, now);
                }
                Command::Datagram { stream, payload } => {
                    if let Some(connection) = self.connections.find(stream.connection) {
                        connection.send_datagram(stream.id(), &payload);
                        self.connections.mark(stream.connection.place);
                    }
                }
                Command::Admit { connection: id } => {
                    if let Some(connection) = self.connections.find(id) {
                        connection.admit();
                        self.strangers.remove(id);
                        self.connections.mark(id.place);
                    }
                }
                Command::Close { connection } => self.close(connection, now),
            }
        }
        for stream in ready {
            self.turn_request(stream, now);
        }
    }

    fn request(&mut self, id: QuicConnectionId, head: &RequestHead, reply: Reply, now: Instant) {
        let Some(connection) = self.connections.find(id) else {
            // Whoever asked may have gone.
            let _ = reply.send(Err(QuicError::Closed));
            return;
        };
        if let Some(stream) = connection.request(head, reply) {
            self.turn_request(QuicStreamId { connection: id, stream: stream.into() }, now);
        }
    }

    fn turn_request(&mut self, stream: QuicStreamId, now: Instant) {
        let Self { connections, requested, .. } = self;
        let Some(connection) = connections.find(stream.connection) else { return };
        if let Err(error) = connection.turn_request(stream.id(), requested) {
            connection.fail(&error, now);
        }
        self.connections.mark(stream.connection.place);
    }

    fn turn(&mut self, place: usize, udp: &mut UdpSocket, now: Instant) {
        let Self { connections, quic, requested, buffer, counters, .. } = self;
        let Some(connection) = connections.at(place) else { return };
        connection.is_dirty = false;
        let peer = connection.tunnel().map(|tunnel| tunnel.peer);
        let remote = Endpoint::from(connection.quic().remote_address()).remote();
        let remote_before = std::mem::replace(&mut connection.remote, remote);
        if remote != remote_before {
            connection.handle_roamed(now);
        }
        connection.turn(requested, now);

        let mut has_drained = exchange_events(quic, connection);
        if !has_drained {
            send(connection, udp, buffer, counters, now);
            // What was sent may have changed what is to be said to the endpoint.
            has_drained = exchange_events(quic, connection);
        }
        let (remote, carries) = (connection.quic().remote_address(), connection.tunnel().is_some());
        let timeout = if has_drained { None } else { connection.quic().poll_timeout() };
        self.connections.set_timeout(place, timeout);
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
}

/// Passes on what a connection and quinn's endpoint have to say to each other; true: the connection
/// has drained.
fn exchange_events(quic: &mut Quic, connection: &mut Connection) -> bool {
    let handle = ConnectionHandle(connection.id().place);
    let mut has_drained = false;
    while let Some(event) = connection.quic().poll_endpoint_events() {
        has_drained |= event.is_drained();
        if let Some(event) = quic.handle_event(handle, event) {
            connection.handle_event(event);
        }
    }
    has_drained
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
