//! What the data plane counts.

use std::{
    ops::AddAssign,
    sync::{Arc, Mutex, PoisonError},
};

use adit_tunnel::{DropCounters, QuicCounters, SendLosses};
use tokio::sync::watch;

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
    pub(crate) quic: QuicCounters,
    /// Of the busiest lane, in per cent of its time.
    pub(crate) load: u8,
}

/// What was lost between here and the kernel or a full queue.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Losses {
    /// Handshake messages and keepalives that the network did not take.
    pub(crate) control: u64,
    /// Packets that the TUN device did not take.
    pub(crate) kernel_refused: u64,
    /// Packets of services for which the queue of their lane had no room.
    pub(crate) lane_full: u64,
    /// Clients of QUIC that were not asked to prove their addresses, since too many had to be.
    pub(crate) retries: u64,
    /// Records that the full queue of access events did not take.
    pub(crate) records: u64,
    /// Messages about refused flows that the full queue to the sessions did not take.
    pub(crate) denials: u64,
}

impl AddAssign<&Self> for DataPlaneMetrics {
    fn add_assign(&mut self, other: &Self) {
        let Self { peers, flows, forwarder, tunnel_drops, losses, send_losses, quic, load } = other;
        self.peers += peers;
        self.flows += flows;
        self.forwarder += forwarder;
        self.tunnel_drops += tunnel_drops;
        self.losses += *losses;
        self.send_losses += *send_losses;
        self.quic += *quic;
        self.load = self.load.max(*load);
    }
}

impl AddAssign for Losses {
    fn add_assign(&mut self, other: Self) {
        self.control += other.control;
        self.kernel_refused += other.kernel_refused;
        self.lane_full += other.lane_full;
        self.retries += other.retries;
        self.records += other.records;
        self.denials += other.denials;
    }
}

/// Where all lanes tell what they have counted.
#[derive(Clone)]
pub(super) struct Published {
    by_lane: Arc<Mutex<Vec<DataPlaneMetrics>>>,
    sum: watch::Sender<DataPlaneMetrics>,
}

impl Published {
    pub(super) fn new(lanes: usize) -> (Self, watch::Receiver<DataPlaneMetrics>) {
        let (sum, seen) = watch::channel(DataPlaneMetrics::default());
        let by_lane = Arc::new(Mutex::new(vec![DataPlaneMetrics::default(); lanes]));
        (Self { by_lane, sum }, seen)
    }

    pub(super) fn publish(&self, lane: usize, metrics: DataPlaneMetrics) {
        let mut by_lane = self.by_lane.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(known) = by_lane.get_mut(lane) {
            *known = metrics;
        }
        let mut sum = DataPlaneMetrics::default();
        for lane in &*by_lane {
            sum += lane;
        }
        self.sum.send_replace(sum);
    }
}
