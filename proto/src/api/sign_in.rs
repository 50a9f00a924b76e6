//! Signing in: the device authorization grant (RFC 8628), and what administrators see of it.

use serde::{Deserialize, Serialize};

use crate::{
    id::{DeviceId, SignInId, UserId},
    timestamp::Timestamp,
};

/// The `client_id` of the Adit client, a public one (RFC 6749 §2.1).
pub const OAUTH_CLIENT_ID: &str = "adit";

/// The `grant_type` of a device code (RFC 8628 §3.4).
pub const DEVICE_CODE_GRANT: &str = "urn:ietf:params:oauth:grant-type:device_code";

/// What begins a sign-in (RFC 8628 §3.1), form encoded.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct DeviceAuthorizationRequest {
    /// [`OAUTH_CLIENT_ID`].
    pub client_id: String,
    /// What the device calls itself, for the person who confirms: 1 to 100 characters. Left out, or
    /// of a device that has enrolled, it is the name that is known, or none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[cfg_attr(feature = "openapi", schema(min_length = 1, max_length = 100))]
    pub device_name: Option<String>,
}

/// The codes of a sign-in (RFC 8628 §3.2).
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct DeviceAuthorization {
    /// With which the client asks how far it is. A secret.
    pub device_code: String,
    /// What the user types: `WDJB-MJHT`.
    pub user_code: String,
    /// Where the user types it.
    pub verification_uri: String,
    /// The same with the code in it.
    pub verification_uri_complete: String,
    /// How long the codes live, in seconds.
    pub expires_in: u64,
    /// How long to wait between two questions, in seconds.
    pub interval: u64,
}

impl std::fmt::Debug for DeviceAuthorization {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("DeviceAuthorization")
            .field("user_code", &self.user_code)
            .field("expires_in", &self.expires_in)
            .finish_non_exhaustive()
    }
}

/// What asks how far a sign-in is (RFC 8628 §3.4), form encoded.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct DeviceTokenRequest {
    /// [`DEVICE_CODE_GRANT`].
    pub grant_type: String,
    /// The code that began it.
    pub device_code: String,
    /// [`OAUTH_CLIENT_ID`].
    pub client_id: String,
}

impl std::fmt::Debug for DeviceTokenRequest {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("DeviceTokenRequest").finish_non_exhaustive()
    }
}

/// The sign-in was approved (RFC 6749 §5.1).
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct DeviceToken {
    /// The device code itself: what a new device enrols with, in place of an enrolment key's
    /// secret. So an answer that was lost can be asked for again.
    pub access_token: String,
    /// `N_A`: it opens nothing else (RFC 8693 §2.2.1).
    pub token_type: String,
    /// How long it lives, in seconds.
    pub expires_in: u64,
}

impl std::fmt::Debug for DeviceToken {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("DeviceToken").field("expires_in", &self.expires_in).finish_non_exhaustive()
    }
}

/// Why there is no token, or not yet.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct OauthError {
    /// A stable code for programs.
    pub error: OauthErrorCode,
    /// One sentence for people: what is wrong and what to do next.
    pub error_description: String,
}

/// Codes of RFC 6749 §5.2 and RFC 8628 §3.5.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(rename_all = "snake_case")]
pub enum OauthErrorCode {
    /// Nobody has decided yet; ask again after the interval.
    AuthorizationPending,
    /// As before, and the interval grows by five seconds.
    SlowDown,
    /// The codes have expired; begin anew.
    ExpiredToken,
    /// It was denied.
    AccessDenied,
    /// A parameter is missing, repeated or of no use.
    InvalidRequest,
    /// There is no such client.
    InvalidClient,
    /// The device code is unknown or was used.
    InvalidGrant,
    /// Only device codes are granted.
    UnsupportedGrantType,
    /// The control plane is in trouble; ask again later (RFC 6749 §4.1.2.1).
    TemporarilyUnavailable,
}

/// Whether someone has decided about a sign-in.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(rename_all = "lowercase")]
pub enum SignInState {
    /// Nobody has.
    Pending,
    /// It is a user's.
    Approved,
    /// It is nobody's.
    Denied,
}

/// A sign-in under way.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct SignIn {
    /// Names the sign-in.
    pub id: SignInId,
    /// What the device shows to its user: `WDJB-MJHT`. Compare before you approve.
    pub user_code: String,
    /// Whether someone has decided.
    pub state: SignInState,
    /// What the device calls itself; for a device that has enrolled, the name that is known.
    pub device_name: Option<String>,
    /// The device, if it has enrolled.
    pub device_id: Option<DeviceId>,
    /// From which address it was asked for, when that is known.
    pub address: Option<String>,
    /// The user, once it is approved.
    pub user_id: Option<UserId>,
    /// When the codes expire.
    pub expires_at: Timestamp,
    /// When it began.
    pub created_at: Timestamp,
}

/// What is sent to approve a sign-in.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(deny_unknown_fields)]
pub struct SignInApproval {
    /// Whose it is; the owner, if the device has enrolled.
    pub user_id: UserId,
}
