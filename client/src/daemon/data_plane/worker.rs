//! The data plane's thread.

mod commands;
mod from_connectors;
mod silences;
mod to_connectors;

use std::{
    collections::{HashMap, VecDeque},
    io,
    net::{IpAddr, SocketAddr},
    os::fd::AsFd as _,
    sync::mpsc as std_mpsc,
    time::{Duration, Instant},
};

use adit_proto::WireguardPublicKey;
use adit_tunnel::{
    Inbound, Outbound, PacketInlet, PacketOutlet, PeerId, PeerStatus, QuicEndpoint, ReceiveBatch,
    SendOutcome, TunDevice, Tunnel, TunnelEvent, UdpSocket, Waiter, WireguardSecret,
};
use anyhow::Context as _;
use tokio::sync::mpsc;

use super::{
    Command, DataPlaneEvent, kept_flows::KeptFlows, last_segments::LastSegments, silence::Silence,
};
use crate::{carrier::Carrier, daemon::event::Event};

/// boringtun's clock moves only when it is asked to, at least this often (its `update_timers`).
const TICK: Duration = Duration::from_millis(250);

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

    /// What carries packets to a peer.
    fn carrier_of(&self, peer: PeerId) -> Carrier {
        self.carriers.get(&peer).copied().unwrap_or(Carrier::Wireguard)
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

fn note_written(written: io::Result<bool>, drops: &mut Drops) -> anyhow::Result<()> {
    if !written.context("failed to write to the interface")? {
        drops.tun_full += 1;
    }
    Ok(())
}
