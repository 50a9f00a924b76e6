//! The data plane's thread.

use std::{
    collections::{HashMap, VecDeque},
    io,
    net::{IpAddr, SocketAddr},
    os::fd::AsFd as _,
    sync::mpsc as std_mpsc,
    time::{Duration, Instant},
};

use adit_proto::{Protocol, WireguardPublicKey};
use adit_tunnel::{
    Datagram, Endpoint, Frame, Inbound, Opened, Outbound, Packet, PacketInlet, PacketOutlet,
    PeerConfig, PeerId, PeerStatus, QuicEndpoint, ReceiveBatch, Refusal, Run, SendOutcome,
    TunDevice, Tunnel, TunnelEvent, UdpSocket, UpsertError, Waiter, WireguardSecret, is_quic,
    refuse,
};
use anyhow::Context as _;
use tokio::sync::mpsc;

use super::{
    Command, DataPlaneEvent,
    kept_flows::KeptFlows,
    last_segments::LastSegments,
    silence::{Finding, SUSPICION, SUSPICION_WITH_STANDBY, Silence, Traffic},
};
use crate::{
    carrier::Carrier,
    daemon::{
        event::Event,
        sites::{OpenFlows, UpsertedPeer},
    },
};

/// boringtun's clock moves only when it is asked to, at least this often (its `update_timers`).
const TICK: Duration = Duration::from_millis(250);

/// NAT mappings of UDP live at least 30 s on most devices; WireGuard's own documentation
/// recommends 25.
const KEEPALIVE: Duration = Duration::from_secs(25);

/// How often carriers are looked at, and while an answer is waited for.
const LOOK_INTERVAL: Duration = Duration::from_millis(250);
const ANSWER_INTERVAL: Duration = Duration::from_millis(50);

/// What is taken from one side before the other has its turn: about a millisecond of work.
const TUN_FRAMES: usize = 128;
const TUN_BYTES: usize = 512 * 1024;
const UDP_BATCHES: usize = 8;
const UDP_BYTES: usize = 512 * 1024;

/// Both ends of the thread's other side.
pub(super) struct Channels {
    pub(super) commands: std_mpsc::Receiver<Command>,
    pub(super) events: mpsc::Sender<Event>,
    /// What tasks have received.
    pub(super) packets: PacketInlet<WireguardPublicKey>,
}

/// The thread's own state.
pub(super) struct Worker {
    tun: TunDevice,
    udp: UdpSocket,
    tunnel: Tunnel,
    quic: QuicEndpoint,
    /// Of peers that another carrier than WireGuard carries.
    carriers: HashMap<PeerId, Carrier>,
    pipes: HashMap<PeerId, PacketOutlet>,
    packets: PacketInlet<WireguardPublicKey>,
    inbound: Inbound,
    outbound: Outbound,
    addresses: Vec<IpAddr>,
    commands: std_mpsc::Receiver<Command>,
    events: mpsc::Sender<Event>,
    /// Events for which the loop had no room yet; bounded by handshakes, which are rare.
    unsent: VecDeque<DataPlaneEvent>,
    drops: Drops,
    endpoints: Vec<(WireguardPublicKey, SocketAddr)>,
    /// By the peer that the new ones go to.
    kept_flows: HashMap<PeerId, KeptFlows>,
    last_segments: LastSegments,
    /// Whether there are several peers, so that one may take over from another.
    has_several: bool,
    silences: HashMap<(PeerId, Carrier), Silence>,
    next_look: Instant,
}

/// Packets that went nowhere, by reason.
#[derive(Debug, Default)]
struct Drops {
    /// Toward a prefix without a connector.
    no_peer: u64,
    /// From the interface, but no IP packet that can be carried.
    malformed: u64,
    /// To a peer whose carrier has just gone.
    no_carrier: u64,
    /// From a connector, with a source that is not behind it.
    spoofed: u64,
    /// From a connector to an address that is not ours.
    not_ours: u64,
    /// Longer than the path to the connector takes.
    too_big: u64,
    /// Control datagrams that the network did not take.
    control: u64,
    /// Our own datagrams, routed back into the tunnel.
    looped: u64,
    /// The interface's queue was full.
    tun_full: u64,
}

