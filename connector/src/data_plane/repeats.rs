//! What services have sent to devices once more, or after a silence.

use std::{
    collections::HashMap,
    time::{Duration, Instant},
};

use adit_proto::FlowTuple;
use adit_tunnel::{Packet, PeerId};

/// Segments that are remembered, of 1.5 KB each.
const CAPACITY: usize = 1024;

/// Services wait twice as long before each repetition (RFC 6298 §5.5), so the last one is seldom
/// older than half of the time that a device was away.
const LIFETIME: Duration = Duration::from_secs(60);

/// What follows a silence waits until the device has been asked to speak, and has.
const LIFETIME_AFTER_SILENCE: Duration = Duration::from_secs(2);

/// The last segment of each connection that a service has repeated, to be sent again when the
/// device is back from wherever it could not be reached: it is the one that the device waits for,
/// and the service's own next try may be far off. A segment that comes twice harms nobody (RFC 9293
/// §3.10.7.4).
///
/// A packet that follows a silence is remembered in the same way, but not for long: where it did
/// arrive, its device need not have moved.
#[derive(Debug, Default)]
pub(super) struct Repeats {
    by_flow: HashMap<FlowTuple, Repeated>,
}

#[derive(Debug)]
struct Repeated {
    to: PeerId,
    until: Instant,
    packet: Vec<u8>,
}

impl Repeats {
    /// A service has repeated a segment.
    pub(super) fn note(&mut self, to: PeerId, packet: &Packet<'_>, now: Instant) {
        self.insert(to, packet, now + LIFETIME);
    }

    /// A service has sent a packet to a device that may not be reached.
    pub(super) fn note_after_silence(&mut self, to: PeerId, packet: &Packet<'_>, now: Instant) {
        self.insert(to, packet, now + LIFETIME_AFTER_SILENCE);
    }

    fn insert(&mut self, to: PeerId, packet: &Packet<'_>, until: Instant) {
        let Some(flow) = packet.flow() else { return };
        if self.by_flow.len() >= CAPACITY && !self.by_flow.contains_key(&flow) {
            return;
        }
        self.by_flow.insert(flow, Repeated { to, until, packet: packet.bytes().to_vec() });
    }

    /// Takes what was for a device.
    pub(super) fn take(&mut self, peer: PeerId, now: Instant) -> Vec<Vec<u8>> {
        let of_peer = self.by_flow.extract_if(|_flow, repeated| repeated.to == peer);
        of_peer
            .filter(|(_flow, repeated)| now < repeated.until)
            .map(|(_flow, repeated)| repeated.packet)
            .collect()
    }

    /// Forgets what is too old.
    pub(super) fn sweep(&mut self, now: Instant) {
        self.by_flow.retain(|_flow, repeated| now < repeated.until);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::data_plane::sample::peers;

    /// A TCP segment over IPv4 to this port, with one byte.
    fn segment(port: u16, byte: u8) -> Vec<u8> {
        let mut packet = vec![0; 41];
        packet[0] = 0x45;
        packet[3] = 41;
        packet[8] = 64;
        packet[9] = 6;
        packet[12..20].copy_from_slice(&[10, 9, 0, 2, 100, 80, 0, 1]);
        packet[20..22].copy_from_slice(&443_u16.to_be_bytes());
        packet[22..24].copy_from_slice(&port.to_be_bytes());
        packet[32] = 0x50;
        packet[33] = 0x10;
        packet[40] = byte;
        packet
    }

    fn note(repeats: &mut Repeats, to: PeerId, bytes: &[u8], now: Instant) {
        repeats.note(to, &Packet::try_parse(bytes).unwrap(), now);
    }

    #[test]
    fn the_last_repetition_of_each_connection_is_for_its_device() {
        let ([first, second], now) = (peers(), Instant::now());
        let mut repeats = Repeats::default();
        note(&mut repeats, first, &segment(1000, 1), now);
        note(&mut repeats, first, &segment(1000, 2), now);
        note(&mut repeats, second, &segment(1001, 3), now);
        assert_eq!(repeats.take(first, now), [segment(1000, 2)]);
        assert!(repeats.take(first, now).is_empty());
        assert_eq!(repeats.take(second, now), [segment(1001, 3)]);
    }

    #[test]
    fn what_is_old_is_not_sent() {
        let ([peer, _], now) = (peers(), Instant::now());
        let mut repeats = Repeats::default();
        note(&mut repeats, peer, &segment(1000, 1), now);
        assert!(repeats.take(peer, now + LIFETIME).is_empty());
        note(&mut repeats, peer, &segment(1000, 1), now);
        repeats.sweep(now + LIFETIME);
        assert!(repeats.by_flow.is_empty());
    }

    #[test]
    fn what_follows_a_silence_is_soon_forgotten() {
        let ([peer, _], now) = (peers(), Instant::now());
        let mut repeats = Repeats::default();
        let bytes = segment(1000, 1);
        repeats.note_after_silence(peer, &Packet::try_parse(&bytes).unwrap(), now);
        repeats.note_after_silence(peer, &Packet::try_parse(&segment(1001, 1)).unwrap(), now);
        repeats.sweep(now + LIFETIME_AFTER_SILENCE / 2);
        assert_eq!(repeats.take(peer, now + LIFETIME_AFTER_SILENCE / 2).len(), 2);
        repeats.note_after_silence(peer, &Packet::try_parse(&bytes).unwrap(), now);
        assert!(repeats.take(peer, now + LIFETIME_AFTER_SILENCE).is_empty());
    }

    #[test]
    fn what_is_remembered_is_bounded() {
        let ([peer, _], now) = (peers(), Instant::now());
        let mut repeats = Repeats::default();
        for port in 0..=u16::try_from(CAPACITY).unwrap() {
            note(&mut repeats, peer, &segment(port, 1), now);
        }
        assert_eq!(repeats.by_flow.len(), CAPACITY);
    }
}
