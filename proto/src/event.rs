//! The access log: one event per decision, and one more at the end of each flow.

use std::net::IpAddr;

use serde::{Deserialize, Serialize};

use crate::{
    id::{ConnectorId, DeviceId, EventId, PolicyId, ResourceId, UserId},
    port::Protocol,
    reason::Reason,
    timestamp::Timestamp,
};

/// What was decided of a flow, or that it ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(rename_all = "lowercase")]
pub enum Verdict {
    /// Let through.
    Allow,
    /// Refused.
    Deny,
    /// An allowed flow ended by itself.
    Closed,
    /// An allowed flow was cut.
    Cut,
}

/// Addresses and ports of a flow, as its initiator sees them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(deny_unknown_fields)]
pub struct FlowTuple {
    /// Protocol above IP.
    pub protocol: Protocol,
    /// The device's address inside the tunnel.
    #[cfg_attr(feature = "openapi", schema(value_type = String, examples("100.80.0.1")))]
    pub source: IpAddr,
    /// Source port; the identifier for ICMP echo.
    pub source_port: u16,
    /// The service's address.
    #[cfg_attr(feature = "openapi", schema(value_type = String, examples("10.9.0.2")))]
    pub destination: IpAddr,
    /// Destination port; the identifier for ICMP echo.
    pub destination_port: u16,
}

impl FlowTuple {
    /// The tuple of the packets that answer.
    #[must_use]
    pub const fn reversed(self) -> Self {
        Self {
            protocol: self.protocol,
            source: self.destination,
            source_port: self.destination_port,
            destination: self.source,
            destination_port: self.source_port,
        }
    }
}

/// One line of the access log.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(deny_unknown_fields)]
pub struct AccessEvent {
    /// Names the event, so that a batch sent twice counts once.
    pub id: EventId,
    /// When it happened, by the connector's clock.
    pub at: Timestamp,
    /// Where.
    pub connector_id: ConnectorId,
    /// Whose device.
    pub device_id: DeviceId,
    /// Whose.
    pub user_id: UserId,
    /// What for, when a resource was found.
    pub resource_id: Option<ResourceId>,
    /// The policy that decided, when one did.
    pub policy_id: Option<PolicyId>,
    /// Addresses and ports.
    pub flow: FlowTuple,
    /// What was decided.
    pub verdict: Verdict,
    /// Why.
    pub reason: Reason,
    /// Inner bytes from the device, at the end of a flow; or of all the refusals that this one stands
    /// for, when there were too many to list each.
    pub bytes_from_device: u64,
    /// Inner bytes to the device, at the end of a flow.
    pub bytes_to_device: u64,
    /// Inner packets from the device, at the end of a flow; or of all those refusals.
    pub packets_from_device: u64,
    /// Inner packets to the device, at the end of a flow.
    pub packets_to_device: u64,
    /// How long the flow lived, in milliseconds, at its end; or the time of all those refusals.
    pub duration_ms: u64,
}
