//! Pings, by which the death of a peer is noticed.

use std::{future::pending, time::Duration};

use h2::{Ping, PingPong};
use tokio::time::{sleep, timeout};

use super::handle::Shared;

/// The pause between a pong and the next ping.
const PING_INTERVAL: Duration = Duration::from_secs(5);

/// How long a pong may take. With [`PING_INTERVAL`] a dead peer is noticed within 13 s.
const PONG_TIMEOUT: Duration = Duration::from_secs(8);

/// Completes when a ping was not answered in time.
pub(super) async fn peer_death(pings: Option<PingPong>, shared: Shared) {
    let Some(mut pings) = pings else { return pending().await };
    loop {
        match timeout(PONG_TIMEOUT, pings.ping(Ping::opaque())).await {
            // A peer's settings come before all else (RFC 9113 §3.4).
            Ok(Ok(_pong)) => shared.update(|status| status.is_greeted = true),
            // The connection has failed, as whoever polls it finds out.
            Ok(Err(_error)) => return pending().await,
            Err(_elapsed) => {
                shared.update(|status| status.is_unresponsive = true);
                return;
            }
        }
        sleep(PING_INTERVAL).await;
    }
}
