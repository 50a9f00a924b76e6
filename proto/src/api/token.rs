//! Tokens of the REST API.

use std::collections::BTreeSet;

use serde::{Deserialize, Serialize};

use super::{scope::Scope, secret::Secret};
use crate::{id::ApiTokenId, timestamp::Timestamp};

/// Whose work a token does, and so what it may do at most.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(rename_all = "kebab-case")]
pub enum Role {
    /// Everything.
    Owner,
    /// Everything but tokens of owners.
    Admin,
    /// Sites, resources, connectors and policies.
    NetworkAdmin,
    /// Decides of devices and people that ask to be let in.
    Approver,
    /// Reads everything, changes nothing.
    Auditor,
}

/// A token of the REST API, without its secret.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct ApiToken {
    /// Names the token for ever.
    pub id: ApiTokenId,
    /// For people.
    pub name: String,
    /// What it is for.
    pub description: Option<String>,
    /// What it may do at most.
    pub role: Role,
    /// What it may do of that; all of it when absent.
    pub scopes: Option<BTreeSet<Scope>>,
    /// When it expires; never when absent.
    pub expires_at: Option<Timestamp>,
    /// When it was last used, to about a minute.
    pub last_used_at: Option<Timestamp>,
    /// When it was created.
    pub created_at: Timestamp,
}

/// What is sent to create an API token.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(deny_unknown_fields)]
pub struct ApiTokenWrite {
    /// For people, 1 to 100 characters.
    #[cfg_attr(feature = "openapi", schema(min_length = 1, max_length = 100))]
    pub name: String,
    /// What it is for, at most 500 characters.
    #[serde(default)]
    #[cfg_attr(feature = "openapi", schema(max_length = 500))]
    pub description: Option<String>,
    /// What it may do at most.
    pub role: Role,
    /// What it may do of that, at least one; all of it when absent.
    #[serde(default)]
    #[cfg_attr(feature = "openapi", schema(min_items = 1))]
    pub scopes: Option<BTreeSet<Scope>>,
    /// How long it lives, in seconds, at most ten years; for ever when absent.
    #[serde(default)]
    #[cfg_attr(feature = "openapi", schema(minimum = 1, maximum = 315_360_000))]
    pub lifetime_s: Option<u64>,
}

/// A new API token; the only answer that holds the token itself.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct ApiTokenCreated {
    /// The token's description.
    pub api_token: ApiToken,
    /// `adit_pat_…`, for `Authorization: Bearer`.
    pub token: Secret,
}
