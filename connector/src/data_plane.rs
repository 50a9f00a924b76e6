//! The threads that carry packets, each those of its own devices.

mod carriers;
mod command;
mod device_connections;
mod distributor;
mod handshake_time;
mod handshakes;
mod idle;
mod metrics;
mod repeats;

use std::{
    collections::HashMap,
    io,
    net::IpAddr,
    thread::JoinHandle,
    time::{Duration, Instant},
};

use adit_proto::{DeviceId, Reason, Verdict};
use adit_tunnel::{
    Datagram, DropReason, Frame, Inbound, KeyPair, Opened, Outbound, Packet, PacketInlet,
    PeerConfig, PeerId, QuicEndpoint, QuicEvent, QuicStreamId, ReceiveBatch, Received, Refusal,
    RetrySource, Run, SendOutcome, TunDevice, Tunnel, TunnelEvent, UdpSocket, Waiter, Waker,
    WireguardSecret, is_quic, refuse,
};
use anyhow::Context as _;
use tokio::sync::{mpsc, watch};
use tracing::{debug, error, trace};

use self::{
    carriers::{Carrier, Carriers},
    command::{Command, LaneHandle},
    device_connections::DeviceConnections,
    distributor::{Distributor, FrameQueue, Owners},
    handshake_time::HandshakeTime,
    handshakes::Handshakes,
    idle::Idle,
    metrics::Published,
    repeats::Repeats,
};
pub(crate) use self::{
    command::{AdmitError, DataPlane, DeviceOnConnector, Stopped},
    metrics::{DataPlaneMetrics, Losses},
};
use crate::{
    clock::Now,
    enforced::lone_prefixes,
    flow_table::{Limits, Volume},
    forward::KernelPath,
    forwarder::{FlowRecord, Forwarder, Inner, Notice, Service},
    requests::ArrivedRequest,
};

/// Where the data plane's records go.
#[derive(Clone)]
pub(crate) struct RecordSinks {
    /// All of them, to the access log.
    pub(crate) access: mpsc::Sender<FlowRecord>,
    /// Those of refused and cut flows, to the session of the device.
    pub(crate) denials: mpsc::Sender<FlowRecord>,
}

impl RecordSinks {
    /// Hands a record on; what the queues do not take is counted.
    pub(crate) fn hand_on(&self, record: FlowRecord, losses: &mut Losses) {
        let concerns_device = match record.verdict {
            Verdict::Deny => true,
            Verdict::Cut => true,
            Verdict::Allow => false,
            Verdict::Closed => false,
        };
        if concerns_device && self.denials.try_send(record.clone()).is_err() {
            losses.denials += 1;
        }
        if self.access.try_send(record).is_err() {
            losses.records += 1;
        }
    }
}

/// Everything the data plane needs, opened already.
pub(crate) struct DataPlaneParts {
    pub(crate) secret: WireguardSecret,
    /// Who the connector is in TLS.
    pub(crate) identity: KeyPair,
    /// Where requests go.
    pub(crate) requests: mpsc::Sender<ArrivedRequest>,
    /// One for each lane.
    pub(crate) udp: Vec<UdpSocket>,
    pub(crate) path: KernelPath,
    pub(crate) sinks: RecordSinks,
}

