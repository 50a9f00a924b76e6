//! Why a flow was let through or not: stable codes, each with a remedy.

use std::fmt;

use serde::{Deserialize, Serialize};

/// A stable code for the outcome of a decision. Codes are never renamed and never reused.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(rename_all = "kebab-case")]
pub enum Reason {
    /// A policy permits it and none forbids it.
    PolicyPermits,
    /// A policy forbids it.
    PolicyForbids,
    /// No policy permits it.
    NoPolicyPermits,
    /// The policy that would permit it asks for a posture label that the device does not bear.
    PostureFailed,
    /// The policy that would permit it asks for another source network.
    SourceNetworkOther,
    /// The policy that would permit it asks for a sign-in that is less old.
    SignInTooOld,
    /// The policy that would permit it asks for a stronger sign-in.
    AuthenticationMethodsMissing,
    /// The policy that would permit it holds at other hours.
    TimeWindowClosed,
    /// The policy that permitted it has expired.
    PolicyExpired,
    /// A policy could not be evaluated, so nothing is permitted.
    PolicyError,
    /// No resource has this address, protocol and port.
    ResourceUnknown,
    /// The resource belongs to another site.
    ResourceElsewhere,
    /// An address that is never forwarded to unless a resource names it alone.
    AddressReserved,
    /// The source address belongs to another device.
    SourceSpoofed,
    /// A protocol that cannot be a flow, or a packet too broken to tell.
    PacketUnsupported,
    /// A packet toward a device that answers no live flow.
    FlowUnknown,
    /// The connector holds as many flows as it may, and this one was worth least.
    FlowTableFull,
    /// The device opens flows faster than it may.
    FlowRateExceeded,
    /// The credential is not one that this organisation signed for this device key.
    CredentialInvalid,
    /// The credential has expired.
    CredentialExpired,
    /// The device waits for approval.
    DevicePending,
    /// Access of the device was revoked.
    DeviceRevoked,
    /// The user is disabled or was signed out.
    UserRevoked,
    /// The user is signed in no more on this device.
    SessionExpired,
    /// The connector has not heard from the control plane for too long.
    BundleStale,
}

impl Reason {
    /// Every code, in the order of the documentation.
    pub const ALL: [Self; 25] = [
        Self::PolicyPermits,
        Self::PolicyForbids,
        Self::NoPolicyPermits,
        Self::PostureFailed,
        Self::SourceNetworkOther,
        Self::SignInTooOld,
        Self::AuthenticationMethodsMissing,
        Self::TimeWindowClosed,
        Self::PolicyExpired,
        Self::PolicyError,
        Self::ResourceUnknown,
        Self::ResourceElsewhere,
        Self::AddressReserved,
        Self::SourceSpoofed,
        Self::PacketUnsupported,
        Self::FlowUnknown,
        Self::FlowTableFull,
        Self::FlowRateExceeded,
        Self::CredentialInvalid,
        Self::CredentialExpired,
        Self::DevicePending,
        Self::DeviceRevoked,
        Self::UserRevoked,
        Self::SessionExpired,
        Self::BundleStale,
    ];

