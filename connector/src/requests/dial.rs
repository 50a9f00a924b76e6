//! From a host and a port to a flow that may exist.

use std::net::SocketAddr;

use adit_policy::Denial;
use adit_proto::{Protocol, Reason};
use adit_tunnel::IncomingRequest;
use tokio::net::lookup_host;
use tracing::debug;

use super::{
    RequestServer,
    answer::{self, Refusal},
    authorized::AuthorizedFlow,
};
use crate::sessions::Member;

/// Finds the first address of a host that the device may reach. What is decided about is what is
/// dialled, so a name that changes its mind gains nothing.
pub(super) async fn authorize(
    server: &RequestServer,
    member: &Member,
    protocol: Protocol,
    host: &str,
    port: u16,
) -> Result<(SocketAddr, AuthorizedFlow), Refusal> {
    let addresses = lookup_host((host, port)).await.map_err(|error| {
        Refusal::proxy(502, "dns_error", &format!("{host} has no address: {error}"))
    })?;
    let mut denied = Denial { reason: Reason::ResourceUnknown, resource_id: None, policy_id: None };
    for address in addresses {
        // A mapped address is the IPv4 address, also to policy.
        let address = SocketAddr::new(address.ip().to_canonical(), address.port());
        match AuthorizedFlow::try_new(server, member.clone(), protocol, address) {
            Ok(flow) => return Ok((address, flow)),
            Err(denial) => denied = denial,
        }
    }
    Err(Refusal::denied(&denied))
}

/// Tells a client that its service could not be reached.
pub(super) fn refuse(request: IncomingRequest, service: SocketAddr, error: &std::io::Error) {
    debug!(%service, %error, "Failed to reach a service");
    answer::refuse(request, &refusal_of(service, error));
}

/// What RFC 9209 §2.3 calls an error of the operating system.
fn refusal_of(service: SocketAddr, error: &std::io::Error) -> Refusal {
    use std::io::ErrorKind;

    let kind = error.kind();
    let (status, name) = if kind == ErrorKind::ConnectionRefused {
        (502, "connection_refused")
    } else if kind == ErrorKind::TimedOut {
        (504, "connection_timeout")
    } else if matches!(kind, ErrorKind::HostUnreachable | ErrorKind::NetworkUnreachable) {
        (502, "destination_ip_unroutable")
    } else {
        (502, "connection_terminated")
    };
    Refusal::proxy(status, name, &format!("{service}: {error}"))
}
