//! All that can happen to the daemon, from every leaf.

use adit_proto::{WireguardPublicKey, api::CredentialIssued};
use adit_tunnel::{ControlPlaneError, Fetched};
use tokio::sync::oneshot;

use super::{
    data_plane::DataPlaneEvent, enrollment::Enrollment, ipc_server::Call, login::LoginEvent,
    packet_carrier::CarrierEvent, session::SessionEvent, sites::AttemptId,
};
use crate::{
    carrier::Carrier,
    ipc::{Failure, Response},
};

#[derive(Debug)]
pub(crate) enum Event {
    /// Someone asks something at the socket.
    Call(Call),
    /// The control plane answered, or not, about the configuration.
    ConfigFetched {
        /// Of which enrolment.
        generation: u64,
        result: Result<Fetched, ControlPlaneError>,
    },
    /// The control plane answered, or not, about the credential.
    CredentialFetched {
        /// Of which enrolment.
        generation: u64,
        result: Result<CredentialIssued, ControlPlaneError>,
    },
    /// An enrolment is done, or not.
    EnrollmentEnded(Result<Box<Enrollment>, Failure>),
    /// A sign-in goes on, or has ended.
    Login {
        /// Which.
        number: u64,
        event: LoginEvent,
    },
    /// The control plane answered, or not, that the session has ended.
    LoggedOut {
        /// Of which enrolment.
        generation: u64,
        result: Result<(), ControlPlaneError>,
        /// Who waits for it.
        reply: oneshot::Sender<Response>,
    },
    /// A session says something.
    Session { attempt: AttemptId, event: SessionEvent },
    /// A carrier to the connector with this key says something.
    Carrier { public_key: WireguardPublicKey, carrier: Carrier, event: CarrierEvent },
    /// The data plane says something.
    DataPlane(DataPlaneEvent),
    /// An interface, an address or a route of this machine is another than before.
    NetworkChanged,
    /// A timer of the machines is over.
    Timeout,
    /// The daemon is to stop.
    Shutdown,
}
