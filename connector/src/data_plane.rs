//! The thread that carries packets.

mod command;
mod metrics;

use std::{
    collections::HashMap,
    io,
    thread::JoinHandle,
    time::{Duration, Instant},
};

use adit_proto::{DeviceId, Reason};
use adit_tunnel::{
    Datagram, DropReason, Endpoint, Packet, PeerConfig, PeerId, ReceiveBatch, Received, Refusal,
    Sealed, SendOutcome, Tunnel, TunnelEvent, UdpSocket, Waiter, WireguardSecret, refuse,
};
use tokio::sync::{mpsc, oneshot, watch};
use tracing::{debug, error, trace};

pub(crate) use self::{
    command::{AdmitError, Command, DataPlane, DeviceOnConnector, Stopped},
    metrics::{DataPlaneMetrics, Losses},
};
use crate::{
    clock::Now,
    enforced::lone_prefixes,
    flow_table::Limits,
    forward::KernelPath,
    forwarder::{FlowRecord, Forwarder, Inner, Notice, Service},
};

/// Where the data plane's records go.
pub(crate) struct RecordSinks {
    /// All of them, to the access log.
    pub(crate) access: mpsc::Sender<FlowRecord>,
    /// Those of refused and cut flows, to the session of the device.
    pub(crate) denials: mpsc::Sender<FlowRecord>,
}

/// Everything the data plane needs, opened already.
pub(crate) struct DataPlaneParts {
    pub(crate) secret: WireguardSecret,
    pub(crate) udp: UdpSocket,
    pub(crate) path: KernelPath,
    pub(crate) sinks: RecordSinks,
}

/// Starts the data plane in a thread of its own.
///
/// The receiver says how it ended: with its interface after [`Command::Stop`], else with what broke.
pub(crate) fn start(
    parts: DataPlaneParts,
) -> io::Result<(
    DataPlane,
    watch::Receiver<DataPlaneMetrics>,
    oneshot::Receiver<io::Result<KernelPath>>,
)> {
    /// Commands wait for room, so that none is lost.
    const COMMANDS: usize = 64;

    let (waiter, waker) = Waiter::try_new()?;
    let (commands, incoming) = mpsc::channel(COMMANDS);
    let (metrics, metrics_seen) = watch::channel(DataPlaneMetrics::default());
    let (ended, end) = oneshot::channel();
    let now = Now::read();
    let carrier = Carrier {
        tunnel: Tunnel::new(parts.secret, now.monotonic),
        forwarder: Forwarder::new(Limits::default(), now),
        peers: Peers::default(),
        io: Io { udp: parts.udp, path: parts.path, losses: Losses::default() },
        sinks: parts.sinks,
        commands: incoming,
        metrics,
        metrics_due: now.monotonic,
        sealed: vec![0; Tunnel::BUFFER_LEN].into_boxed_slice(),
    };
    let _thread: JoinHandle<()> =
        std::thread::Builder::new().name("data-plane".to_owned()).spawn(move || {
            // Nobody listens any more only while the process ends.
            let _ = ended.send(carrier.run(&waiter));
        })?;
    Ok((DataPlane::new(commands, waker), metrics_seen, end))
}

struct Carrier {
    tunnel: Tunnel,
    forwarder: Forwarder,
    peers: Peers,
    io: Io,
    sinks: RecordSinks,
    commands: mpsc::Receiver<Command>,
    metrics: watch::Sender<DataPlaneMetrics>,
    metrics_due: Instant,
    sealed: Box<[u8]>,
}

struct Io {
    udp: UdpSocket,
    path: KernelPath,
    losses: Losses,
}

/// Which device is which peer.
#[derive(Default)]
struct Peers {
    by_device: HashMap<DeviceId, PeerId>,
    devices: HashMap<PeerId, DeviceId>,
}

enum Flow {
    GoOn,
    Stop,
}

/// Batches of datagrams, and packets, that are taken before the other descriptor has its turn.
const DATAGRAM_BATCHES: usize = 8;
const PACKETS: usize = 128;
const METRICS_INTERVAL: Duration = Duration::from_secs(1);

impl Carrier {
    fn run(mut self, waiter: &Waiter) -> io::Result<KernelPath> {
        use std::os::fd::AsFd as _;

        let mut batch = ReceiveBatch::new();
        let mut opened = vec![0; Tunnel::BUFFER_LEN].into_boxed_slice();
        loop {
            let now = Now::read();
            if let Flow::Stop = self.handle_commands(now) {
                self.stop(now);
                return Ok(self.io.path);
            }
            self.handle_timeouts(now);
            let deadline = self.deadline();
            let ready = waiter.wait(
                Some(self.io.path.as_fd()),
                Some(self.io.udp.as_fd()),
                Some(deadline),
                now.monotonic,
            )?;
            let now = Now::read();
            if ready.udp {
                self.receive_datagrams(&mut batch, &mut opened, now)?;
            }
            if ready.tun {
                self.read_packets(&mut opened, now)?;
            }
        }
    }

