//! By which carrier packets go to each device.

use std::collections::HashMap;

use adit_tunnel::{Frame, PacketOutlet, PeerId};

/// How packets travel between a device and its lane.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) enum Carrier {
    #[default]
    Wireguard,
    /// Datagrams of a connection of this lane.
    Quic,
    /// A task that has a stream to the device, or a connection of another lane.
    Pipe,
}

/// The carriers of devices that use another than WireGuard, or could.
///
/// Packets go to a device by the carrier that brought its last one: a client that moves has them
/// follow at once.
#[derive(Default)]
pub(super) struct Carriers {
    current: HashMap<PeerId, Carrier>,
    pipes: HashMap<PeerId, PacketOutlet>,
}

impl Carriers {
    pub(super) fn of(&self, peer: PeerId) -> Carrier {
        if self.current.is_empty() {
            return Carrier::Wireguard;
        }
        self.current.get(&peer).copied().unwrap_or_default()
    }

    pub(super) fn set(&mut self, peer: PeerId, carrier: Carrier) {
        self.current.insert(peer, carrier);
    }

    /// A device has sent an authentic packet; says whether it has moved to this carrier. A packet that
    /// a task has injected without a pipe says nothing of the way back.
    pub(super) fn note(&mut self, peer: PeerId, carrier: Carrier) -> bool {
        if self.current.is_empty() {
            return false;
        }
        if let Some(current) = self.current.get_mut(&peer)
            && (carrier != Carrier::Pipe || self.pipes.contains_key(&peer))
        {
            return std::mem::replace(current, carrier) != carrier;
        }
        false
    }

    pub(super) fn attach_pipe(&mut self, peer: PeerId, outlet: PacketOutlet) {
        self.pipes.insert(peer, outlet);
        self.set(peer, Carrier::Pipe);
    }

    /// A carrier has ended; WireGuard never does.
    pub(super) fn forget(&mut self, peer: PeerId, carrier: Carrier) {
        if self.of(peer) == carrier {
            self.current.remove(&peer);
            self.pipes.remove(&peer);
        }
    }

    pub(super) fn pipe_frame(&mut self, peer: PeerId, frame: Frame<'_>) {
        let mut segments = frame.segments();
        while let Some(packet) = segments.next() {
            self.pipe_packet(peer, packet);
        }
    }

    pub(super) fn pipe_packet(&mut self, peer: PeerId, packet: &[u8]) {
        let Some(outlet) = self.pipes.get(&peer) else { return };
        if !outlet.push(packet) {
            self.forget(peer, Carrier::Pipe);
        }
    }

    /// Forgets pipes that nobody holds any more, among them those of devices that are gone.
    pub(super) fn sweep(&mut self) {
        let closed: Vec<PeerId> = self
            .pipes
            .iter()
            .filter(|(_peer, outlet)| outlet.is_closed())
            .map(|(peer, _outlet)| *peer)
            .collect();
        for peer in closed {
            self.pipes.remove(&peer);
            self.forget(peer, Carrier::Pipe);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use adit_proto::DeviceId;
    use adit_tunnel::{PacketInlet, PacketPipe, Waiter};

    use crate::data_plane::sample::peers;

    #[test]
    fn packets_follow_the_carrier_that_a_device_used_last() {
        let (mut carriers, peer) = (Carriers::default(), peers()[0]);
        assert_eq!(carriers.of(peer), Carrier::Wireguard);
        carriers.set(peer, Carrier::Quic);
        assert!(carriers.note(peer, Carrier::Wireguard));
        assert!(!carriers.note(peer, Carrier::Wireguard));
        assert_eq!(carriers.of(peer), Carrier::Wireguard);
        assert!(carriers.note(peer, Carrier::Quic));
        assert_eq!(carriers.of(peer), Carrier::Quic);
        carriers.forget(peer, Carrier::Quic);
        assert_eq!(carriers.of(peer), Carrier::Wireguard);
    }

    #[test]
    fn a_pipe_that_nobody_holds_gives_way_to_wireguard() {
        let (mut carriers, peer) = (Carriers::default(), peers()[0]);
        let (_waiter, waker) = Waiter::try_new().unwrap();
        let device_id = DeviceId::from_uuid(uuid::Uuid::from_u128(1));
        let (pipe, outlet) = PacketPipe::new(device_id, PacketInlet::new(waker));
        carriers.attach_pipe(peer, outlet);
        assert_eq!(carriers.of(peer), Carrier::Pipe);
        drop(pipe);
        carriers.pipe_packet(peer, &[0x45; 20]);
        assert_eq!(carriers.of(peer), Carrier::Wireguard);
    }
}