    /// The code itself, as it stands in logs and answers.
    pub const fn code(self) -> &'static str {
        match self {
            Self::PolicyPermits => "policy-permits",
            Self::PolicyForbids => "policy-forbids",
            Self::NoPolicyPermits => "no-policy-permits",
            Self::PostureFailed => "posture-failed",
            Self::SourceNetworkOther => "source-network-other",
            Self::SignInTooOld => "sign-in-too-old",
            Self::AuthenticationMethodsMissing => "authentication-methods-missing",
            Self::TimeWindowClosed => "time-window-closed",
            Self::PolicyExpired => "policy-expired",
            Self::PolicyError => "policy-error",
            Self::ResourceUnknown => "resource-unknown",
            Self::ResourceElsewhere => "resource-elsewhere",
            Self::AddressReserved => "address-reserved",
            Self::SourceSpoofed => "source-spoofed",
            Self::PacketUnsupported => "packet-unsupported",
            Self::FlowUnknown => "flow-unknown",
            Self::FlowTableFull => "flow-table-full",
            Self::FlowRateExceeded => "flow-rate-exceeded",
            Self::CredentialInvalid => "credential-invalid",
            Self::CredentialExpired => "credential-expired",
            Self::DevicePending => "device-pending",
            Self::DeviceRevoked => "device-revoked",
            Self::UserRevoked => "user-revoked",
            Self::SessionExpired => "session-expired",
            Self::BundleStale => "bundle-stale",
        }
    }

    /// One sentence for the person at the laptop: what this means and what to do next.
    pub const fn remedy(self) -> &'static str {
        match self {
            Self::PolicyPermits => "Nothing stands in the way here; look at the service itself.",
            Self::PolicyForbids => "A policy forbids this; ask an administrator about the policy.",
            Self::NoPolicyPermits => "No policy permits this; ask an administrator for access.",
            Self::PostureFailed => {
                "This asks for a device in a better state; ask an administrator what is missing."
            }
            Self::SourceNetworkOther => {
                "This may be reached from other networks only; change the network, or ask an \
                 administrator."
            }
            Self::SignInTooOld => "This asks for a fresh sign-in; sign in again.",
            Self::AuthenticationMethodsMissing => {
                "This asks for a stronger sign-in; sign in again with a second factor."
            }
            Self::TimeWindowClosed => "This may be reached at other hours; ask an administrator.",
            Self::PolicyExpired => "Access was granted for a while and has ended; ask for it anew.",
            Self::PolicyError => "A policy is broken; tell an administrator the policy's id.",
            Self::ResourceUnknown => {
                "No resource has this address and port; run `adit resources` to see those you may \
                 use."
            }
            Self::ResourceElsewhere => {
                "This resource belongs to another site; run `adit down` and `adit up` to fetch the \
                 routes anew."
            }
            Self::AddressReserved => {
                "Loopback, link-local and multicast addresses are refused; an administrator can \
                 make a resource of exactly this address."
            }
            Self::SourceSpoofed => {
                "A packet left with an address that is not this device's; look for a virtual \
                 machine or container that shares the tunnel."
            }
            Self::PacketUnsupported => "Only TCP, UDP and ICMP echo pass the tunnel.",
            Self::FlowUnknown => "This answers no live connection; connect again.",
            Self::FlowTableFull => {
                "This device has too many connections open; close some, or look for a program that \
                 opens them."
            }
            Self::FlowRateExceeded => {
                "This device opens connections too fast; try again in a moment, or look for a \
                 program that scans the network."
            }
            Self::CredentialInvalid => {
                "The device's credential is not valid here; run `adit enroll` anew."
            }
            Self::CredentialExpired => {
                "The device's credential has expired; run `adit status` to see whether the control \
                 plane can be reached."
            }
            Self::DevicePending => "The device waits for approval; ask an administrator.",
            Self::DeviceRevoked => "Access of this device was revoked; ask an administrator.",
            Self::UserRevoked => "Access of this user was revoked; ask an administrator.",
            Self::SessionExpired => "You are signed in no more; run `adit login`.",
            Self::BundleStale => "The connector has lost its control plane; tell an administrator.",
        }
    }
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.code())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_code_is_what_goes_over_the_wire() {
        for reason in Reason::ALL {
            assert_eq!(serde_json::to_string(&reason).unwrap(), format!("\"{}\"", reason.code()));
        }
    }

    #[test]
    fn every_code_stands_in_the_documentation() {
        let documentation = include_str!("../../docs/policy.md");
        for reason in Reason::ALL {
            let line = format!("\n| `{}` | ", reason.code());
            assert!(documentation.contains(&line), "{reason}");
        }
    }
}
