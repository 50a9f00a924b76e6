//! What the event loop asks for.

use std::{
    sync::mpsc as std_mpsc,
    time::{Duration, Instant},
};

use adit_tunnel::{PeerConfig, PeerId, UpsertError};

use super::{ANSWER_INTERVAL, Worker};
use crate::{
    carrier::Carrier,
    daemon::{
        data_plane::{Command, kept_flows::KeptFlows},
        sites::{OpenFlows, UpsertedPeer},
    },
};

/// NAT mappings of UDP live at least 30 s on most devices; WireGuard's own documentation
/// recommends 25.
const KEEPALIVE: Duration = Duration::from_secs(25);

impl Worker {
    /// Returns false when the thread is to end.
    pub(super) fn handle_commands(&mut self, now: Instant) -> anyhow::Result<bool> {
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
                            self.tunnel.announce(peer, now);
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
}
