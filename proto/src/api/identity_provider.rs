//! Identity providers: who says which user someone is (OpenID Connect Core 1.0).

use serde::{Deserialize, Serialize};

use crate::{id::IdentityProviderId, timestamp::Timestamp};

/// A provider by which users sign in, without its secret.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct IdentityProvider {
    /// Names the provider for ever.
    pub id: IdentityProviderId,
    /// For people, who choose by it; unique.
    pub name: String,
    /// Its URL; what it calls itself must be exactly this.
    pub issuer: String,
    /// What it calls this control plane.
    pub client_id: String,
    /// The claim that holds the names of the user's groups; absent: none are taken over.
    pub groups_claim: Option<String>,
    /// What is asked for beside `openid`.
    pub scopes: Vec<String>,
    /// What the provider must be told to allow as a redirect URI.
    pub redirect_uri: String,
    /// When it was created.
    pub created_at: Timestamp,
    /// When it was last changed.
    pub updated_at: Timestamp,
}

/// What is sent to create or replace a provider.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(deny_unknown_fields)]
pub struct IdentityProviderWrite {
    /// Unique, 1 to 100 characters.
    #[cfg_attr(feature = "openapi", schema(min_length = 1, max_length = 100))]
    pub name: String,
    /// An https URL, without query and fragment.
    #[cfg_attr(feature = "openapi", schema(max_length = 500))]
    pub issuer: String,
    /// 1 to 500 characters.
    #[cfg_attr(feature = "openapi", schema(min_length = 1, max_length = 500))]
    pub client_id: String,
    /// Never shown again. Left out of a replacement, the one that is held stays; a public client
    /// has none.
    #[serde(default)]
    #[cfg_attr(feature = "openapi", schema(min_length = 1, max_length = 2000))]
    pub client_secret: Option<String>,
    /// The claim that holds the names of the user's groups, such as `groups`.
    #[serde(default)]
    #[cfg_attr(feature = "openapi", schema(min_length = 1, max_length = 100))]
    pub groups_claim: Option<String>,
    /// What is asked for beside `openid`, such as `profile`; at most 20.
    #[serde(default)]
    #[cfg_attr(feature = "openapi", schema(max_items = 20))]
    pub scopes: Vec<String>,
}

impl std::fmt::Debug for IdentityProviderWrite {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("IdentityProviderWrite")
            .field("name", &self.name)
            .field("issuer", &self.issuer)
            .field("client_id", &self.client_id)
            .finish_non_exhaustive()
    }
}
