//! Enrolment keys.

use serde::{Deserialize, Serialize};

use super::secret::Secret;
use crate::{
    id::{EnrollmentKeyId, UserId},
    timestamp::Timestamp,
};

/// A key with which devices join, without its secret.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct EnrollmentKey {
    /// Names the key for ever.
    pub id: EnrollmentKeyId,
    /// For people.
    pub name: String,
    /// Who owns the devices that join with it.
    pub user_id: UserId,
    /// How many devices may still join with it.
    pub uses_left: u32,
    /// Whether devices that join with it need no approval.
    pub approved: bool,
    /// When it expires.
    pub expires_at: Timestamp,
    /// When it was created.
    pub created_at: Timestamp,
}

/// What is sent to create an enrolment key.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(deny_unknown_fields)]
pub struct EnrollmentKeyWrite {
    /// For people, 1 to 100 characters.
    #[cfg_attr(feature = "openapi", schema(min_length = 1, max_length = 100))]
    pub name: String,
    /// Who owns the devices that join with it.
    pub user_id: UserId,
    /// How many devices may join with it; 1 unless said.
    #[serde(default = "once")]
    #[cfg_attr(feature = "openapi", schema(minimum = 1, maximum = 10_000))]
    pub uses: u32,
    /// Whether devices that join with it need no approval; unless said, the organisation decides.
    #[serde(default)]
    pub approved: Option<bool>,
    /// How long it lives, in seconds; a day unless said, at most a year.
    #[serde(default = "one_day")]
    #[cfg_attr(feature = "openapi", schema(minimum = 1, maximum = 31_536_000))]
    pub lifetime_s: u64,
}

const fn once() -> u32 {
    1
}

const fn one_day() -> u64 {
    86_400
}

/// A new enrolment key; the only answer that holds the key itself.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct EnrollmentKeyCreated {
    /// The key's description.
    pub enrollment_key: EnrollmentKey,
    /// `adit_enroll_…`: all that `adit enroll --key-file` needs.
    pub key: Secret,
}
