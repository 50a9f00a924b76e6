//! Packets between the thread of a data plane and a task that has a stream to the other end.

use std::{
    collections::VecDeque,
    sync::{Arc, Mutex, PoisonError},
};

use tokio::sync::mpsc;

use crate::Waker;

/// A task's end: packets of one other end, which `K` names.
#[derive(Debug)]
pub struct PacketPipe<K> {
    key: K,
    to_thread: PacketInlet<K>,
    from_thread: mpsc::Receiver<Vec<u8>>,
}

/// Where a thread takes the packets that tasks have received. Clones are one.
#[derive(Debug)]
pub struct PacketInlet<K> {
    queue: Arc<Mutex<Queue<K>>>,
    waker: Waker,
}

#[derive(Debug)]
struct Queue<K> {
    packets: VecDeque<(K, Vec<u8>)>,
    bytes: usize,
}

/// Where a thread puts the packets for one other end.
#[derive(Debug)]
pub struct PacketOutlet(mpsc::Sender<Vec<u8>>);

impl<K> Clone for PacketInlet<K> {
    fn clone(&self) -> Self {
        Self { queue: Arc::clone(&self.queue), waker: self.waker.clone() }
    }
}

impl<K: Copy> PacketPipe<K> {
    /// A pipe to the thread that has this inlet, and that thread's end of it.
    pub fn new(key: K, to_thread: PacketInlet<K>) -> (Self, PacketOutlet) {
        /// Packets to one whose stream does not move; then they are dropped. A megabyte or so.
        const PACKETS: usize = 1024;

        let (outlet, from_thread) = mpsc::channel(PACKETS);
        (Self { key, to_thread, from_thread }, PacketOutlet(outlet))
    }

    /// Gives a packet from the other end to the thread, or drops it when too many wait.
    pub fn send(&self, packet: Vec<u8>) {
        self.to_thread.push(self.key, packet);
    }

    /// Waits for packets to the other end and appends those that are there; false: the thread has
    /// another pipe for it.
    ///
    /// # Cancel safety
    ///
    /// No packet is lost when the future is dropped.
    pub async fn next_batch(&mut self, packets: &mut Vec<Vec<u8>>) -> bool {
        /// What a frame of HTTP/2 takes.
        const BATCH: usize = 48;

        self.from_thread.recv_many(packets, BATCH).await > 0
    }
}

impl<K> PacketInlet<K> {
    /// For the thread that this wakes.
    pub fn new(waker: Waker) -> Self {
        let queue = Queue { packets: VecDeque::new(), bytes: 0 };
        Self { queue: Arc::new(Mutex::new(queue)), waker }
    }

    /// Puts a packet in, or drops it when too many wait.
    pub fn push(&self, key: K, packet: Vec<u8>) {
        /// Of all other ends: 8 ms of 4 Gbit/s.
        const MAX_BYTES: usize = 4 << 20;

        let mut queue = self.queue.lock().unwrap_or_else(PoisonError::into_inner);
        if queue.bytes + packet.len() > MAX_BYTES {
            return;
        }
        queue.bytes += packet.len();
        let was_empty = queue.packets.is_empty();
        queue.packets.push_back((key, packet));
        drop(queue);
        if was_empty {
            self.waker.wake();
        }
    }

    /// Takes a packet out.
    pub fn pop(&self) -> Option<(K, Vec<u8>)> {
        let mut queue = self.queue.lock().unwrap_or_else(PoisonError::into_inner);
        let (key, packet) = queue.packets.pop_front()?;
        queue.bytes -= packet.len();
        Some((key, packet))
    }
}

impl PacketOutlet {
    /// Whether nobody takes any.
    pub fn is_closed(&self) -> bool {
        self.0.is_closed()
    }

    /// Puts a packet in; one that there is no room for is lost. False: nobody takes any.
    ///
    /// Short ones, among which are those that tell of a flow's end, have room that others have not.
    pub fn push(&self, packet: &[u8]) -> bool {
        const SHORT: usize = 128;
        const KEPT_FOR_SHORT: usize = 128;

        if packet.len() > SHORT && self.0.capacity() <= KEPT_FOR_SHORT {
            return !self.0.is_closed();
        }
        match self.0.try_send(packet.to_vec()) {
            Ok(()) | Err(mpsc::error::TrySendError::Full(_)) => true,
            Err(mpsc::error::TrySendError::Closed(_)) => false,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Waiter;

    #[tokio::test]
    async fn packets_pass_both_ways_and_a_pipe_that_is_dropped_is_noticed() {
        let (_waiter, waker) = Waiter::try_new().unwrap();
        let inlet = PacketInlet::new(waker);
        let (mut pipe, outlet) = PacketPipe::new(7, inlet.clone());
        pipe.send(vec![1]);
        assert_eq!(inlet.pop(), Some((7, vec![1])));
        assert_eq!(inlet.pop(), None);
        assert!(outlet.push(&[2]) && outlet.push(&[3]));
        let mut packets = Vec::new();
        assert!(pipe.next_batch(&mut packets).await);
        assert_eq!(packets, [[2], [3]]);
        drop(pipe);
        assert!(!outlet.push(&[4]));
    }

    #[test]
    fn no_more_wait_than_there_is_room_for() {
        let (_waiter, waker) = Waiter::try_new().unwrap();
        let inlet = PacketInlet::new(waker);
        for _ in 0..100 {
            inlet.push((), vec![0; 65_535]);
        }
        assert_eq!(std::iter::from_fn(|| inlet.pop()).count(), 64);
    }
}
