//! Resources.

use serde::{Deserialize, Serialize};

use crate::{
    id::{ResourceId, SiteId},
    port::{PortRange, Protocol},
    timestamp::Timestamp,
};

/// What is reached: prefixes at a site, with protocols and ports.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct Resource {
    /// Names the resource for ever.
    pub id: ResourceId,
    /// For people; unique.
    pub name: String,
    /// Where it lives.
    pub site_id: SiteId,
    /// Addresses and prefixes.
    #[cfg_attr(feature = "openapi", schema(value_type = Vec<String>, examples(json!(["10.9.0.0/24"]))))]
    pub addresses: Vec<ipnet::IpNet>,
    /// Protocols and ports; empty means all.
    pub filters: Vec<PortFilter>,
    /// Words by which policies select it.
    pub tags: Vec<String>,
    /// When it was created.
    pub created_at: Timestamp,
    /// When it was last changed.
    pub updated_at: Timestamp,
}

/// A protocol and its ports.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(deny_unknown_fields)]
pub struct PortFilter {
    /// The protocol.
    pub protocol: Protocol,
    /// Ports, at most 100 ranges; empty means all. ICMP has none.
    #[serde(default)]
    #[cfg_attr(feature = "openapi", schema(max_items = 100))]
    pub ports: Vec<PortRange>,
}

/// What is sent to create or replace a resource.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(deny_unknown_fields)]
pub struct ResourceWrite {
    /// Unique, 1 to 100 characters.
    #[cfg_attr(feature = "openapi", schema(min_length = 1, max_length = 100))]
    pub name: String,
    /// Where it lives; cannot be changed later.
    pub site_id: SiteId,
    /// 1 to 100 prefixes without host bits; a lone address is `/32` or `/128`.
    #[cfg_attr(feature = "openapi", schema(value_type = Vec<String>, min_items = 1, max_items = 100, examples(json!(["10.9.0.0/24"]))))]
    pub addresses: Vec<ipnet::IpNet>,
    /// Protocols and ports, at most 50; empty means all.
    #[serde(default)]
    #[cfg_attr(feature = "openapi", schema(max_items = 50))]
    pub filters: Vec<PortFilter>,
    /// Words by which policies select it, at most 50, each of 1 to 63 of `a-z 0-9 . _ : -`.
    #[serde(default)]
    #[cfg_attr(feature = "openapi", schema(max_items = 50))]
    pub tags: Vec<String>,
}
