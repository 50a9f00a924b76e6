//! The versions of the policy set.

use serde::{Deserialize, Serialize};

use crate::{api::PolicySet, timestamp::Timestamp};

/// One change of policies or policy tests.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct PolicyVersion {
    /// Counts the changes.
    pub version: u64,
    /// When.
    pub created_at: Timestamp,
    /// Who, as the audit log names it.
    pub actor: String,
    /// How, as the audit log names it.
    pub operation: String,
    /// Why, as the writer says.
    pub reason: Option<String>,
}

/// A version with what it consisted of.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct PolicyVersionContent {
    /// Which version.
    pub version: PolicyVersion,
    /// The policies and tests of then, by today's names; what is gone goes by its id.
    pub policy_set: PolicySet,
}
