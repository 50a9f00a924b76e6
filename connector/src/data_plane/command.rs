//! How other tasks speak to the data plane.

use std::net::IpAddr;

use adit_policy::Subject;
use adit_proto::{DeviceId, Reason, WireguardPublicKey};
use adit_tunnel::{UpsertError, Waker};
use tokio::sync::{mpsc, oneshot};

use crate::{enforced::Standing, own_addresses::OwnAddresses};

/// A device that may send packets.
#[derive(Debug, Clone)]
pub(crate) struct DeviceOnConnector {
    pub(crate) subject: Subject,
    pub(crate) public_key: WireguardPublicKey,
    /// Its addresses inside the tunnel.
    pub(crate) addresses: Vec<IpAddr>,
}

/// Why a device cannot be a peer.
#[derive(Debug, thiserror::Error)]
pub(crate) enum AdmitError {
    #[error("the wireguard key belongs to another device")]
    KeyTaken,
    #[error("wireguard refuses the peer")]
    Upsert(#[from] UpsertError),
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
        device: DeviceOnConnector,
        done: oneshot::Sender<Result<(), AdmitError>>,
    },
    Remove {
        device_id: DeviceId,
        reason: Reason,
    },
    /// What was enforced before goes back: freeing ten thousand policies takes long.
    Enforce {
        standing: Standing,
        replaced: oneshot::Sender<Standing>,
    },
    OwnAddresses(OwnAddresses),
    Stop,
}

/// The way to the data plane.
#[derive(Clone)]
pub(crate) struct DataPlane {
    commands: mpsc::Sender<Command>,
    waker: Waker,
}

impl DataPlane {
    pub(super) const fn new(commands: mpsc::Sender<Command>, waker: Waker) -> Self {
        Self { commands, waker }
    }

    pub(crate) async fn command(&self, command: Command) -> Result<(), Stopped> {
        self.commands.send(command).await.map_err(|_error| Stopped)?;
        self.waker.wake();
        Ok(())
    }

    /// Enforces another bundle, or none; returns when no packet passes by what was before.
    pub(crate) async fn enforce(&self, standing: Standing) -> Result<(), Stopped> {
        let (replaced, answer) = oneshot::channel();
        self.command(Command::Enforce { standing, replaced }).await?;
        let _replaced: Standing = answer.await.map_err(|_error| Stopped)?;
        Ok(())
    }

    /// Adds a device, or changes what is known of it; returns when its packets are expected.
    pub(crate) async fn upsert(&self, device: DeviceOnConnector) -> Result<(), AdmitError> {
        let (done, answer) = oneshot::channel();
        self.command(Command::Upsert { device, done }).await?;
        answer.await.map_err(|_error| Stopped)?
    }
}
