//! What the command line and the daemon say to each other: one JSON object a line, each way.

mod netcheck;
mod ping;

use std::net::{IpAddr, SocketAddr};

use adit_proto::{
    ConnectorId, DeviceId, FlowTuple, PolicyId, Protocol, Reason, ResourceId, SiteId, Timestamp,
    Verdict,
    api::{PortFilter, Secret},
};
use ipnet::IpNet;
use serde::{Deserialize, Serialize};
use tokio::io::{AsyncBufRead, AsyncBufReadExt as _, AsyncReadExt as _};

pub(crate) use self::{
    netcheck::{
        AddressOnNetcheck, ConnectorOnNetcheck, ControlPlaneOnNetcheck, FamilyOnNetcheck, NatKind,
        NatOnNetcheck, Netcheck, Passage, ProbeOnNetcheck, SiteOnNetcheck,
    },
    ping::{PathOnPing, Ping, PingOutcome},
};
use crate::carrier::{Carrier, CarrierChoice, SessionCarrier};

/// Grows when a member of an answer changes its meaning or goes.
pub(crate) const SCHEMA_VERSION: u32 = 1;

/// Longest request in bytes, its line feed included.
pub(crate) const MAX_REQUEST_LEN: usize = 1 << 20;

/// Longest answer in bytes: a list of many resources.
pub(crate) const MAX_ANSWER_LEN: usize = 64 << 20;

/// From the command line to the daemon.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "type", rename_all = "snake_case", deny_unknown_fields)]
pub(crate) enum Request {
    /// Join an organisation.
    Enroll {
        /// `adit_enroll_…`.
        key: Secret,
        /// What the device is to be called.
        name: Option<String>,
        /// Whether to forget an earlier enrolment.
        #[serde(default)]
        replace: bool,
    },
    /// Begin to sign in.
    Login {
        /// Where the control plane is, for a new device: `https://host:port`, or with `#pin`.
        url: Option<String>,
        /// What a new device is to be called.
        name: Option<String>,
        /// Whether to forget an earlier enrolment.
        #[serde(default)]
        replace: bool,
    },
    /// What becomes of the sign-in under way.
    AwaitLogin,
    /// Sign out.
    Logout,
    /// Connect, and stay so.
    Up {
        /// How long to wait for it, in milliseconds.
        wait_ms: u64,
    },
    /// Disconnect, and stay so.
    Down,
    /// Use other carriers, from here on and after restarts.
    SetCarrier {
        /// Which.
        carrier: CarrierChoice,
    },
    /// How things stand.
    Status,
    /// What may be reached.
    Resources,
    /// Whether a flow would be let through, and why.
    Explain {
        /// To which address.
        destination: IpAddr,
        /// To which port; 0 for ICMP.
        port: u16,
        /// By which protocol.
        protocol: Protocol,
    },
    /// What becomes of one echo through the tunnel.
    Ping {
        /// To which address.
        destination: IpAddr,
        /// Which of several.
        sequence: u16,
        /// How long to wait for it, in milliseconds.
        timeout_ms: u64,
    },
    /// What this network lets through.
    Netcheck,
}

impl Request {
    /// Whether only root and the group may ask it.
    pub(crate) const fn changes_something(&self) -> bool {
        match self {
            Self::Enroll { .. } => true,
            Self::Login { .. } => true,
            Self::AwaitLogin => true,
            Self::Logout => true,
            Self::Up { .. } => true,
            Self::Down => true,
            Self::SetCarrier { .. } => true,
            Self::Status => false,
            Self::Resources => false,
            Self::Explain { .. } => false,
            Self::Ping { .. } => false,
            Self::Netcheck => false,
        }
    }
}

/// From the daemon to the command line.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct Answer {
    /// [`SCHEMA_VERSION`].
    pub(crate) schema_version: u32,
    /// What is answered.
    #[serde(flatten)]
    pub(crate) response: Response,
}

impl From<Response> for Answer {
    fn from(response: Response) -> Self {
        Self { schema_version: SCHEMA_VERSION, response }
    }
}

