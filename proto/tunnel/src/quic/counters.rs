//! What an endpoint has counted.

use std::ops::AddAssign;

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
