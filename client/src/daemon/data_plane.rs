//! Packets between the interface and the connectors: one thread, no locks.
//!
//! ```text
//! TUN ─▶ longest prefix ─▶ WireGuard or QUIC ─▶ UDP     no peer: refused at once
//! UDP ─▶ WireGuard or QUIC ─▶ for one of our addresses? ─▶ TUN
//! ```

mod kept_flows;
mod last_segments;
#[cfg(test)]
mod sample;
mod silence;
mod worker;

use std::{
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
    sync::mpsc as std_mpsc,
    thread,
};

use adit_proto::{Pin, WireguardPublicKey};
use adit_tunnel::{
    KeyPair, Offloads, PacketInlet, PacketOutlet, PacketPipe, PeerStatus, QuicConnection,
    QuicEndpoint, QuicError, QuicStreamId, TunDevice, UdpSocket, Waiter, Waker, WireguardSecret,
};
use anyhow::Context as _;
use tokio::sync::{mpsc, oneshot};

use self::worker::{Channels, Worker};
use super::{
    event::Event,
    sites::{OpenFlows, UpsertedPeer},
};
use crate::carrier::Carrier;

/// Commands wait while the queue is full, which takes a thread that hangs.
const QUEUE_LEN: usize = 1024;

enum Command {
    Upsert(UpsertedPeer),
    Initiate { public_key: WireguardPublicKey },
    Announce,
    Speak { public_key: WireguardPublicKey },
    Probe { public_key: WireguardPublicKey, carrier: Carrier },
    MovePackets { from: UpsertedPeer, to: UpsertedPeer, open_flows: OpenFlows },
    Use { public_key: WireguardPublicKey, carrier: Carrier },
    Remove { public_key: WireguardPublicKey },
    Connect { endpoint: SocketAddr, pin: Pin, dialled: Dialled },
    Attach { public_key: WireguardPublicKey, stream: QuicStreamId, done: oneshot::Sender<bool> },
    AttachPipe { public_key: WireguardPublicKey, outlet: PacketOutlet, done: oneshot::Sender<bool> },
    SetAddresses(Vec<IpAddr>),
    Statuses(oneshot::Sender<Vec<PeerStatus>>),
    Stop,
}

type Dialled = oneshot::Sender<Result<QuicConnection, QuicError>>;

/// What the thread tells the event loop.
#[derive(Debug)]
pub(crate) enum DataPlaneEvent {
    /// A handshake is complete.
    Established {
        /// With whom.
        public_key: WireguardPublicKey,
    },
    /// What was sent by the carrier in use is not answered, so the peer is asked.
    Suspected {
        /// Whom.
        public_key: WireguardPublicKey,
    },
    /// A peer that was asked has answered.
    Alive {
        /// Who.
        public_key: WireguardPublicKey,
        /// By which.
        carrier: Carrier,
    },
    /// Nothing passes by a carrier any more.
    Silent {
        /// To whom.
        public_key: WireguardPublicKey,
        /// By which.
        carrier: Carrier,
    },
    /// The thread ends: interface or socket is gone.
    Failed(String),
}

/// A handle of the thread, which ends with it.
pub(crate) struct DataPlane {
    commands: std_mpsc::SyncSender<Command>,
    waker: Waker,
    inlet: PacketInlet<WireguardPublicKey>,
    thread: Option<thread::JoinHandle<()>>,
}

impl DataPlane {
    pub(crate) fn start(
        tun: TunDevice,
        secret: WireguardSecret,
        device_key: KeyPair,
        addresses: Vec<IpAddr>,
        offloads: Offloads,
        events: mpsc::Sender<Event>,
    ) -> anyhow::Result<Self> {
        let udp = bind(offloads)?;
        let (waiter, waker) = Waiter::try_new().context("failed to make an eventfd")?;
        let (commands, receiver) = std_mpsc::sync_channel(QUEUE_LEN);
        let quic = QuicEndpoint::client(device_key, tun.mtu(), waker.clone());
        let inlet = PacketInlet::new(waker.clone());
        let channels = Channels { commands: receiver, events, packets: inlet.clone() };
        let worker = Worker::new(tun, udp, secret, quic, addresses, channels);
        let thread = thread::Builder::new()
            .name("data-plane".to_owned())
            .spawn(move || worker.run(&waiter))
            .context("failed to start the data plane's thread")?;
        Ok(Self { commands, waker, inlet, thread: Some(thread) })
    }

    /// Adds a peer, or changes what is known of it.
    pub(crate) fn upsert(&self, peer: UpsertedPeer) {
        self.command(Command::Upsert(peer));
    }

    pub(crate) fn initiate_handshake(&self, public_key: WireguardPublicKey) {
        self.command(Command::Initiate { public_key });
    }

