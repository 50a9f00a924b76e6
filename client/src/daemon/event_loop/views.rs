//! The daemon's state as the command line shows it.

use std::time::Duration;

use adit_proto::{ResourceId, Timestamp, WireguardPublicKey};

use super::EventLoop;
use crate::{
    carrier::{Carrier, SessionCarrier},
    daemon::{
        clock::Now,
        obstacle,
        sites::{SiteView, connector_of},
    },
    ipc::{
        ControlPlaneOnStatus, DenialOnStatus, DeviceOnStatus, Failure, FailureCode, PathOnPing,
        ResourceOnStatus, SessionOnStatus, StandbyOnStatus, StateName, Status,
    },
};

impl EventLoop {
    /// What stands in the way, by the control plane, the machine or the connectors.
    pub(super) fn problem(&self) -> Option<Failure> {
        // A control plane that says no does not matter to connectors that have not said so yet.
        let is_seeking = self.tunnel.as_ref().is_some_and(|tunnel| tunnel.has_sessions)
            && self.machine.name() == StateName::Connecting
            && self.material.is_complete(Now::read().time);
        if let Some(obstacle) = self.machine.obstacle().filter(|_| !is_seeking) {
            return Some(obstacle.clone());
        }
        match self.machine.name() {
            StateName::Connecting => {}
            StateName::Disconnected
            | StateName::Connected
            | StateName::Disconnecting
            | StateName::Error => return None,
        }
        let (site, problem) =
            self.sites.views().find_map(|view| Some((view.name.to_owned(), view.problem?)))?;
        Some(Failure::new(
            FailureCode::ConnectorUnavailable,
            format!("site {site}: {problem}"),
            "check the network; the daemon goes on trying (adit status)",
        ))
    }

    /// All but what the data plane counts.
    pub(super) fn status_view(&self) -> Status {
        let config = self.material.config();
        let identity = self.enrolled.as_ref().map(|enrolled| &enrolled.identity);
        let is_wanted = self.store.wants_up().unwrap_or_else(|error| {
            tracing::warn!(error = obstacle::chain(&error), "Wish of the user is not known");
            false
        });
        Status {
            state: self.machine.name(),
            since: self.machine.since(),
            wanted: is_wanted,
            problem: self.problem(),
            version: env!("CARGO_PKG_VERSION").to_owned(),
            organisation: config.map(|config| config.organisation_name.clone()),
            user: config.map(|config| config.user_name.clone()),
            device: identity.map(|identity| DeviceOnStatus {
                id: identity.device_id,
                name: config.map(|config| config.device_name.clone()),
            }),
            addresses: config.map(|config| config.addresses.clone()).unwrap_or_default(),
            interface: self.tunnel.as_ref().map(|_| self.interface.clone()),
            carrier_choice: self.sites.choice(),
            sessions: self
                .sites
                .views()
                .map(|view| {
                    let session_carrier = self.session_carrier(&view);
                    session_view(view, session_carrier)
                })
                .collect(),
            credential_expires_at: self.material.expires_at(),
            session_ends_at: self.logins.session_ends_at(),
            control_plane: identity.map(|identity| ControlPlaneOnStatus {
                url: identity.control_plane_url.clone(),
                reachable: self.reachability.is_reachable(),
                since: self.reachability.since(),
                error: self.reachability.error().map(str::to_owned),
            }),
            warnings: self.warnings(),
            recent_denials: self.denial_views(),
        }
    }

    fn warnings(&self) -> Vec<String> {
        let of_tunnel = self.tunnel.iter().flat_map(|tunnel| tunnel.warnings.iter().cloned());
        let ends_at = self.logins.session_ends_at();
        let of_session = ends_at.and_then(|ends_at| session_warning(ends_at, Now::read().time));
        of_tunnel.chain(of_session).collect()
    }

    fn session_carrier(&self, view: &SiteView<'_>) -> Option<SessionCarrier> {
        self.sessions.get(&view.attempt?)?.carrier()
    }

    /// The WireGuard keys of [`Status::sessions`], in the same order.
    pub(super) fn peer_keys(&self) -> Vec<Option<WireguardPublicKey>> {
        let key = |view: SiteView<'_>| view.connector.map(|other| other.wireguard_public_key);
        self.sites.views().map(key).collect()
    }

