//! Packets between the interface and the connectors: one thread, no locks.
//!
//! ```text
//! TUN ─▶ longest prefix ─▶ seal ─▶ UDP          no peer: refused at once
//! UDP ─▶ open ─▶ for one of our addresses? ─▶ TUN
//! ```

use std::{
    collections::VecDeque,
    io,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
    os::fd::AsFd as _,
    sync::mpsc as std_mpsc,
    thread,
    time::{Duration, Instant},
};

use adit_proto::WireguardPublicKey;
use adit_tunnel::{
    MAX_PACKET_LEN, Packet, PeerConfig, PeerStatus, ReceiveBatch, Received, Refusal, Sealed,
    SendOutcome, TunDevice, Tunnel, TunnelEvent, UdpSocket, UpsertError, Waiter, Waker,
    WireguardSecret, refuse,
};
use anyhow::Context as _;
use ipnet::IpNet;
use tokio::sync::{mpsc, oneshot};

use super::event::Event;

/// boringtun's clock moves only when it is asked to, at least this often (its `update_timers`).
const TICK: Duration = Duration::from_millis(250);

/// NAT mappings of UDP live at least 30 s on most devices; WireGuard's own documentation
/// recommends 25.
const KEEPALIVE: Duration = Duration::from_secs(25);

/// WireGuard's REJECT_AFTER_TIME: a session without a new handshake carries nothing after it. With
/// keepalives there is a handshake every two minutes.
const SILENT_AFTER: Duration = Duration::from_secs(180);

/// How often handshakes are looked at.
const LOOK_INTERVAL: Duration = Duration::from_secs(1);

