//! Packets that this machine sends.

use std::{net::IpAddr, time::Instant};

use adit_proto::Protocol;
use adit_tunnel::{Frame, Packet, PeerId, Refusal, refuse};
use anyhow::Context as _;

use super::{TUN_BYTES, TUN_FRAMES, Worker, note_written};
use crate::carrier::Carrier;

impl Worker {
    pub(super) fn handle_tun(&mut self, buffer: &mut [u8], now: Instant) -> anyhow::Result<()> {
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

    pub(super) fn handle_frame(&mut self, frame: &mut [u8], now: Instant) -> anyhow::Result<()> {
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
}

/// What becomes of a frame from the interface.
enum Way {
    Peer(PeerId, Carrier),
    Refused(Refusal),
    Nowhere,
}
