//! The thread that takes handshakes from strangers, so that the one that carries packets does not.

use std::{
    io,
    sync::mpsc::{Receiver, SyncSender, sync_channel},
    thread::JoinHandle,
    time::Instant,
};

use adit_tunnel::{
    Datagram, DropReason, Endpoint, Filtered, HandshakeFilter, Initiation, Lane, Tunnel, UdpSocket,
    Waker,
};
use tracing::{debug, trace};

/// A lane's way to the filter and back. The thread ends when all lanes have dropped theirs.
pub(super) struct Handshakes {
    to_filter: SyncSender<(Endpoint, Box<[u8]>)>,
    passed: Receiver<Initiation>,
}

/// Where a lane takes what has passed.
struct Exit {
    passed: SyncSender<Initiation>,
    waker: Waker,
}

/// Starts the thread for the lanes with these wakers; the socket is for cookies.
pub(super) fn start(
    filter: HandshakeFilter,
    udp: UdpSocket,
    wakers: &[Waker],
) -> io::Result<Vec<Handshakes>> {
    /// Of 200 bytes each; a flood is as good as any other after some milliseconds.
    const UNFILTERED: usize = 1024;
    /// Half of what may pass in a second, so that none is lost to a busy moment.
    const PASSED: usize = 2048;

    let (to_filter, unfiltered) = sync_channel(UNFILTERED);
    let ends = wakers.iter().map(|waker| {
        let (passed_in, passed) = sync_channel(PASSED);
        let exit = Exit { passed: passed_in, waker: waker.clone() };
        (exit, Handshakes { to_filter: to_filter.clone(), passed })
    });
    let (exits, handshakes): (Vec<_>, Vec<_>) = ends.unzip();
    let _thread: JoinHandle<()> = std::thread::Builder::new()
        .name("handshakes".to_owned())
        .spawn(move || filter_all(filter, &udp, &unfiltered, &exits))?;
    Ok(handshakes)
}

fn filter_all(
    mut filter: HandshakeFilter,
    udp: &UdpSocket,
    unfiltered: &Receiver<(Endpoint, Box<[u8]>)>,
    exits: &[Exit],
) {
    for (from, bytes) in unfiltered {
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
        if self.to_filter.try_send((datagram.from, datagram.bytes.into())).is_err() {
            tunnel.count_drop(DropReason::HandshakeQueueFull);
        }
    }

    /// The next one that passed the filter.
    pub(super) fn poll_passed(&self) -> Option<Initiation> {
        self.passed.try_recv().ok()
    }
}
