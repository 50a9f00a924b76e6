//! Packets between the interface and the connectors: one thread, no locks.
//!
//! ```text
//! TUN ─▶ longest prefix ─▶ seal ─▶ UDP          no peer: refused at once
//! UDP ─▶ open ─▶ for one of our addresses? ─▶ TUN
//! ```

mod worker;

use std::{
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
    sync::mpsc as std_mpsc,
    thread,
};

use adit_proto::WireguardPublicKey;
use adit_tunnel::{Offloads, PeerStatus, TunDevice, UdpSocket, Waiter, Waker, WireguardSecret};
use anyhow::Context as _;
use ipnet::IpNet;
use tokio::sync::{mpsc, oneshot};

use self::worker::{Channels, Worker};
use super::event::Event;

/// Commands wait while the queue is full, which takes a thread that hangs.
const QUEUE_LEN: usize = 1024;

enum Command {
    Upsert { public_key: WireguardPublicKey, endpoint: SocketAddr, prefixes: Vec<IpNet> },
    Initiate { public_key: WireguardPublicKey },
    Remove { public_key: WireguardPublicKey },
    SetAddresses(Vec<IpAddr>),
    Statuses(oneshot::Sender<Vec<PeerStatus>>),
    Stop,
}

/// What the thread tells the event loop.
#[derive(Debug)]
pub(crate) enum DataPlaneEvent {
    /// A handshake is complete.
    Established {
        /// With whom.
        public_key: WireguardPublicKey,
    },
    /// The last handshake is so old that no packet can pass.
    Silent {
        /// With whom.
        public_key: WireguardPublicKey,
    },
    /// The thread ends: interface or socket is gone.
    Failed(String),
}

/// A handle of the thread, which ends with it.
pub(crate) struct DataPlane {
    commands: std_mpsc::SyncSender<Command>,
    waker: Waker,
    thread: Option<thread::JoinHandle<()>>,
}

impl DataPlane {
    pub(crate) fn start(
        tun: TunDevice,
        secret: WireguardSecret,
        addresses: Vec<IpAddr>,
        offloads: Offloads,
        events: mpsc::Sender<Event>,
    ) -> anyhow::Result<Self> {
        let udp = bind(offloads)?;
        let (waiter, waker) = Waiter::try_new().context("failed to make an eventfd")?;
        let (commands, receiver) = std_mpsc::sync_channel(QUEUE_LEN);
        let worker =
            Worker::new(tun, udp, secret, addresses, Channels { commands: receiver, events });
        let thread = thread::Builder::new()
            .name("data-plane".to_owned())
            .spawn(move || worker.run(&waiter))
            .context("failed to start the data plane's thread")?;
        Ok(Self { commands, waker, thread: Some(thread) })
    }

    /// Sends packets for `prefixes` to a peer, and shakes hands at once.
    pub(crate) fn upsert(
        &self,
        public_key: WireguardPublicKey,
        endpoint: SocketAddr,
        prefixes: Vec<IpNet>,
    ) {
        self.command(Command::Upsert { public_key, endpoint, prefixes });
    }

    pub(crate) fn initiate_handshake(&self, public_key: WireguardPublicKey) {
        self.command(Command::Initiate { public_key });
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
