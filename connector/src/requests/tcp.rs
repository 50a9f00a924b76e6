//! CONNECT: a stream to a service (RFC 9114 §4.4).

use std::{io, net::SocketAddr, time::Duration};

use adit_proto::http3::Http3Code;
use adit_tunnel::IncomingRequest;
use nix::sys::socket::{setsockopt, sockopt};
use tokio::{io::copy_bidirectional_with_sizes, net::TcpStream, time::timeout};
use tracing::debug;

use super::{answer, authorized::AuthorizedFlow, counted::Counted, dial};

/// How long a service may take to answer.
const DIAL_TIMEOUT: Duration = Duration::from_secs(10);

/// Bytes that are under way between two streams, each way.
const BUFFER_LEN: usize = 64 << 10;

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
    let copied = {
        let mut from_device = Counted { stream: &mut downstream, read: &traffic.from_device.bytes };
        let mut to_device = Counted { stream: &mut upstream, read: &traffic.to_device.bytes };
        tokio::select! {
            copied = copy_bidirectional_with_sizes(
                &mut from_device,
                &mut to_device,
                BUFFER_LEN,
                BUFFER_LEN,
            ) => copied.map(|_bytes| ()),
            () = flow.cut() => Err(io::ErrorKind::PermissionDenied.into()),
        }
    };
    if let Err(error) = copied {
        debug!(%service, %error, "Broke a stream off");
        reset_on_close(&upstream);
        downstream.abort(Http3Code::ConnectError);
    }
}

/// Makes the end of a connection a reset, so that nobody takes what has come for complete.
fn reset_on_close(stream: &TcpStream) {
    let linger = nix::libc::linger { l_onoff: 1, l_linger: 0 };
    // Without it the service sees an orderly end.
    let _ = setsockopt(stream, sockopt::Linger, &linger);
}
