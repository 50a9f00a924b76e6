//! Finds out what this network lets through, on a socket of its own and whether the tunnel is up or
//! not.
//!
//! ```text
//! config ─▶ addresses ─▶ each: UDP (version negotiation), QUIC, TCP at once ─▶ report
//! ```

mod nat;
mod path_search;
mod prober;
mod report;
mod target;
mod version_probe;

use std::{
    net::SocketAddr,
    time::{Duration, Instant},
};

use adit_proto::{ConnectorOnClient, SiteOnClient};
use adit_tunnel::{ControlPlane, KeyPair};
use futures_util::future::join_all;
use tokio::{
    net::TcpStream,
    time::{timeout, timeout_at},
};

use self::{
    prober::Prober,
    report::{FoundConnector, FoundControlPlane, FoundSite},
    target::try_address,
};
use super::{obstacle::chain, resolver::Resolver, router::Router};
use crate::{
    carrier::CarrierChoice,
    ipc::{Failure, FailureCode, Netcheck},
};

/// As many addresses of one connector are tried, and as many connectors.
const MAX_ADDRESSES: usize = 4;
const MAX_CONNECTORS: usize = 24;

/// How long names may be looked up, and how long the control plane may take.
const LOOKUP_PATIENCE: Duration = Duration::from_millis(700);
const CONTROL_PLANE_PATIENCE: Duration = Duration::from_millis(2500);

/// What a check needs.
pub(crate) struct NetcheckParts {
    pub(crate) sites: Vec<SiteOnClient>,
    pub(crate) device_key: KeyPair,
    pub(crate) control_plane: ControlPlane,
    pub(crate) control_plane_url: String,
    pub(crate) choice: CarrierChoice,
    pub(crate) router: Router,
    pub(crate) resolver: Resolver,
}

/// Checks the network; it takes some three seconds at most.
pub(crate) async fn check(parts: NetcheckParts) -> Result<Netcheck, Failure> {
    let prober = Prober::try_start(parts.device_key.clone()).map_err(|error| {
        Failure::new(FailureCode::Internal, format!("{error:#}"), "look at the daemon's log")
    })?;
    let mut left = MAX_CONNECTORS;
    let sites = parts.sites.iter().map(|site| {
        let connectors: Vec<_> = site
            .connectors
            .iter()
            .map(|connector| {
                let is_tried = left > 0;
                left = left.saturating_sub(1);
                check_connector(connector, is_tried, &prober, &parts)
            })
            .collect();
        async move {
            let connectors = join_all(connectors).await;
            FoundSite { id: site.id, name: site.name.clone(), connectors }
        }
    });
    let sites = join_all(sites.collect::<Vec<_>>());
    let (sites, control_plane) = tokio::join!(sites, check_control_plane(&parts));
    Ok(report::report(sites, control_plane, parts.choice, prober.port()))
}

async fn check_connector(
    connector: &ConnectorOnClient,
    is_tried: bool,
    prober: &Prober,
    parts: &NetcheckParts,
) -> FoundConnector {
    let mut found = FoundConnector {
        id: connector.id,
        name: connector.name.clone(),
        addresses: Vec::new(),
        problem: None,
    };
    if !is_tried {
        found.problem = Some(format!("not tried: only {MAX_CONNECTORS} connectors are"));
        return found;
    }
    let (mut addresses, problem) = addresses_of(connector, parts).await;
    found.problem = problem;
    if addresses.len() > MAX_ADDRESSES {
        found.problem =
            Some(format!("{} of {} addresses are tried", MAX_ADDRESSES, addresses.len()));
        addresses.truncate(MAX_ADDRESSES);
    }
    let tries = addresses.into_iter().map(|address| async move {
        parts.router.keep_outside(address.ip()).await;
        try_address(address, connector.pin, &parts.device_key, prober).await
    });
    found.addresses = join_all(tries).await;
    found
}

/// The addresses of a connector, each once, and what is in the way of others.
async fn addresses_of(
    connector: &ConnectorOnClient,
    parts: &NetcheckParts,
) -> (Vec<SocketAddr>, Option<String>) {
    let lookups = connector.endpoints.iter().map(|endpoint| async move {
        (endpoint, timeout(LOOKUP_PATIENCE, parts.resolver.resolve(endpoint)).await)
    });
    let mut addresses: Vec<SocketAddr> = Vec::new();
    let mut problem = connector
        .endpoints
        .is_empty()
        .then(|| "it has no endpoint; ask an administrator".to_owned());
    for (endpoint, resolved) in join_all(lookups).await {
        match resolved {
            Ok(Ok(found)) => {
                for address in found {
                    if !addresses.contains(&address) {
                        addresses.push(address);
                    }
                }
            }
            Ok(Err(error)) => {
                problem = Some(format!("cannot find the address of {endpoint}: {error}"));
            }
            Err(_elapsed) => {
                problem = Some(format!("cannot find the address of {endpoint} in time"));
            }
        }
    }
    (addresses, problem)
}

async fn check_control_plane(parts: &NetcheckParts) -> FoundControlPlane {
    let until = Instant::now() + CONTROL_PLANE_PATIENCE;
    let endpoint = parts.control_plane_url.trim_start_matches("https://").trim_end_matches('/');
    let answer = async {
        let resolved = timeout(LOOKUP_PATIENCE, parts.resolver.resolve(endpoint)).await;
        let addresses = resolved.ok().and_then(Result::ok).unwrap_or_default();
        for address in &addresses {
            parts.router.keep_outside(address.ip()).await;
        }
        let asked = parts.control_plane.fetch_signed("/v1/client/config", None);
        tokio::join!(shake_hands(&addresses), asked)
    };
    let url = parts.control_plane_url.clone();
    match timeout_at(until.into(), answer).await {
        Ok((round_trip, Ok(_config))) => FoundControlPlane { url, round_trip, error: None },
        Ok((round_trip, Err(error))) => {
            FoundControlPlane { url, round_trip, error: Some(chain(&error)) }
        }
        Err(_elapsed) => {
            let error = Some("no answer in time".to_owned());
            FoundControlPlane { url, round_trip: None, error }
        }
    }
}

/// How long TCP takes to connect to the first of these that answers.
async fn shake_hands(addresses: &[SocketAddr]) -> Option<Duration> {
    for address in addresses {
        let began = Instant::now();
        if TcpStream::connect(address).await.is_ok() {
            return Some(began.elapsed());
        }
    }
    None
}