/// Packets and batches taken from one side before the other has its turn.
const TUN_BUDGET: usize = 128;
const UDP_BUDGET: usize = 8;

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
        events: mpsc::Sender<Event>,
    ) -> anyhow::Result<Self> {
        let udp = bind()?;
        let (waiter, waker) = Waiter::try_new().context("failed to make an eventfd")?;
        let (commands, receiver) = std_mpsc::sync_channel(QUEUE_LEN);
        let worker = Worker {
            tun,
            udp,
            tunnel: Tunnel::new(secret, Instant::now()),
            addresses,
            commands: receiver,
            events,
            unsent: VecDeque::new(),
            drops: Drops::default(),
            silent: Vec::new(),
            next_look: Instant::now(),
        };
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
fn bind() -> anyhow::Result<UdpSocket> {
    UdpSocket::try_bind(SocketAddr::from((Ipv6Addr::UNSPECIFIED, 0))).or_else(|error| {
        tracing::debug!(%error, "No socket for IPv6, trying IPv4 alone");
        UdpSocket::try_bind(SocketAddr::from((Ipv4Addr::UNSPECIFIED, 0)))
            .context("failed to open a UDP socket")
    })
}

struct Worker {
    tun: TunDevice,
    udp: UdpSocket,
    tunnel: Tunnel,
    addresses: Vec<IpAddr>,
    commands: std_mpsc::Receiver<Command>,
    events: mpsc::Sender<Event>,
    /// Events for which the loop had no room yet; bounded by handshakes, which are rare.
    unsent: VecDeque<DataPlaneEvent>,
    drops: Drops,
    /// Peers whose silence is known.
    silent: Vec<WireguardPublicKey>,
    next_look: Instant,
}

/// Packets that went nowhere, by reason.
#[derive(Debug, Default)]
struct Drops {
    /// Toward a prefix without a connector.
    no_peer: u64,
    /// From the interface, but no IP packet that can be carried.
    malformed: u64,
    /// From a connector to an address that is not ours.
    not_ours: u64,
    /// The kernel's queue toward the network was full.
    udp_full: u64,
    /// The interface's queue was full.
    tun_full: u64,
}

impl Worker {
    fn run(mut self, waiter: &Waiter) {
        let outcome = self.turn_until_stopped(waiter);
        tracing::debug!(drops = ?self.drops, "Data plane ends");
        if let Err(error) = outcome {
            tracing::error!(error = format!("{error:#}"), "Data plane failed");
            let event = DataPlaneEvent::Failed(format!("{error:#}"));
            let _ = self.events.blocking_send(Event::DataPlane(event));
        }
    }

    fn turn_until_stopped(&mut self, waiter: &Waiter) -> anyhow::Result<()> {
        let mut packet = vec![0; MAX_PACKET_LEN];
        let mut datagram = vec![0; Tunnel::BUFFER_LEN];
        let mut batch = ReceiveBatch::new();
        loop {
            let now = Instant::now();
            let tick = now + TICK;
            let deadline = self.tunnel.poll_timeout().map_or(tick, |timeout| timeout.min(tick));
            let (tun, udp) = (self.tun.as_fd(), self.udp.as_fd());
            let ready = waiter
                .wait(Some(tun), Some(udp), Some(deadline), now)
                .context("failed to wait for packets")?;
            let now = Instant::now();
            if ready.woken && !self.handle_commands(now) {
                return Ok(());
            }
            if ready.udp {
                self.handle_udp(&mut batch, &mut packet, now)?;
            }
            if ready.tun {
                self.handle_tun(&mut packet, &mut datagram, now)?;
            }
            self.tunnel.handle_timeout(now);
            if now >= self.next_look {
                self.next_look = now + LOOK_INTERVAL;
                self.look_for_silence(now);
            }
            self.flush();
        }
    }

    /// Tells of each peer once when it falls silent.
    fn look_for_silence(&mut self, now: Instant) {
        let peers = self.tunnel.peers().filter_map(|peer| self.tunnel.status(peer));
        let silent: Vec<WireguardPublicKey> = peers
            .filter(|peer| {
                peer.last_handshake
                    .is_some_and(|at| now.saturating_duration_since(at) >= SILENT_AFTER)
            })
            .map(|peer| peer.public_key)
            .collect();
        for public_key in &silent {
            if !self.silent.contains(public_key) {
                self.unsent.push_back(DataPlaneEvent::Silent { public_key: *public_key });
            }
        }
        self.silent = silent;
    }

    /// Returns false when the thread is to end.
    fn handle_commands(&mut self, now: Instant) -> bool {
        loop {
            let command = match self.commands.try_recv() {
                Ok(command) => command,
                Err(std_mpsc::TryRecvError::Empty) => return true,
                Err(std_mpsc::TryRecvError::Disconnected) => return false,
            };
            match command {
                Command::Upsert { public_key, endpoint, prefixes } => {
                    self.upsert(public_key, endpoint, prefixes, now);
                }
                Command::Initiate { public_key } => {
                    if let Some(peer) = self.tunnel.peer_of(&public_key) {
                        self.tunnel.initiate_handshake(peer, now);
                    }
                }
                Command::Remove { public_key } => {
                    if let Some(peer) = self.tunnel.peer_of(&public_key) {
                        self.tunnel.remove(peer);
                    }
                }
                Command::SetAddresses(addresses) => self.addresses = addresses,
                Command::Statuses(reply) => {
                    let peers: Vec<_> = self.tunnel.peers().collect();
                    let statuses =
                        peers.into_iter().filter_map(|peer| self.tunnel.status(peer)).collect();
                    let _ = reply.send(statuses);
                }
                Command::Stop => return false,
            }
        }
    }

    fn upsert(
        &mut self,
        public_key: WireguardPublicKey,
        endpoint: SocketAddr,
        mut prefixes: Vec<IpNet>,
        now: Instant,
    ) {
        loop {
            let config = PeerConfig {
                public_key,
                allowed_ips: prefixes.clone(),
                endpoint: Some(endpoint),
                keepalive: Some(KEEPALIVE),
            };
            match self.tunnel.upsert(config, now) {
                Ok(peer) => {
                    self.tunnel.initiate_handshake(peer, now);
                    return;
                }
                Err(UpsertError::PrefixTaken { prefix, owner }) if prefixes.contains(&prefix) => {
                    tracing::warn!(%prefix, %owner, "Prefix stays with another connector");
                    prefixes.retain(|held| *held != prefix);
                }
                Err(error) => {
                    tracing::warn!(%error, %endpoint, "Connector cannot be a peer");
                    return;
                }
            }
        }
    }

    fn handle_udp(
        &mut self,
        batch: &mut ReceiveBatch,
        packet: &mut [u8],
        now: Instant,
    ) -> anyhow::Result<()> {
        for _ in 0..UDP_BUDGET {
            if !self.udp.receive(batch).context("failed to receive from the network")? {
                break;
            }
            for datagram in batch.datagrams() {
                let received =
                    self.tunnel.handle_datagram(datagram.from, datagram.bytes, packet, now);
                match received {
                    Received::Packet { packet, .. } => {
                        let Ok(parsed) = Packet::try_parse(packet) else {
                            self.drops.malformed += 1;
                            continue;
                        };
                        // This machine may forward packets; a connector must not use it to reach
                        // others.
                        if !self.addresses.contains(&parsed.destination()) {
                            self.drops.not_ours += 1;
                            continue;
                        }
                        write(&self.tun, parsed.bytes(), &mut self.drops)?;
                    }
                    Received::Consumed => {}
                    Received::Dropped { reason, .. } => {
                        tracing::trace!(reason = reason.code(), "Dropped a datagram");
                    }
                }
            }
            self.flush();
        }
        Ok(())
    }

    fn handle_tun(
        &mut self,
        packet: &mut [u8],
        datagram: &mut [u8],
        now: Instant,
    ) -> anyhow::Result<()> {
        for _ in 0..TUN_BUDGET {
            let read = self.tun.read_packet(packet).context("failed to read from the interface")?;
            let Some(bytes) = read else {
                break;
            };
            let destination = match destination(bytes) {
                Some(destination) => destination,
                None => {
                    self.drops.malformed += 1;
                    continue;
                }
            };
            let Some(peer) = self.tunnel.owner_of(destination) else {
                self.drops.no_peer += 1;
                if let Ok(packet) = Packet::try_parse(bytes)
                    && let Some(answer) = refuse(&packet, Refusal::Prohibited, None)
                {
                    write(&self.tun, &answer, &mut self.drops)?;
                }
                continue;
            };
            match self.tunnel.seal(peer, bytes, datagram, now) {
                Sealed::Datagram { to, bytes } => match self.udp.send(to, bytes) {
                    SendOutcome::Sent => {}
                    SendOutcome::Full | SendOutcome::TooBig | SendOutcome::Unreachable => {
                        self.drops.udp_full += 1;
                    }
                },
                Sealed::Waiting => {}
                Sealed::Dropped(reason) => {
                    tracing::trace!(reason = reason.code(), "Dropped a packet");
                }
            }
        }
        Ok(())
    }

    fn flush(&mut self) {
        while let Some(transmit) = self.tunnel.poll_transmit() {
            match self.udp.send(transmit.to, &transmit.bytes) {
                SendOutcome::Sent => {}
                SendOutcome::Full | SendOutcome::TooBig | SendOutcome::Unreachable => {
                    self.drops.udp_full += 1;
                }
            }
        }
        while let Some(event) = self.tunnel.poll_event() {
            match event {
                TunnelEvent::Established { peer } => {
                    if let Some(PeerStatus { public_key, .. }) = self.tunnel.status(peer) {
                        self.unsent.push_back(DataPlaneEvent::Established { public_key });
                    }
                }
                TunnelEvent::Roamed { .. } => {}
            }
        }
        while let Some(event) = self.unsent.pop_front() {
            if let Err(mpsc::error::TrySendError::Full(Event::DataPlane(event))) =
                self.events.try_send(Event::DataPlane(event))
            {
                self.unsent.push_front(event);
                return;
            }
        }
    }
}

fn write(tun: &TunDevice, packet: &[u8], drops: &mut Drops) -> anyhow::Result<()> {
    match tun.write_packet(packet) {
        Ok(true) => Ok(()),
        Ok(false) => {
            drops.tun_full += 1;
            Ok(())
        }
        Err(error) if error.kind() == io::ErrorKind::InvalidInput => {
            drops.malformed += 1;
            Ok(())
        }
        Err(error) => Err(error).context("failed to write to the interface"),
    }
}

/// Where a packet goes; fragments and unknown protocols are the connector's to judge.
fn destination(packet: &[u8]) -> Option<IpAddr> {
    match packet.first()? >> 4 {
        4 => packet.get(16..20)?.first_chunk::<4>().map(|bytes| Ipv4Addr::from(*bytes).into()),
        6 => packet.get(24..40)?.first_chunk::<16>().map(|bytes| Ipv6Addr::from(*bytes).into()),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_destination_is_where_the_header_has_it() {
        let mut packet = [0; 40];
        packet[0] = 0x45;
        packet[16..20].copy_from_slice(&[10, 9, 0, 2]);
        assert_eq!(destination(&packet), Some("10.9.0.2".parse().unwrap()));

        packet[0] = 0x60;
        packet[39] = 1;
        packet[24..39].fill(0);
        assert_eq!(destination(&packet), Some("::1".parse().unwrap()));
    }

    #[test]
    fn a_packet_cut_short_goes_nowhere() {
        assert_eq!(destination(&[]), None);
        assert_eq!(destination(&[0x45; 19]), None);
        assert_eq!(destination(&[0x60; 39]), None);
        assert_eq!(destination(&[0x00; 40]), None);
    }
}
