//! Sessions: how long a user is signed in on a device.

use serde::{Deserialize, Serialize};

use crate::{
    id::{DeviceId, IdentityProviderId, UserId, UserSessionId},
    timestamp::Timestamp,
};

/// A user who is, or was, signed in on a device. A device has one at most: its latest.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct UserSession {
    /// Names the session.
    pub id: UserSessionId,
    /// Where the user is signed in.
    pub device_id: DeviceId,
    /// Who is.
    pub user_id: UserId,
    /// Who says so; absent when an administrator approved it.
    pub identity_provider_id: Option<IdentityProviderId>,
    /// When the user proved to be it.
    pub authenticated_at: Timestamp,
    /// How, as the identity provider says (RFC 8176).
    pub authentication_methods: Vec<String>,
    /// When it ends by itself; absent when it does not.
    pub ends_at: Option<Timestamp>,
    /// When it was ended before that.
    pub ended_at: Option<Timestamp>,
}

impl UserSession {
    /// Whether the user is signed in no more.
    pub fn is_over(&self, now: Timestamp) -> bool {
        self.ended_at.is_some() || self.ends_at.is_some_and(|ends_at| ends_at <= now)
    }
}