/// What is answered.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "type", rename_all = "snake_case")]
pub(crate) enum Response {
    /// It is done.
    Done {
        /// One sentence for people.
        message: String,
    },
    /// Answers [`Request::Login`].
    LoginBegun(LoginPrompt),
    /// Answers [`Request::Status`].
    Status(Box<Status>),
    /// Answers [`Request::Resources`].
    Resources {
        /// What may be reached.
        resources: Vec<ResourceOnStatus>,
    },
    /// Answers [`Request::Explain`].
    Explanation(Box<Explanation>),
    /// Answers [`Request::Ping`].
    Ping(Box<Ping>),
    /// Answers [`Request::Netcheck`].
    Netcheck(Box<Netcheck>),
    /// It was not done.
    Failure(Failure),
}

/// What a user needs to sign in.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct LoginPrompt {
    /// `WDJB-MJHT`.
    pub(crate) user_code: String,
    /// Where to type it.
    pub(crate) verification_uri: String,
    /// The same with the code in it.
    pub(crate) verification_uri_complete: String,
    /// When the code expires.
    pub(crate) expires_at: Timestamp,
}

/// Why something was not done, and what to do next.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Failure {
    /// Stable, for programs.
    pub(crate) code: FailureCode,
    /// What is wrong.
    pub(crate) message: String,
    /// What to do next.
    pub(crate) next: String,
}

impl Failure {
    pub(crate) fn new(
        code: FailureCode,
        message: impl Into<String>,
        next: impl Into<String>,
    ) -> Self {
        Self { code, message: message.into(), next: next.into() }
    }
}

/// Stable codes of failures.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum FailureCode {
    /// Only root and the group may do this.
    NotAllowed,
    /// Not a request.
    Malformed,
    /// Too many ask at once.
    Busy,
    /// There is no identity yet.
    NotEnrolled,
    /// There is one already.
    AlreadyEnrolled,
    /// The enrolment key is damaged or of another kind.
    KeyDamaged,
    /// The control plane does not know the enrolment key any more.
    JoinRefused,
    /// The sign-in was denied.
    LoginDenied,
    /// The control plane cannot be reached.
    ControlPlaneUnreachable,
    /// Someone else answers in the control plane's place.
    PinMismatch,
    /// The control plane refuses, or answers strangely.
    ControlPlaneRefused,
    /// The device waits for approval.
    DevicePending,
    /// The device or its user was revoked.
    DeviceRevoked,
    /// The user is signed in no more.
    SessionExpired,
    /// The interface or its routes cannot be had.
    Interface,
    /// No connector of a site can be reached or admits us.
    ConnectorUnavailable,
    /// It takes too long.
    TimedOut,
    /// The tunnel is down.
    NotConnected,
    /// The disk does not take it.
    Storage,
    /// A fault of the daemon.
    Internal,
}

/// The state of the tunnel, by name.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum StateName {
    Disconnected,
    Connecting,
    Connected,
    Disconnecting,
    Error,
}

impl StateName {
    pub(crate) const fn as_str(self) -> &'static str {
        match self {
            Self::Disconnected => "disconnected",
            Self::Connecting => "connecting",
            Self::Connected => "connected",
            Self::Disconnecting => "disconnecting",
            Self::Error => "error",
        }
    }
}

/// How things stand.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct Status {
    /// The state of the tunnel.
    pub(crate) state: StateName,
    /// Since when.
    pub(crate) since: Timestamp,
    /// Whether the tunnel is wanted.
    pub(crate) wanted: bool,
    /// What stands in the way.
    pub(crate) problem: Option<Failure>,
    /// Version of the daemon.
    pub(crate) version: String,
    /// The organisation's name.
    pub(crate) organisation: Option<String>,
    /// The user's name.
    pub(crate) user: Option<String>,
    /// This device.
    pub(crate) device: Option<DeviceOnStatus>,
    /// Our addresses inside the tunnel.
    pub(crate) addresses: Vec<IpAddr>,
    /// The interface, while it exists.
    pub(crate) interface: Option<String>,
    /// Which carriers may be used.
    pub(crate) carrier_choice: CarrierChoice,
    /// One for each site with resources.
    pub(crate) sessions: Vec<SessionOnStatus>,
    /// Until when connectors admit us.
    pub(crate) credential_expires_at: Option<Timestamp>,
    /// When the user has to sign in again, as far as that is known.
    pub(crate) session_ends_at: Option<Timestamp>,
    /// The control plane.
    pub(crate) control_plane: Option<ControlPlaneOnStatus>,
    /// What the user should know, such as overlapping routes.
    pub(crate) warnings: Vec<String>,
    /// What was refused lately, latest first.
    pub(crate) recent_denials: Vec<DenialOnStatus>,
}

