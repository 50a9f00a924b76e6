//! What each TCP connection has said last.

use std::{
    collections::HashMap,
    time::{Duration, Instant},
};

use adit_proto::{FlowTuple, Protocol};
use adit_tunnel::{Packet, PeerId, TcpFlags, VirtioHeader};

/// Connections that are remembered; when there are more, the long silent ones are forgotten.
const CAPACITY: usize = 4096;
const LONG: Duration = Duration::from_secs(60);

/// The longest packet that is remembered: headers with options, and a keystroke.
const MAX_LEN: usize = 128;

/// The last short segment of each connection, to be said again when another connector takes over.
///
/// A connection that was just begun then needs not wait for its next try. One that goes on is
/// not harmed by an old segment (RFC 9293 §3.10.7.4). One that cannot go on, since the new connector
/// translates addresses, learns so by the reset that the service answers with, also where it would
/// else wait in silence for what never comes.
#[derive(Debug, Default)]
pub(super) struct LastSegments {
    by_flow: HashMap<FlowTuple, Segment>,
}

#[derive(Debug)]
struct Segment {
    to: PeerId,
    at: Instant,
    /// A frame of the interface.
    frame: Vec<u8>,
}

impl LastSegments {
    /// A packet was sent to a peer.
    pub(super) fn note(&mut self, to: PeerId, packet: &[u8], now: Instant) {
        if packet.len() > MAX_LEN {
            return;
        }
        let Ok(parsed) = Packet::try_parse(packet) else { return };
        let Some(flow) = parsed.flow().filter(|flow| flow.protocol == Protocol::Tcp) else {
            return;
        };
        if parsed.tcp_flags().is_some_and(TcpFlags::rst) {
            self.by_flow.remove(&flow);
            return;
        }
        if self.by_flow.len() >= CAPACITY && !self.by_flow.contains_key(&flow) {
            self.by_flow.retain(|_flow, segment| now.saturating_duration_since(segment.at) < LONG);
            if self.by_flow.len() >= CAPACITY {
                return;
            }
        }
        let segment = self.by_flow.entry(flow).or_insert_with(|| Segment {
            to,
            at: now,
            frame: Vec::with_capacity(VirtioHeader::LEN + MAX_LEN),
        });
        (segment.to, segment.at) = (to, now);
        segment.frame.clear();
        segment.frame.extend([0; VirtioHeader::LEN]);
        segment.frame.extend(packet);
    }

    /// Takes the frames of connections that went to a peer.
    pub(super) fn take(&mut self, peer: PeerId) -> Vec<Vec<u8>> {
        let of_peer = self.by_flow.extract_if(|_flow, segment| segment.to == peer);
        of_peer.map(|(_flow, segment)| segment.frame).collect()
    }

    /// Forgets everything, when there is no other connector to take over.
    pub(super) fn clear(&mut self) {
        self.by_flow.clear();
    }
}

#[cfg(test)]
mod tests {
    use super::{
        super::sample::{ACK, RST, SYN, peers, tcp},
        *,
    };

    #[test]
    fn the_last_segment_of_each_connection_is_kept_for_the_peer_that_got_it() {
        let ([first, second], now) = (peers(), Instant::now());
        let mut last = LastSegments::default();
        last.note(first, &tcp(1000, SYN), now);
        last.note(first, &tcp(1000, ACK), now);
        last.note(second, &tcp(1001, SYN), now);
        let frames = last.take(first);
        assert_eq!(frames.len(), 1);
        assert_eq!(frames[0][VirtioHeader::LEN..], tcp(1000, ACK));
        assert!(last.take(first).is_empty());
        assert_eq!(last.take(second).len(), 1);
    }

    #[test]
    fn what_is_long_or_reset_is_not_kept() {
        let ([peer, _], now) = (peers(), Instant::now());
        let mut last = LastSegments::default();
        last.note(peer, &tcp(1000, ACK), now);
        last.note(peer, &tcp(1000, RST), now);
        let mut long = tcp(1001, ACK);
        long.resize(MAX_LEN + 1, 0);
        last.note(peer, &long, now);
        assert!(last.take(peer).is_empty());
    }

    #[test]
    fn long_silent_connections_give_way() {
        let ([peer, _], now) = (peers(), Instant::now());
        let mut last = LastSegments::default();
        let count = u16::try_from(CAPACITY).unwrap();
        for port in 0..=count {
            last.note(peer, &tcp(port, ACK), now);
        }
        assert_eq!(last.by_flow.len(), CAPACITY);
        last.note(peer, &tcp(count, ACK), now + LONG);
        assert_eq!(last.take(peer).len(), 1);
    }
}