impl Worker {
    pub(super) fn new(
        tun: TunDevice,
        udp: UdpSocket,
        secret: WireguardSecret,
        quic: QuicEndpoint,
        addresses: Vec<IpAddr>,
        channels: Channels,
    ) -> Self {
        let now = Instant::now();
        Self {
            tunnel: Tunnel::new(secret, tun.mtu(), now),
            quic,
            carriers: HashMap::new(),
            pipes: HashMap::new(),
            packets: channels.packets,
            tun,
            udp,
            inbound: Inbound::new(),
            outbound: Outbound::new(),
            addresses,
            commands: channels.commands,
            events: channels.events,
            unsent: VecDeque::new(),
            drops: Drops::default(),
            endpoints: Vec::new(),
            kept_flows: HashMap::new(),
            last_segments: LastSegments::default(),
            has_several: false,
            silences: HashMap::new(),
            next_look: now,
        }
    }

    pub(super) fn run(mut self, waiter: &Waiter) {
        let outcome = self.turn_until_stopped(waiter);
        tracing::debug!(drops = ?self.drops, losses = ?self.outbound.losses(), "Data plane ends");
        if let Err(error) = outcome {
            tracing::error!(error = format!("{error:#}"), "Data plane failed");
            self.unsent.push_back(DataPlaneEvent::Failed(format!("{error:#}")));
            self.tell_until_stopped();
        }
    }

    fn turn_until_stopped(&mut self, waiter: &Waiter) -> anyhow::Result<()> {
        let mut frame = vec![0; TunDevice::FRAME_LEN];
        let mut batch = ReceiveBatch::new();
        loop {
            let now = Instant::now();
            let tick = now + TICK;
            let timeouts = self.tunnel.poll_timeout().into_iter().chain(self.quic.poll_timeout());
            let deadline = timeouts.chain([self.next_look]).fold(tick, Instant::min);
            let (tun, udp) = (self.tun.as_fd(), self.udp.as_fd());
            let ready = waiter
                .wait(Some(tun), Some(udp), Some(deadline), now)
                .context("failed to wait for packets")?;
            let now = Instant::now();
            if ready.woken && !self.handle_commands(now)? {
                return Ok(());
            }
            self.take_piped_packets()?;
            if ready.udp {
                self.handle_udp(&mut batch, now)?;
            }
            if ready.tun {
                self.handle_tun(&mut frame, now)?;
            }
            self.tunnel.handle_timeout(now);
            self.quic.handle_timeout(now);
            if now >= self.next_look {
                self.look_for_silence(now);
            }
            self.flush(now);
        }
    }

    /// The loop may be waiting for this thread to end rather than reading, so a full queue must not
    /// hold it for ever.
    fn tell_until_stopped(&mut self) {
        const RETRY_AFTER: Duration = Duration::from_millis(20);

        loop {
            self.tell();
            if self.unsent.is_empty() {
                return;
            }
            match self.commands.recv_timeout(RETRY_AFTER) {
                Ok(Command::Stop) | Err(std_mpsc::RecvTimeoutError::Disconnected) => return,
                Ok(_) | Err(std_mpsc::RecvTimeoutError::Timeout) => {}
            }
        }
    }

    /// Finds out which carriers carry nothing any more.
    fn look_for_silence(&mut self, now: Instant) {
        let peers: Vec<PeerId> = self.tunnel.peers().collect();
        self.silences.retain(|(peer, _carrier), _silence| peers.contains(peer));
        for peer in &peers {
            self.silences.entry((*peer, self.carrier_of(*peer))).or_default();
        }
        let suspicion = if self.has_several { SUSPICION_WITH_STANDBY } else { SUSPICION };
        let looked_at: Vec<(PeerId, Carrier)> = self.silences.keys().copied().collect();
        for (peer, carrier) in looked_at {
            let Some(status) = self.tunnel.status(peer) else { continue };
            let is_waiting = self.silences.get(&(peer, carrier)).is_some_and(Silence::is_waiting);
            if carrier != self.carrier_of(peer) && !is_waiting {
                self.silences.remove(&(peer, carrier));
                continue;
            }
            let Some(traffic) = self.traffic_of(peer, carrier) else { continue };
            let public_key = status.public_key;
            let silence = self.silences.entry((peer, carrier)).or_default();
            let event = match silence.look(traffic, suspicion, now) {
                Finding::Well => continue,
                Finding::Probe => {
                    self.ask(peer, carrier, now);
                    DataPlaneEvent::Suspected { public_key }
                }
                Finding::Answered => DataPlaneEvent::Alive { public_key, carrier },
                Finding::Silent => DataPlaneEvent::Silent { public_key, carrier },
            };
            self.unsent.push_back(event);
        }
        let is_waiting = self.silences.values().any(Silence::is_waiting);
        self.next_look = now + if is_waiting { ANSWER_INTERVAL } else { LOOK_INTERVAL };
    }

