//! What the data plane counts.

use adit_tunnel::{DropCounters, SendLosses};

use crate::forwarder::ForwarderCounters;

/// A look at the data plane, once a second.
#[derive(Debug, Clone, Default)]
pub(crate) struct DataPlaneMetrics {
    pub(crate) peers: usize,
    pub(crate) flows: usize,
    pub(crate) forwarder: ForwarderCounters,
    pub(crate) tunnel_drops: DropCounters,
    pub(crate) losses: Losses,
    pub(crate) send_losses: SendLosses,
}

/// What was lost between here and the kernel or a full queue.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Losses {
    /// Handshake messages and keepalives that the network did not take.
    pub(crate) control: u64,
    /// Packets that the TUN device did not take.
    pub(crate) kernel_refused: u64,
    /// Records that the full queue of access events did not take.
    pub(crate) records: u64,
    /// Messages about refused flows that the full queue to the sessions did not take.
    pub(crate) denials: u64,
}
