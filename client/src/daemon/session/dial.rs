//! How a session channel comes about.

use std::{
    net::SocketAddr,
    time::{Duration, Instant},
};

use adit_proto::{ClientMessage, ConnectorMessage, Pin};
use adit_tunnel::{HttpConnection, SessionChannel};
use futures_util::{StreamExt as _, stream::FuturesUnordered};
use tokio::time::{sleep_until, timeout};

use super::{
    SessionParts,
    race::{Race, Way},
};
use crate::{
    carrier::SessionCarrier,
    daemon::{obstacle::chain, sites::SessionEnd},
};

/// How long a connector may take to open a session over QUIC; over HTTP/2 as long.
const OPEN_TIMEOUT: Duration = Duration::from_secs(10);

/// As many addresses of one connector are tried.
const MAX_ADDRESSES: usize = 8;

pub(super) type Channel = SessionChannel<ClientMessage, ConnectorMessage>;

/// Tries the connector's addresses, by all carriers that are allowed; the first that answers wins.
pub(super) async fn connect(parts: &SessionParts) -> Result<(Way, Channel), SessionEnd> {
    let (addresses, mut problem) = addresses_of(parts).await;
    let mut race = Race::new(&addresses, parts.carriers, Instant::now());
    let mut attempts = FuturesUnordered::new();
    let mut is_known_by_tcp = false;
    loop {
        for way in race.poll_start(Instant::now()) {
            attempts.push(async move { (way, open(way, parts).await) });
        }
        if race.is_over(Instant::now()) {
            return Err(SessionEnd::Unreachable(problem));
        }
        let timer = async {
            match race.poll_timeout() {
                Some(at) => sleep_until(at.into()).await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            Some((way, opened)) = attempts.next() => match opened {
                Ok(channel) => return Ok((way, channel)),
                Err(error) => {
                    tracing::debug!(endpoint = %way.endpoint, carrier = %way.carrier, error,
                        "A way to a connector failed");
                    race.handle_failed(way, Instant::now());
                    // That QUIC does not pass explains less than what TCP says.
                    let is_by_tcp = way.carrier == SessionCarrier::Http2;
                    if is_by_tcp || !is_known_by_tcp {
                        problem = error;
                    }
                    is_known_by_tcp |= is_by_tcp;
                }
            },
            () = timer => {}
        }
    }
}

/// Without any, the reason.
async fn addresses_of(parts: &SessionParts) -> (Vec<SocketAddr>, String) {
    let mut addresses: Vec<SocketAddr> = Vec::new();
    let mut problem = "the connector has no endpoint; ask an administrator".to_owned();
    for endpoint in &parts.connector.endpoints {
        match parts.resolver.resolve(endpoint).await {
            Ok(found) => {
                for address in found {
                    if !addresses.contains(&address) {
                        addresses.push(address);
                    }
                }
            }
            Err(error) => problem = format!("cannot find the address of {endpoint}: {error}"),
        }
    }
    addresses.truncate(MAX_ADDRESSES);
    (addresses, problem)
}

async fn open(way: Way, parts: &SessionParts) -> Result<Channel, String> {
    let Way { endpoint, carrier } = way;
    parts.router.keep_outside(endpoint.ip()).await;
    let pin = parts.connector.pin;
    match carrier {
        SessionCarrier::Http2 => adit_tunnel::connect(endpoint, pin, &parts.device_key)
            .await
            .map_err(|error| chain(&error)),
        SessionCarrier::Quic => timeout(OPEN_TIMEOUT, open_by_quic(endpoint, pin, parts))
            .await
            .unwrap_or_else(|_elapsed| {
                Err(format!("did not answer within {} s", OPEN_TIMEOUT.as_secs()))
            })
            .map_err(|why| format!("{endpoint} by QUIC: {why}")),
    }
}

async fn open_by_quic(
    endpoint: SocketAddr,
    pin: Pin,
    parts: &SessionParts,
) -> Result<Channel, String> {
    let connected = parts.dialler.connect(endpoint, pin).await;
    let connection = connected.map_err(|error| chain(&error))?;
    SessionChannel::open(HttpConnection::Quic(connection), endpoint)
        .await
        .map_err(|error| chain(&error))
}
