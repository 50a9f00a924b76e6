//! Groups of users.

use serde::{Deserialize, Serialize};

use crate::{
    id::{GroupId, IdentityProviderId},
    timestamp::Timestamp,
};

/// A set of users; its members are a list of their own.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct Group {
    /// Names the group for ever.
    pub id: GroupId,
    /// For people; unique.
    pub name: String,
    /// Who says which users are members, at their sign-ins; absent: administrators do.
    pub identity_provider_id: Option<IdentityProviderId>,
    /// When it was created.
    pub created_at: Timestamp,
    /// When it was last changed.
    pub updated_at: Timestamp,
}

/// What is sent to create or replace a group.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(deny_unknown_fields)]
pub struct GroupWrite {
    /// Unique, 1 to 100 characters.
    #[cfg_attr(feature = "openapi", schema(min_length = 1, max_length = 100))]
    pub name: String,
}