    fn deadline(&self) -> Instant {
        let due = self.metrics_due.min(self.forwarder.poll_timeout());
        self.tunnel.poll_timeout().map_or(due, |tunnel| tunnel.min(due))
    }

    fn handle_timeouts(&mut self, now: Now) {
        self.tunnel.handle_timeout(now.monotonic);
        self.forwarder.handle_timeout(now);
        self.flush(now);
        if now.monotonic >= self.metrics_due {
            self.metrics_due = now.monotonic + METRICS_INTERVAL;
            self.publish_metrics();
        }
    }

    fn handle_commands(&mut self, now: Now) -> Flow {
        loop {
            let command = match self.commands.try_recv() {
                Ok(command) => command,
                Err(mpsc::error::TryRecvError::Empty) => return Flow::GoOn,
                Err(mpsc::error::TryRecvError::Disconnected) => return Flow::Stop,
            };
            match command {
                Command::Upsert { device, done } => {
                    // A session that is gone no longer waits for the answer.
                    let _ = done.send(self.upsert(device, now));
                }
                Command::Remove { device_id, reason } => self.remove(device_id, reason, now),
                Command::Enforce(standing) => self.forwarder.handle_standing(standing, now),
                Command::OwnAddresses(addresses) => {
                    self.forwarder.handle_own_addresses(addresses, now);
                }
                Command::Stop => return Flow::Stop,
            }
            self.flush(now);
        }
    }

    fn upsert(&mut self, device: DeviceOnConnector, now: Now) -> Result<(), AdmitError> {
        let device_id = device.subject.device_id;
        if let Some(peer) = self.peers.by_device.get(&device_id).copied()
            && self.tunnel.peer_of(&device.public_key) != Some(peer)
        {
            // The device has another key than before.
            self.remove(device_id, Reason::CredentialInvalid, now);
        }
        if let Some(peer) = self.tunnel.peer_of(&device.public_key)
            && self.peers.devices.get(&peer) != Some(&device_id)
        {
            return Err(AdmitError::KeyTaken);
        }
        let peer = self.tunnel.upsert(
            PeerConfig {
                public_key: device.public_key,
                allowed_ips: lone_prefixes(&device.addresses),
                endpoint: None,
                keepalive: None,
            },
            now.monotonic,
        )?;
        self.peers.by_device.insert(device_id, peer);
        self.peers.devices.insert(peer, device_id);
        self.forwarder.upsert_device(peer, device.subject, now);
        Ok(())
    }

    fn remove(&mut self, device_id: DeviceId, reason: Reason, now: Now) {
        let Some(peer) = self.peers.by_device.remove(&device_id) else { return };
        self.peers.devices.remove(&peer);
        self.forwarder.remove_device(peer, reason, now);
        // The resets still need the peer's session.
        self.flush(now);
        self.tunnel.remove(peer);
    }

    fn receive_datagrams(
        &mut self,
        batch: &mut ReceiveBatch,
        opened: &mut [u8],
        now: Now,
    ) -> io::Result<()> {
        for _ in 0..DATAGRAM_BATCHES {
            if !self.io.udp.receive(batch)? {
                break;
            }
            for datagram in batch.datagrams() {
                self.handle_datagram(&datagram, opened, now);
            }
            self.flush(now);
        }
        Ok(())
    }

    fn handle_datagram(&mut self, datagram: &Datagram<'_>, opened: &mut [u8], now: Now) {
        let received =
            self.tunnel.handle_datagram(datagram.from, datagram.bytes, opened, now.monotonic);
        self.handle_tunnel_events(now);
        match received {
            Received::Packet { peer, packet } => self.handle_inner_bytes(peer, packet, now),
            Received::Consumed => {}
            Received::Dropped { reason: DropReason::SourceSpoofed, peer: Some(peer), packet } => {
                match Packet::try_parse(packet) {
                    Ok(packet) => self.forwarder.handle_spoofed(peer, &packet, now),
                    Err(_error) => self.forwarder.handle_malformed(),
                }
            }
            Received::Dropped { reason, .. } => {
                trace!(peer = %datagram.from, %reason, "Dropped a datagram");
            }
        }
    }

    fn handle_inner_bytes(&mut self, peer: PeerId, bytes: &[u8], now: Now) {
        let packet = match Packet::try_parse(bytes) {
            Ok(packet) => packet,
            Err(error) => {
                trace!(%peer, %error, "Dropped an inner packet");
                self.forwarder.handle_malformed();
                return;
            }
        };
        match self.forwarder.handle_inner_packet(peer, &packet, now) {
            Inner::Forward(authorization) => self.io.forward(&packet, authorization),
            Inner::Reply(reply) => self.send_to(peer, &reply, now),
            Inner::Drop => {}
        }
    }

    fn read_packets(&mut self, buffer: &mut [u8], now: Now) -> io::Result<()> {
        for _ in 0..PACKETS {
            let Some(bytes) = self.io.path.read_packet(buffer)? else { break };
            let Ok(packet) = Packet::try_parse(bytes) else {
                self.forwarder.handle_malformed();
                continue;
            };
            match self.forwarder.handle_service_packet(&packet, now) {
                Service::Send(peer) => self.send_to(peer, packet.bytes(), now),
                Service::Orphan => self.handle_orphan(&packet, now),
                Service::Drop => {}
            }
        }
        self.flush(now);
        Ok(())
    }

