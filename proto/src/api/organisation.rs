//! The organisation.

use serde::{Deserialize, Serialize};

use crate::{id::OrganisationId, key::OrganisationKey, timestamp::Timestamp};

/// The one organisation of a control plane.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct Organisation {
    /// Its id.
    pub id: OrganisationId,
    /// Its name, for people.
    pub name: String,
    /// Ranges from which devices get their addresses.
    #[cfg_attr(feature = "openapi", schema(value_type = Vec<String>))]
    pub device_ranges: Vec<ipnet::IpNet>,
    /// Keys that sign bundles and credentials.
    pub keys: Vec<OrganisationKey>,
    /// Whether new devices wait for approval unless their key says otherwise.
    pub approve_devices: bool,
    /// How long a connector goes on without the control plane, in seconds.
    pub max_offline_s: u64,
    /// How long a device credential lives, in seconds.
    pub credential_lifetime_s: u64,
    /// How long users stay signed in, in seconds; absent: for ever.
    pub session_lifetime_s: Option<u64>,
    /// When it was made.
    pub created_at: Timestamp,
}

/// What can be changed of an organisation.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(deny_unknown_fields)]
pub struct OrganisationWrite {
    /// Its name, 1 to 100 characters.
    #[cfg_attr(feature = "openapi", schema(min_length = 1, max_length = 100))]
    pub name: String,
    /// Whether new devices wait for approval unless their key says otherwise.
    pub approve_devices: bool,
    /// How long a connector goes on without the control plane, in seconds, up to 30 days.
    #[cfg_attr(feature = "openapi", schema(minimum = 1, maximum = 2_592_000))]
    pub max_offline_s: u64,
    /// How long a device credential lives, in seconds, up to a day.
    #[cfg_attr(feature = "openapi", schema(minimum = 5, maximum = 86_400))]
    pub credential_lifetime_s: u64,
    /// How long users stay signed in from now on, in seconds, up to a year; absent: for ever.
    #[serde(default)]
    #[cfg_attr(feature = "openapi", schema(minimum = 5, maximum = 31_536_000))]
    pub session_lifetime_s: Option<u64>,
}
