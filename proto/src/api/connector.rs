//! Connectors, and what they say to the control plane.

use serde::{Deserialize, Serialize};

use super::secret::Secret;
use crate::{
    event::AccessEvent,
    id::{ConnectorId, ConnectorTokenId, OrganisationId, SiteId},
    key::{OrganisationKey, Pin, WireguardPublicKey},
    timestamp::Timestamp,
};

/// A site agent that reaches resources.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct Connector {
    /// Names the connector for ever.
    pub id: ConnectorId,
    /// For people.
    pub name: String,
    /// Where it lives.
    pub site_id: SiteId,
    /// Where it listens, `host:port`, TCP and UDP: as the administrator says, else as it reports.
    pub endpoints: Vec<String>,
    /// The pin of its TLS key.
    pub pin: Pin,
    /// Its WireGuard key.
    pub wireguard_public_key: WireguardPublicKey,
    /// The version it runs.
    pub version: Option<String>,
    /// Whether its stream is open at this moment.
    pub connected: bool,
    /// When it was last heard.
    pub last_seen_at: Option<Timestamp>,
    /// When it joined.
    pub created_at: Timestamp,
    /// When it was last changed.
    pub updated_at: Timestamp,
}

/// What can be changed of a connector.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(deny_unknown_fields)]
pub struct ConnectorWrite {
    /// For people, 1 to 100 characters.
    #[cfg_attr(feature = "openapi", schema(min_length = 1, max_length = 100))]
    pub name: String,
    /// `host:port` where clients find it, at most 20; empty means as it reports itself.
    #[serde(default)]
    #[cfg_attr(feature = "openapi", schema(max_items = 20))]
    pub endpoints: Vec<String>,
}

/// A token with which one connector joins, without its secret.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct ConnectorToken {
    /// Names the token for ever.
    pub id: ConnectorTokenId,
    /// For people; becomes the connector's name.
    pub name: String,
    /// Where the connector will live.
    pub site_id: SiteId,
    /// When it expires.
    pub expires_at: Timestamp,
    /// When it was created.
    pub created_at: Timestamp,
}

/// What is sent to create a connector token.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(deny_unknown_fields)]
pub struct ConnectorTokenWrite {
    /// For people, 1 to 100 characters; becomes the connector's name.
    #[cfg_attr(feature = "openapi", schema(min_length = 1, max_length = 100))]
    pub name: String,
    /// How long it lives, in seconds; a day unless said, at most a year.
    #[serde(default = "one_day")]
    #[cfg_attr(feature = "openapi", schema(minimum = 1, maximum = 31_536_000))]
    pub lifetime_s: u64,
}

const fn one_day() -> u64 {
    86_400
}

/// A new connector token; the only answer that holds the token itself.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct ConnectorTokenCreated {
    /// The token's description.
    pub connector_token: ConnectorToken,
    /// `adit_conn_…`: all that `adit-connector run --token-file` needs.
    pub token: Secret,
}

/// What a connector sends to join.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(deny_unknown_fields)]
pub struct ConnectorEnroll {
    /// The secret of the connector token.
    pub secret: Secret,
    /// The connector key: a DER-encoded P-256 SubjectPublicKeyInfo, base64url without padding.
    #[cfg_attr(feature = "openapi", schema(max_length = 200))]
    pub connector_key: String,
    /// The connector's WireGuard key.
    pub wireguard_public_key: WireguardPublicKey,
}

/// What a connector learns when it has joined.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct ConnectorEnrolled {
    /// The new connector.
    pub connector_id: ConnectorId,
    /// Its site.
    pub site_id: SiteId,
    /// The organisation.
    pub organisation_id: OrganisationId,
    /// Keys by which the organisation's signatures are checked.
    pub organisation_keys: Vec<OrganisationKey>,
}

/// What a connector says of itself at each start (`PUT /v1/connector/report`).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(deny_unknown_fields)]
pub struct ConnectorReport {
    /// The version it runs.
    #[cfg_attr(feature = "openapi", schema(max_length = 100))]
    pub version: String,
    /// `host:port` where it believes clients find it, at most 20.
    #[cfg_attr(feature = "openapi", schema(max_items = 20))]
    pub endpoints: Vec<String>,
}

/// Access events, sent in batches of at most 1,000 (`POST /v1/connector/access-events`).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(deny_unknown_fields)]
pub struct AccessEventBatch {
    /// The events, oldest first.
    #[cfg_attr(feature = "openapi", schema(max_items = 1000))]
    pub events: Vec<AccessEvent>,
}

/// A token signed by the organisation: a connector's bundle or a client's configuration.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct SignedToken {
    /// Compact JWS of a [`crate::Bundle`], [`crate::ClientConfig`] or [`crate::AuditHead`].
    pub token: String,
}

/// The `data` of an event on `GET /v1/connector/stream`; the event's id is the sequence.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct StreamEvent {
    /// The sequence of the bundle that can be fetched now.
    pub sequence: u64,
}