/// This device.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct DeviceOnStatus {
    pub(crate) id: DeviceId,
    pub(crate) name: Option<String>,
}

/// The control plane.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct ControlPlaneOnStatus {
    pub(crate) url: String,
    /// Whether it answered last time; absent before the first time.
    pub(crate) reachable: Option<bool>,
    /// Since when that is so.
    pub(crate) since: Option<Timestamp>,
    /// Why not.
    pub(crate) error: Option<String>,
}

/// How a site is reached.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct SessionOnStatus {
    pub(crate) site_id: SiteId,
    pub(crate) site_name: String,
    pub(crate) state: SessionState,
    pub(crate) connector_id: Option<ConnectorId>,
    pub(crate) connector_name: Option<String>,
    pub(crate) endpoint: Option<SocketAddr>,
    /// What carries the packets.
    pub(crate) carrier: Option<Carrier>,
    /// What carries the session channel, while there is one.
    pub(crate) session_carrier: Option<SessionCarrier>,
    /// How its keys are agreed on.
    pub(crate) key_exchange: Option<String>,
    /// The round trip to the connector, in milliseconds.
    pub(crate) round_trip_ms: Option<f64>,
    /// How busy the connector is, in per cent.
    pub(crate) load: Option<u8>,
    /// When the connector admitted us.
    pub(crate) since: Option<Timestamp>,
    pub(crate) last_handshake: Option<Timestamp>,
    pub(crate) bytes_received: u64,
    pub(crate) bytes_sent: u64,
    /// The connector that is ready to take over.
    pub(crate) standby: Option<StandbyOnStatus>,
    /// What went wrong last, while it is not well.
    pub(crate) problem: Option<String>,
}

/// A connector that is ready to take over.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct StandbyOnStatus {
    pub(crate) connector_id: ConnectorId,
    pub(crate) connector_name: String,
    pub(crate) endpoint: SocketAddr,
    /// What would carry the packets; absent while there is nothing yet.
    pub(crate) carrier: Option<Carrier>,
    /// The round trip to the connector, in milliseconds.
    pub(crate) round_trip_ms: Option<f64>,
    /// How busy the connector is, in per cent.
    pub(crate) load: u8,
    /// When it admitted us.
    pub(crate) since: Timestamp,
}

/// How far a session has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum SessionState {
    /// Looking for a connector that admits us.
    Seeking,
    /// Admitted, and the WireGuard handshake is under way.
    Handshaking,
    /// Packets pass.
    Established,
    /// Packets may pass; the session channel is being made anew.
    Reconnecting,
}

impl SessionState {
    pub(crate) const fn as_str(self) -> &'static str {
        match self {
            Self::Seeking => "seeking",
            Self::Handshaking => "handshaking",
            Self::Established => "established",
            Self::Reconnecting => "reconnecting",
        }
    }
}

/// A flow that was refused or cut.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct DenialOnStatus {
    /// When it happened last.
    pub(crate) at: Timestamp,
    /// How often.
    pub(crate) count: u64,
    pub(crate) flow: FlowTuple,
    pub(crate) verdict: Verdict,
    pub(crate) reason: Reason,
    pub(crate) remedy: String,
    pub(crate) resource_id: Option<ResourceId>,
    pub(crate) resource_name: Option<String>,
    pub(crate) policy_id: Option<PolicyId>,
}

/// A resource that may be reached.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct ResourceOnStatus {
    pub(crate) id: ResourceId,
    pub(crate) name: String,
    pub(crate) addresses: Vec<IpNet>,
    pub(crate) filters: Vec<PortFilter>,
    pub(crate) site_id: SiteId,
    pub(crate) site_name: String,
    pub(crate) connector_id: Option<ConnectorId>,
    pub(crate) connector_name: Option<String>,
}

