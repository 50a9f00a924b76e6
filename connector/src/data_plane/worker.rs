//! The thread of one lane.

mod devices;
mod from_devices;
mod from_services;

use std::{
    collections::HashMap,
    io,
    net::IpAddr,
    time::{Duration, Instant},
};

use adit_proto::DeviceId;
use adit_tunnel::{
    Inbound, Outbound, PacketInlet, PeerId, QuicEndpoint, QuicEvent, ReceiveBatch, SendOutcome,
    TunDevice, Tunnel, TunnelEvent, UdpSocket, Waiter,
};
use tokio::sync::mpsc;
use tracing::{debug, error};

use super::{
    RecordSinks,
    carriers::{Carrier, Carriers},
    command::Command,
    device_connections::DeviceConnections,
    distributor::{FrameQueue, Owners},
    handshake_time::HandshakeTime,
    handshakes::Handshakes,
    idle::Idle,
    memory::DeviceMemory,
    metrics::{DataPlaneMetrics, Losses, Published},
    repeats::Repeats,
    silences::Silences,
};
use crate::{
    clock::Now,
    flow_table::Limits,
    forward::KernelPath,
    forwarder::{Forwarder, Notice},
    requests::ArrivedRequest,
};

/// What a lane is made of.
pub(super) struct WorkerParts {
    pub(super) number: usize,
    pub(super) tunnel: Tunnel,
    pub(super) quic: QuicEndpoint,
    pub(super) inlet: PacketInlet<DeviceId>,
    pub(super) requests: mpsc::Sender<ArrivedRequest>,
    pub(super) handshakes: Handshakes,
    pub(super) limits: Limits,
    pub(super) owners: Owners,
    pub(super) memory: DeviceMemory,
    pub(super) udp: UdpSocket,
    /// None: it reads the interface itself.
    pub(super) frames: Option<FrameQueue>,
    pub(super) path: KernelPath,
    pub(super) sinks: RecordSinks,
    pub(super) silent: mpsc::Sender<DeviceId>,
    pub(super) commands: mpsc::Receiver<Command>,
    pub(super) metrics: Published,
}

/// One lane.
pub(super) struct Worker {
    number: usize,
    tunnel: Tunnel,
    quic: QuicEndpoint,
    carriers: Carriers,
    repeats: Repeats,
    inlet: PacketInlet<DeviceId>,
    requests: mpsc::Sender<ArrivedRequest>,
    handshakes: Handshakes,
    handshake_time: HandshakeTime,
    device_connections: DeviceConnections,
    forwarder: Forwarder,
    peers: Peers,
    owners: Owners,
    inbound: Inbound,
    outbound: Outbound,
    udp: UdpSocket,
    /// None: it reads the interface itself.
    frames: Option<FrameQueue>,
    path: KernelPath,
    losses: Losses,
    sinks: RecordSinks,
    silences: Silences,
    /// Devices that are to be asked to speak.
    silent: mpsc::Sender<DeviceId>,
    commands: mpsc::Receiver<Command>,
    metrics: Published,
    metrics_due: Instant,
    idle: Idle,
}

/// Which device is which peer.
#[derive(Default)]
struct Peers {
    by_device: HashMap<DeviceId, (PeerId, Vec<IpAddr>)>,
    devices: HashMap<PeerId, DeviceId>,
}

enum Flow {
    GoOn,
    Stop,
}

/// Whether a turn has left something for the next.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Rest {
    Nothing,
    Something,
}

/// What is taken from one side before the other has its turn: about a millisecond of work.
const TUN_FRAMES: usize = 128;
const TUN_BYTES: usize = 512 * 1024;
const UDP_BATCHES: usize = 8;
const UDP_BYTES: usize = 512 * 1024;
/// Each takes some 150 µs.
const HANDSHAKES: usize = 4;
const METRICS_INTERVAL: Duration = Duration::from_secs(1);