/// Starts the data plane in threads of its own: a lane for each socket, and one more that reads the
/// interface for them if they are several.
///
/// The last receiver says how each of them has ended: well after [`DataPlane::stop`], else with what
/// broke.
pub(crate) fn start(
    parts: DataPlaneParts,
) -> anyhow::Result<(DataPlane, watch::Receiver<DataPlaneMetrics>, mpsc::Receiver<io::Result<()>>)>
{
    /// Commands wait for room, so that none is lost.
    const COMMANDS: usize = 64;

    let DataPlaneParts { secret, identity, requests, udp, path, sinks } = parts;
    let now = Now::read();
    let lanes = u8::try_from(udp.len()).context("too many lanes")?;
    let (tunnels, filter) = Tunnel::lanes(&secret, path.mtu(), lanes, now.monotonic);
    let waiters = udp.iter().map(|_lane| Waiter::try_new()).collect::<io::Result<Vec<_>>>()?;
    let (waiters, wakers): (Vec<Waiter>, Vec<Waker>) = waiters.into_iter().unzip();
    let cookies = udp.first().context("no lanes")?.try_clone()?;
    let handshakes = handshakes::start(filter, RetrySource::new(&identity), cookies, &wakers)?;
    let owners = Owners::default();
    let (published, metrics) = Published::new(udp.len());
    let (ended, end) = mpsc::channel(udp.len() + 1);

    let (mut frames, mut stop_distributor) = (Vec::new(), None);
    if lanes > 1 {
        let (distributor, queues, waker) =
            Distributor::try_new(path.clone(), owners.clone(), &wakers)?;
        frames = queues;
        stop_distributor = Some(waker);
        spawn("distributor".to_owned(), ended.clone(), || distributor.run())?;
    }
    let mut frames = frames.into_iter();
    let mut handles = Vec::new();
    for ((number, (udp, tunnel)), ((waiter, waker), handshakes)) in udp
        .into_iter()
        .zip(tunnels)
        .enumerate()
        .zip(waiters.into_iter().zip(wakers).zip(handshakes))
    {
        let (commands, incoming) = mpsc::channel(COMMANDS);
        let inlet = PacketInlet::new(waker.clone());
        let lane = u8::try_from(number).context("too many lanes")?;
        let link_mtu = path.mtu().saturating_add(DATA_OVERHEAD_AND_HEADERS);
        let quic = QuicEndpoint::server(identity.clone(), link_mtu, lane, lanes, waker.clone());
        handles.push(LaneHandle { commands, waker, inlet: inlet.clone() });
        let worker = Worker {
            number,
            tunnel,
            quic,
            carriers: Carriers::default(),
            repeats: Repeats::default(),
            inlet,
            requests: requests.clone(),
            handshakes,
            handshake_time: HandshakeTime::new(now.monotonic),
            device_connections: DeviceConnections::default(),
            forwarder: Forwarder::new(Limits::default().share_of(lanes), now),
            peers: Peers::default(),
            owners: owners.clone(),
            inbound: Inbound::new(),
            outbound: Outbound::new(),
            udp,
            frames: frames.next(),
            path: path.clone(),
            losses: Losses::default(),
            sinks: sinks.clone(),
            commands: incoming,
            metrics: published.clone(),
            metrics_due: now.monotonic,
            idle: Idle::new(now.monotonic),
        };
        spawn(format!("lane-{number}"), ended.clone(), move || worker.run(&waiter))?;
    }
    Ok((DataPlane::new(handles, stop_distributor), metrics, end))
}

fn spawn(
    name: String,
    ended: mpsc::Sender<io::Result<()>>,
    run: impl FnOnce() -> io::Result<()> + Send + 'static,
) -> io::Result<()> {
    let _thread: JoinHandle<()> = std::thread::Builder::new().name(name).spawn(move || {
        // There is room for all, and nobody listens any more only while the process ends.
        let _ = ended.try_send(run());
    })?;
    Ok(())
}