/// Whether a flow would be let through, and why.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Explanation {
    pub(crate) destination: IpAddr,
    pub(crate) port: u16,
    pub(crate) protocol: Protocol,
    pub(crate) allowed: bool,
    pub(crate) reason: Reason,
    pub(crate) remedy: String,
    pub(crate) resource_id: Option<ResourceId>,
    pub(crate) resource_name: Option<String>,
    pub(crate) policy_id: Option<PolicyId>,
    pub(crate) policy_name: Option<String>,
    pub(crate) site_id: Option<SiteId>,
    pub(crate) site_name: Option<String>,
    /// Who was asked; absent when the packet would not enter the tunnel.
    pub(crate) connector_id: Option<ConnectorId>,
    pub(crate) connector_name: Option<String>,
}

/// Why no line was read.
#[derive(Debug, thiserror::Error)]
pub(crate) enum LineError {
    /// No end in sight.
    #[error("a line is longer than {max} bytes")]
    TooLong {
        /// The limit.
        max: usize,
    },
    /// The socket failed.
    #[error("failed to read from the socket")]
    Io(#[from] std::io::Error),
}

/// Reads one line of at most `max` bytes; `None` at the end.
///
/// # Cancel safety
///
/// Not cancel safe: what was read is lost.
pub(crate) async fn read_line<R: AsyncBufRead + Unpin>(
    reader: &mut R,
    max: usize,
) -> Result<Option<Vec<u8>>, LineError> {
    let limit = u64::try_from(max).unwrap_or(u64::MAX);
    let mut line = Vec::new();
    let read = reader.take(limit).read_until(b'\n', &mut line).await?;
    if read == 0 {
        return Ok(None);
    }
    if line.pop_if(|byte| *byte == b'\n').is_none() && line.len() >= max {
        return Err(LineError::TooLong { max });
    }
    Ok(Some(line))
}

/// A message as its line.
pub(crate) fn to_line<T: Serialize>(message: &T) -> Vec<u8> {
    let mut line =
        serde_json::to_vec(message).expect("messages of this module are representable in JSON");
    line.push(b'\n');
    line
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_request_survives_its_line() {
        let request = Request::Explain {
            destination: "10.9.0.2".parse().unwrap(),
            port: 80,
            protocol: Protocol::Tcp,
        };
        let line = to_line(&request);
        assert_eq!(serde_json::from_slice::<Request>(&line).unwrap(), request);
    }

    #[test]
    fn an_unknown_member_is_refused() {
        let line = br#"{"type":"up","wait_ms":0,"force":true}"#;
        assert!(serde_json::from_slice::<Request>(line).is_err());
    }

    #[test]
    fn an_answer_bears_its_version_beside_its_members() {
        let answer = Answer::from(Response::Done { message: "Down".to_owned() });
        let json: serde_json::Value = serde_json::from_slice(&to_line(&answer)).unwrap();
        assert_eq!(
            json,
            serde_json::json!({"schema_version": 1, "type": "done", "message": "Down"})
        );
    }

    #[test]
    fn a_key_is_not_printed() {
        let request = Request::Enroll {
            key: "adit_enroll_secret".to_owned().into(),
            name: None,
            replace: false,
        };
        assert!(!format!("{request:?}").contains("adit_enroll_secret"));
    }

    #[tokio::test]
    async fn lines_are_read_one_by_one() {
        let mut reader: &[u8] = b"one\ntwo";
        assert_eq!(read_line(&mut reader, 10).await.unwrap().unwrap(), b"one");
        assert_eq!(read_line(&mut reader, 10).await.unwrap().unwrap(), b"two");
        assert!(read_line(&mut reader, 10).await.unwrap().is_none());
    }

    #[tokio::test]
    async fn a_line_without_end_is_refused() {
        let mut reader: &[u8] = &[b'x'; 100];
        let error = read_line(&mut reader, 10).await.unwrap_err();
        assert!(matches!(error, LineError::TooLong { max: 10 }));
    }

    #[tokio::test]
    async fn a_line_of_exactly_the_limit_is_read() {
        let mut reader: &[u8] = b"123456789\n";
        assert_eq!(read_line(&mut reader, 10).await.unwrap().unwrap(), b"123456789");
    }
}
