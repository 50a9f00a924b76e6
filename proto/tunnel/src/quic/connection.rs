//! One connection: QUIC below, requests above.

use std::{
    collections::{HashMap, HashSet},
    net::SocketAddr,
    sync::Arc,
    time::Instant,
};

use adit_proto::{
    Pin,
    http3::{Http3Code, RequestHead, ResponseHead},
};
use bytes::Bytes;
use quinn_proto::{
    Connection as Quic, ConnectionError, ConnectionEvent, Dir, Event, StreamEvent, StreamId,
};
use rustls::pki_types::CertificateDer;
use tokio::sync::oneshot;

use super::{
    QuicConnection, QuicConnectionId, QuicError, QuicStreamId, config,
    http::Http,
    mailbox::{Mailbox, Reply, TaskPipe},
    packets::{PacketLosses, PacketTunnel, packet_in, request_of},
    request_stream::{Progress, RequestStream, var_int},
    violation::Violation,
};
use crate::{Endpoint, Frame, tls};

/// Where a client's connection goes once it is there.
pub(super) type Dialled = oneshot::Sender<Result<QuicConnection, QuicError>>;

pub(super) struct Connection {
    id: QuicConnectionId,
    quic: Quic,
    mailbox: Arc<Mailbox>,
    http: Http,
    requests: HashMap<StreamId, RequestStream>,
    tunnel: Option<PacketTunnel>,
    /// Of a client, until it is connected.
    dialled: Option<Dialled>,
    /// Of a server's client, once the handshake is complete.
    peer_pin: Option<Pin>,
    is_admitted: bool,
    /// What it may have lying here, in bytes.
    memory: u32,
    losses: PacketLosses,
    /// When something last came for it.
    last_heard: Option<Instant>,
    /// Where the peer was at the last turn.
    pub(super) remote: SocketAddr,
    /// Bytes that may be sent to an address that is not proven (RFC 9000 §8.1); none: it is.
    pub(super) credit: Option<usize>,
    pub(super) is_dirty: bool,
    pub(super) timeout: Option<Instant>,
}

/// What an address gets for each byte that it has sent (RFC 9000 §8.1).
pub(super) const CREDIT: usize = 3;

/// A request that came in.
pub(super) struct Requested {
    pub(super) head: RequestHead,
    pub(super) peer_pin: Pin,
    pub(super) stream: QuicStreamId,
}

impl Connection {
    pub(super) fn new(
        id: QuicConnectionId,
        quic: Quic,
        mailbox: Arc<Mailbox>,
        dialled: Option<Dialled>,
    ) -> Self {
        Self {
            remote: Endpoint::from(quic.remote_address()).remote(),
            id,
            quic,
            mailbox,
            http: Http::default(),
            requests: HashMap::new(),
            tunnel: None,
            dialled,
            peer_pin: None,
            is_admitted: false,
            memory: config::STRANGERS_WINDOW,
            losses: PacketLosses::default(),
            last_heard: None,
            credit: None,
            is_dirty: false,
            timeout: None,
        }
    }

    pub(super) const fn id(&self) -> QuicConnectionId {
        self.id
    }

    pub(super) const fn quic(&mut self) -> &mut Quic {
        &mut self.quic
    }

    pub(super) const fn last_heard(&self) -> Option<Instant> {
        self.last_heard
    }

    pub(super) const fn losses(&self) -> PacketLosses {
        self.losses
    }

    pub(super) fn has_requests(&self) -> bool {
        !self.requests.is_empty()
    }

    pub(super) const fn tunnel(&self) -> Option<&PacketTunnel> {
        self.tunnel.as_ref()
    }

    pub(super) fn handle_event(&mut self, event: ConnectionEvent) {
        self.quic.handle_event(event);
    }

    /// As [`Self::handle_event`], for a datagram of this length.
    pub(super) fn handle_datagram(&mut self, event: ConnectionEvent, len: usize, now: Instant) {
        self.quic.handle_event(event);
        self.last_heard = Some(now);
        if let Some(credit) = &mut self.credit {
            *credit += CREDIT * len;
        }
    }

