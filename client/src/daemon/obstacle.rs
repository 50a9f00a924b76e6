//! What stands in the way, as the user is told.

use adit_proto::api::ProblemCode;
use adit_tunnel::{ControlPlaneError, TunError};

use crate::{
    ipc::{Failure, FailureCode},
    platform::NetworkError,
};

/// What an answer of the control plane, or none, means to an enrolled device.
pub(crate) fn from_control_plane(error: &ControlPlaneError) -> Failure {
    match error {
        ControlPlaneError::Refused(problem) => match problem.code {
            ProblemCode::DevicePending => Failure::new(
                FailureCode::DevicePending,
                "the device waits for approval",
                "ask an administrator to approve it; it connects on its own then",
            ),
            ProblemCode::DeviceRevoked => Failure::new(
                FailureCode::DeviceRevoked,
                "access of this device or its user was revoked",
                "ask an administrator",
            ),
            ProblemCode::SessionExpired => session_expired(),
            ProblemCode::NotAuthenticated | ProblemCode::NotFound => Failure::new(
                FailureCode::ControlPlaneRefused,
                format!("the control plane does not accept this device: {}", problem.detail),
                "check the clock; if the device was deleted: adit enroll --replace --key-file FILE",
            ),
            ProblemCode::RateLimited
            | ProblemCode::Unavailable
            | ProblemCode::Internal
            | ProblemCode::StorageFull => Failure::new(
                FailureCode::ControlPlaneUnreachable,
                format!("the control plane is in trouble: {}", problem.detail),
                "tell an administrator; the daemon goes on trying",
            ),
            ProblemCode::MalformedRequest
            | ProblemCode::NotAllowed
            | ProblemCode::MethodNotAllowed
            | ProblemCode::Conflict
            | ProblemCode::IdempotencyConflict
            | ProblemCode::PolicyTestsFailed
            | ProblemCode::EtagMismatch
            | ProblemCode::BodyTooLarge
            | ProblemCode::UnsupportedMediaType
            | ProblemCode::Invalid
            | ProblemCode::JoinRefused
            | ProblemCode::EtagRequired => Failure::new(
                FailureCode::ControlPlaneRefused,
                format!("the control plane refuses: {}", problem.detail),
                "check that control plane and client are of the same version",
            ),
        },
        ControlPlaneError::PinMismatch { .. } => Failure::new(
            FailureCode::PinMismatch,
            error.to_string(),
            "if the control plane has a new certificate: adit enroll --replace --key-file FILE",
        ),
        ControlPlaneError::Url { .. } => Failure::new(
            FailureCode::ControlPlaneRefused,
            chain(error),
            "adit enroll --replace --key-file FILE",
        ),
        ControlPlaneError::Unreachable { .. }
        | ControlPlaneError::Silent { .. }
        | ControlPlaneError::Unexpected { .. } => Failure::new(
            FailureCode::ControlPlaneUnreachable,
            chain(error),
            "check the network; the daemon goes on trying (adit status)",
        ),
    }
}

/// What it means to a device that wants to join.
pub(crate) fn from_enrollment(error: &ControlPlaneError) -> Failure {
    match (error, error.code()) {
        (_, Some(ProblemCode::JoinRefused)) => Failure::new(
            FailureCode::JoinRefused,
            format!("the enrolment key is not accepted: {error}"),
            "ask an administrator for a new enrolment key",
        ),
        (ControlPlaneError::PinMismatch { .. }, _) => Failure::new(
            FailureCode::PinMismatch,
            "the control plane shows another certificate than the enrolment key names",
            "ask an administrator for a new enrolment key; if that does not help, someone is in \
             between",
        ),
        (ControlPlaneError::Unreachable { .. } | ControlPlaneError::Silent { .. }, _) => {
            Failure::new(
                FailureCode::ControlPlaneUnreachable,
                chain(error),
                "check the network, then enrol again with the same key",
            )
        }
        (
            ControlPlaneError::Url { .. }
            | ControlPlaneError::Refused(_)
            | ControlPlaneError::Unexpected { .. },
            _,
        ) => Failure::new(
            FailureCode::ControlPlaneRefused,
            format!("the control plane refuses: {}", chain(error)),
            "ask an administrator",
        ),
    }
}

/// What a missing interface means.
pub(crate) fn from_tun(error: &TunError) -> Failure {
    let next = match error {
        TunError::Missing => "modprobe tun",
        TunError::Privileges { .. } => "sudo adit daemon",
        TunError::Busy { .. } | TunError::Name { .. } => "adit daemon --interface NAME",
        TunError::Io { .. } => "look at the daemon's log",
    };
    Failure::new(FailureCode::Interface, chain(error), next)
}

/// What missing routes mean.
pub(crate) fn from_network(error: &NetworkError) -> Failure {
    Failure::new(
        FailureCode::Interface,
        chain(error),
        "check that the daemon runs as root or with CAP_NET_ADMIN",
    )
}

pub(crate) fn not_enrolled() -> Failure {
    Failure::new(
        FailureCode::NotEnrolled,
        "this device is not enrolled",
        "adit login URL, or adit enroll --key-file FILE (an administrator has URL and key)",
    )
}

/// Nobody is signed in, or not any more.
pub(crate) fn session_expired() -> Failure {
    Failure::new(
        FailureCode::SessionExpired,
        "you are signed in no more",
        "adit login, which connects again as well",
    )
}

/// An error with all its causes, as one sentence.
pub(crate) fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(error) = source {
        text.push_str(": ");
        text.push_str(&error.to_string());
        source = error.source();
    }
    text
}
