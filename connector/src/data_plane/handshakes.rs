//! The thread that takes handshakes from strangers, so that the one that carries packets does not.

use std::{
    io,
    sync::mpsc::{Receiver, SyncSender, sync_channel},
    thread::JoinHandle,
    time::Instant,
};

use adit_tunnel::{
    Datagram, DropReason, Endpoint, Filtered, HandshakeFilter, Initiation, Tunnel, UdpSocket, Waker,
};
use tracing::{debug, trace};

/// The way to the filter and back. The thread ends when this is dropped.
pub(super) struct Handshakes {
    to_filter: SyncSender<(Endpoint, Box<[u8]>)>,
    passed: Receiver<Initiation>,
}

/// Starts the thread; the socket is for cookies, and the waker for what has passed.
pub(super) fn start(
    filter: HandshakeFilter,
    udp: UdpSocket,
    waker: Waker,
) -> io::Result<Handshakes> {
    /// Of 200 bytes each; a flood is as good as any other after some milliseconds.
    const UNFILTERED: usize = 1024;
    /// All that pass in a second, so that none is lost to a busy moment.
    const PASSED: usize = 2048;

    let (to_filter, unfiltered) = sync_channel(UNFILTERED);
    let (passed_in, passed) = sync_channel(PASSED);
    let _thread: JoinHandle<()> =
        std::thread::Builder::new().name("handshakes".to_owned()).spawn(move || {
            filter_all(filter, &udp, &waker, &unfiltered, &passed_in);
        })?;
    Ok(Handshakes { to_filter, passed })
}

fn filter_all(
    mut filter: HandshakeFilter,
    udp: &UdpSocket,
    waker: &Waker,
    unfiltered: &Receiver<(Endpoint, Box<[u8]>)>,
    passed: &SyncSender<Initiation>,
) {
    for (from, bytes) in unfiltered {
        match filter.check(from, &bytes, Instant::now()) {
            Filtered::Passed(initiation) => {
                if passed.try_send(initiation).is_err() {
                    debug!("More handshakes are authentic than can be answered");
                }
                waker.wake();
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
        if self.to_filter.try_send((datagram.from, datagram.bytes.into())).is_err() {
            tunnel.count_drop(DropReason::HandshakeQueueFull);
        }
    }

    /// The next one that passed the filter.
    pub(super) fn poll_passed(&self) -> Option<Initiation> {
        self.passed.try_recv().ok()
    }
}