    /// Whether a datagram of this length may be sent. quinn lets the last one go beyond the limit.
    pub(super) fn spend_credit(&mut self, len: usize) -> bool {
        if !self.quic.is_handshaking() {
            self.credit = None;
        }
        match &mut self.credit {
            None => true,
            Some(credit) => match credit.checked_sub(len) {
                Some(left) => {
                    *credit = left;
                    true
                }
                None => false,
            },
        }
    }

    /// Moves everything that can move; requests that came in are pushed.
    pub(super) fn turn(&mut self, requested: &mut Vec<Requested>, now: Instant) {
        let mut read = HashSet::new();
        while let Some(event) = self.quic.poll() {
            // Each frame says so, and the first time all of them are read.
            if let Event::Stream(StreamEvent::Readable { id }) = event
                && !read.insert(id)
            {
                continue;
            }
            if let Err(error) = self.handle(event, requested) {
                self.fail(&error, now);
                return;
            }
        }
        self.http.flush(&mut self.quic);
        if let Some(stream) = self.tunnel.as_ref().map(|tunnel| tunnel.stream)
            && self.requests.get(&stream).is_some_and(RequestStream::has_capsules)
            && let Err(error) = self.turn_request(stream, requested)
        {
            self.fail(&error, now);
        }
    }

    fn handle(&mut self, event: Event, requested: &mut Vec<Requested>) -> Result<(), Violation> {
        match event {
            Event::HandshakeDataReady | Event::DatagramReceived | Event::DatagramsUnblocked => {}
            Event::Connected => {
                self.peer_pin = peer_pin(&self.quic);
                self.http.start(&mut self.quic);
            }
            Event::ConnectionLost { reason } => self.lose(&reason),
            Event::Stream(StreamEvent::Opened { dir: Dir::Uni }) => {
                self.http.accept(&mut self.quic)?;
                self.settle();
            }
            Event::Stream(StreamEvent::Opened { dir: Dir::Bi }) => {
                while let Some(id) = self.quic.streams().accept(Dir::Bi) {
                    let request =
                        RequestStream::incoming(id, self.name(id), Arc::clone(&self.mailbox));
                    self.requests.insert(id, request);
                    self.turn_request(id, requested)?;
                }
            }
            Event::Stream(StreamEvent::Readable { id }) if id.dir() == Dir::Uni => {
                self.http.read(&mut self.quic, id)?;
                self.settle();
            }
            Event::Stream(StreamEvent::Readable { id } | StreamEvent::Writable { id }) => {
                self.turn_request(id, requested)?;
            }
            Event::Stream(StreamEvent::Stopped { id, .. }) => {
                if let Some(request) = self.requests.get_mut(&id) {
                    request.handle_stopped(&mut self.quic);
                }
                self.turn_request(id, requested)?;
            }
            Event::Stream(StreamEvent::Finished { .. } | StreamEvent::Available { .. }) => {}
        }
        Ok(())
    }

    /// Moves one request.
    pub(super) fn turn_request(
        &mut self,
        id: StreamId,
        requested: &mut Vec<Requested>,
    ) -> Result<(), Violation> {
        let name = self.name(id);
        let Some(request) = self.requests.get_mut(&id) else { return Ok(()) };
        match request.turn(&mut self.quic) {
            Ok(Progress::Nothing) => {}
            Ok(Progress::Request(head)) => match self.peer_pin {
                Some(peer_pin) => requested.push(Requested { head, peer_pin, stream: name }),
                None => request.abandon(&mut self.quic, Http3Code::RequestRejected),
            },
            Err(error) if error.is_of_stream() => request.abandon(&mut self.quic, error.code()),
            Err(error) => return Err(error),
        }
        if self.requests.get(&id).is_some_and(RequestStream::is_over) {
            self.forget(id);
        }
        Ok(())
    }

