//! The thread that takes handshakes from strangers, so that the one that carries packets does not.

use std::{
    io,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
        mpsc::{Receiver, SyncSender, sync_channel},
    },
    thread::JoinHandle,
    time::{Instant, SystemTime},
};

use adit_tunnel::{
    Datagram, DropReason, Endpoint, Filtered, HandshakeFilter, Initiation, Lane, RetrySource,
    Tunnel, UdpSocket, Unproven, Waker,
};
use tracing::{debug, trace};

/// A lane's way to the filter and back. The thread ends when all lanes have dropped theirs.
pub(super) struct Handshakes {
    to_thread: SyncSender<Stranger>,
    /// Clients of all lanes that wait to be asked for a proof.
    unasked: Arc<AtomicUsize>,
    passed: Receiver<Initiation>,
}

/// Who wants a handshake.
enum Stranger {
    /// By an initiation.
    Wireguard(Endpoint, Box<[u8]>),
    /// By QUIC, when so many want it that each has to prove its address: those of one turn.
    Quic(Vec<Unproven>),
}

/// Where a lane takes what has passed.
struct Exit {
    passed: SyncSender<Initiation>,
    waker: Waker,
}

/// Starts the thread for the lanes with these wakers; the socket is for cookies and for what QUIC
/// has in their place.
pub(super) fn start(
    filter: HandshakeFilter,
    retries: RetrySource,
    udp: UdpSocket,
    wakers: &[Waker],
) -> io::Result<Vec<Handshakes>> {
    /// Of 200 bytes each; a flood is as good as any other after some milliseconds.
    const WAITING: usize = 1024;
    /// Half of what may pass in a second, so that none is lost to a busy moment.
    const PASSED: usize = 2048;

    let (to_thread, strangers) = sync_channel(WAITING);
    let unasked = Arc::<AtomicUsize>::default();
    let ends = wakers.iter().map(|waker| {
        let (passed_in, passed) = sync_channel(PASSED);
        let exit = Exit { passed: passed_in, waker: waker.clone() };
        let (to_thread, unasked) = (to_thread.clone(), Arc::clone(&unasked));
        (exit, Handshakes { to_thread, unasked, passed })
    });
    let (exits, handshakes): (Vec<_>, Vec<_>) = ends.unzip();
    let _thread: JoinHandle<()> = std::thread::Builder::new()
        .name("handshakes".to_owned())
        .spawn(move || answer_all(filter, (&retries, &unasked), &udp, &strangers, &exits))?;
    Ok(handshakes)
}

fn answer_all(
    mut filter: HandshakeFilter,
    (retries, unasked): (&RetrySource, &AtomicUsize),
    udp: &UdpSocket,
    strangers: &Receiver<Stranger>,
    exits: &[Exit],
) {
    for stranger in strangers {
        let (from, bytes) = match stranger {
            Stranger::Wireguard(from, bytes) => (from, bytes),
            Stranger::Quic(unproven) => {
                for client in unproven {
                    unasked.fetch_sub(1, Ordering::Relaxed);
                    let retry = retries.retry(&client, SystemTime::now());
                    // As good as lost on the way.
                    let _ = udp.send(client.endpoint(), &retry);
                }
                continue;
            }
        };
        match filter.check(from, &bytes, Instant::now()) {
            Filtered::Passed(initiation) => {
                let lane = Lane::number_of(initiation.public_key(), exits.len());
                let Some(exit) = exits.get(lane) else { continue };
                if exit.passed.try_send(initiation).is_err() {
                    debug!("More handshakes are authentic than can be answered");
                }
                exit.waker.wake();
            }
            Filtered::Cookie(cookie) => {
                // As good as lost on the way.
                let _ = udp.send(from, cookie);
            }
            Filtered::Dropped(reason) => trace!(peer = %from, %reason, "Dropped a handshake"),
        }
    }
}

impl Handshakes {
    /// Hands an initiation to the filter; it is dropped and counted if too many wait.
    pub(super) fn filter(&self, datagram: &Datagram<'_>, tunnel: &mut Tunnel) {
        let stranger = Stranger::Wireguard(datagram.from, datagram.bytes.into());
        if self.to_thread.try_send(stranger).is_err() {
            tunnel.count_drop(DropReason::HandshakeQueueFull);
        }
    }

    /// Asks for proofs of addresses, all at once because waking the thread costs more than what it
    /// does; returns how many are not asked because too many wait to be.
    pub(super) fn ask_proofs(&self, unproven: Vec<Unproven>) -> u64 {
        /// Whoever waits longer is asked when it has given up waiting.
        const WAITING: usize = 1024;

        let count = unproven.len();
        if count == 0 {
            return 0;
        }
        let before = self.unasked.fetch_add(count, Ordering::Relaxed);
        if before < WAITING && self.to_thread.try_send(Stranger::Quic(unproven)).is_ok() {
            return 0;
        }
        self.unasked.fetch_sub(count, Ordering::Relaxed);
        count.try_into().unwrap_or(u64::MAX)
    }

    /// The next one that passed the filter.
    pub(super) fn poll_passed(&self) -> Option<Initiation> {
        self.passed.try_recv().ok()
    }
}