impl Worker {
    pub(super) fn new(parts: WorkerParts, now: Now) -> Self {
        Self {
            number: parts.number,
            tunnel: parts.tunnel,
            quic: parts.quic,
            carriers: Carriers::default(),
            repeats: Repeats::default(),
            inlet: parts.inlet,
            requests: parts.requests,
            handshakes: parts.handshakes,
            handshake_time: HandshakeTime::new(now.monotonic),
            device_connections: DeviceConnections::new(parts.memory),
            forwarder: Forwarder::new(parts.limits, now),
            peers: Peers::default(),
            owners: parts.owners,
            inbound: Inbound::new(),
            outbound: Outbound::new(),
            udp: parts.udp,
            frames: parts.frames,
            path: parts.path,
            losses: Losses::default(),
            sinks: parts.sinks,
            silences: Silences::default(),
            silent: parts.silent,
            commands: parts.commands,
            metrics: parts.metrics,
            metrics_due: now.monotonic,
            idle: Idle::new(now.monotonic),
        }
    }

    pub(super) fn run(mut self, waiter: &Waiter) -> io::Result<()> {
        use std::os::fd::AsFd as _;

        let mut batch = ReceiveBatch::new();
        let mut buffer = vec![0; TunDevice::FRAME_LEN].into_boxed_slice();
        let mut frames_left = Rest::Nothing;
        loop {
            let now = Now::read();
            if let Flow::Stop = self.handle_commands(now) {
                self.stop(now);
                return Ok(());
            }
            self.handle_timeouts(now);
            let handshakes_left = self.answer_handshakes(now);
            let deadline = match (handshakes_left, frames_left) {
                (Rest::Nothing, Rest::Nothing) => self.deadline(),
                _ => now.monotonic,
            };
            let interface = self.frames.is_none().then(|| self.path.as_fd());
            let ready =
                waiter.wait(interface, Some(self.udp.as_fd()), Some(deadline), now.monotonic)?;
            let before = now;
            let now = Now::read();
            self.idle.note(now.monotonic.saturating_duration_since(before.monotonic));
            if ready.udp {
                self.receive_datagrams(&mut batch, now)?;
            }
            self.take_piped_packets(now);
            // The waiter knows of the interface only where no queue stands for it.
            if ready.tun {
                self.read_frames(&mut buffer, now)?;
            }
            frames_left = self.take_frames(now);
            let is_idle = !ready.udp && !ready.tun && frames_left == Rest::Nothing;
            self.begin_handshake(is_idle);
        }
    }

    fn deadline(&self) -> Instant {
        let due = self.metrics_due.min(self.forwarder.poll_timeout());
        let handshake = self.quic.has_newcomers().then(|| self.handshake_time.poll_timeout());
        let others = self.tunnel.poll_timeout().into_iter().chain(self.quic.poll_timeout());
        let others = others.chain(handshake);
        others.fold(due, Instant::min)
    }

