//! Who may send packets, and by which request they come.

use adit_proto::{DeviceId, Reason};
use adit_tunnel::{PeerConfig, QuicConnectionId, QuicStreamId};
use tracing::debug;

use super::Worker;
use crate::{
    clock::Now,
    data_plane::{AdmitError, ConnectionKind, DeviceOnConnector, carriers::Carrier},
    enforced::lone_prefixes,
};

impl Worker {
    pub(super) fn upsert(&mut self, device: DeviceOnConnector, now: Now) -> Result<(), AdmitError> {
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

    pub(super) fn remove(&mut self, device_id: DeviceId, reason: Reason, now: Now) {
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

    /// Gives a connection of a device that is admitted its share of what the device may have.
    pub(super) fn note_connection(
        &mut self,
        connection: QuicConnectionId,
        device_id: DeviceId,
        kind: ConnectionKind,
        now: Now,
    ) {
        let Self { device_connections, quic, .. } = self;
        let noted = device_connections.note(device_id, connection, kind, |id| quic.use_of(id));
        quic.set_memory(connection, noted.memory);
        if let Some(evicted) = noted.evicted {
            debug!(%device_id, "Closing a connection, the device has many");
            quic.close(evicted, now.monotonic);
        }
    }

    /// Lets a request carry the packets of a device that is admitted.
    pub(super) fn attach(&mut self, device_id: DeviceId, stream: QuicStreamId, now: Now) -> bool {
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
}
