//! Who this device is.

use adit_proto::{AssertionSubject, DeviceId, OrganisationKey, Pin, Timestamp};
use adit_tunnel::{ControlPlane, KeyPair, WireguardSecret, load_or_create_wireguard_secret};
use anyhow::{Context as _, bail};
use serde::{Deserialize, Serialize};

use super::store::Store;

/// What was learnt by enrolling.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Identity {
    /// This device.
    pub(crate) device_id: DeviceId,
    /// Where the control plane is.
    pub(crate) control_plane_url: String,
    /// The pin of its certificate.
    pub(crate) control_plane_pin: Pin,
    /// Keys by which the organisation's signatures are checked.
    pub(crate) organisation_keys: Vec<OrganisationKey>,
    /// When it was learnt.
    pub(crate) enrolled_at: Timestamp,
}

/// An identity with the private keys that prove it.
#[derive(Clone)]
pub(crate) struct Enrolled {
    pub(crate) identity: Identity,
    pub(crate) device_key: KeyPair,
    pub(crate) wireguard_secret: WireguardSecret,
    pub(crate) control_plane: ControlPlane,
}

impl Enrolled {
    /// What is on disk, if this device has enrolled.
    pub(crate) fn load(store: &Store) -> anyhow::Result<Option<Self>> {
        let Some(identity) = store.identity()? else {
            return Ok(None);
        };
        let (device_key, wireguard_key) = (store.device_key_path(), store.wireguard_key_path());
        for path in [&device_key, &wireguard_key] {
            if !path.exists() {
                bail!(
                    "{} is missing; restore it, or remove identity.json and enrol anew",
                    path.display()
                );
            }
        }
        let device_key = KeyPair::load_or_create(&device_key)?;
        let wireguard_secret = load_or_create_wireguard_secret(&wireguard_key)?;
        Self::try_new(identity, device_key, wireguard_secret).map(Some)
    }

    pub(crate) fn try_new(
        identity: Identity,
        device_key: KeyPair,
        wireguard_secret: WireguardSecret,
    ) -> anyhow::Result<Self> {
        let subject = AssertionSubject::Device(identity.device_id);
        let url = &identity.control_plane_url;
        let control_plane = ControlPlane::try_new(url, identity.control_plane_pin)
            .context("failed to prepare the control plane's address")?
            .with_identity(subject, device_key.clone());
        Ok(Self { identity, device_key, wireguard_secret, control_plane })
    }
}
