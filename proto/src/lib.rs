//! The contract between Adit's programs, on one page.
//!
//! Three programs speak: the **client** on a laptop, the **connector** beside private services and
//! the **control plane**. Everything that crosses a wire between them is defined here, once.
//!
//! 1. *Join.* A [`JoinToken`] names the control plane's URL, its certificate pin and a secret that
//!    is consumed by its use. A client joins with `POST /v1/client/enroll`, a connector with
//!    `POST /v1/connector/enroll`. A person needs no token: `POST /v1/device-authorization` begins a
//!    sign-in (RFC 8628), `POST /v1/token` says when it was approved, and the device code is then
//!    the secret. From then on each authenticates a request to the control plane
//!    with an [`Assertion`]: a token of one minute, bound to the request, signed by its own key.
//! 2. *Configure.* The client fetches its [`ClientConfig`] and a [`Credential`]; the connector
//!    follows `GET /v1/connector/stream` and fetches its [`Bundle`]. All three are [`Signed`] by
//!    an organisation key.
//! 3. *Admit.* The client opens a session channel to a connector: TLS with pins both ways, one
//!    request over HTTP/2 or HTTP/3 that carries a line of JSON for each [`ClientMessage`] and
//!    [`ConnectorMessage`].
//! 4. *Carry.* Packets travel by WireGuard; the connector decides every flow by its bundle and
//!    reports an [`AccessEvent`].
//! 5. *Look around.* Whoever wonders about the network between asks a connector for the
//!    [`ObservedAddress`] of the connection, with `GET /v1/observed-address`.
//!
//! Programs that are not Adit's reach a connector by standards: [`http3`] and [`masque`] read and
//! write what those say.
//!
//! The crate is pure: it opens no socket, reads no clock and draws no randomness.

#![forbid(unsafe_code)]

mod assertion;
mod audit;
mod bundle;
mod config;
mod credential;
mod event;
mod id;
mod join_token;
mod key;
mod observed_address;
mod port;
mod preshared_key;
mod reason;
mod session;
mod signed;
mod timestamp;

pub mod api;
pub mod http3;
pub mod masque;

pub use assertion::{Assertion, AssertionError, AssertionSubject, sha256_base64url};
pub use audit::{AuditChain, AuditFault, AuditHead, AuditSpan, audit_hash};
pub use bundle::{Bundle, BundleError, Revocation, RevokedSubject, WireguardDevice};
pub use config::{ClientConfig, ConnectorOnClient, ResourceOnClient, SiteOnClient};
pub use credential::{Confirmation, Credential, CredentialError, NumericDate};
pub use event::{AccessEvent, FlowTuple, Verdict};
pub use id::{
    ApiTokenId, ConnectorId, ConnectorTokenId, DeviceId, EnrollmentKeyId, EventId, GroupId,
    IdError, IdentityProviderId, OrganisationId, PolicyId, PolicyTestId, ResourceId, SessionId,
    SignInId, SiteId, UserId, UserSessionId,
};
pub use join_token::{JoinToken, JoinTokenError, JoinTokenKind};
pub use key::{KeyError, OrganisationKey, Pin, WireguardPublicKey};
pub use observed_address::{MAX_OBSERVED_ADDRESS_LEN, OBSERVED_ADDRESS_PATH, ObservedAddress};
pub use port::{PortRange, PortRangeError, Protocol};
pub use preshared_key::PresharedKey;
pub use reason::Reason;
pub use session::{ClientMessage, ConnectorMessage, MAX_SESSION_LINE_LEN, SESSION_PATH};
pub use signed::{Signed, SignedError, SigningKey, TokenType};
pub use timestamp::{Timestamp, TimestampError};
