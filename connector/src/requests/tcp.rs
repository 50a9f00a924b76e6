//! CONNECT: a stream to a service (RFC 9114 §4.4).

use std::{io, net::SocketAddr, time::Duration};

use adit_proto::http3::Http3Code;
use adit_tunnel::{IncomingRequest, SpliceCounters, splice};
use tokio::{net::TcpStream, time::timeout};
use tracing::debug;

use super::{answer, authorized::AuthorizedFlow, dial};

/// How long a service may take to answer.
const DIAL_TIMEOUT: Duration = Duration::from_secs(10);

pub(super) async fn serve(request: IncomingRequest, service: SocketAddr, mut flow: AuthorizedFlow) {
    let dialled = tokio::select! {
        dialled = timeout(DIAL_TIMEOUT, TcpStream::connect(service)) => {
            dialled.unwrap_or_else(|_elapsed| Err(io::ErrorKind::TimedOut.into()))
        }
        () = flow.cut() => return,
    };
    let mut upstream = match dialled {
        Ok(upstream) => upstream,
        Err(error) => {
            dial::refuse(request, service, &error);
            return;
        }
    };
    // What a proxy passes on is as urgent as it was.
    let _ = upstream.set_nodelay(true);
    let mut downstream = request.respond(answer::bytes()).into_bytes();
    let traffic = flow.traffic();
    let counters =
        SpliceCounters { from_peer: &traffic.from_device.bytes, to_peer: &traffic.to_device.bytes };
    let carried = tokio::select! {
        carried = splice(&mut downstream, &mut upstream, counters) => carried,
        () = flow.cut() => Err(io::ErrorKind::PermissionDenied.into()),
    };
    if let Err(error) = carried {
        debug!(%service, %error, "Broke a stream off");
        // Nobody is to take what has come for complete. Without it the service sees an orderly end.
        let _ = upstream.set_zero_linger();
        downstream.abort(Http3Code::ConnectError);
    }
}