/// One lane.
struct Worker {
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
/// What the interface's MTU leaves for WireGuard, UDP and IPv6.
const DATA_OVERHEAD_AND_HEADERS: u16 = 80;

impl Worker {
    fn run(mut self, waiter: &Waiter) -> io::Result<()> {
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
                    let _ = done.send(self.upsert(device, now));
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
                    let open = peer.map_or(0, |(peer, _)| self.forwarder.connections_of(*peer));
                    // Who asked may be gone.
                    let _ = count.send(open);
                }
                Command::NoteConnection { connection, device_id } => {
                    let Self { device_connections, quic, .. } = self;
                    let use_of = |id| quic.use_of(id);
                    let evicted = device_connections.insert(device_id, connection, use_of);
                    if let Some(evicted) = evicted {
                        debug!(%device_id, "Closing a connection, the device has many");
                        self.quic.close(evicted, now.monotonic);
                    }
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

    fn upsert(&mut self, device: DeviceOnConnector, now: Now) -> Result<(), AdmitError> {
        let device_id = device.subject.device_id;
        if let Some((peer, _addresses)) = self.peers.by_device.get(&device_id)
            && self.tunnel.peer_of(&device.public_key) != Some(*peer)
        {
            // The device has another key than before.
            self.remove(device_id, Reason::CredentialInvalid, now);
        }
        if let Some(peer) = self.tunnel.peer_of(&device.public_key)
            && self.peers.devices.get(&peer) != Some(&device_id)
        {
            return Err(AdmitError::KeyTaken);
        }
        if self.owners.has_other(&device.addresses, self.number) {
            return Err(AdmitError::AddressTaken);
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
        if let Some(preshared_key) = &device.preshared_key {
            self.tunnel.set_preshared_key(peer, preshared_key);
        }
        self.owners.insert(&device.addresses, self.number);
        self.peers.devices.insert(peer, device_id);
        let before = self.peers.by_device.insert(device_id, (peer, device.addresses.clone()));
        if let Some((_peer, mut addresses)) = before {
            addresses.retain(|address| !device.addresses.contains(address));
            self.owners.remove(&addresses, self.number);
        }
        self.forwarder.upsert_device(peer, device.subject, now);
        Ok(())
    }

    fn remove(&mut self, device_id: DeviceId, reason: Reason, now: Now) {
        self.device_connections.remove(device_id);
        let Some((peer, addresses)) = self.peers.by_device.remove(&device_id) else { return };
        self.peers.devices.remove(&peer);
        self.owners.remove(&addresses, self.number);
        self.forwarder.remove_device(peer, reason, now);
        // The resets still need the peer's session.
        self.flush(now);
        self.tunnel.remove(peer);
        self.quic.leave(peer, now.monotonic);
    }

    /// Lets a request carry the packets of a device that is admitted.
    fn attach(&mut self, device_id: DeviceId, stream: QuicStreamId, now: Now) -> bool {
        let Some((peer, _addresses)) = self.peers.by_device.get(&device_id) else { return false };
        let peer = *peer;
        let is_attached = self.quic.attach(stream, peer, now.monotonic);
        if is_attached {
            self.carriers.set(peer, Carrier::Quic);
            if let Some(source) = self.quic.remote_of(peer) {
                self.forwarder.handle_source(peer, source.ip(), now);
            }
            self.send_again(peer, now);
        }
        is_attached
    }

    fn receive_datagrams(&mut self, batch: &mut ReceiveBatch, now: Now) -> io::Result<()> {
        let mut bytes = 0;
        for _ in 0..UDP_BATCHES {
            if bytes >= UDP_BYTES || !self.udp.receive(batch)? {
                break;
            }
            let mut unproven = Vec::new();
            for datagram in batch.datagrams() {
                bytes += datagram.bytes.len();
                if is_quic(datagram.bytes) {
                    unproven.extend(self.quic.handle_datagram(&datagram, now.monotonic));
                } else {
                    self.handle_datagram(&datagram, now);
                }
            }
            self.losses.retries += self.handshakes.ask_proofs(unproven);
            self.finish_run(Carrier::Wireguard, now);
            self.take_quic_packets(now);
            self.flush(now);
        }
        Ok(())
    }

    fn handle_datagram(&mut self, datagram: &Datagram<'_>, now: Now) {
        match self.inbound.open(&mut self.tunnel, datagram, now.monotonic) {
            Opened::Kept => {}
            Opened::Initiation => self.handshakes.filter(datagram, &mut self.tunnel),
            Opened::Dropped { reason: DropReason::SourceSpoofed, peer: Some(peer), packet } => {
                match Packet::try_parse(packet) {
                    Ok(packet) => self.forwarder.handle_spoofed(peer, &packet, now),
                    Err(_error) => self.forwarder.handle_malformed(),
                }
            }
            Opened::Dropped { reason, .. } => {
                trace!(peer = %datagram.from, %reason, "Dropped a datagram");
            }
        }
        self.handle_tunnel_events(now);
        self.carry_runs(Carrier::Wireguard, now);
    }

    /// Takes the packets that devices have sent by QUIC.
    fn take_quic_packets(&mut self, now: Now) {
        while let Some((peer, len)) = self.quic.poll_packet(self.inbound.slot(), now.monotonic) {
            self.take_packet(peer, len, Carrier::Quic, now);
        }
        self.finish_run(Carrier::Quic, now);
    }

    /// Takes the packets that tasks have received for devices.
    fn take_piped_packets(&mut self, now: Now) {
        let mut count = 0;
        while let Some((device_id, packet)) = self.inlet.pop() {
            let Some((peer, _addresses)) = self.peers.by_device.get(&device_id) else { continue };
            let peer = *peer;
            let slot = self.inbound.slot();
            if let Some(slot) = slot.get_mut(..packet.len()) {
                slot.copy_from_slice(&packet);
                self.take_packet(peer, packet.len(), Carrier::Pipe, now);
            }
            count += 1;
        }
        if count > 0 {
            self.finish_run(Carrier::Pipe, now);
            self.flush(now);
        }
    }

    /// Takes a packet that lies in the slot.
    fn take_packet(&mut self, peer: PeerId, len: usize, carrier: Carrier, now: Now) {
        let packet = self.inbound.slot().get(..len).unwrap_or_default();
        if Packet::source_of(packet).is_some_and(|source| self.tunnel.may_send_from(peer, source)) {
            self.inbound.take(peer, len);
            self.carry_runs(carrier, now);
            return;
        }
        match Packet::try_parse(packet) {
            Ok(packet) => self.forwarder.handle_spoofed(peer, &packet, now),
            Err(_error) => self.forwarder.handle_malformed(),
        }
    }

    fn carry_runs(&mut self, carrier: Carrier, now: Now) {
        while let Some((peer, run)) = self.inbound.poll_run() {
            let Self { forwarder, path, losses, carriers, .. } = self;
            let has_moved = carriers.note(peer, carrier);
            if let Some(reply) = carry(forwarder, path, losses, peer, run, now) {
                self.send_to(peer, &reply, now);
            }
            if has_moved {
                self.send_again(peer, now);
            }
        }
    }

    fn finish_run(&mut self, carrier: Carrier, now: Now) {
        if let Some((peer, run)) = self.inbound.finish() {
            let Self { forwarder, path, losses, carriers, .. } = self;
            let has_moved = carriers.note(peer, carrier);
            if let Some(reply) = carry(forwarder, path, losses, peer, run, now) {
                self.send_to(peer, &reply, now);
            }
            if has_moved {
                self.send_again(peer, now);
            }
        }
    }

    fn answer_handshakes(&mut self, now: Now) -> Rest {
        let mut left = HANDSHAKES;
        while left > 0
            && let Some(initiation) = self.handshakes.poll_passed()
        {
            left -= 1;
            let received = self.tunnel.handle_initiation(&initiation, now.monotonic);
            if let Received::Dropped { reason, .. } = received {
                trace!(?initiation, %reason, "Dropped a handshake");
            }
        }
        if left < HANDSHAKES {
            self.flush(now);
        }
        if left == 0 { Rest::Something } else { Rest::Nothing }
    }

    /// Begins a handshake of QUIC if one waits: packets come first, but not at all times.
    fn begin_handshake(&mut self, is_idle: bool) {
        if !self.quic.has_newcomers() {
            return;
        }
        let now = Now::read();
        if self.handshake_time.is_left(is_idle, now.monotonic) {
            self.quic.begin_handshake(now.monotonic);
            self.flush(now);
            self.handshake_time.spend(is_idle, now.monotonic.elapsed(), now.monotonic);
        }
    }

    fn read_frames(&mut self, buffer: &mut [u8], now: Now) -> io::Result<()> {
        let mut bytes = 0;
        for _ in 0..TUN_FRAMES {
            if bytes >= TUN_BYTES {
                break;
            }
            let Some(frame) = self.path.read_frame(buffer)? else { break };
            bytes += frame.len();
            self.handle_frame(frame, now);
        }
        self.flush(now);
        Ok(())
    }

    /// Does for the queue what [`Self::read_frames`] does for the interface.
    fn take_frames(&mut self, now: Now) -> Rest {
        let (mut bytes, mut count) = (0, 0);
        while let Some(mut frame) = self.frames.as_ref().and_then(FrameQueue::pop) {
            bytes += frame.len();
            count += 1;
            self.handle_frame(&mut frame, now);
            if count >= TUN_FRAMES || bytes >= TUN_BYTES {
                self.flush(now);
                return Rest::Something;
            }
        }
        if count > 0 {
            self.flush(now);
        }
        Rest::Nothing
    }

    fn handle_frame(&mut self, frame: &mut [u8], now: Now) {
        match Frame::try_parse(frame) {
            Ok(frame) => self.handle_service_packets(frame, now),
            Err(error) => {
                trace!(%error, "Dropped a frame");
                self.forwarder.handle_malformed();
            }
        }
    }

    /// Takes a service's packets.
    fn handle_service_packets(&mut self, frame: Frame<'_>, now: Now) {
        let Ok(packet) = Packet::try_parse(frame.packet()) else {
            self.forwarder.handle_malformed();
            return;
        };
        let volume = Volume { packets: frame.packet_count().into(), bytes: frame.wire_bytes() };
        let decided = self.forwarder.handle_service_packet(&packet, volume, now);
        if let Service::SendAgain(peer) = decided
            && frame.packet_count() == 1
        {
            self.repeats.note(peer, &packet, now.monotonic);
        }
        match decided {
            Service::Send(peer) | Service::SendAgain(peer) => {
                let carrier = self.carriers.of(peer);
                let refused_mtu = match carrier {
                    Carrier::Wireguard => {
                        let max_packet_len = self.tunnel.max_packet_len(peer);
                        let is_refused = !frame.fits(max_packet_len);
                        is_refused.then(|| u16::try_from(max_packet_len).unwrap_or(u16::MAX))
                    }
                    Carrier::Quic => self.quic.refused_mtu(peer, &frame, now.monotonic),
                    // It takes whatever the interface does.
                    Carrier::Pipe => None,
                };
                if let Some(mtu) = refused_mtu {
                    self.refuse_too_big(&packet, mtu);
                    return;
                }
                let Self { outbound, tunnel, udp, quic, carriers, .. } = self;
                match carrier {
                    Carrier::Wireguard => {
                        outbound.seal_frame(tunnel, udp, peer, frame, now.monotonic);
                    }
                    Carrier::Quic => quic.send_frame(peer, frame, now.monotonic),
                    Carrier::Pipe => carriers.pipe_frame(peer, frame),
                }
            }
            Service::Orphan => self.handle_orphan(&packet, now),
            Service::Drop => {}
        }
    }

    /// Tells a service that its packet does not fit, so that it sends less.
    fn refuse_too_big(&mut self, packet: &Packet<'_>, mtu: u16) {
        if let Some(answer) = refuse(packet, Refusal::TooBig { mtu }, None) {
            let written = self.path.answer(&answer);
            note_written(written, &mut self.losses);
        }
    }

    fn handle_orphan(&mut self, packet: &Packet<'_>, now: Now) {
        let Some(owner) = self.tunnel.owner_of(packet.destination()) else { return };
        if let Some(probe) = self.forwarder.probe(owner, packet, now) {
            self.send_to(owner, probe.bytes(), now);
        }
    }

    fn send_to(&mut self, peer: PeerId, packet: &[u8], now: Now) {
        let Self { outbound, tunnel, udp, quic, carriers, .. } = self;
        match carriers.of(peer) {
            Carrier::Wireguard => outbound.seal_packet(tunnel, udp, peer, packet, now.monotonic),
            Carrier::Quic => quic.send_packet(peer, packet),
            Carrier::Pipe => carriers.pipe_packet(peer, packet),
        }
    }

    /// Sends a device that has come back, or found another way, what its services wait for it to
    /// acknowledge.
    fn send_again(&mut self, peer: PeerId, now: Now) {
        for packet in self.repeats.take(peer, now.monotonic) {
            self.send_to(peer, &packet, now);
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

/// Decides about a run from a device and hands it to the kernel; returns what the device is told.
fn carry(
    forwarder: &mut Forwarder,
    path: &mut KernelPath,
    losses: &mut Losses,
    peer: PeerId,
    mut run: Run<'_>,
    now: Now,
) -> Option<Vec<u8>> {
    let packet = match Packet::try_parse(run.packet()) {
        Ok(packet) => packet,
        Err(error) => {
            trace!(%peer, %error, "Dropped an inner packet");
            forwarder.handle_malformed();
            return None;
        }
    };
    let volume = Volume { packets: run.packet_count().into(), bytes: run.wire_bytes() };
    match forwarder.handle_inner_packet(peer, &packet, volume, now) {
        Inner::Forward(authorization) => {
            let written = path.forward(&mut run, authorization);
            note_written(written, losses);
            None
        }
        Inner::Reply(reply) => Some(reply),
        Inner::Drop => None,
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
