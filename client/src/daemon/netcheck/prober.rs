//! A thread with a UDP socket of its own: searches of paths, and QUIC beside them.

use std::{
    collections::BTreeMap,
    net::{Ipv4Addr, Ipv6Addr, SocketAddr},
    os::fd::AsFd as _,
    sync::mpsc as std_mpsc,
    thread,
    time::{Duration, Instant},
};

use adit_proto::Pin;
use adit_tunnel::{
    KeyPair, Offloads, QuicConnection, QuicEndpoint, QuicError, ReceiveBatch, SendOutcome,
    UdpSocket, Waiter, Waker, is_quic,
};
use anyhow::Context as _;
use tokio::sync::oneshot;

use super::{
    path_search::PathSearch,
    version_probe::{self, Nonce, ProbeId},
};

/// Batches that are taken before anything else has its turn.
const BATCHES: usize = 8;

/// QUIC carries no packets here, so it searches for no length: the searches of their own tell that.
const PACKET_MTU: u16 = 0;

/// What a search has found.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Found {
    /// None: nothing came back.
    pub(super) round_trip: Option<Duration>,
    pub(super) path_mtu: Option<u16>,
}

enum Command {
    Search { target: SocketAddr, found: oneshot::Sender<Found> },
    Connect { target: SocketAddr, pin: Pin, dialled: Dialled },
}

type Dialled = oneshot::Sender<Result<QuicConnection, QuicError>>;

/// A handle of the thread, which ends soon after this is dropped.
pub(super) struct Prober {
    commands: Option<std_mpsc::Sender<Command>>,
    waker: Waker,
    port: u16,
}

impl Prober {
    pub(super) fn try_start(device_key: KeyPair) -> anyhow::Result<Self> {
        let udp = bind()?;
        let port = udp.local_address().port();
        let (waiter, waker) = Waiter::try_new().context("failed to make an eventfd")?;
        let (commands, receiver) = std_mpsc::channel();
        let mut nonce = [0; 12];
        getrandom::fill(&mut nonce).context("failed to draw randomness")?;
        let worker = Worker {
            udp,
            quic: QuicEndpoint::client(device_key, PACKET_MTU, waker.clone()),
            nonce: Nonce(nonce),
            searches: BTreeMap::new(),
            next_place: 0,
            commands: receiver,
        };
        thread::Builder::new()
            .name("netcheck".to_owned())
            .spawn(move || {
                if let Err(error) = worker.run(&waiter) {
                    tracing::warn!(error = format!("{error:#}"), "Check of the network failed");
                }
            })
            .context("failed to start a thread")?;
        Ok(Self { commands: Some(commands), waker, port })
    }

    /// The local port of everything that is sent.
    pub(super) const fn port(&self) -> u16 {
        self.port
    }

    pub(super) async fn search(&self, target: SocketAddr) -> Found {
        let (found, answer) = oneshot::channel();
        self.command(Command::Search { target, found });
        answer.await.unwrap_or_default()
    }

    pub(super) async fn connect(
        &self,
        target: SocketAddr,
        pin: Pin,
    ) -> Result<QuicConnection, QuicError> {
        let (dialled, connection) = oneshot::channel();
        self.command(Command::Connect { target, pin, dialled });
        connection.await.unwrap_or(Err(QuicError::Closed))
    }

    fn command(&self, command: Command) {
        // Whoever waits hears that the thread has gone.
        if let Some(commands) = &self.commands
            && commands.send(command).is_ok()
        {
            self.waker.wake();
        }
    }
}

impl Drop for Prober {
    fn drop(&mut self) {
        self.commands = None;
        self.waker.wake();
    }
}

struct Worker {
    udp: UdpSocket,
    quic: QuicEndpoint,
    nonce: Nonce,
    searches: BTreeMap<u16, Search>,
    next_place: u16,
    commands: std_mpsc::Receiver<Command>,
}

struct Search {
    target: SocketAddr,
    path: PathSearch,
    found: oneshot::Sender<Found>,
}