    /// What carries packets to a peer.
    fn carrier_of(&self, peer: PeerId) -> Carrier {
        self.carriers.get(&peer).copied().unwrap_or(Carrier::Wireguard)
    }

    /// What is counted of a carrier, if it is there and does not find out itself.
    fn traffic_of(&mut self, peer: PeerId, carrier: Carrier) -> Option<Traffic> {
        match carrier {
            Carrier::Wireguard => {
                let status = self.tunnel.status(peer)?;
                let last_handshake = status.last_handshake?;
                Some(Traffic {
                    sent: status.sent_bytes,
                    heard: status.received_bytes,
                    last_sign: Some(last_handshake),
                })
            }
            Carrier::Quic => {
                let (sent, heard) = self.quic.datagrams_of(peer)?;
                Some(Traffic { sent, heard, last_sign: None })
            }
            // TCP and the pings of HTTP/2 find out.
            Carrier::Http2 => None,
        }
    }

    /// Makes a peer answer by a carrier.
    fn ask(&mut self, peer: PeerId, carrier: Carrier, now: Instant) {
        match carrier {
            Carrier::Wireguard => self.tunnel.initiate_handshake(peer, now),
            Carrier::Quic => self.quic.probe(peer),
            Carrier::Http2 => {}
        }
    }

    /// Returns false when the thread is to end.
    fn handle_commands(&mut self, now: Instant) -> anyhow::Result<bool> {
        loop {
            let command = match self.commands.try_recv() {
                Ok(command) => command,
                Err(std_mpsc::TryRecvError::Empty) => return Ok(true),
                Err(std_mpsc::TryRecvError::Disconnected) => return Ok(false),
            };
            match command {
                Command::Upsert(peer) => self.upsert(peer, now),
                Command::Initiate { public_key } => {
                    if let Some(peer) = self.tunnel.peer_of(&public_key) {
                        self.tunnel.initiate_handshake(peer, now);
                    }
                }
                Command::Announce => {
                    let peers: Vec<PeerId> = self.tunnel.peers().collect();
                    for peer in peers {
                        if self.tunnel.status(peer).is_some_and(|it| it.last_handshake.is_some()) {
                            self.tunnel.send_keepalive(peer, now);
                        }
                    }
                    self.quic.handle_address_changed();
                    let peers: Vec<PeerId> = self.tunnel.peers().collect();
                    for peer in peers {
                        if let Some(traffic) = self.traffic_of(peer, Carrier::Quic) {
                            let silence = self.silences.entry((peer, Carrier::Quic)).or_default();
                            silence.handle_asked(traffic, now);
                            self.next_look = now + ANSWER_INTERVAL;
                        }
                    }
                }
                Command::Speak { public_key } => {
                    if let Some(peer) = self.tunnel.peer_of(&public_key) {
                        match self.carrier_of(peer) {
                            Carrier::Wireguard => self.tunnel.send_keepalive(peer, now),
                            Carrier::Quic => self.quic.probe(peer),
                            // No NAT has forgotten that: the request came by TCP as well.
                            Carrier::Http2 => {}
                        }
                    }
                }
                Command::Probe { public_key, carrier } => {
                    if let Some(peer) = self.tunnel.peer_of(&public_key)
                        && let Some(traffic) = self.traffic_of(peer, carrier)
                    {
                        let silence = self.silences.entry((peer, carrier)).or_default();
                        if silence.handle_asked(traffic, now) {
                            self.ask(peer, carrier, now);
                        }
                        self.next_look = now + ANSWER_INTERVAL;
                    }
                }
                Command::MovePackets { from, to, open_flows } => {
                    self.move_packets(from, to, open_flows, now)?;
                }
                Command::Use { public_key, carrier } => {
                    if let Some(peer) = self.tunnel.peer_of(&public_key) {
                        self.carriers.insert(peer, carrier);
                    }
                }
                Command::Connect { endpoint, pin, dialled } => {
                    self.quic.connect(endpoint, pin, dialled, now);
                }
                Command::Attach { public_key, stream, done } => {
                    let peer = self.tunnel.peer_of(&public_key);
                    let is_attached = peer.is_some_and(|peer| self.quic.attach(stream, peer, now));
                    // Who asked may be gone; then the connection closes.
                    let _ = done.send(is_attached);
                }
                Command::AttachPipe { public_key, outlet, done } => {
                    let peer = self.tunnel.peer_of(&public_key);
                    if let Some(peer) = peer {
                        self.pipes.insert(peer, outlet);
                    }
                    // Who asked may be gone; then the pipe is.
                    let _ = done.send(peer.is_some());
                }
                Command::Remove { public_key } => {
                    self.endpoints.retain(|(key, _)| *key != public_key);
                    if let Some(peer) = self.tunnel.peer_of(&public_key) {
                        self.tunnel.remove(peer);
                        self.quic.detach(peer);
                        self.carriers.remove(&peer);
                        self.pipes.remove(&peer);
                        self.note_peers();
                        self.kept_flows.retain(|to, kept| *to != peer && kept.from != peer);
                    }
                }
                Command::SetAddresses(addresses) => self.addresses = addresses,
                Command::Statuses(reply) => {
                    let peers: Vec<_> = self.tunnel.peers().collect();
                    let statuses =
                        peers.into_iter().filter_map(|peer| self.tunnel.status(peer)).collect();
                    let _ = reply.send(statuses);
                }
                Command::Stop => return Ok(false),
            }
        }
    }

