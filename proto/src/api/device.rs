//! Devices and their credentials.

use std::net::IpAddr;

use serde::{Deserialize, Serialize};

use super::secret::Secret;
use crate::{
    id::{DeviceId, UserId},
    key::{OrganisationKey, WireguardPublicKey},
    timestamp::Timestamp,
};

/// What runs on a device.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(rename_all = "lowercase")]
pub enum DeviceKind {
    /// Our client.
    Client,
    /// Any implementation of WireGuard.
    Wireguard,
}

/// Whether a device may connect.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(rename_all = "lowercase")]
pub enum DeviceState {
    /// Waits for approval.
    Pending,
    /// May connect.
    Approved,
    /// May never connect until approved anew.
    Revoked,
}

/// An enrolled laptop or a plain WireGuard device.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct Device {
    /// Names the device for ever.
    pub id: DeviceId,
    /// For people.
    pub name: String,
    /// The owner.
    pub user_id: UserId,
    /// What runs on it.
    pub kind: DeviceKind,
    /// Whether it may connect.
    pub state: DeviceState,
    /// Its addresses inside the tunnel.
    #[cfg_attr(feature = "openapi", schema(value_type = Vec<String>))]
    pub addresses: Vec<IpAddr>,
    /// Its WireGuard key.
    pub wireguard_public_key: WireguardPublicKey,
    /// When it last asked for a credential.
    pub last_seen_at: Option<Timestamp>,
    /// When it was enrolled.
    pub created_at: Timestamp,
    /// When it was last changed.
    pub updated_at: Timestamp,
}

/// What is sent to register a plain WireGuard device.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(deny_unknown_fields)]
pub struct WireguardDeviceWrite {
    /// For people, 1 to 100 characters.
    #[cfg_attr(feature = "openapi", schema(min_length = 1, max_length = 100))]
    pub name: String,
    /// The owner.
    pub user_id: UserId,
    /// Its WireGuard key; unique.
    pub wireguard_public_key: WireguardPublicKey,
}

/// What a client sends to enrol.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(deny_unknown_fields)]
pub struct ClientEnroll {
    /// The secret of the enrolment key, or the device code of an approved sign-in.
    pub secret: Secret,
    /// For people, 1 to 100 characters; commonly the host name.
    #[cfg_attr(feature = "openapi", schema(min_length = 1, max_length = 100))]
    pub name: String,
    /// The device key: a DER-encoded P-256 SubjectPublicKeyInfo, base64url without padding.
    #[cfg_attr(feature = "openapi", schema(max_length = 200))]
    pub device_key: String,
    /// The device's WireGuard key.
    pub wireguard_public_key: WireguardPublicKey,
}

/// What a client learns when it has enrolled.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct ClientEnrolled {
    /// The new device.
    pub device_id: DeviceId,
    /// Whether it may connect.
    pub state: DeviceState,
    /// Keys by which the organisation's signatures are checked.
    pub organisation_keys: Vec<OrganisationKey>,
}

/// A fresh device credential.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct CredentialIssued {
    /// Compact JWS; its payload is [`crate::Credential`].
    pub credential: String,
    /// When it expires; refresh at half of what is left.
    pub expires_at: Timestamp,
    /// When the user has to sign in again; absent when never.
    #[serde(default)]
    pub session_ends_at: Option<Timestamp>,
}
