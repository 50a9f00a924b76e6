//! How other tasks speak to the data plane.

use std::net::IpAddr;

use adit_policy::Subject;
use adit_proto::{DeviceId, PresharedKey, Reason, WireguardPublicKey};
use adit_tunnel::{
    Lane, PacketInlet, PacketOutlet, PacketPipe, QuicConnectionId, QuicStreamId, UpsertError, Waker,
};
use tokio::sync::{mpsc, oneshot};

use super::memory::ConnectionKind;
use crate::{enforced::Standing, own_addresses::OwnAddresses};

/// A device that may send packets.
#[derive(Debug, Clone)]
pub(crate) struct DeviceOnConnector {
    pub(crate) subject: Subject,
    pub(crate) public_key: WireguardPublicKey,
    /// Of its session, for WireGuard; none: as before.
    pub(crate) preshared_key: Option<PresharedKey>,
    /// Its addresses inside the tunnel.
    pub(crate) addresses: Vec<IpAddr>,
}

/// Why a device cannot be a peer.
#[derive(Debug, thiserror::Error)]
pub(crate) enum AdmitError {
    #[error("the wireguard key belongs to another device")]
    KeyTaken,
    #[error("an address belongs to another device")]
    AddressTaken,
    #[error("wireguard refuses the peer")]
    Upsert(#[from] UpsertError),
    #[error(transparent)]
    Stopped(#[from] Stopped),
}

/// Why a request cannot carry packets.
#[derive(Debug, thiserror::Error)]
pub(crate) enum AttachError {
    #[error("the device or its request is gone")]
    Gone,
    #[error(transparent)]
    Stopped(#[from] Stopped),
}

/// The data plane has ended.
#[derive(Debug, thiserror::Error)]
#[error("the data plane has stopped")]
pub(crate) struct Stopped;

/// What the data plane is told. Waits for room, so that none is lost.
pub(crate) enum Command {
    Upsert {
        device: Box<DeviceOnConnector>,
        done: oneshot::Sender<Result<(), AdmitError>>,
    },
    Remove {
        device_id: DeviceId,
        reason: Reason,
        done: oneshot::Sender<()>,
    },
    /// Packets of a device are carried by this request from here on; false: one of both is gone.
    Attach {
        device_id: DeviceId,
        stream: QuicStreamId,
        done: oneshot::Sender<bool>,
    },
    /// Packets for a device go to a task from here on; false: it is gone.
    AttachPipe {
        device_id: DeviceId,
        /// Where it is.
        remote: IpAddr,
        outlet: PacketOutlet,
        done: oneshot::Sender<bool>,
    },
    /// How many TCP connections of a device are open.
    CountConnections {
        device_id: DeviceId,
        count: oneshot::Sender<usize>,
    },
    /// A connection is of a device that is admitted.
    NoteConnection {
        connection: QuicConnectionId,
        device_id: DeviceId,
        kind: ConnectionKind,
    },
    /// What was enforced before goes back: freeing ten thousand policies takes long.
    Enforce {
        standing: Standing,
        replaced: oneshot::Sender<Standing>,
    },
    OwnAddresses(OwnAddresses),
    Stop,
}

/// The way to the data plane, which is one or more lanes.
#[derive(Clone)]
pub(crate) struct DataPlane {
    lanes: Vec<LaneHandle>,
    distributor: Option<Waker>,
}

/// The way to a lane.
#[derive(Clone)]
pub(super) struct LaneHandle {
    pub(super) commands: mpsc::Sender<Command>,
    pub(super) waker: Waker,
    pub(super) inlet: PacketInlet<DeviceId>,
}

impl LaneHandle {
    async fn command(&self, command: Command) -> Result<(), Stopped> {
        self.commands.send(command).await.map_err(|_error| Stopped)?;
        self.waker.wake();
        Ok(())
    }
}

impl DataPlane {
    pub(super) const fn new(lanes: Vec<LaneHandle>, distributor: Option<Waker>) -> Self {
        Self { lanes, distributor }
    }

    /// Enforces another bundle, or none; returns when no packet passes by what was before.
    pub(crate) async fn enforce(&self, standing: Standing) -> Result<(), Stopped> {
        let mut answers = Vec::new();
        for lane in &self.lanes {
            let (replaced, answer) = oneshot::channel();
            lane.command(Command::Enforce { standing: standing.clone(), replaced }).await?;
            answers.push(answer);
        }
        for answer in answers {
            let _replaced: Standing = answer.await.map_err(|_error| Stopped)?;
        }
        Ok(())
    }

    /// Adds a device, or changes what is known of it; returns when its packets are expected.
    pub(crate) async fn upsert(&self, device: Box<DeviceOnConnector>) -> Result<(), AdmitError> {
        let own = Lane::number_of(&device.public_key, self.lanes.len());
        let device_id = device.subject.device_id;
        // Where it was if it has had another key.
        let others = self.lanes.iter().enumerate().filter(|(number, _lane)| *number != own);
        let others = others.map(|(_number, lane)| lane);
        remove_from(others, device_id, Reason::CredentialInvalid).await?;
        let lane = self.lanes.get(own).ok_or(Stopped)?;
        let (done, answer) = oneshot::channel();
        lane.command(Command::Upsert { device, done }).await?;
        answer.await.map_err(|_error| Stopped)?
    }

    /// Removes a device and cuts its flows; returns when no data of it passes.
    pub(crate) async fn remove(&self, device_id: DeviceId, reason: Reason) -> Result<(), Stopped> {
        remove_from(self.lanes.iter(), device_id, reason).await
    }

    /// Lets a request that came to a lane carry the packets of a device that is admitted: none, if
    /// it does so, else a pipe for whoever serves the request, as the device is another lane's.
    pub(crate) async fn attach(
        &self,
        device: &DeviceOnConnector,
        remote: IpAddr,
        lane: usize,
        stream: QuicStreamId,
    ) -> Result<Option<PacketPipe<DeviceId>>, AttachError> {
        let home = Lane::number_of(&device.public_key, self.lanes.len());
        if home != lane {
            return self.attach_pipe(device, remote).await.map(Some);
        }
        let device_id = device.subject.device_id;
        let (done, answer) = oneshot::channel();
        let home = self.lanes.get(home).ok_or(Stopped)?;
        home.command(Command::Attach { device_id, stream, done }).await?;
        if answer.await.map_err(|_error| Stopped)? { Ok(None) } else { Err(AttachError::Gone) }
    }

    /// Lets whoever holds the pipe carry the packets of a device that is admitted.
    pub(crate) async fn attach_pipe(
        &self,
        device: &DeviceOnConnector,
        remote: IpAddr,
    ) -> Result<PacketPipe<DeviceId>, AttachError> {
        let home = Lane::number_of(&device.public_key, self.lanes.len());
        let home = self.lanes.get(home).ok_or(Stopped)?;
        let device_id = device.subject.device_id;
        let (pipe, outlet) = PacketPipe::new(device_id, home.inlet.clone());
        let (done, answer) = oneshot::channel();
        home.command(Command::AttachPipe { device_id, remote, outlet, done }).await?;
        if answer.await.map_err(|_error| Stopped)? { Ok(pipe) } else { Err(AttachError::Gone) }
    }

    /// Gives a packet of a device to its lane, beside those that the lane takes itself.
    pub(crate) fn inject(&self, device: &DeviceOnConnector, packet: Vec<u8>) {
        let home = Lane::number_of(&device.public_key, self.lanes.len());
        if let Some(lane) = self.lanes.get(home) {
            lane.inlet.push(device.subject.device_id, packet);
        }
    }

    /// A connection of a lane is of a device that is admitted, which may have so many, and so much
    /// of our memory for all of them.
    pub(crate) async fn note_connection(
        &self,
        lane: usize,
        connection: QuicConnectionId,
        device_id: DeviceId,
        kind: ConnectionKind,
    ) -> Result<(), Stopped> {
        let lane = self.lanes.get(lane).ok_or(Stopped)?;
        lane.command(Command::NoteConnection { connection, device_id, kind }).await
    }

    /// How many TCP connections of a device are open.
    pub(crate) async fn count_connections(&self, device_id: DeviceId) -> Result<usize, Stopped> {
        let mut all = 0;
        for lane in &self.lanes {
            let (count, answer) = oneshot::channel();
            lane.command(Command::CountConnections { device_id, count }).await?;
            all += answer.await.map_err(|_error| Stopped)?;
        }
        Ok(all)
    }

    /// The connector's own addresses have changed.
    pub(crate) async fn set_own_addresses(&self, addresses: OwnAddresses) -> Result<(), Stopped> {
        for lane in &self.lanes {
            lane.command(Command::OwnAddresses(addresses.clone())).await?;
        }
        Ok(())
    }

    /// Ends all flows and threads.
    pub(crate) async fn stop(&self) {
        for lane in &self.lanes {
            // One that has ended already is as good.
            let _ = lane.command(Command::Stop).await;
        }
        if let Some(distributor) = &self.distributor {
            distributor.wake();
        }
    }
}

async fn remove_from(
    lanes: impl Iterator<Item = &LaneHandle>,
    device_id: DeviceId,
    reason: Reason,
) -> Result<(), Stopped> {
    let mut answers = Vec::new();
    for lane in lanes {
        let (done, answer) = oneshot::channel();
        lane.command(Command::Remove { device_id, reason, done }).await?;
        answers.push(answer);
    }
    for answer in answers {
        answer.await.map_err(|_error| Stopped)?;
    }
    Ok(())
}