impl Worker {
    fn run(mut self, waiter: &Waiter) -> anyhow::Result<()> {
        let mut batch = ReceiveBatch::new();
        let mut packet = vec![0; 65_535];
        loop {
            let now = Instant::now();
            let searches = self.searches.values().filter_map(|search| search.path.poll_timeout());
            let deadline = searches.chain(self.quic.poll_timeout()).min();
            let ready = waiter
                .wait(None, Some(self.udp.as_fd()), deadline, now)
                .context("failed to wait for packets")?;
            let now = Instant::now();
            let goes_on = self.handle_commands(now);
            if ready.udp {
                self.receive(&mut batch, now)?;
            }
            self.turn_searches(now);
            self.quic.handle_timeout(now);
            // No packet of a tunnel is carried, and a client is asked for nothing.
            while self.quic.poll_packet(&mut packet, now).is_some() {}
            self.quic.flush(&mut self.udp, now);
            while self.quic.poll_event().is_some() {}
            if !goes_on {
                return Ok(());
            }
        }
    }

    /// Returns false when nobody can ask any more.
    fn handle_commands(&mut self, now: Instant) -> bool {
        loop {
            match self.commands.try_recv() {
                Ok(Command::Search { target, found }) => {
                    let path = PathSearch::new(target);
                    self.searches.insert(self.next_place, Search { target, path, found });
                    self.next_place = self.next_place.wrapping_add(1);
                }
                Ok(Command::Connect { target, pin, dialled }) => {
                    self.quic.connect(target, pin, dialled, now);
                }
                Err(std_mpsc::TryRecvError::Empty) => return true,
                Err(std_mpsc::TryRecvError::Disconnected) => return false,
            }
        }
    }

    fn receive(&mut self, batch: &mut ReceiveBatch, now: Instant) -> anyhow::Result<()> {
        for _ in 0..BATCHES {
            if !self.udp.receive(batch).context("failed to receive")? {
                return Ok(());
            }
            for datagram in batch.datagrams() {
                if let Some(id) = version_probe::decode(self.nonce, datagram.bytes) {
                    // One that comes from elsewhere says nothing of the target.
                    if let Some(search) = self.searches.get_mut(&id.target)
                        && search.target == datagram.from.remote()
                    {
                        search.path.handle_answer(id.len, id.attempt, now);
                    }
                } else if is_quic(datagram.bytes) {
                    self.quic.handle_datagram(&datagram, now);
                }
            }
        }
        Ok(())
    }

    fn turn_searches(&mut self, now: Instant) {
        for (place, search) in &mut self.searches {
            search.path.handle_timeout(now);
            while let Some((len, attempt)) = search.path.poll_transmit(now) {
                let id = ProbeId { target: *place, len, attempt };
                let datagram = version_probe::encode(self.nonce, id);
                match self.udp.send(search.target.into(), &datagram) {
                    SendOutcome::TooBig => search.path.handle_too_long(len),
                    // It counts as lost.
                    SendOutcome::Sent | SendOutcome::Full | SendOutcome::Unreachable => {}
                }
            }
        }
        let over = |_place: &u16, search: &mut Search| search.path.poll_timeout().is_none();
        for (_place, Search { path, found, .. }) in self.searches.extract_if(.., over) {
            // Who asked may be gone.
            let _ = found.send(Found { round_trip: path.round_trip(), path_mtu: path.path_mtu() });
        }
    }
}

/// One socket for both families, or for IPv4 alone where IPv6 is off.
fn bind() -> anyhow::Result<UdpSocket> {
    let both = SocketAddr::from((Ipv6Addr::UNSPECIFIED, 0));
    UdpSocket::try_bind(both, Offloads::NONE).or_else(|_no_ipv6| {
        UdpSocket::try_bind(SocketAddr::from((Ipv4Addr::UNSPECIFIED, 0)), Offloads::NONE)
            .context("failed to open a UDP socket")
    })
}
