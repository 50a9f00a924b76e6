//! Flows that stay with a connector when new ones go to another.

use std::{
    collections::HashMap,
    time::{Duration, Instant},
};

use adit_proto::{FlowTuple, Protocol};
use adit_tunnel::{Packet, PeerId};

/// New connections that are remembered; further ones go to the former connector.
const CAPACITY: usize = 1 << 16;

/// When there is no room, connections give way that were silent for so long.
const IDLE: Duration = Duration::from_secs(600);

/// The move of TCP connections from one connector to another: who was there before it stays, so
/// that a connector which translates addresses breaks none. What began since is remembered, not what
/// was before: so nothing is kept while nothing moves. Datagrams move at once.
#[derive(Debug)]
pub(super) struct KeptFlows {
    /// The former connector.
    pub(super) from: PeerId,
    new: HashMap<FlowTuple, Instant>,
}

impl KeptFlows {
    pub(super) fn new(from: PeerId) -> Self {
        Self { from, new: HashMap::new() }
    }

    /// Whether a packet goes to the former connector.
    pub(super) fn keeps(&mut self, packet: &[u8], now: Instant) -> bool {
        let Ok(packet) = Packet::try_parse(packet) else { return false };
        let Some(flow) = packet.flow().filter(|flow| flow.protocol == Protocol::Tcp) else {
            return false;
        };
        if let Some(last_used) = self.new.get_mut(&flow) {
            *last_used = now;
            return false;
        }
        let begins = packet.tcp_flags().is_some_and(|flags| flags.is_initial());
        !(begins && self.remember(flow, now))
    }

    fn remember(&mut self, flow: FlowTuple, now: Instant) -> bool {
        if self.new.len() >= CAPACITY {
            self.new.retain(|_flow, last_used| now.saturating_duration_since(*last_used) < IDLE);
        }
        let has_room = self.new.len() < CAPACITY;
        if has_room {
            self.new.insert(flow, now);
        }
        has_room
    }
}

#[cfg(test)]
mod tests {
    use super::{
        super::sample::{ACK, SYN, peers, tcp},
        *,
    };

    #[test]
    fn connections_that_were_open_stay_and_new_ones_go() {
        let (mut kept, now) = (KeptFlows::new(peers()[0]), Instant::now());
        assert!(kept.keeps(&tcp(1000, ACK), now));
        assert!(!kept.keeps(&tcp(1001, SYN), now));
        assert!(!kept.keeps(&tcp(1001, ACK), now));
        assert!(kept.keeps(&tcp(1000, ACK), now));
        // An answer to a beginning is of one that was begun before.
        assert!(kept.keeps(&tcp(1002, SYN | ACK), now));
    }

    #[test]
    fn what_is_no_connection_goes_at_once() {
        let (mut kept, now) = (KeptFlows::new(peers()[0]), Instant::now());
        let mut udp = tcp(1000, 0);
        udp[9] = 17;
        udp[25] = 20;
        assert!(!kept.keeps(&udp, now));
        assert!(!kept.keeps(b"no packet", now));
    }

    #[test]
    fn what_is_remembered_is_bounded() {
        let (mut kept, now) = (KeptFlows::new(peers()[0]), Instant::now());
        for port in 0..=u16::MAX {
            assert!(!kept.keeps(&tcp(port, SYN), now));
        }
        let mut another = tcp(1, SYN);
        another[15] = 2;
        assert!(kept.keeps(&another, now));
        assert!(!kept.keeps(&another, now + IDLE));
        assert_eq!(kept.new.len(), 1);
    }
}
