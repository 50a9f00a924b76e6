//! Requests of clients but for sessions: to carry IP packets, UDP and TCP (MASQUE).
//!
//! Each shows a credential of its own, so that a client of others needs nothing else than HTTP.

mod answer;
mod arrived;
mod authorized;
mod dial;
mod observed_address;
mod packets;
mod streams;
mod tcp;
mod udp;

use adit_proto::{
    Protocol, Reason,
    http3::RequestHead,
    masque::{IpTarget, ProxyRequest},
};
use adit_tunnel::IncomingRequest;
use tokio::sync::{mpsc, oneshot, watch};
use tracing::{Instrument as _, debug, info, info_span};

use self::{answer::Refusal, arrived::Carrier};
pub(crate) use self::{arrived::ArrivedRequest, streams::Streams};
use crate::{
    credentials::Verifier,
    data_plane::{ConnectionKind, DataPlane, RecordSinks},
    own_addresses::OwnAddresses,
    sessions::{self, Member},
};

/// Requests that wait to be looked at; more are turned away.
pub(crate) const QUEUE: usize = 1024;

/// What all requests share.
#[derive(Clone)]
pub(crate) struct RequestServer {
    pub(crate) verifier: Verifier,
    /// Where those go that are for sessions.
    pub(crate) sessions: mpsc::Sender<ArrivedRequest>,
    pub(crate) registry: mpsc::Sender<sessions::Request>,
    pub(crate) data_plane: DataPlane,
    pub(crate) own_addresses: watch::Receiver<OwnAddresses>,
    pub(crate) sinks: RecordSinks,
    /// Those to services, which are waited for when the connector stops.
    pub(crate) streams: Streams,
}

impl RequestServer {
    /// Serves requests, each in a task of its own, until none can come any more.
    pub(crate) async fn run(self, mut incoming: mpsc::Receiver<ArrivedRequest>) {
        while let Some(arrived) = incoming.recv().await {
            if arrived.request.is_session() {
                // One that there is no room for is turned away.
                if self.sessions.try_send(arrived).is_err() {
                    debug!("More sessions than can be taken in");
                }
                continue;
            }
            let ArrivedRequest { carrier, request } = arrived;
            let span = info_span!("request", peer = %request.remote, %carrier);
            tokio::spawn(self.clone().serve(carrier, request).instrument(span));
        }
    }

    async fn serve(self, carrier: Carrier, request: IncomingRequest) {
        if observed_address::is_asked_for(&request.head) {
            observed_address::serve(request).await;
            return;
        }
        let asked = match ProxyRequest::try_from_head(&request.head) {
            Ok(asked) => asked,
            Err(error) => {
                debug!(%error, "Refused a request");
                answer::refuse(request, &Refusal::malformed(error.status(), &error));
                return;
            }
        };
        let member = match self.admit(&request, &asked).await {
            Ok(member) => member,
            Err(reason) => {
                answer::refuse(request, &Refusal::unauthenticated(&asked, reason));
                return;
            }
        };
        // Whoever is admitted is no stranger.
        request.admit();
        if let Carrier::Quic { lane, stream } = carrier
            && let Ok(device) = member.device()
        {
            let (connection, device_id) = (stream.connection(), device.subject.device_id);
            let kind = match asked {
                ProxyRequest::ConnectIp { .. } => ConnectionKind::Packets,
                ProxyRequest::ConnectUdp { .. } => ConnectionKind::Streams,
                ProxyRequest::ConnectTcp { .. } => ConnectionKind::Streams,
            };
            let noted = self.data_plane.note_connection(lane, connection, device_id, kind).await;
            // If the data plane stops, so does this.
            if noted.is_err() {
                return;
            }
        }
        match asked {
            ProxyRequest::ConnectIp { target: IpTarget::Any, protocol: None } => {
                packets::serve(self, carrier, request, member).await;
            }
            ProxyRequest::ConnectIp { .. } => {
                answer::refuse(request, &Refusal::scoped());
            }
            ProxyRequest::ConnectUdp { host, port } => {
                match dial::authorize(&self, &member, Protocol::Udp, &host, port).await {
                    Ok((service, flow)) => udp::serve(request, service, flow).await,
                    Err(refusal) => answer::refuse(request, &refusal),
                }
            }
            ProxyRequest::ConnectTcp { host, port } => {
                let _open = self.streams.open();
                match dial::authorize(&self, &member, Protocol::Tcp, &host, port).await {
                    Ok((service, flow)) => tcp::serve(request, service, flow).await,
                    Err(refusal) => answer::refuse(request, &refusal),
                }
            }
        }
    }

    async fn admit(
        &self,
        request: &IncomingRequest,
        asked: &ProxyRequest,
    ) -> Result<Member, Reason> {
        let token = bearer_of(&request.head, answer::credential_header(asked))
            .ok_or(Reason::CredentialInvalid)?;
        let credential = self.verifier.verify(token, &request.peer_pin)?;
        let device_id = credential.device_id;
        let (answer, granted) = oneshot::channel();
        let vouch = sessions::Request::Vouch { credential: Box::new(credential), answer };
        // Without a registry the connector is about to stop.
        self.registry.send(vouch).await.map_err(|_stopped| Reason::BundleStale)?;
        let granted = granted.await.unwrap_or(Err(Reason::BundleStale));
        if let Err(reason) = granted {
            info!(%device_id, %reason, "Refused a device");
        }
        granted
    }
}

/// The token of a `Bearer` credential (RFC 6750 §2.1).
fn bearer_of<'a>(head: &'a RequestHead, header: &str) -> Option<&'a str> {
    let (scheme, token) = head.header(header)?.split_once(' ')?;
    scheme.eq_ignore_ascii_case("bearer").then(|| token.trim_start())
}