    fn move_packets(
        &mut self,
        from: UpsertedPeer,
        to: UpsertedPeer,
        open_flows: OpenFlows,
        now: Instant,
    ) -> anyhow::Result<()> {
        let keys = (from.public_key, to.public_key);
        // A prefix is lost before it is gained.
        self.upsert(from, now);
        self.upsert(to, now);
        let Some((from, to)) = self.tunnel.peer_of(&keys.0).zip(self.tunnel.peer_of(&keys.1))
        else {
            return Ok(());
        };
        match open_flows {
            OpenFlows::Stay => {
                self.kept_flows.insert(to, KeptFlows::new(from));
            }
            OpenFlows::Follow => {
                self.kept_flows.remove(&to);
                for mut frame in self.last_segments.take(from) {
                    self.handle_frame(&mut frame, now)?;
                }
                self.outbound.flush(&mut self.tunnel, &mut self.udp, now);
            }
        }
        Ok(())
    }

    fn note_peers(&mut self) {
        self.has_several = self.tunnel.peers().nth(1).is_some();
        if !self.has_several {
            self.last_segments.clear();
        }
    }

    fn upsert(&mut self, peer: UpsertedPeer, now: Instant) {
        let UpsertedPeer { public_key, endpoint, preshared_key, mut prefixes, shared } = peer;
        loop {
            let config = PeerConfig {
                public_key,
                allowed_ips: prefixes.clone(),
                endpoint,
                keepalive: endpoint.map(|_reached_by_wireguard| KEEPALIVE),
            };
            match self.tunnel.upsert(config, now) {
                Ok(peer) => {
                    self.note_peers();
                    self.tunnel.set_shared_ips(peer, shared);
                    if let Some(preshared_key) = &preshared_key {
                        self.tunnel.set_preshared_key(peer, preshared_key);
                    }
                    self.endpoints.retain(|(key, _)| *key != public_key);
                    self.endpoints.extend(endpoint.map(|endpoint| (public_key, endpoint)));
                    return;
                }
                Err(UpsertError::PrefixTaken { prefix, owner }) if prefixes.contains(&prefix) => {
                    tracing::warn!(%prefix, %owner, "Prefix stays with another connector");
                    prefixes.retain(|held| *held != prefix);
                }
                Err(error) => {
                    tracing::warn!(%error, ?endpoint, "Connector cannot be a peer");
                    return;
                }
            }
        }
    }

    fn handle_udp(&mut self, batch: &mut ReceiveBatch, now: Instant) -> anyhow::Result<()> {
        let mut bytes = 0;
        for _ in 0..UDP_BATCHES {
            if bytes >= UDP_BYTES
                || !self.udp.receive(batch).context("failed to receive from the network")?
            {
                break;
            }
            for datagram in batch.datagrams() {
                bytes += datagram.bytes.len();
                self.handle_datagram(datagram, now)?;
            }
            self.take_quic_packets(now)?;
            self.finish_run()?;
            self.flush(now);
        }
        Ok(())
    }

