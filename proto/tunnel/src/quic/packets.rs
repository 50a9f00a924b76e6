//! IP packets in the datagrams of a connection (RFC 9484 §6).

use std::time::{Duration, Instant};

use adit_proto::{
    http3::{decode_varint, encode_varint},
    masque::{CONTEXT_ID_PACKET, encode_datagram_capsule_header},
};
use bytes::{Bytes, BytesMut};
use quinn_proto::{Connection, SendDatagramError, StreamId};

use super::request_stream::RequestStream;
use crate::{
    Frame, PeerId,
    packet::{IPV6_MINIMUM_MTU, clamp_segment_size},
};

/// Most that waits for the congestion window, in bytes: 8 ms of 4 Gbit/s.
pub(super) const MAX_QUEUE_LEN: usize = 4 << 20;

/// What may wait however small the window is: two super-packets.
const MIN_QUEUE_LEN: usize = 128 << 10;

/// For the longest datagram that a path takes: some ten round trips.
const SEARCH_TIME: Duration = Duration::from_secs(2);

/// A CONNECT-IP request whose packets are a peer's.
#[derive(Debug)]
pub(super) struct PacketTunnel {
    pub(super) stream: StreamId,
    pub(super) peer: PeerId,
    /// Packets of the peer are no longer taken, and those to it only until then.
    pub(super) leaves_at: Option<Instant>,
    /// Until then the path's MTU is being searched.
    searches_until: Instant,
    /// What stands before each packet in a datagram: the request and the context.
    prefix: Vec<u8>,
}

/// Packets that were not sent.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct PacketLosses {
    /// The congestion window is small and enough wait.
    pub(super) congestion: u64,
    /// Longer than the path takes.
    pub(super) too_big: u64,
}

impl PacketTunnel {
    pub(super) fn new(stream: StreamId, peer: PeerId, now: Instant) -> Self {
        let mut prefix = Vec::new();
        encode_varint(quarter(stream), &mut prefix);
        encode_varint(CONTEXT_ID_PACKET, &mut prefix);
        let searches_until = now + SEARCH_TIME;
        Self { stream, peer, leaves_at: None, searches_until, prefix }
    }

    /// The peer is elsewhere, and so there is another path.
    pub(super) fn handle_roamed(&mut self, now: Instant) {
        self.searches_until = now + SEARCH_TIME;
    }

    /// None: the packets of a frame are taken. Else they are too long, and this is what their
    /// sender is told.
    ///
    /// What is too long for a datagram goes by the stream if it has no more than 1,280 bytes, which
    /// every link takes (RFC 9484 §10.1). While the path's MTU is being searched all are taken,
    /// since a sender that is told too little believes it for minutes.
    pub(super) fn refused_mtu(
        &self,
        quic: &mut Connection,
        frame: &Frame<'_>,
        now: Instant,
    ) -> Option<u16> {
        let max_len = self.max_datagram_len(quic);
        if now < self.searches_until || frame.fits(max_len.max(IPV6_MINIMUM_MTU)) {
            return None;
        }
        let is_ipv4 = frame.packet().first().is_some_and(|first| first >> 4 == 4);
        let mtu = if is_ipv4 { max_len } else { max_len.max(IPV6_MINIMUM_MTU) };
        Some(u16::try_from(mtu).unwrap_or(u16::MAX))
    }

    fn max_datagram_len(&self, quic: &mut Connection) -> usize {
        let max = quic.datagrams().max_size().unwrap_or_default();
        max.saturating_sub(self.prefix.len())
    }

    /// Queues all packets that a frame stands for.
    ///
    /// One that is too long although its sender cannot be told goes by the stream.
    pub(super) fn send_frame(
        &self,
        quic: &mut Connection,
        request: &mut RequestStream,
        frame: Frame<'_>,
        losses: &mut PacketLosses,
        now: Instant,
    ) {
        let count = frame.packet_count() as usize;
        let max_packet_len = self.max_datagram_len(quic);
        let len = frame.packet().len() + count * (self.prefix.len() + 100);
        let mut buffer = BytesMut::with_capacity(len);
        let mut room = room(quic);
        let mut segments = frame.segments();
        while let Some(packet) = segments.next() {
            if count == 1 && now >= self.searches_until {
                clamp_segment_size(packet, max_packet_len);
            }
            if packet.len() > max_packet_len {
                send_by_stream(request, packet, losses);
                continue;
            }
            if room < packet.len() {
                losses.congestion += 1;
                continue;
            }
            room -= packet.len();
            buffer.extend_from_slice(&self.prefix);
            buffer.extend_from_slice(packet);
            send(quic, buffer.split().freeze(), losses);
        }
    }

    /// Queues one packet that nobody waits for, whatever waits already.
    pub(super) fn send_packet(
        &self,
        quic: &mut Connection,
        request: &mut RequestStream,
        packet: &[u8],
        losses: &mut PacketLosses,
    ) {
        if packet.len() > self.max_datagram_len(quic) {
            send_by_stream(request, packet, losses);
            return;
        }
        let mut buffer = BytesMut::with_capacity(self.prefix.len() + packet.len());
        buffer.extend_from_slice(&self.prefix);
        buffer.extend_from_slice(packet);
        send(quic, buffer.freeze(), losses);
    }
}

/// Queues a packet that is too long for a datagram.
fn send_by_stream(request: &mut RequestStream, packet: &[u8], losses: &mut PacketLosses) {
    let mut capsule = Vec::with_capacity(packet.len() + 16);
    encode_datagram_capsule_header(packet.len() + 1, &mut capsule);
    encode_varint(CONTEXT_ID_PACKET, &mut capsule);
    capsule.extend_from_slice(packet);
    losses.too_big += u64::from(!request.send_capsule(capsule.into()));
}

/// How many bytes may still wait: no more than the congestion window, so that waiting adds no more
/// than a round trip.
fn room(quic: &mut Connection) -> usize {
    let window = usize::try_from(quic.congestion_state().window()).unwrap_or(MAX_QUEUE_LEN);
    let queued = (MAX_QUEUE_LEN * 2).saturating_sub(quic.datagrams().send_buffer_space());
    window.clamp(MIN_QUEUE_LEN, MAX_QUEUE_LEN).saturating_sub(queued)
}

fn send(quic: &mut Connection, datagram: Bytes, losses: &mut PacketLosses) {
    match quic.datagrams().send(datagram, false) {
        Ok(()) => {}
        Err(SendDatagramError::TooLarge) => losses.too_big += 1,
        Err(
            SendDatagramError::Blocked(_)
            | SendDatagramError::UnsupportedByPeer
            | SendDatagramError::Disabled,
        ) => losses.congestion += 1,
    }
}

/// The quarter stream id of a request (RFC 9297 §2.1).
pub(super) fn quarter(stream: StreamId) -> u64 {
    u64::from(quinn_proto::VarInt::from(stream)) / 4
}

/// Parts a datagram into the request that it is of and what it carries; none: it is malformed.
pub(super) fn request_of(mut datagram: Bytes) -> Option<(StreamId, Bytes)> {
    let (quarter, len) = decode_varint(&datagram)?;
    let stream = quarter.checked_mul(4).and_then(|id| quinn_proto::VarInt::from_u64(id).ok())?;
    Some((StreamId::from(stream), datagram.split_off(len)))
}

/// The packet in what a datagram of a CONNECT-IP request carries; none: it is of another context.
pub(super) fn packet_in(payload: &Bytes) -> Option<&[u8]> {
    let (context, len) = decode_varint(payload)?;
    if context == CONTEXT_ID_PACKET { payload.get(len..) } else { None }
}