    fn forget(&mut self, id: StreamId) {
        self.requests.remove(&id);
        if self.tunnel.as_ref().is_some_and(|tunnel| tunnel.stream == id) {
            self.tunnel = None;
        }
    }

    /// Hands a client's connection over once the peer has said what it can do.
    fn settle(&mut self) {
        let Some(settings) = self.http.settings() else { return };
        if let Some(dialled) = self.dialled.take() {
            let result = if settings.enable_connect_protocol && settings.datagrams {
                Ok(QuicConnection::new(self.id, Arc::clone(&self.mailbox)))
            } else {
                let reason = "it offers neither extended CONNECT nor datagrams".to_owned();
                Err(QuicError::Protocol { reason })
            };
            // Whoever dialled may have gone; then the connection closes with what it was given.
            let _ = dialled.send(result);
        }
    }

    fn lose(&mut self, reason: &ConnectionError) {
        self.end(error_of(reason));
    }

    fn end(&mut self, error: QuicError) {
        for request in self.requests.values_mut() {
            request.fail(error.clone());
        }
        self.requests.clear();
        self.tunnel = None;
        if let Some(dialled) = self.dialled.take() {
            let _ = dialled.send(Err(error));
        }
    }

    /// The peer has broken the protocol.
    pub(super) fn fail(&mut self, error: &Violation, now: Instant) {
        tracing::debug!(%error, "Closing a connection that breaks HTTP/3");
        let reason = error.to_string();
        self.quic.close(now, var_int(error.code()), Bytes::from(reason.clone()));
        self.end(QuicError::Protocol { reason });
    }

    pub(super) fn close(&mut self, now: Instant) {
        self.quic.close(now, var_int(Http3Code::NoError), Bytes::new());
        self.end(QuicError::Closed);
    }

    pub(super) fn request(&mut self, head: &RequestHead, reply: Reply) -> Option<StreamId> {
        let error = if self.quic.is_closed() {
            QuicError::Closed
        } else if self.http.goes_away() {
            QuicError::TooManyRequests
        } else if let Some(id) = self.quic.streams().open(Dir::Bi) {
            let (name, mailbox) = (self.name(id), Arc::clone(&self.mailbox));
            self.requests.insert(id, RequestStream::outgoing(id, name, mailbox, head, reply));
            return Some(id);
        } else {
            QuicError::TooManyRequests
        };
        // Whoever asked may have gone.
        let _ = reply.send(Err(error));
        None
    }

    pub(super) fn respond(&mut self, id: StreamId, head: &ResponseHead, pipe: TaskPipe) {
        if let Some(request) = self.requests.get_mut(&id) {
            request.respond(head, pipe);
        }
    }

    pub(super) fn abandon(&mut self, id: StreamId, code: Http3Code) {
        if let Some(request) = self.requests.get_mut(&id) {
            request.abandon(&mut self.quic, code);
        }
        self.forget(id);
    }

    /// Sends a datagram of one request.
    pub(super) fn send_datagram(&mut self, id: StreamId, payload: &[u8]) {
        if self.requests.contains_key(&id) {
            let mut datagram = Vec::with_capacity(payload.len() + 8);
            adit_proto::http3::encode_varint(super::packets::quarter(id), &mut datagram);
            datagram.extend_from_slice(payload);
            // Datagrams may be lost.
            let _ = self.quic.datagrams().send(datagram.into(), false);
        }
    }

    /// Makes the packets of a request a peer's; false: there is no such request.
    pub(super) fn attach(&mut self, id: StreamId, peer: crate::PeerId, now: Instant) -> bool {
        let exists = self.requests.contains_key(&id);
        if exists {
            self.tunnel = Some(PacketTunnel::new(id, peer, now));
            self.admit();
        }
        exists
    }

    /// Takes no more packets of the peer; what tells it so still goes out until then.
    pub(super) fn leave(&mut self, until: Instant) {
        if let Some(tunnel) = &mut self.tunnel {
            tunnel.leaves_at = Some(until);
        }
    }