    pub(super) fn resource_views(&self) -> Result<Vec<ResourceOnStatus>, Failure> {
        if self.enrolled.is_none() {
            return Err(obstacle::not_enrolled());
        }
        let Some(config) = self.material.config() else {
            return Err(Failure::new(
                FailureCode::NotConnected,
                "the configuration was never fetched",
                "adit up",
            ));
        };
        let mut resources: Vec<ResourceOnStatus> = config
            .resources
            .iter()
            .map(|resource| {
                let site = config.sites.iter().find(|site| site.id == resource.site_id);
                let connector = self
                    .sites
                    .views()
                    .find(|view| view.id == resource.site_id)
                    .and_then(|view| connector_of(&view));
                let (connector_id, connector_name) = connector.unzip();
                ResourceOnStatus {
                    id: resource.id,
                    name: resource.name.clone(),
                    addresses: resource.addresses.clone(),
                    filters: resource.filters.clone(),
                    site_id: resource.site_id,
                    site_name: site.map(|site| site.name.clone()).unwrap_or_default(),
                    connector_id,
                    connector_name,
                }
            })
            .collect();
        resources.sort_by(|one, other| one.name.cmp(&other.name));
        Ok(resources)
    }

    fn denial_views(&self) -> Vec<DenialOnStatus> {
        self.denials
            .iter()
            .map(|held| {
                let denial = &held.denial;
                DenialOnStatus {
                    at: held.at,
                    count: held.count,
                    flow: denial.flow,
                    verdict: denial.verdict,
                    reason: denial.reason,
                    remedy: denial.reason.remedy().to_owned(),
                    resource_id: denial.resource_id,
                    resource_name: denial.resource_id.and_then(|id| self.resource_name(id)),
                    policy_id: denial.policy_id,
                }
            })
            .collect()
    }

    fn resource_name(&self, id: ResourceId) -> Option<String> {
        let resources = &self.material.config()?.resources;
        resources.iter().find(|resource| resource.id == id).map(|resource| resource.name.clone())
    }
}

/// How packets to a site go.
pub(super) fn path_view(view: &SiteView<'_>) -> PathOnPing {
    let (connector_id, connector_name) = connector_of(view).unzip();
    PathOnPing {
        site_id: view.id,
        site_name: view.name.to_owned(),
        connector_id,
        connector_name,
        endpoint: view.endpoint,
        carrier: view.carrier,
        connector_round_trip_ms: view.round_trip.map(millis),
    }
}

fn session_view(view: SiteView<'_>, session_carrier: Option<SessionCarrier>) -> SessionOnStatus {
    let (connector_id, connector_name) = connector_of(&view).unzip();
    SessionOnStatus {
        site_id: view.id,
        site_name: view.name.to_owned(),
        state: view.state,
        connector_id,
        connector_name,
        endpoint: view.endpoint,
        carrier: view.carrier,
        session_carrier,
        key_exchange: view.carrier.and_then(Carrier::key_exchange).map(str::to_owned),
        round_trip_ms: view.round_trip.map(millis),
        load: view.load,
        since: view.since,
        last_handshake: None,
        bytes_received: 0,
        bytes_sent: 0,
        standby: view.standby.map(|standby| StandbyOnStatus {
            connector_id: standby.connector.id,
            connector_name: standby.connector.name.clone(),
            endpoint: standby.endpoint,
            carrier: standby.carrier,
            round_trip_ms: standby.round_trip.map(millis),
            load: standby.load,
            since: standby.since,
        }),
        problem: view.problem,
    }
}

/// How long before its end the user is told that a session ends.
const SESSION_NOTICE: Duration = Duration::from_mins(15);

/// What the user is told shortly before a session ends, and after.
fn session_warning(ends_at: Timestamp, now: Timestamp) -> Option<String> {
    if ends_at <= now {
        return Some("you are signed in no more; run `adit login`".to_owned());
    }
    let left = ends_at.saturating_duration_since(now);
    let minutes = left.as_secs().div_ceil(60);
    (left <= SESSION_NOTICE).then(|| {
        format!("you will be signed out within {minutes} min; run `adit login` to stay connected")
    })
}

/// To a hundredth.
fn millis(duration: Duration) -> f64 {
    (duration.as_secs_f64() * 100_000.0).round() / 100.0
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_end_of_a_session_is_announced_a_quarter_of_an_hour_before() {
        let warning = |seconds: u64| {
            let ends_at = Timestamp::from_millis(5_000_000);
            session_warning(ends_at, ends_at.saturating_sub(Duration::from_secs(seconds)))
        };
        assert_eq!(warning(901), None);
        assert!(warning(900).unwrap().contains("within 15 min"));
        assert!(warning(1).unwrap().contains("within 1 min"));
        assert!(warning(0).unwrap().contains("no more"));
    }
}
