//! Answers that are no success (RFC 9110 §15, RFC 9209).

use adit_policy::Denial;
use adit_proto::{
    Reason,
    http3::{Field, ResponseHead},
    masque::{ProxyRequest, ProxyRequestError},
};
use adit_tunnel::IncomingRequest;

/// Why a request is not served.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Refusal {
    status: u16,
    fields: Vec<Field>,
}

impl Refusal {
    /// The request asks for nothing that can be served.
    pub(super) fn malformed(status: u16, error: &ProxyRequestError) -> Self {
        Self::proxy(status, "http_request_error", &error.to_string())
    }

    /// What is there is asked for otherwise (RFC 9110 §15.5.6).
    pub(super) fn method(allowed: &str) -> Self {
        Self { status: 405, fields: vec![Field::new("allow", allowed)] }
    }

    /// Packets are carried to wherever policy lets them, not to a part that the client chooses.
    pub(super) fn scoped() -> Self {
        let details = "only requests for any target and any protocol are served";
        Self::proxy(501, "http_request_error", details)
    }

    /// There is no credential, or it is none (RFC 6750 §3).
    pub(super) fn unauthenticated(asked: &ProxyRequest, reason: Reason) -> Self {
        let (status, challenge) = match asked {
            ProxyRequest::ConnectTcp { .. } => (407, "proxy-authenticate"),
            ProxyRequest::ConnectIp { .. } | ProxyRequest::ConnectUdp { .. } => {
                (401, "www-authenticate")
            }
        };
        let value = format!("Bearer error=\"invalid_token\", error_description=\"{reason}\"");
        Self { status, fields: vec![Field::new(challenge, value)] }
    }

    /// Policy does not permit it.
    pub(super) fn denied(denial: &Denial) -> Self {
        Self::proxy(403, "http_request_denied", denial.reason.code())
    }

    /// Something between here and the service failed.
    pub(super) fn proxy(status: u16, error: &str, details: &str) -> Self {
        let value = format!("adit-connector; error={error}; details=\"{details}\"");
        Self { status, fields: vec![Field::new("proxy-status", value)] }
    }
}

/// Where a request shows its credential: a classic CONNECT is to a proxy (RFC 9110 §11.7), the
/// others are to a resource of the connector itself.
pub(super) const fn credential_header(asked: &ProxyRequest) -> &'static str {
    match asked {
        ProxyRequest::ConnectTcp { .. } => "proxy-authorization",
        ProxyRequest::ConnectIp { .. } | ProxyRequest::ConnectUdp { .. } => "authorization",
    }
}

pub(super) fn refuse(request: IncomingRequest, refusal: &Refusal) {
    let head = ResponseHead { status: refusal.status, headers: refusal.fields.clone() };
    // Dropping the stream ends the answer, which has no content.
    let _ends = request.respond(head);
}

/// Success, with capsules on the stream (RFC 9297 §3.4).
pub(super) fn capsules() -> ResponseHead {
    ResponseHead { status: 200, headers: vec![Field::new("capsule-protocol", "?1")] }
}

/// Success, with bytes on the stream.
pub(super) const fn bytes() -> ResponseHead {
    ResponseHead { status: 200, headers: Vec::new() }
}
