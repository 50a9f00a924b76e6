//! Users.

use serde::{Deserialize, Serialize};

use crate::{id::UserId, timestamp::Timestamp};

/// A person.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct User {
    /// Names the user for ever.
    pub id: UserId,
    /// For people; unique.
    pub name: String,
    /// For people; never used to identify.
    pub email: Option<String>,
    /// A disabled user's devices are cut and refused.
    pub disabled: bool,
    /// When the user was created.
    pub created_at: Timestamp,
    /// When the user was last changed.
    pub updated_at: Timestamp,
}

/// What is sent to create or replace a user.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(deny_unknown_fields)]
pub struct UserWrite {
    /// Unique, 1 to 100 characters.
    #[cfg_attr(feature = "openapi", schema(min_length = 1, max_length = 100))]
    pub name: String,
    /// For people, up to 254 characters.
    #[serde(default)]
    #[cfg_attr(feature = "openapi", schema(max_length = 254))]
    pub email: Option<String>,
    /// A disabled user's devices are cut and refused.
    #[serde(default)]
    pub disabled: bool,
}
