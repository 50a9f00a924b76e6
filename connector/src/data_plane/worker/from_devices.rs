//! Packets that devices send, by whatever carries them.

use std::io;

use adit_tunnel::{
    Datagram, DropReason, Inbound, Opened, Packet, PeerId, ReceiveBatch, Received, Run, is_quic,
};
use tracing::trace;

use super::{HANDSHAKES, Rest, UDP_BATCHES, UDP_BYTES, Worker, note_written};
use crate::{
    clock::Now,
    data_plane::{Losses, carriers::Carrier},
    flow_table::Volume,
    forward::KernelPath,
    forwarder::{Forwarder, Inner},
};

impl Worker {
    pub(super) fn receive_datagrams(
        &mut self,
        batch: &mut ReceiveBatch,
        now: Now,
    ) -> io::Result<()> {
        let mut bytes = 0;
        for _ in 0..UDP_BATCHES {
            if bytes >= UDP_BYTES || !self.udp.receive(batch)? {
                break;
            }
            let mut unproven = Vec::new();
            for datagram in batch.datagrams() {
                bytes += datagram.bytes.len();
                if is_quic(datagram.bytes) {
                    unproven.extend(self.quic.handle_client_datagram(&datagram, now.monotonic));
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

    pub(super) fn handle_datagram(&mut self, datagram: &Datagram<'_>, now: Now) {
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
    pub(super) fn take_quic_packets(&mut self, now: Now) {
        while let Some((peer, len)) = self.quic.poll_packet(self.inbound.slot(), now.monotonic) {
            self.take_packet(peer, len, Carrier::Quic, now);
        }
        self.finish_run(Carrier::Quic, now);
    }

    /// Takes the packets that tasks have received for devices.
    pub(super) fn take_piped_packets(&mut self, now: Now) {
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
    pub(super) fn take_packet(&mut self, peer: PeerId, len: usize, carrier: Carrier, now: Now) {
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

    pub(super) fn carry_runs(&mut self, carrier: Carrier, now: Now) {
        while self.carry_run(Inbound::poll_run, carrier, now) {}
    }

    pub(super) fn finish_run(&mut self, carrier: Carrier, now: Now) {
        self.carry_run(Inbound::finish, carrier, now);
    }

    /// Carries the run that `take` takes; false: there is none.
    fn carry_run(
        &mut self,
        take: impl FnOnce(&mut Inbound) -> Option<(PeerId, Run<'_>)>,
        carrier: Carrier,
        now: Now,
    ) -> bool {
        let Self { inbound, forwarder, path, losses, carriers, .. } = self;
        let Some((peer, run)) = take(inbound) else { return false };
        let has_moved = carriers.note(peer, carrier);
        if let Some(reply) = carry(forwarder, path, losses, peer, run, now) {
            self.send_to(peer, &reply, now);
        }
        if has_moved {
            self.send_again(peer, now);
        }
        true
    }

    pub(super) fn answer_handshakes(&mut self, now: Now) -> Rest {
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
    pub(super) fn begin_handshake(&mut self, is_idle: bool) {
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
