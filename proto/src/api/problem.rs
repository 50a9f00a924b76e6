//! Errors of the REST API: problem details (RFC 9457).

use serde::{Deserialize, Serialize};

use crate::api::FailedPolicyTest;

/// The body of every answer that is no success, as `application/problem+json`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct Problem {
    /// `about:blank`: the status says it all, `code` says it exactly.
    #[serde(rename = "type")]
    pub kind: String,
    /// The status in words.
    pub title: String,
    /// The HTTP status.
    pub status: u16,
    /// A stable code for programs.
    pub code: ProblemCode,
    /// One sentence for people: what is wrong and what to do next.
    pub detail: String,
    /// The member of the body or query that is wrong, as a JSON pointer (RFC 6901) or a name.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub field: Option<String>,
    /// The first of the policy tests that would not hold.
    #[serde(skip_serializing_if = "<[_]>::is_empty", default)]
    #[cfg_attr(feature = "openapi", schema(value_type = Vec<FailedPolicyTest>))]
    pub failed_tests: Box<[FailedPolicyTest]>,
}

/// Stable codes of problems.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(rename_all = "kebab-case")]
pub enum ProblemCode {
    /// 400: not HTTP or JSON as expected.
    MalformedRequest,
    /// 401: no credentials, or wrong ones.
    NotAuthenticated,
    /// 403: authenticated, but not allowed to do this.
    NotAllowed,
    /// 403: the device waits for approval.
    DevicePending,
    /// 403: the device or its user was revoked.
    DeviceRevoked,
    /// 403: the user is signed in no more on this device.
    SessionExpired,
    /// 404: there is none, or none that may be known.
    NotFound,
    /// 405: the path exists, the method does not.
    MethodNotAllowed,
    /// 409: it contradicts what exists.
    Conflict,
    /// 409: the same Idempotency-Key was used with another body.
    IdempotencyConflict,
    /// 409: policy tests would not hold any more.
    PolicyTestsFailed,
    /// 412: the object was changed since it was read.
    EtagMismatch,
    /// 413: the body is too large.
    BodyTooLarge,
    /// 415: the body is not application/json.
    UnsupportedMediaType,
    /// 422: a member has a value that cannot be.
    Invalid,
    /// 422: the token is unknown, used up or expired.
    JoinRefused,
    /// 428: If-Match is missing.
    EtagRequired,
    /// 429: too many requests, or too many wrong secrets.
    RateLimited,
    /// 500: our fault.
    Internal,
    /// 503: try again.
    Unavailable,
    /// 507: the disk is full.
    StorageFull,
}
