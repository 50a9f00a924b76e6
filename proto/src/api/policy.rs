//! Policies, as people write them.

use serde::{Deserialize, Serialize};

use crate::{
    api::TimeWindow,
    id::{DeviceId, GroupId, PolicyId, ResourceId, UserId},
    timestamp::Timestamp,
};

/// What a policy does when it matches. A forbid beats every permit.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(rename_all = "lowercase")]
pub enum Effect {
    /// Lets flows through.
    Permit,
    /// Refuses flows, whatever else permits them.
    Forbid,
}

/// A rule that permits or forbids.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct Policy {
    /// Names the policy for ever; also the id of the Cedar policy made from it.
    pub id: PolicyId,
    /// For people; unique.
    pub name: String,
    /// Permit or forbid.
    pub effect: Effect,
    /// Who.
    pub subjects: SubjectSelector,
    /// What.
    pub resources: ResourceSelector,
    /// When.
    pub conditions: Conditions,
    /// A disabled policy has no effect.
    pub disabled: bool,
    /// When it was created.
    pub created_at: Timestamp,
    /// When it was last changed.
    pub updated_at: Timestamp,
}

/// What is sent to create or replace a policy.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema), schema(examples(json!({
    "name": "Everyone reaches the web",
    "effect": "permit",
    "subjects": { "everyone": true },
    "resources": { "tags": ["web"] },
}))))]
#[serde(deny_unknown_fields)]
pub struct PolicyWrite {
    /// Unique, 1 to 100 characters.
    #[cfg_attr(feature = "openapi", schema(min_length = 1, max_length = 100))]
    pub name: String,
    /// Permit or forbid.
    pub effect: Effect,
    /// Who.
    pub subjects: SubjectSelector,
    /// What.
    pub resources: ResourceSelector,
    /// When; absent means always.
    #[serde(default)]
    pub conditions: Conditions,
    /// A disabled policy has no effect.
    #[serde(default)]
    pub disabled: bool,
}

/// Who: everyone, or those who are any one of these. At least one must be named.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(deny_unknown_fields, default)]
pub struct SubjectSelector {
    /// Every user, and the lists stay empty.
    pub everyone: bool,
    /// Users by id.
    #[cfg_attr(feature = "openapi", schema(max_items = 1000))]
    pub users: Vec<UserId>,
    /// Groups by id.
    #[cfg_attr(feature = "openapi", schema(max_items = 1000))]
    pub groups: Vec<GroupId>,
    /// Devices by id.
    #[cfg_attr(feature = "openapi", schema(max_items = 1000))]
    pub devices: Vec<DeviceId>,
}

/// What: all resources, or those that are any one of these. At least one must be named.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(deny_unknown_fields, default)]
pub struct ResourceSelector {
    /// Every resource, and the lists stay empty.
    pub all: bool,
    /// Resources by id.
    #[cfg_attr(feature = "openapi", schema(max_items = 1000))]
    pub ids: Vec<ResourceId>,
    /// Resources that bear any of these tags.
    #[cfg_attr(feature = "openapi", schema(max_items = 1000))]
    pub tags: Vec<String>,
}

/// When: all that are named must hold.
///
/// What is not known, such as the sign-in of a plain WireGuard device, is held against the device: the
/// condition is not met for a permit, and met for a forbid.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(deny_unknown_fields, default)]
pub struct Conditions {
    /// Posture labels that the device must all bear.
    #[cfg_attr(feature = "openapi", schema(max_items = 50))]
    pub posture: Vec<String>,
    /// Networks from one of which the device must come, by its outer address.
    #[cfg_attr(feature = "openapi", schema(value_type = Vec<String>, max_items = 100))]
    pub source_networks: Vec<ipnet::IpNet>,
    /// Longest age of the user's sign-in, in seconds.
    #[cfg_attr(feature = "openapi", schema(minimum = 1, maximum = 31_536_000))]
    pub authenticated_within_s: Option<u64>,
    /// Methods that the sign-in must all have used, as the identity provider names them (RFC 8176):
    /// `mfa`, `hwk`.
    #[cfg_attr(feature = "openapi", schema(max_items = 20))]
    pub authentication_methods: Vec<String>,
    /// Hours of the week of which it must be one.
    #[cfg_attr(feature = "openapi", schema(max_items = 20))]
    pub time_windows: Vec<TimeWindow>,
    /// From then on the policy no longer matches.
    pub expires_at: Option<Timestamp>,
}
