//! What a client needs to know.

use std::net::IpAddr;

use serde::{Deserialize, Serialize};

use crate::{
    api::PortFilter,
    id::{ConnectorId, DeviceId, OrganisationId, ResourceId, SiteId, UserId},
    key::{OrganisationKey, Pin, WireguardPublicKey},
    timestamp::Timestamp,
};

/// A client's configuration, signed by the organisation.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ClientConfig {
    /// The organisation.
    pub organisation_id: OrganisationId,
    /// The organisation's name, for people.
    pub organisation_name: String,
    /// This device.
    pub device_id: DeviceId,
    /// This device's name.
    pub device_name: String,
    /// The user it belongs to.
    pub user_id: UserId,
    /// The user's name, for people.
    pub user_name: String,
    /// Grows with every change.
    pub sequence: u64,
    /// When it was made.
    pub issued_at: Timestamp,
    /// Addresses of this device inside the tunnel.
    pub addresses: Vec<IpAddr>,
    /// Keys that sign, those announced for later included.
    pub organisation_keys: Vec<OrganisationKey>,
    /// Resources that some policy lets this user reach, whatever its conditions.
    pub resources: Vec<ResourceOnClient>,
    /// Sites that hold those resources.
    pub sites: Vec<SiteOnClient>,
}

/// A resource as a client sees it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ResourceOnClient {
    /// The resource.
    pub id: ResourceId,
    /// Its name.
    pub name: String,
    /// Where it lives.
    pub site_id: SiteId,
    /// Its prefixes.
    pub addresses: Vec<ipnet::IpNet>,
    /// Protocols and ports; empty means all.
    pub filters: Vec<PortFilter>,
}

/// A site as a client sees it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SiteOnClient {
    /// The site.
    pub id: SiteId,
    /// Its name.
    pub name: String,
    /// Its connectors.
    pub connectors: Vec<ConnectorOnClient>,
}

/// A connector as a client sees it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ConnectorOnClient {
    /// The connector.
    pub id: ConnectorId,
    /// Its name.
    pub name: String,
    /// Where it listens, `host:port`, TCP and UDP.
    pub endpoints: Vec<String>,
    /// The pin of its TLS key.
    pub pin: Pin,
    /// Its WireGuard key.
    pub wireguard_public_key: WireguardPublicKey,
}
