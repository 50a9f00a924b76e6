//! Which carriers carry nothing any more.

use std::time::Instant;

use adit_tunnel::PeerId;

use super::{ANSWER_INTERVAL, LOOK_INTERVAL, Worker};
use crate::{
    carrier::Carrier,
    daemon::data_plane::{
        DataPlaneEvent,
        silence::{Finding, SUSPICION, SUSPICION_WITH_STANDBY, Silence, Traffic},
    },
};

impl Worker {
    /// Finds out which carriers carry nothing any more.
    pub(super) fn look_for_silence(&mut self, now: Instant) {
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

    /// What is counted of a carrier, if it is there and does not find out itself.
    pub(super) fn traffic_of(&mut self, peer: PeerId, carrier: Carrier) -> Option<Traffic> {
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
    pub(super) fn ask(&mut self, peer: PeerId, carrier: Carrier, now: Instant) {
        match carrier {
            Carrier::Wireguard => self.tunnel.initiate_handshake(peer, now),
            Carrier::Quic => self.quic.probe(peer),
            Carrier::Http2 => {}
        }
    }
}