    fn take_quic_packets(&mut self, now: Instant) -> anyhow::Result<()> {
        while let Some((peer, len)) = self.quic.poll_packet(self.inbound.slot(), now) {
            self.take_packet(peer, len)?;
        }
        Ok(())
    }

    /// Takes the packets that tasks have received.
    fn take_piped_packets(&mut self) -> anyhow::Result<()> {
        while let Some((public_key, packet)) = self.packets.pop() {
            let Some(peer) = self.tunnel.peer_of(&public_key) else { continue };
            if let Some(slot) = self.inbound.slot().get_mut(..packet.len()) {
                slot.copy_from_slice(&packet);
                self.take_packet(peer, packet.len())?;
            }
        }
        self.finish_run()
    }

    /// Takes a packet that lies in the slot.
    fn take_packet(&mut self, peer: PeerId, len: usize) -> anyhow::Result<()> {
        let packet = self.inbound.slot().get(..len).unwrap_or_default();
        let Some(source) = Packet::source_of(packet) else {
            self.drops.malformed += 1;
            return Ok(());
        };
        if !self.tunnel.may_send_from(peer, source) {
            self.drops.spoofed += 1;
            return Ok(());
        }
        self.inbound.take(peer, len);
        self.write_runs()
    }

    fn write_runs(&mut self) -> anyhow::Result<()> {
        while let Some((_peer, mut run)) = self.inbound.poll_run() {
            write_run(&mut self.tun, &mut run, &self.addresses, &mut self.drops)?;
        }
        Ok(())
    }

    fn finish_run(&mut self) -> anyhow::Result<()> {
        if let Some((_peer, mut run)) = self.inbound.finish() {
            write_run(&mut self.tun, &mut run, &self.addresses, &mut self.drops)?;
        }
        Ok(())
    }

    fn handle_datagram(&mut self, datagram: Datagram<'_>, now: Instant) -> anyhow::Result<()> {
        // Without our own address: after a change of network it would be the wrong one to answer
        // from, and here the kernel knows better.
        let from = Endpoint::from(datagram.from.remote());
        let datagram = Datagram { from, ..datagram };
        if is_quic(datagram.bytes) {
            // Nobody connects to a client, and so nobody has to prove an address to it.
            let _nobody = self.quic.handle_datagram(&datagram, now);
            return Ok(());
        }
        match self.inbound.open(&mut self.tunnel, &datagram, now) {
            // The filter works inside the tunnel here.
            Opened::Kept | Opened::Initiation => {}
            Opened::Dropped { reason, .. } => {
                tracing::trace!(reason = reason.code(), "Dropped a datagram");
            }
        }
        self.write_runs()
    }

    fn handle_tun(&mut self, buffer: &mut [u8], now: Instant) -> anyhow::Result<()> {
        let mut bytes = 0;
        for _ in 0..TUN_FRAMES {
            if bytes >= TUN_BYTES {
                break;
            }
            let read = self.tun.read_frame(buffer).context("failed to read from the interface")?;
            let Some(frame) = read else { break };
            bytes += frame.len();
            self.handle_frame(frame, now)?;
        }
        self.outbound.flush(&mut self.tunnel, &mut self.udp, now);
        self.quic.flush(&mut self.udp, now);
        Ok(())
    }

    fn handle_frame(&mut self, frame: &mut [u8], now: Instant) -> anyhow::Result<()> {
        let Ok(frame) = Frame::try_parse(frame) else {
            self.drops.malformed += 1;
            return Ok(());
        };
        let way = self.way_of(&frame, now);
        if let Way::Peer(peer, _carrier) = way
            && self.has_several
        {
            self.last_segments.note(peer, frame.packet(), now);
        }
        match way {
            Way::Peer(peer, Carrier::Wireguard) => {
                let Self { outbound, tunnel, udp, .. } = self;
                outbound.seal_frame(tunnel, udp, peer, frame, now);
            }
            Way::Peer(peer, Carrier::Http2) => {
                let Some(pipe) = self.pipes.get(&peer) else { return Ok(()) };
                let mut segments = frame.segments();
                while let Some(packet) = segments.next() {
                    // The task that had the other end says when it has gone.
                    let _is_open = pipe.push(packet);
                }
            }
            Way::Peer(peer, Carrier::Quic) => self.quic.send_frame(peer, frame, now),
            Way::Refused(refusal) => self.refuse(&frame, refusal)?,
            Way::Nowhere => {}
        }
        Ok(())
    }