    fn handle_timeouts(&mut self, now: Now) {
        self.tunnel.handle_timeout(now.monotonic);
        self.quic.handle_timeout(now.monotonic);
        self.forwarder.handle_timeout(now);
        self.flush(now);
        if now.monotonic >= self.metrics_due {
            self.metrics_due = now.monotonic + METRICS_INTERVAL;
            self.carriers.sweep();
            self.repeats.sweep(now.monotonic);
            self.silences.sweep(now.monotonic);
            let Self { device_connections, quic, .. } = self;
            device_connections.sweep(|id| quic.use_of(id));
            self.publish_metrics(now);
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
                    let _ = done.send(self.upsert(*device, now));
                }
                Command::Remove { device_id, reason, done } => {
                    self.remove(device_id, reason, now);
                    let _ = done.send(());
                }
                Command::Attach { device_id, stream, done } => {
                    let _ = done.send(self.attach(device_id, stream, now));
                }
                Command::AttachPipe { device_id, remote, outlet, done } => {
                    let peer = self.peers.by_device.get(&device_id).map(|(peer, _)| *peer);
                    if let Some(peer) = peer {
                        self.quic.detach(peer);
                        self.carriers.attach_pipe(peer, outlet);
                        self.forwarder.handle_source(peer, remote, now);
                        self.send_again(peer, now);
                    }
                    let _ = done.send(peer.is_some());
                }
                Command::CountConnections { device_id, count } => {
                    let peer = self.peers.by_device.get(&device_id);
                    let open =
                        peer.map_or(0, |(peer, _)| self.forwarder.connections_of(*peer, now));
                    // Who asked may be gone.
                    let _ = count.send(open);
                }
                Command::NoteConnection { connection, device_id, kind } => {
                    self.note_connection(connection, device_id, kind, now);
                }
                Command::Enforce { standing, replaced } => {
                    // Who asked is gone only while the process ends.
                    let _ = replaced.send(self.forwarder.handle_standing(standing, now));
                }
                Command::OwnAddresses(addresses) => {
                    self.forwarder.handle_own_addresses(addresses, now);
                }
                Command::Stop => return Flow::Stop,
            }
            self.flush(now);
        }
    }

    fn handle_quic_events(&mut self, now: Now) {
        while let Some(event) = self.quic.poll_event() {
            match event {
                QuicEvent::Request(request) => {
                    let request = ArrivedRequest::on_lane(self.number, *request);
                    // One that there is no room for is turned away.
                    if self.requests.try_send(request).is_err() {
                        debug!("More requests than can be looked at");
                    }
                }
                QuicEvent::Roamed { peer, remote } => {
                    debug!(device_id = ?self.peers.devices.get(&peer), %remote, "Device roamed");
                    self.forwarder.handle_source(peer, remote.ip(), now);
                    self.send_again(peer, now);
                }
                QuicEvent::Detached { peer } => self.carriers.forget(peer, Carrier::Quic),
            }
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
                    self.send_again(peer, now);
                }
            }
        }
    }

    /// Sends and hands on everything that is waiting.
    fn flush(&mut self, now: Now) {
        while let Some(notice) = self.forwarder.poll_notice() {
            match notice {
                Notice::ToDevice(peer, reset) => self.send_to(peer, reset.bytes(), now),
                Notice::ToService(reset) => {
                    let written = self.path.reset(&reset);
                    note_written(written, &mut self.losses);
                }
            }
        }
        while let Some(record) = self.forwarder.poll_record() {
            self.sinks.hand_on(record, &mut self.losses);
        }
        self.handle_tunnel_events(now);
        self.quic.flush(&mut self.udp, now.monotonic);
        self.handle_quic_events(now);
        self.outbound.flush(&mut self.tunnel, &mut self.udp, now.monotonic);
        while let Some(transmit) = self.tunnel.poll_transmit() {
            match self.udp.send(transmit.to, &transmit.bytes) {
                SendOutcome::Sent => {}
                SendOutcome::Full | SendOutcome::TooBig | SendOutcome::Unreachable => {
                    self.losses.control += 1;
                }
            }
        }
    }

    fn publish_metrics(&mut self, now: Now) {
        let lane_full = self.frames.as_ref().map_or(0, FrameQueue::lost);
        self.metrics.publish(
            self.number,
            DataPlaneMetrics {
                peers: self.peers.devices.len(),
                flows: self.forwarder.flow_count(),
                forwarder: self.forwarder.counters().clone(),
                tunnel_drops: self.tunnel.drops(),
                losses: Losses { lane_full, ..self.losses },
                send_losses: self.outbound.losses(),
                quic: self.quic.counters(),
                load: self.idle.take_load(now.monotonic),
            },
        );
    }

    fn stop(&mut self, now: Now) {
        self.forwarder.drain(now);
        self.flush(now);
        self.publish_metrics(now);
    }
}

fn note_written(written: io::Result<bool>, losses: &mut Losses) {
    match written {
        Ok(true) => {}
        Ok(false) => losses.kernel_refused += 1,
        Err(error) => {
            losses.kernel_refused += 1;
            error!(%error, "Failed to hand a packet to the kernel");
        }
    }
}
