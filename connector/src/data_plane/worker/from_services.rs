//! Packets that services send to devices.

use std::io;

use adit_tunnel::{Frame, Packet, PeerId, Refusal, refuse};
use tracing::trace;

use super::{Rest, TUN_BYTES, TUN_FRAMES, Worker, note_written};
use crate::{
    clock::Now,
    data_plane::{carriers::Carrier, distributor::FrameQueue, silences::Silences},
    flow_table::Volume,
    forwarder::Service,
};

impl Worker {
    pub(super) fn read_frames(&mut self, buffer: &mut [u8], now: Now) -> io::Result<()> {
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
    pub(super) fn take_frames(&mut self, now: Now) -> Rest {
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

    pub(super) fn handle_frame(&mut self, frame: &mut [u8], now: Now) {
        match Frame::try_parse(frame) {
            Ok(frame) => self.handle_service_packets(frame, now),
            Err(error) => {
                trace!(%error, "Dropped a frame");
                self.forwarder.handle_malformed();
            }
        }
    }

    /// Takes a service's packets.
    pub(super) fn handle_service_packets(&mut self, frame: Frame<'_>, now: Now) {
        let Ok(packet) = Packet::try_parse(frame.packet()) else {
            self.forwarder.handle_malformed();
            return;
        };
        let volume = Volume { packets: frame.packet_count().into(), bytes: frame.wire_bytes() };
        let decided = self.forwarder.handle_service_packet(&packet, volume, now);
        match decided {
            Service::SendAgain(peer) => {
                if frame.packet_count() == 1 {
                    self.repeats.note(peer, &packet, now.monotonic);
                }
                if self.is_silent(peer, now) {
                    self.ask_to_speak(peer, now);
                }
            }
            Service::SendAfterSilence(peer) if self.is_silent(peer, now) => {
                if frame.packet_count() == 1 {
                    self.repeats.note_after_silence(peer, &packet, now.monotonic);
                }
                self.ask_to_speak(peer, now);
            }
            Service::Send(_) | Service::SendAfterSilence(_) | Service::Orphan | Service::Drop => {}
        }
        match decided {
            Service::Send(peer) | Service::SendAgain(peer) | Service::SendAfterSilence(peer) => {
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

    /// Whether a device has said nothing for so long that a NAT may have forgotten it. TCP is not
    /// forgotten as soon, and other lanes look after their own connections.
    fn is_silent(&mut self, peer: PeerId, now: Now) -> bool {
        let last_heard = match self.carriers.of(peer) {
            Carrier::Wireguard => self.tunnel.status(peer).and_then(|status| status.last_heard),
            Carrier::Quic => self.quic.last_heard(peer),
            Carrier::Pipe => None,
        };
        Silences::is_silent(last_heard, now.monotonic)
    }

    fn ask_to_speak(&mut self, peer: PeerId, now: Now) {
        if let Some(device_id) = self.peers.devices.get(&peer)
            && self.silences.ask(peer, now.monotonic)
        {
            // Where there is no room, the next packet asks.
            let _full: Result<(), _> = self.silent.try_send(*device_id);
        }
    }

    /// Tells a service that its packet does not fit, so that it sends less.
    pub(super) fn refuse_too_big(&mut self, packet: &Packet<'_>, mtu: u16) {
        if let Some(answer) = refuse(packet, Refusal::TooBig { mtu }, None) {
            let written = self.path.answer(&answer);
            note_written(written, &mut self.losses);
        }
    }

    pub(super) fn handle_orphan(&mut self, packet: &Packet<'_>, now: Now) {
        let Some(owner) = self.tunnel.owner_of(packet.destination()) else { return };
        if let Some(probe) = self.forwarder.probe(owner, packet, now) {
            self.send_to(owner, probe.bytes(), now);
        }
    }

    pub(super) fn send_to(&mut self, peer: PeerId, packet: &[u8], now: Now) {
        let Self { outbound, tunnel, udp, quic, carriers, .. } = self;
        match carriers.of(peer) {
            Carrier::Wireguard => outbound.seal_packet(tunnel, udp, peer, packet, now.monotonic),
            Carrier::Quic => quic.send_packet(peer, packet),
            Carrier::Pipe => carriers.pipe_packet(peer, packet),
        }
    }

    /// Sends a device that has come back, or found another way, what its services wait for it to
    /// acknowledge.
    pub(super) fn send_again(&mut self, peer: PeerId, now: Now) {
        for packet in self.repeats.take(peer, now.monotonic) {
            let Ok(parsed) = Packet::try_parse(&packet) else { continue };
            // Its flow may have been cut since, or has to be decided anew.
            let volume = Volume::of(&parsed);
            match self.forwarder.handle_service_packet(&parsed, volume, now) {
                Service::Send(to) | Service::SendAgain(to) | Service::SendAfterSilence(to) => {
                    self.send_to(to, &packet, now);
                }
                Service::Orphan | Service::Drop => {}
            }
        }
    }
}
