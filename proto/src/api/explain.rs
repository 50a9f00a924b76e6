//! Why a flow would be let through or not.

use std::net::IpAddr;

use serde::{Deserialize, Serialize};

use crate::{
    api::Effect,
    id::{DeviceId, PolicyId, ResourceId},
    port::Protocol,
    reason::Reason,
};

/// Which flow to explain.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(deny_unknown_fields)]
pub struct ExplainRequest {
    /// From which device.
    pub device_id: DeviceId,
    /// To which address.
    #[cfg_attr(feature = "openapi", schema(value_type = String, examples("10.9.0.2")))]
    pub destination: IpAddr,
    /// To which port; of no account for ICMP.
    #[serde(default)]
    pub port: u16,
    /// By which protocol.
    pub protocol: Protocol,
}

/// What would be decided, and by what.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct Explanation {
    /// Whether the flow would be let through.
    pub allowed: bool,
    /// Why.
    pub reason: Reason,
    /// What to do next.
    pub remedy: String,
    /// The resource that was found.
    pub resource_id: Option<ResourceId>,
    /// That resource's name.
    pub resource_name: Option<String>,
    /// The policy that decided, when one did.
    pub policy_id: Option<PolicyId>,
    /// Every policy that speaks of the resource, in the order of their ids.
    pub trace: Vec<PolicyTrace>,
}

/// What one policy had to say.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct PolicyTrace {
    /// The policy.
    pub policy_id: PolicyId,
    /// Its name.
    pub name: String,
    /// Permit or forbid.
    pub effect: Effect,
    /// Whether it matched, or what was missing.
    pub outcome: TraceOutcome,
}

/// Whether a policy matched, or the first thing that was missing.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(rename_all = "kebab-case")]
pub enum TraceOutcome {
    /// It matched.
    Matched,
    /// Neither the user, one of the groups nor the device is named.
    SubjectOther,
    /// A posture label is missing.
    PostureMissing,
    /// The device comes from another network.
    SourceNetworkOther,
    /// The sign-in is too old.
    SignInTooOld,
    /// Its evaluation failed, so nothing is permitted.
    Failed,
}