    /// The peer may use so many bytes of our memory.
    pub(super) fn set_memory(&mut self, bytes: u32) {
        if bytes != self.memory {
            self.memory = bytes;
            self.quic.set_receive_window(bytes.into());
            self.quic.set_send_window(config::send_window(bytes));
        }
    }

    /// The peer may ask for more than a stranger.
    pub(super) fn admit(&mut self) {
        if !std::mem::replace(&mut self.is_admitted, true) {
            self.quic.set_max_concurrent_streams(Dir::Bi, config::ADMITTED_REQUESTS);
        }
    }

    pub(super) fn refused_mtu(&mut self, frame: &Frame<'_>, now: Instant) -> Option<u16> {
        self.tunnel.as_ref()?.refused_mtu(&mut self.quic, frame, now)
    }

    pub(super) fn send_frame(&mut self, frame: Frame<'_>, now: Instant) {
        let Self { quic, tunnel: Some(tunnel), requests, losses, .. } = self else { return };
        if let Some(request) = requests.get_mut(&tunnel.stream) {
            tunnel.send_frame(quic, request, frame, losses, now);
        }
    }

    pub(super) fn send_packet(&mut self, packet: &[u8]) {
        let Self { quic, tunnel: Some(tunnel), requests, losses, .. } = self else { return };
        if let Some(request) = requests.get_mut(&tunnel.stream) {
            tunnel.send_packet(quic, request, packet, losses);
        }
    }

    /// The peer is at another address than before.
    pub(super) fn handle_roamed(&mut self, now: Instant) {
        if let Some(tunnel) = &mut self.tunnel {
            tunnel.handle_roamed(now);
        }
    }

    /// The next packet of the peer, copied to the start of `slot`, and its length.
    pub(super) fn poll_packet(
        &mut self,
        slot: &mut [u8],
        now: Instant,
    ) -> Option<(crate::PeerId, usize)> {
        while let Some(datagram) = self.quic.datagrams().recv() {
            let Some((stream, payload)) = request_of(datagram) else {
                self.fail(&Violation::Datagram, now);
                return None;
            };
            match (&self.tunnel, self.requests.get(&stream)) {
                (Some(tunnel), _) if tunnel.stream == stream => {
                    if tunnel.leaves_at.is_some() {
                        continue;
                    }
                    let Some(packet) = packet_in(&payload) else { continue };
                    if let Some(slot) = slot.get_mut(..packet.len())
                        && !packet.is_empty()
                    {
                        slot.copy_from_slice(packet);
                        return Some((tunnel.peer, packet.len()));
                    }
                }
                (_, Some(request)) => request.handle_datagram(payload),
                // Of a request that has ended, or whose head is still on its way.
                (_, None) => {}
            }
        }
        None
    }

    fn name(&self, id: StreamId) -> QuicStreamId {
        QuicStreamId { connection: self.id, stream: id.into() }
    }
}

fn peer_pin(quic: &Quic) -> Option<Pin> {
    let identity = quic.crypto_session().peer_identity()?;
    let chain = identity.downcast::<Vec<CertificateDer<'static>>>().ok()?;
    tls::pin_of(chain.first()?).ok()
}

fn error_of(reason: &ConnectionError) -> QuicError {
    // The verifier's own error does not survive QUIC; the code of its alert does (RFC 9001 §4.8).
    const CERTIFICATE_UNKNOWN: u64 = 0x100 + 46;

    match reason {
        ConnectionError::TransportError(error) if u64::from(error.code) == CERTIFICATE_UNKNOWN => {
            QuicError::PinMismatch
        }
        ConnectionError::LocallyClosed => QuicError::Closed,
        ConnectionError::TransportError(_)
        | ConnectionError::VersionMismatch
        | ConnectionError::ConnectionClosed(_)
        | ConnectionError::ApplicationClosed(_)
        | ConnectionError::Reset
        | ConnectionError::TimedOut
        | ConnectionError::CidsExhausted => QuicError::Lost { reason: reason.to_string() },
    }
}
