//! The audit log.

use serde::{Deserialize, Serialize};

use crate::timestamp::Timestamp;

/// One change, chained by hash to the one before.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct AuditEvent {
    /// Grows by one with each change.
    pub sequence: u64,
    /// When.
    pub at: Timestamp,
    /// Who: an API token's, device's or connector's id.
    pub actor: String,
    /// What was done, such as `policy.create`.
    pub operation: String,
    /// To which object, by id.
    pub object_id: String,
    /// The object after the change, without secrets; null when it was deleted.
    #[cfg_attr(feature = "openapi", schema(value_type = Option<Object>))]
    pub object: Option<serde_json::Value>,
    /// SHA-256 over the previous event's hash and this event's content, base64url.
    pub hash: String,
}
