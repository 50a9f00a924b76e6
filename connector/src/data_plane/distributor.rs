//! The thread that reads the interface when there are several lanes, and gives each what is for its
//! devices: in one order, so that no flow is reordered.

use std::{
    collections::HashMap,
    io,
    net::IpAddr,
    os::fd::AsFd as _,
    sync::{
        Arc, PoisonError, RwLock,
        atomic::{AtomicIsize, AtomicU64, Ordering},
        mpsc::{Receiver, SyncSender, sync_channel},
    },
    time::Instant,
};

use adit_tunnel::{Packet, TunDevice, VirtioHeader, Waiter, Waker};

use crate::forward::KernelPath;

/// Which lane each inner address belongs to.
#[derive(Debug, Clone, Default)]
pub(super) struct Owners(Arc<RwLock<HashMap<IpAddr, usize>>>);

impl Owners {
    pub(super) fn insert(&self, addresses: &[IpAddr], lane: usize) {
        let mut owners = self.0.write().unwrap_or_else(PoisonError::into_inner);
        owners.extend(addresses.iter().map(|address| (*address, lane)));
    }

    /// Whether another lane has one of these.
    pub(super) fn has_other(&self, addresses: &[IpAddr], lane: usize) -> bool {
        let owners = self.0.read().unwrap_or_else(PoisonError::into_inner);
        addresses.iter().any(|address| owners.get(address).is_some_and(|owner| *owner != lane))
    }

    pub(super) fn remove(&self, addresses: &[IpAddr], lane: usize) {
        let mut owners = self.0.write().unwrap_or_else(PoisonError::into_inner);
        for address in addresses {
            if owners.get(address) == Some(&lane) {
                owners.remove(address);
            }
        }
    }

    fn lane_of(&self, address: IpAddr) -> Option<usize> {
        self.0.read().unwrap_or_else(PoisonError::into_inner).get(&address).copied()
    }
}

/// Frames for one lane.
pub(super) struct FrameQueue {
    frames: Receiver<Box<[u8]>>,
    state: Arc<QueueState>,
}

#[derive(Debug, Default)]
struct QueueState {
    /// Less than nothing for a moment, when a frame is taken before it is counted.
    bytes: AtomicIsize,
    lost: AtomicU64,
}

impl FrameQueue {
    pub(super) fn pop(&self) -> Option<Box<[u8]>> {
        let frame = self.frames.try_recv().ok()?;
        self.state.bytes.fetch_sub(len_of(&frame), Ordering::AcqRel);
        Some(frame)
    }

    /// How many frames there was no room for.
    pub(super) fn lost(&self) -> u64 {
        self.state.lost.load(Ordering::Relaxed)
    }
}

/// The other end of a [`FrameQueue`].
struct Entrance {
    frames: SyncSender<Box<[u8]>>,
    state: Arc<QueueState>,
    waker: Waker,
}

impl Entrance {
    fn push(&self, frame: &[u8]) {
        /// Twenty milliseconds of 3 Gbit/s.
        const MAX_BYTES: isize = 8 << 20;

        let is_full = self.state.bytes.load(Ordering::Acquire) >= MAX_BYTES;
        if is_full || self.frames.try_send(frame.into()).is_err() {
            self.state.lost.fetch_add(1, Ordering::Relaxed);
            return;
        }
        // INVARIANT: whoever sleeps has found nothing and taken all off the count, so he is woken.
        if self.state.bytes.fetch_add(len_of(frame), Ordering::AcqRel) <= 0 {
            self.waker.wake();
        }
    }
}

fn len_of(frame: &[u8]) -> isize {
    isize::try_from(frame.len()).unwrap_or(isize::MAX)
}

/// Reads the interface until it is woken.
pub(super) struct Distributor {
    path: KernelPath,
    owners: Owners,
    entrances: Vec<Entrance>,
    waiter: Waiter,
}

impl Distributor {
    /// With a queue for each of the lanes that have these wakers, and what ends it.
    pub(super) fn try_new(
        path: KernelPath,
        owners: Owners,
        wakers: &[Waker],
    ) -> io::Result<(Self, Vec<FrameQueue>, Waker)> {
        /// Small packets are bounded by their number.
        const MAX_FRAMES: usize = 4096;

        let (waiter, waker) = Waiter::try_new()?;
        let queues = wakers.iter().map(|waker| {
            let (frames_in, frames) = sync_channel(MAX_FRAMES);
            let state = Arc::<QueueState>::default();
            let entrance =
                Entrance { frames: frames_in, state: Arc::clone(&state), waker: waker.clone() };
            (entrance, FrameQueue { frames, state })
        });
        let (entrances, queues) = queues.unzip();
        Ok((Self { path, owners, entrances, waiter }, queues, waker))
    }

    pub(super) fn run(self) -> io::Result<()> {
        /// So often at least it is looked whether this is the end.
        const FRAMES_AT_ONCE: usize = 256;

        let mut buffer = vec![0; TunDevice::FRAME_LEN].into_boxed_slice();
        loop {
            let interface = Some(self.path.as_fd());
            if self.waiter.wait(interface, None, None, Instant::now())?.woken {
                return Ok(());
            }
            for _ in 0..FRAMES_AT_ONCE {
                let Some(frame) = self.path.read_frame(&mut buffer)? else { break };
                // What is for nobody is counted by the first lane.
                let lane = destination(frame).and_then(|to| self.owners.lane_of(to));
                if let Some(entrance) = self.entrances.get(lane.unwrap_or(0)) {
                    entrance.push(frame);
                }
            }
        }
    }
}

fn destination(frame: &[u8]) -> Option<IpAddr> {
    Packet::destination_of(frame.get(VirtioHeader::LEN..)?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn frames_come_out_as_they_went_in_and_no_more_than_there_is_room_for() {
        let (waiter, waker) = Waiter::try_new().unwrap();
        let (frames_in, frames) = sync_channel(4096);
        let state = Arc::<QueueState>::default();
        let queue = FrameQueue { frames, state: Arc::clone(&state) };
        let entrance = Entrance { frames: frames_in, state, waker };
        for number in 0..1000_u32 {
            let mut frame = vec![0; 64 << 10];
            frame[..4].copy_from_slice(&number.to_be_bytes());
            entrance.push(&frame);
        }
        assert!(waiter.wait(None, None, Some(Instant::now()), Instant::now()).unwrap().woken);
        let mut kept = 0;
        while let Some(frame) = queue.pop() {
            assert_eq!(frame[..4], u32::to_be_bytes(kept));
            kept += 1;
        }
        assert_eq!(kept, 128);
        assert_eq!(queue.lost(), 872);
    }

    #[test]
    fn an_address_belongs_to_one_lane() {
        let owners = Owners::default();
        let address: IpAddr = "100.80.0.1".parse().unwrap();
        owners.insert(&[address], 1);
        assert!(owners.has_other(&[address], 0));
        assert!(!owners.has_other(&[address], 1));
        owners.remove(&[address], 0);
        assert_eq!(owners.lane_of(address), Some(1));
        owners.remove(&[address], 1);
        assert_eq!(owners.lane_of(address), None);
    }
}
