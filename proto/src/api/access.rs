//! Who gains and who loses access by a change of policies.

use serde::{Deserialize, Serialize};

use crate::id::{DeviceId, ResourceId, UserId};

/// Who can reach what after a change, and could not before, or the other way round.
///
/// It speaks of pairs of a user and a resource, or of a device and a resource where a policy names
/// the device. Whatever is left out is the same on both sides.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct AccessDifference {
    /// How many pairs gain access.
    pub gained: u64,
    /// How many pairs lose it.
    pub lost: u64,
    /// How many pairs keep it under other conditions.
    pub conditions_changed: u64,
    /// How many users are concerned.
    pub users: u64,
    /// How many resources are concerned.
    pub resources: u64,
    /// The pairs, in the order of users and resources.
    pub changes: Vec<AccessChange>,
    /// Whether there are more pairs than `changes` lists.
    pub truncated: bool,
}

impl AccessDifference {
    /// Whether nobody gains or loses anything.
    pub const fn is_empty(&self) -> bool {
        self.gained == 0 && self.lost == 0 && self.conditions_changed == 0
    }
}

/// What changes for one user and one resource.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct AccessChange {
    /// Who.
    pub user_id: UserId,
    /// The name of the user.
    pub user_name: String,
    /// The one device of the user that this is about; absent, it is about all others.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub device_id: Option<DeviceId>,
    /// What.
    pub resource_id: ResourceId,
    /// The name of the resource.
    pub resource_name: String,
    /// Access before the change.
    pub before: Access,
    /// Access after it; the same word as before when only the conditions are others.
    pub after: Access,
}

/// Whether a user can reach a resource.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(rename_all = "kebab-case")]
pub enum Access {
    /// Never.
    None,
    /// When conditions hold, or when those of a forbid do not.
    Conditional,
    /// Always.
    Always,
}
