//! The session channel between client and connector: one request over HTTP/2 or HTTP/3, one line of
//! JSON a message each way.

use serde::{Deserialize, Serialize};

use crate::{
    event::{FlowTuple, Verdict},
    id::{PolicyId, ResourceId, SessionId},
    key::WireguardPublicKey,
    preshared_key::PresharedKey,
    reason::Reason,
    timestamp::Timestamp,
};

/// The request path of the session channel; the method is POST.
pub const SESSION_PATH: &str = "/v1/session";

/// Longest message in bytes, its line feed included.
pub const MAX_SESSION_LINE_LEN: usize = 64 << 10;

/// From client to connector.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "type", rename_all = "snake_case")]
pub enum ClientMessage {
    /// The credential: first message of a session, and again at each refresh.
    Present {
        /// Compact JWS.
        credential: String,
    },
    /// Asks whether a flow to this destination would be allowed, and why.
    Explain {
        /// Echoed in the answer.
        request_id: u64,
        /// The flow; its source port is of no account.
        flow: FlowTuple,
    },
    /// Asks for a [`ConnectorMessage::Pong`].
    Ping {
        /// Echoed in the answer.
        request_id: u64,
    },
    /// Answers [`ConnectorMessage::Draining`]: another connector carries new flows from here on, and
    /// those that are open may end here.
    Moved,
    /// Answers [`ConnectorMessage::Draining`]: there is no other connector to go to.
    Stays,
}

/// From connector to client.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "type", rename_all = "snake_case")]
pub enum ConnectorMessage {
    /// The credential was accepted; the WireGuard peer exists.
    Admitted {
        /// The session.
        session_id: SessionId,
        /// The connector's WireGuard key, for comparison with the configuration.
        wireguard_public_key: WireguardPublicKey,
        /// Until when, unless refreshed.
        expires_at: Timestamp,
        /// For WireGuard, drawn anew for each session: the channel's keys are exchanged by a hybrid
        /// that quantum computers do not break, and so WireGuard's are protected by it.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        preshared_key: Option<PresharedKey>,
    },
    /// The credential was not accepted, or accepted no longer. The connector closes the channel.
    Refused {
        /// Why.
        reason: Reason,
    },
    /// Fetch configuration and credential anew.
    RefreshNow,
    /// Something is on its way to you, and nothing was heard of you for a while: say something by what
    /// carries your packets, so that a NAT which has forgotten you lets it through.
    Speak,
    /// The connector is about to stop; use another, and answer with [`ClientMessage::Moved`] or
    /// [`ClientMessage::Stays`].
    Draining,
    /// A flow was refused or cut.
    Denied {
        /// Which.
        flow: FlowTuple,
        /// Refused or cut.
        verdict: Verdict,
        /// Why.
        reason: Reason,
        /// For what, when a resource was found.
        resource_id: Option<ResourceId>,
        /// The policy that decided, when one did.
        policy_id: Option<PolicyId>,
    },
    /// Answers [`ClientMessage::Explain`].
    Explained {
        /// From the question.
        request_id: u64,
        /// Allowed or denied.
        verdict: Verdict,
        /// Why.
        reason: Reason,
        /// For what, when a resource was found.
        resource_id: Option<ResourceId>,
        /// The policy that decided, when one did.
        policy_id: Option<PolicyId>,
        /// That policy's name.
        policy_name: Option<String>,
    },
    /// Answers [`ClientMessage::Ping`].
    Pong {
        /// From the question.
        request_id: u64,
        /// How busy the connector is, in per cent of what it can do.
        #[serde(default)]
        load: u8,
    },
}
