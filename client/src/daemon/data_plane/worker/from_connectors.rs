//! Packets that connectors send, by whatever carries them.

use std::{net::IpAddr, time::Instant};

use adit_tunnel::{
    Datagram, Endpoint, Opened, Packet, PeerId, ReceiveBatch, Run, TunDevice, is_quic,
};
use anyhow::Context as _;

use super::{Drops, UDP_BATCHES, UDP_BYTES, Worker, note_written};

impl Worker {
    pub(super) fn handle_udp(
        &mut self,
        batch: &mut ReceiveBatch,
        now: Instant,
    ) -> anyhow::Result<()> {
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
    pub(super) fn take_piped_packets(&mut self) -> anyhow::Result<()> {
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
            self.quic.handle_datagram(&datagram, now);
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