    /// Where a frame goes; drops are counted.
    fn way_of(&mut self, frame: &Frame<'_>, now: Instant) -> Way {
        // Fragments and unknown protocols are the connector's to judge.
        let Some(destination) = Packet::destination_of(frame.packet()) else {
            self.drops.malformed += 1;
            return Way::Nowhere;
        };
        if self.is_our_own(destination, frame.packet()) {
            self.drops.looped += 1;
            return Way::Nowhere;
        }
        let Some(mut peer) = self.tunnel.owner_of(destination) else {
            self.drops.no_peer += 1;
            return Way::Refused(Refusal::Prohibited);
        };
        if let Some(kept) = self.kept_flows.get_mut(&peer)
            && kept.keeps(frame.packet(), now)
        {
            peer = kept.from;
        }
        let carrier = self.carrier_of(peer);
        let refused_mtu = match carrier {
            Carrier::Wireguard => {
                let max_packet_len = self.tunnel.max_packet_len(peer);
                let is_refused = !frame.fits(max_packet_len);
                is_refused.then(|| u16::try_from(max_packet_len).unwrap_or(u16::MAX))
            }
            Carrier::Quic if !self.quic.carries(peer) => {
                self.drops.no_carrier += 1;
                return Way::Nowhere;
            }
            Carrier::Quic => self.quic.refused_mtu(peer, frame, now),
            // It takes whatever the interface does.
            Carrier::Http2 => None,
        };
        if let Some(mtu) = refused_mtu {
            self.drops.too_big += 1;
            return Way::Refused(Refusal::TooBig { mtu });
        }
        Way::Peer(peer, carrier)
    }

    fn refuse(&mut self, frame: &Frame<'_>, refusal: Refusal) -> anyhow::Result<()> {
        if let Ok(packet) = Packet::try_parse(frame.packet())
            && let Some(answer) = refuse(&packet, refusal, None)
        {
            let written = self.tun.write_packet(&answer);
            note_written(written, &mut self.drops)?;
        }
        Ok(())
    }

    /// Whether a packet is one that this socket has sent: the way outside is gone for a moment, and
    /// sealing it again would never end.
    fn is_our_own(&self, destination: IpAddr, packet: &[u8]) -> bool {
        self.endpoints.iter().any(|(_, endpoint)| endpoint.ip() == destination)
            && Packet::try_parse(packet).ok().and_then(|packet| packet.flow()).is_some_and(|flow| {
                flow.protocol == Protocol::Udp
                    && flow.source_port == self.udp.local_address().port()
            })
    }

    fn flush(&mut self, now: Instant) {
        self.quic.flush(&mut self.udp, now);
        // The task that holds the connection sees that it has ended.
        while self.quic.poll_event().is_some() {}
        while let Some(transmit) = self.tunnel.poll_transmit() {
            match self.udp.send(transmit.to, &transmit.bytes) {
                SendOutcome::Sent => {}
                SendOutcome::Full | SendOutcome::TooBig | SendOutcome::Unreachable => {
                    self.drops.control += 1;
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
        self.tell();
    }

    fn tell(&mut self) {
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

/// What becomes of a frame from the interface.
enum Way {
    Peer(PeerId, Carrier),
    Refused(Refusal),
    Nowhere,
}

fn write_run(
    tun: &mut TunDevice,
    run: &mut Run<'_>,
    addresses: &[IpAddr],
    drops: &mut Drops,
) -> anyhow::Result<()> {
    let Ok(packet) = Packet::try_parse(run.packet()) else {
        drops.malformed += 1;
        return Ok(());
    };
    // This machine may forward packets; a connector must not use it to reach others.
    if !addresses.contains(&packet.destination()) {
        drops.not_ours += 1;
        return Ok(());
    }
    let written = tun.write_run(run);
    note_written(written, drops)
}

fn note_written(written: io::Result<bool>, drops: &mut Drops) -> anyhow::Result<()> {
    if !written.context("failed to write to the interface")? {
        drops.tun_full += 1;
    }
    Ok(())
}
