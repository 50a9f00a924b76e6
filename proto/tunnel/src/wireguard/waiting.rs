//! Packets that wait for a handshake.

use std::collections::VecDeque;

/// The newest packets for a peer, up to a limit in bytes.
#[derive(Default)]
pub(super) struct WaitingPackets {
    packets: VecDeque<Vec<u8>>,
    bytes: usize,
}

/// A peer that never answers must not cost more than this; it holds the first flight of a
/// connection with room to spare.
const MAX_BYTES: usize = 128 * 1024;

/// What a packet costs beside its bytes.
const PACKET_COST: usize = 64;

impl WaitingPackets {
    /// Adds `packet` and returns how many older ones made room for it.
    pub(super) fn push(&mut self, packet: &[u8]) -> usize {
        self.packets.push_back(packet.to_vec());
        self.bytes += packet.len() + PACKET_COST;
        let mut evicted = 0;
        while self.bytes > MAX_BYTES && self.pop().is_some() {
            evicted += 1;
        }
        evicted
    }

    pub(super) fn pop(&mut self) -> Option<Vec<u8>> {
        let packet = self.packets.pop_front()?;
        self.bytes -= packet.len() + PACKET_COST;
        Some(packet)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_oldest_packets_make_room_for_the_newest() {
        let mut waiting = WaitingPackets::default();
        let evicted: usize = (0..300_u32).map(|n| waiting.push(&n.to_be_bytes().repeat(256))).sum();
        let kept: Vec<Vec<u8>> = std::iter::from_fn(|| waiting.pop()).collect();
        assert_eq!(evicted + kept.len(), 300);
        assert!(kept.iter().map(Vec::len).sum::<usize>() <= MAX_BYTES);
        assert_eq!(kept.last().unwrap()[..4], 299_u32.to_be_bytes());
        assert_eq!(waiting.bytes, 0);
    }

    #[test]
    fn empty_packets_are_bounded_too() {
        let mut waiting = WaitingPackets::default();
        for _ in 0..100_000 {
            waiting.push(&[]);
        }
        assert!(waiting.packets.len() <= MAX_BYTES / PACKET_COST);
    }
}
