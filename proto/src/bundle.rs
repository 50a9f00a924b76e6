//! What a connector enforces.

use std::net::IpAddr;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::{
    api::{Policy, Resource},
    id::{ConnectorId, DeviceId, GroupId, OrganisationId, SiteId, UserId},
    key::{OrganisationKey, WireguardPublicKey},
    signed::{Signed, SignedError, TokenType},
    timestamp::Timestamp,
};

/// Everything that a connector needs in order to decide, without a list of devices.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Bundle {
    /// The organisation.
    pub organisation_id: OrganisationId,
    /// The connector that this bundle is for; every other refuses it.
    pub connector_id: ConnectorId,
    /// The connector's site.
    pub site_id: SiteId,
    /// Grows with every change; a connector refuses a smaller one than it holds.
    pub sequence: u64,
    /// When it was made.
    pub issued_at: Timestamp,
    /// How long it holds without word from the control plane, in seconds.
    pub max_offline_s: u64,
    /// Ranges that hold the addresses of all devices.
    pub device_ranges: Vec<ipnet::IpNet>,
    /// Keys that sign, those announced for later included.
    pub organisation_keys: Vec<OrganisationKey>,
    /// Resources of the site.
    pub resources: Vec<Resource>,
    /// Policies that are enabled.
    pub policies: Vec<Policy>,
    /// Who may no longer use a credential issued before.
    pub revocations: Vec<Revocation>,
    /// Devices without our client, which show no credential.
    pub wireguard_devices: Vec<WireguardDevice>,
}

/// Credentials of `subject` issued at or before `not_before` are void.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Revocation {
    /// Whose.
    pub subject: RevokedSubject,
    /// The last instant of issue that is void.
    pub not_before: Timestamp,
}

/// Whose credentials are void.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum RevokedSubject {
    /// One device's.
    Device(DeviceId),
    /// All of one user's.
    User(UserId),
}

/// A router, phone or other implementation of WireGuard, registered by its public key.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct WireguardDevice {
    /// The device.
    pub device_id: DeviceId,
    /// Its owner.
    pub user_id: UserId,
    /// Groups of the owner.
    pub groups: Vec<GroupId>,
    /// Its key.
    pub public_key: WireguardPublicKey,
    /// Its addresses inside the tunnel.
    pub addresses: Vec<IpAddr>,
}

/// Why a connector keeps the bundle it has.
#[derive(Debug, thiserror::Error)]
pub enum BundleError {
    /// Not signed by the organisation, or unreadable.
    #[error("bundle is not valid")]
    Signed(#[from] SignedError),
    /// Made for another connector.
    #[error("bundle is for {found}, not for {expected}")]
    OtherConnector {
        /// This connector.
        expected: ConnectorId,
        /// The bundle's.
        found: ConnectorId,
    },
    /// Older than the one at hand.
    #[error("bundle has sequence {found}, older than {held}")]
    Older {
        /// Sequence of the bundle at hand.
        held: u64,
        /// Sequence of the refused one.
        found: u64,
    },
}

impl Bundle {
    /// Verifies a bundle against the keys that are trusted and the sequence that is held.
    ///
    /// # Errors
    ///
    /// See [`BundleError`]. The caller goes on with the bundle it has.
    pub fn verify(
        token: &str,
        trusted_keys: &[OrganisationKey],
        connector_id: ConnectorId,
        held_sequence: Option<u64>,
    ) -> Result<Self, BundleError> {
        let bundle: Self = Signed::verify(token, TokenType::Bundle, trusted_keys)?.into_payload();
        if bundle.connector_id != connector_id {
            return Err(BundleError::OtherConnector {
                expected: connector_id,
                found: bundle.connector_id,
            });
        }
        if let Some(held) = held_sequence
            && bundle.sequence < held
        {
            return Err(BundleError::Older { held, found: bundle.sequence });
        }
        Ok(bundle)
    }

    /// How long this bundle holds without word from the control plane.
    pub const fn max_offline(&self) -> Duration {
        Duration::from_secs(self.max_offline_s)
    }

    /// The revocation that voids a credential of this device and user issued at `issued_at`.
    pub fn revocation(
        &self,
        device_id: DeviceId,
        user_id: UserId,
        issued_at: Timestamp,
    ) -> Option<&Revocation> {
        self.revocations.iter().find(|revocation| {
            let concerned = match revocation.subject {
                RevokedSubject::Device(id) => id == device_id,
                RevokedSubject::User(id) => id == user_id,
            };
            concerned && issued_at <= revocation.not_before
        })
    }
}
