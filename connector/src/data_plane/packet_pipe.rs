//! Packets between a lane and a task that has a stream to a device.

use std::{
    collections::VecDeque,
    sync::{Arc, Mutex, PoisonError},
};

use adit_proto::DeviceId;
use adit_tunnel::Waker;
use tokio::sync::mpsc;

/// A task's end: packets of one device.
pub(crate) struct PacketPipe {
    device_id: DeviceId,
    to_lane: Inlet,
    from_lane: mpsc::Receiver<Vec<u8>>,
}

/// Where a lane takes the packets that tasks have received.
#[derive(Clone)]
pub(super) struct Inlet {
    queue: Arc<Mutex<Queue>>,
    waker: Waker,
}

#[derive(Default)]
struct Queue {
    packets: VecDeque<(DeviceId, Vec<u8>)>,
    bytes: usize,
}

/// Where a lane puts the packets for one device.
pub(super) struct Outlet(mpsc::Sender<Vec<u8>>);

impl PacketPipe {
    pub(super) fn new(device_id: DeviceId, to_lane: Inlet) -> (Self, Outlet) {
        /// Packets to a device whose stream does not move; then they are dropped. A megabyte or so.
        const PACKETS: usize = 1024;

        let (outlet, from_lane) = mpsc::channel(PACKETS);
        (Self { device_id, to_lane, from_lane }, Outlet(outlet))
    }

    /// Gives a packet of the device to its lane, or drops it when too many wait.
    pub(crate) fn send(&self, packet: Vec<u8>) {
        self.to_lane.push(self.device_id, packet);
    }

    /// Waits for packets for the device and appends those that are there; false: it has another
    /// pipe, or is gone.
    ///
    /// # Cancel safety
    ///
    /// No packet is lost when the future is dropped.
    pub(crate) async fn next_batch(&mut self, packets: &mut Vec<Vec<u8>>) -> bool {
        /// What a frame of HTTP/2 takes.
        const BATCH: usize = 48;

        self.from_lane.recv_many(packets, BATCH).await > 0
    }
}

impl Inlet {
    pub(super) fn new(waker: Waker) -> Self {
        Self { queue: Arc::default(), waker }
    }

    pub(super) fn push(&self, device_id: DeviceId, packet: Vec<u8>) {
        /// Of all devices of the lane: 8 ms of 4 Gbit/s.
        const MAX_BYTES: usize = 4 << 20;

        let mut queue = self.queue.lock().unwrap_or_else(PoisonError::into_inner);
        if queue.bytes + packet.len() > MAX_BYTES {
            return;
        }
        queue.bytes += packet.len();
        let was_empty = queue.packets.is_empty();
        queue.packets.push_back((device_id, packet));
        drop(queue);
        if was_empty {
            self.waker.wake();
        }
    }

    pub(super) fn pop(&self) -> Option<(DeviceId, Vec<u8>)> {
        let mut queue = self.queue.lock().unwrap_or_else(PoisonError::into_inner);
        let (device_id, packet) = queue.packets.pop_front()?;
        queue.bytes -= packet.len();
        Some((device_id, packet))
    }
}

impl Outlet {
    /// Puts a packet in; one that there is no room for is lost. False: nobody takes any.
    pub(super) fn push(&self, packet: &[u8]) -> bool {
        match self.0.try_send(packet.to_vec()) {
            Ok(()) | Err(mpsc::error::TrySendError::Full(_)) => true,
            Err(mpsc::error::TrySendError::Closed(_)) => false,
        }
    }
}