    /// Tells every peer where we are, after our own address has changed.
    pub(crate) fn announce(&self) {
        self.command(Command::Announce);
    }

    /// Says something to a peer by what carries its packets.
    pub(crate) fn speak(&self, public_key: WireguardPublicKey) {
        self.command(Command::Speak { public_key });
    }

    /// Finds out whether a carrier still carries the packets of a peer.
    pub(crate) fn probe(&self, public_key: WireguardPublicKey, carrier: Carrier) {
        self.command(Command::Probe { public_key, carrier });
    }

    /// Sends packets to another peer; none is sent or taken in between.
    pub(crate) fn move_packets(&self, from: UpsertedPeer, to: UpsertedPeer, open_flows: OpenFlows) {
        self.command(Command::MovePackets { from, to, open_flows });
    }

    /// Sends packets to a peer by this carrier from here on.
    pub(crate) fn use_carrier(&self, public_key: WireguardPublicKey, carrier: Carrier) {
        self.command(Command::Use { public_key, carrier });
    }

    /// What lets tasks open carriers.
    pub(crate) fn dialler(&self) -> Dialler {
        let (commands, waker) = (self.commands.clone(), self.waker.clone());
        Dialler { commands, waker, inlet: self.inlet.clone() }
    }

    pub(crate) fn remove(&self, public_key: WireguardPublicKey) {
        self.command(Command::Remove { public_key });
    }

    pub(crate) fn set_addresses(&self, addresses: Vec<IpAddr>) {
        self.command(Command::SetAddresses(addresses));
    }

    pub(crate) fn statuses(&self) -> oneshot::Receiver<Vec<PeerStatus>> {
        let (reply, answer) = oneshot::channel();
        self.command(Command::Statuses(reply));
        answer
    }

    fn command(&self, command: Command) {
        if self.commands.send(command).is_ok() {
            self.waker.wake();
        }
    }
}

/// Opens QUIC connections on the data plane's socket, and lets tasks carry packets.
#[derive(Clone)]
pub(crate) struct Dialler {
    commands: std_mpsc::SyncSender<Command>,
    waker: Waker,
    inlet: PacketInlet<WireguardPublicKey>,
}

impl Dialler {
    pub(crate) async fn connect(
        &self,
        endpoint: SocketAddr,
        pin: Pin,
    ) -> Result<QuicConnection, QuicError> {
        let (dialled, connection) = oneshot::channel();
        self.command(Command::Connect { endpoint, pin, dialled });
        connection.await.unwrap_or(Err(QuicError::Closed))
    }

    /// Lets a request carry the packets to and from a peer; false: one of both is gone.
    pub(crate) async fn attach(
        &self,
        public_key: WireguardPublicKey,
        stream: QuicStreamId,
    ) -> bool {
        let (done, answer) = oneshot::channel();
        self.command(Command::Attach { public_key, stream, done });
        answer.await.unwrap_or(false)
    }

    /// Lets whoever holds the pipe carry the packets to and from a peer; none: it is gone.
    pub(crate) async fn attach_pipe(
        &self,
        public_key: WireguardPublicKey,
    ) -> Option<PacketPipe<WireguardPublicKey>> {
        let (pipe, outlet) = PacketPipe::new(public_key, self.inlet.clone());
        let (done, answer) = oneshot::channel();
        self.command(Command::AttachPipe { public_key, outlet, done });
        answer.await.unwrap_or(false).then_some(pipe)
    }

    /// Takes a packet of a peer that came by a stream; it is lost if too many wait.
    pub(crate) fn take_packet(&self, public_key: WireguardPublicKey, packet: Vec<u8>) {
        self.inlet.push(public_key, packet);
    }

    fn command(&self, command: Command) {
        if self.commands.send(command).is_ok() {
            self.waker.wake();
        }
    }
}

impl Drop for DataPlane {
    /// Waits for the thread, so that the interface is gone afterwards.
    fn drop(&mut self) {
        self.command(Command::Stop);
        if let Some(thread) = self.thread.take()
            && thread.join().is_err()
        {
            tracing::error!("Data plane panicked");
        }
    }
}

/// One socket for both families, or for IPv4 alone where IPv6 is off.
fn bind(offloads: Offloads) -> anyhow::Result<UdpSocket> {
    UdpSocket::try_bind(SocketAddr::from((Ipv6Addr::UNSPECIFIED, 0)), offloads).or_else(|error| {
        tracing::debug!(%error, "No socket for IPv6, trying IPv4 alone");
        UdpSocket::try_bind(SocketAddr::from((Ipv4Addr::UNSPECIFIED, 0)), offloads)
            .context("failed to open a UDP socket")
    })
}