    fn handle_orphan(&mut self, packet: &Packet<'_>, now: Now) {
        let Some(owner) = self.tunnel.owner_of(packet.destination()) else { return };
        if let Some(probe) = self.forwarder.probe(owner, packet, now) {
            self.send_to(owner, probe.bytes(), now);
        }
    }

    fn send_to(&mut self, peer: PeerId, packet: &[u8], now: Now) {
        match self.tunnel.seal(peer, packet, &mut self.sealed, now.monotonic) {
            Sealed::Datagram { to, bytes } => self.io.send(to, bytes, Some(packet)),
            Sealed::Waiting => {}
            Sealed::Dropped(reason) => trace!(%peer, %reason, "Dropped a packet to a device"),
        }
    }

    fn handle_tunnel_events(&mut self, now: Now) {
        while let Some(event) = self.tunnel.poll_event() {
            match event {
                TunnelEvent::Established { peer } => {
                    debug!(device_id = ?self.peers.devices.get(&peer), %peer, "Handshake done");
                    let endpoint = self.tunnel.status(peer).and_then(|status| status.endpoint);
                    if let Some(endpoint) = endpoint {
                        self.forwarder.handle_source(peer, endpoint.remote().ip(), now);
                    }
                }
                TunnelEvent::Roamed { peer, endpoint } => {
                    debug!(device_id = ?self.peers.devices.get(&peer), %endpoint, "Device roamed");
                    self.forwarder.handle_source(peer, endpoint.remote().ip(), now);
                }
            }
        }
    }

    /// Sends and hands on everything that is waiting.
    fn flush(&mut self, now: Now) {
        while let Some(notice) = self.forwarder.poll_notice() {
            match notice {
                Notice::ToDevice(peer, reset) => self.send_to(peer, reset.bytes(), now),
                Notice::ToService(reset) => self.io.reset(&reset),
            }
        }
        while let Some(record) = self.forwarder.poll_record() {
            self.hand_on(record);
        }
        self.handle_tunnel_events(now);
        while let Some(transmit) = self.tunnel.poll_transmit() {
            self.io.send(transmit.to, &transmit.bytes, None);
        }
    }

    fn hand_on(&mut self, record: FlowRecord) {
        use adit_proto::Verdict;

        let concerns_device = match record.verdict {
            Verdict::Deny => true,
            Verdict::Cut => true,
            Verdict::Allow => false,
            Verdict::Closed => false,
        };
        if concerns_device && self.sinks.denials.try_send(record.clone()).is_err() {
            self.io.losses.denials += 1;
        }
        if self.sinks.access.try_send(record).is_err() {
            self.io.losses.records += 1;
        }
    }

    fn publish_metrics(&self) {
        self.metrics.send_replace(DataPlaneMetrics {
            peers: self.peers.devices.len(),
            flows: self.forwarder.flow_count(),
            forwarder: self.forwarder.counters().clone(),
            tunnel_drops: self.tunnel.drops().clone(),
            losses: self.io.losses,
        });
    }

    fn stop(&mut self, now: Now) {
        self.forwarder.drain(now);
        self.flush(now);
        self.publish_metrics();
    }
}

impl Io {
    fn forward(&mut self, packet: &Packet<'_>, authorization: &adit_policy::Authorization) {
        let written = self.path.forward(packet, authorization);
        self.note_written(written);
    }

    fn reset(&mut self, reset: &crate::forwarder::Reset) {
        let written = self.path.reset(reset);
        self.note_written(written);
    }

    /// Sends a datagram; a service whose packet does not fit is told, so that it sends less.
    fn send(&mut self, to: Endpoint, datagram: &[u8], inner: Option<&[u8]>) {
        /// The smallest MTU that IPv6 allows, so that every path takes it.
        const SAFE_MTU: u16 = 1280;

        match self.udp.send(to, datagram) {
            SendOutcome::Sent => {}
            SendOutcome::Full => self.losses.socket_full += 1,
            SendOutcome::Unreachable => self.losses.unreachable += 1,
            SendOutcome::TooBig => {
                self.losses.too_big += 1;
                let answer = inner
                    .filter(|inner| inner.len() > usize::from(SAFE_MTU))
                    .and_then(|inner| Packet::try_parse(inner).ok())
                    .and_then(|inner| refuse(&inner, Refusal::TooBig { mtu: SAFE_MTU }, None));
                if let Some(answer) = answer {
                    let written = self.path.answer(&answer);
                    self.note_written(written);
                }
            }
        }
    }

    fn note_written(&mut self, written: io::Result<bool>) {
        match written {
            Ok(true) => {}
            Ok(false) => self.losses.kernel_refused += 1,
            Err(error) => {
                self.losses.kernel_refused += 1;
                error!(%error, "Failed to hand a packet to the kernel");
            }
        }
    }
}
