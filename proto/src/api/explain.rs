//! Why a flow would be let through or not.

use std::net::IpAddr;

use serde::{Deserialize, Serialize};

use crate::{
    api::Effect,
    id::{DeviceId, PolicyId, ResourceId, UserId},
    port::Protocol,
    reason::Reason,
    timestamp::Timestamp,
};

/// Which flow to explain: of a device or of a user, to an address or to a resource.
///
/// What is not said is as it is now for the device; for a user, as for a device that bears no label
/// and whose user has just signed in.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema), schema(examples(json!({
    "user_id": "usr_01893f0a2b7c78d34a1e2c3d40000001",
    "resource_id": "res_01893f0a2b7c78d34a1e2c3d40000001",
    "protocol": "tcp",
    "at": "2026-06-01T22:00:00Z",
}))))]
#[serde(deny_unknown_fields)]
pub struct ExplainRequest {
    /// From which device.
    #[serde(default)]
    pub device_id: Option<DeviceId>,
    /// From some device of which user.
    #[serde(default)]
    pub user_id: Option<UserId>,
    /// To which address.
    #[serde(default)]
    #[cfg_attr(feature = "openapi", schema(value_type = Option<String>, examples("10.9.0.2")))]
    pub destination: Option<IpAddr>,
    /// To the first address of which resource.
    #[serde(default)]
    pub resource_id: Option<ResourceId>,
    /// To which port, of no account for ICMP; absent means the first of the resource, or 0.
    #[serde(default)]
    pub port: Option<u16>,
    /// By which protocol.
    pub protocol: Protocol,
    /// When.
    #[serde(default)]
    pub at: Option<Timestamp>,
    /// From which outer address, which is not known otherwise.
    #[serde(default)]
    #[cfg_attr(feature = "openapi", schema(value_type = Option<String>, examples("192.0.2.7")))]
    pub source: Option<IpAddr>,
    /// With which posture labels.
    #[serde(default)]
    #[cfg_attr(feature = "openapi", schema(max_items = 50))]
    pub posture: Option<Vec<String>>,
    /// Signed in when.
    #[serde(default)]
    pub authenticated_at: Option<Timestamp>,
    /// Signed in by which methods.
    #[serde(default)]
    #[cfg_attr(feature = "openapi", schema(max_items = 20))]
    pub authentication_methods: Option<Vec<String>>,
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
    /// Whether it matched.
    pub outcome: TraceOutcome,
    /// What it asks of subject and moment, and what came of that. A policy of which only one is not
    /// met nearly matched.
    pub checks: Vec<Check>,
}

/// Whether a policy matched.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(rename_all = "kebab-case")]
pub enum TraceOutcome {
    /// It matched.
    Matched,
    /// A check is not met.
    Unmet,
    /// Its evaluation failed, so nothing is permitted.
    Failed,
}

/// A stable code for what came of one thing that a policy asks. Codes are never renamed and never
/// reused, and stand in pairs: what is met, and what is not.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(rename_all = "kebab-case")]
pub enum Check {
    /// The policy names everyone, the user or the device.
    SubjectOk,
    /// The policy names others, and no group.
    SubjectOther,
    /// The policy names a group of the user.
    GroupsOk,
    /// The user is in none of the groups that the policy names, nor named otherwise.
    GroupsMissing,
    /// The device bears every posture label.
    PostureOk,
    /// A posture label is missing.
    PostureFailed,
    /// The device comes from a network of the policy.
    SourceNetworkOk,
    /// The device comes from another network.
    SourceNetworkOther,
    /// The sign-in is recent enough.
    SignInAgeOk,
    /// The sign-in is too old.
    SignInTooOld,
    /// The sign-in used every method.
    AuthenticationMethodsOk,
    /// The sign-in lacks a method.
    AuthenticationMethodsMissing,
    /// It is an hour of the policy.
    TimeWindowOk,
    /// It is another hour.
    TimeWindowClosed,
    /// The policy has not expired.
    ExpiryOk,
    /// The policy has expired.
    PolicyExpired,
}

impl Check {
    /// Whether what the policy asks is met.
    pub const fn is_met(self) -> bool {
        match self {
            Self::SubjectOk
            | Self::GroupsOk
            | Self::PostureOk
            | Self::SourceNetworkOk
            | Self::SignInAgeOk
            | Self::AuthenticationMethodsOk
            | Self::TimeWindowOk
            | Self::ExpiryOk => true,
            Self::SubjectOther
            | Self::GroupsMissing
            | Self::PostureFailed
            | Self::SourceNetworkOther
            | Self::SignInTooOld
            | Self::AuthenticationMethodsMissing
            | Self::TimeWindowClosed
            | Self::PolicyExpired => false,
        }
    }
}
