//! Tokens of the REST API.

use serde::{Deserialize, Serialize};

use crate::{id::ApiTokenId, timestamp::Timestamp};

/// What a token may do.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(rename_all = "lowercase")]
pub enum Scope {
    /// Everything.
    Admin,
    /// Reads everything, changes nothing.
    Read,
}

/// A token of the REST API, without its secret.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct ApiToken {
    /// Names the token for ever.
    pub id: ApiTokenId,
    /// For people.
    pub name: String,
    /// What it may do.
    pub scope: Scope,
    /// When it expires; never when absent.
    pub expires_at: Option<Timestamp>,
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
    /// What it may do.
    pub scope: Scope,
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
    pub token: String,
}
