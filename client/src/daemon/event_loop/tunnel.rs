//! Interface, routes, peers and sessions.

use std::{
    collections::BTreeSet,
    net::{IpAddr, SocketAddr},
    time::Duration,
};

use adit_proto::{ClientConfig, ClientMessage, ConnectorOnClient, Reason, WireguardPublicKey};
use adit_tunnel::{TunDevice, tun_mtu};
use futures_util::future::join_all;
use tokio::time::timeout;

use super::EventLoop;
use crate::{
    carrier::{Carrier, CarrierChoice},
    daemon::{
        clock::Now,
        data_plane::DataPlane,
        obstacle,
        packet_carrier::{PacketCarrier, PacketCarrierParts, Transport},
        router::Layout,
        session::{Session, SessionParts},
        sites::{
            AttemptId, SessionEnd, SiteCommand, UpsertedPeer, contested_prefixes, prefixes_by_site,
        },
    },
    ipc::{Failure, FailureCode},
};

/// How long names of connectors are looked up before the routes are made, after which the name
/// service may be behind the tunnel.
const LOOKUP_PATIENCE: Duration = Duration::from_secs(3);

/// The interface and the thread that serves it.
pub(super) struct OpenTunnel {
    pub(super) data_plane: DataPlane,
    pub(super) addresses: Vec<IpAddr>,
    pub(super) warnings: Vec<String>,
    /// Whether connectors are looked for.
    pub(super) has_sessions: bool,
}

impl EventLoop {
    pub(super) async fn open_tunnel(&mut self) -> Result<(), Failure> {
        let (Some(config), Some(enrolled)) = (self.material.config(), &self.enrolled) else {
            return Err(Failure::new(
                FailureCode::Internal,
                "the tunnel was to be opened without a configuration",
                "tell the developers",
            ));
        };
        let endpoints = config.sites.iter().flat_map(|site| &site.connectors);
        let lookups = endpoints
            .flat_map(|connector| &connector.endpoints)
            .map(|endpoint| self.resolver.resolve(endpoint));
        // Whatever is found is remembered; the sessions will say what is not.
        let _ = timeout(LOOKUP_PATIENCE, join_all(lookups)).await;
        self.memory.handle_network(self.router.find_network().await);

        let tun = TunDevice::try_open(&self.interface, tun_mtu().await, self.offloads)
            .map_err(|error| obstacle::from_tun(&error))?;
        let index = tun.index();
        let secret = enrolled.wireguard_secret.clone();
        let addresses = config.addresses.clone();
        let events = self.events.clone();
        let device_key = enrolled.device_key.clone();
        let data_plane =
            DataPlane::start(tun, secret, device_key, addresses.clone(), self.offloads, events)
                .map_err(|error| {
                    Failure::new(
                        FailureCode::Interface,
                        format!("{error:#}"),
                        "look at the daemon's log",
                    )
                })?;
        let opened = self.router.open(index, layout(config)).await;
        let warnings = match opened {
            Ok(warnings) => warnings,
            Err(error) => {
                self.router.close().await;
                return Err(obstacle::from_network(&error));
            }
        };
        self.tunnel = Some(OpenTunnel { data_plane, addresses, warnings, has_sessions: false });
        self.warn_of_overlaps();
        Ok(())
    }

    pub(super) fn start_sessions(&mut self, now: Now) {
        let (Some(tunnel), Some(config)) = (&mut self.tunnel, self.material.config()) else {
            return;
        };
        tunnel.has_sessions = true;
        self.sites.handle_config(config, now);
    }

    pub(super) async fn close_tunnel(&mut self) {
        self.sites.stop();
        while self.sites.poll_command().is_some() {}
        self.sessions.clear();
        self.carriers.clear();
        self.questions.clear();
        self.router.close().await;
        self.tunnel = None;
    }

    /// Takes a changed configuration over into the open tunnel.
    pub(super) async fn update_tunnel(&mut self, now: Now) {
        let (Some(tunnel), Some(config)) = (&mut self.tunnel, self.material.config()) else {
            return;
        };
        match self.router.update(layout(config)).await {
            Ok(warnings) => tunnel.warnings = warnings,
            Err(error) => {
                self.machine.handle_obstacle(obstacle::from_network(&error), now);
                return;
            }
        }
        if tunnel.addresses != config.addresses {
            tunnel.addresses.clone_from(&config.addresses);
            tunnel.data_plane.set_addresses(config.addresses.clone());
        }
        if tunnel.has_sessions {
            self.sites.handle_config(config, now);
        }
        self.warn_of_overlaps();
    }

    pub(super) fn execute_for_site(&mut self, command: SiteCommand, now: Now) {
        match command {
            SiteCommand::StartSession { attempt, connector } => {
                let (Some(tunnel), Some(enrolled), Some(credential)) =
                    (&self.tunnel, &self.enrolled, self.material.credential(now.time))
                else {
                    let end = SessionEnd::Refused(Reason::CredentialExpired);
                    self.sites.handle_ended(attempt, end, now);
                    return;
                };
                tracing::debug!(%attempt, connector_id = %connector.id, "Opening a session");
                let remembered = self.memory.remembered(connector.id).session_carrier;
                let parts = SessionParts {
                    connector: *connector,
                    credential: credential.to_owned(),
                    device_key: enrolled.device_key.clone(),
                    router: self.router.clone(),
                    resolver: self.resolver.clone(),
                    carriers: self.sites.choice().of_sessions(remembered),
                    dialler: tunnel.data_plane.dialler(),
                };
                let session = Session::open(attempt, parts, self.events.clone());
                self.sessions.insert(attempt, session);
            }
            SiteCommand::StopSession { attempt } => {
                self.sessions.remove(&attempt);
                self.questions.handle_session_ended(attempt);
            }
            SiteCommand::UpsertPeer(peer) => {
                let UpsertedPeer { public_key, endpoint, prefixes, .. } = &*peer;
                let count = prefixes.len();
                tracing::debug!(peer = %public_key, ?endpoint, count, "Prefixes of a connector");
                if let Some(tunnel) = &self.tunnel {
                    tunnel.data_plane.upsert(*peer);
                }
            }
            SiteCommand::MovePackets { from, to, open_flows } => {
                let (before, peer) = (from.public_key, to.public_key);
                tracing::info!(%before, %peer, ?open_flows, "Packets go to another connector");
                if let Some(tunnel) = &self.tunnel {
                    tunnel.data_plane.move_packets(*from, *to, open_flows);
                }
            }
            SiteCommand::Tell { attempt, message } => {
                // One that does not keep up loses a ping, or is not waited for.
                if let Some(session) = self.sessions.get(&attempt)
                    && !session.send(message)
                {
                    tracing::debug!(%attempt, "Connector reads too slowly");
                }
            }
            SiteCommand::OpenCarrier { connector, endpoint, carrier } => {
                self.open_carrier(*connector, endpoint, carrier, now);
            }
            SiteCommand::ProbeCarrier { public_key, carrier } => {
                if let Some(tunnel) = &self.tunnel {
                    tunnel.data_plane.probe(public_key, carrier);
                }
            }
            SiteCommand::CloseCarrier { public_key, carrier } => {
                self.carriers.remove(&(public_key, carrier));
            }
            SiteCommand::UseCarrier { public_key, carrier } => {
                tracing::info!(peer = %public_key, %carrier, "Packets go by this carrier");
                self.remember_carrier(&public_key, carrier);
                if let Some(tunnel) = &self.tunnel {
                    tunnel.data_plane.use_carrier(public_key, carrier);
                }
            }
            SiteCommand::RemovePeer { public_key } => {
                self.carriers.retain(|(key, _carrier), _open| *key != public_key);
                if let Some(tunnel) = &self.tunnel {
                    tunnel.data_plane.remove(public_key);
                }
            }
        }
    }

    /// A carrier that was chosen says nothing about the network.
    fn remember_carrier(&mut self, public_key: &WireguardPublicKey, carrier: Carrier) {
        let config = self.material.config();
        let connectors = config.iter().flat_map(|config| &config.sites);
        let mut connectors = connectors.flat_map(|site| &site.connectors);
        let connector = connectors.find(|one| one.wireguard_public_key == *public_key);
        if self.sites.choice() == CarrierChoice::Auto
            && let Some(connector) = connector
        {
            self.memory.note_carrier(connector.id, carrier, &self.store);
        }
    }

    fn open_carrier(
        &mut self,
        connector: ConnectorOnClient,
        endpoint: SocketAddr,
        carrier: Carrier,
        now: Now,
    ) {
        let public_key = connector.wireguard_public_key;
        let (Some(tunnel), Some(enrolled), Some(credential)) =
            (&self.tunnel, &self.enrolled, self.material.credential(now.time))
        else {
            self.sites.handle_carrier_down(&public_key, carrier, "no credential yet", now);
            return;
        };
        tracing::debug!(peer = %public_key, %endpoint, %carrier, "Opening a carrier");
        let transport = match carrier {
            Carrier::Wireguard => {
                tunnel.data_plane.initiate_handshake(public_key);
                return;
            }
            Carrier::Quic if self.carriers.contains_key(&(public_key, carrier)) => {
                tunnel.data_plane.probe(public_key, carrier);
                return;
            }
            Carrier::Quic => Transport::Quic,
            Carrier::Http2 => Transport::Http2 { device_key: enrolled.device_key.clone() },
        };
        let parts = PacketCarrierParts {
            connector,
            endpoint,
            transport,
            credential: credential.to_owned(),
            dialler: tunnel.data_plane.dialler(),
        };
        let carrying = PacketCarrier::open(parts, self.events.clone());
        self.carriers.insert((public_key, carrier), carrying);
    }

    /// Shows a fresh credential to every connector.
    pub(super) fn present_credential(&self, credential: &str) {
        for (attempt, session) in &self.sessions {
            let message = ClientMessage::Present { credential: credential.to_owned() };
            if !session.send(message) {
                tracing::warn!(%attempt, "Connector reads too slowly for a fresh credential");
            }
        }
    }

    /// Sends something to a connector, for which NATs let its packets through.
    pub(super) fn speak(&self, attempt: AttemptId) {
        let connector_id = self.sessions.get(&attempt).map(Session::connector_id);
        let config = self.material.config();
        let mut connectors =
            config.iter().flat_map(|config| &config.sites).flat_map(|site| &site.connectors);
        let connector = connectors.find(|connector| Some(connector.id) == connector_id);
        if let (Some(tunnel), Some(connector)) = (&self.tunnel, connector) {
            tunnel.data_plane.speak(connector.wireguard_public_key);
        }
    }

    fn warn_of_overlaps(&mut self) {
        let (Some(tunnel), Some(config)) = (&mut self.tunnel, self.material.config()) else {
            return;
        };
        for prefix in contested_prefixes(config) {
            tunnel.warnings.push(format!(
                "{prefix} is at several sites; only the first is reached: ask an administrator"
            ));
        }
        for warning in &tunnel.warnings {
            tracing::warn!(warning, "Networks overlap");
        }
    }
}

fn layout(config: &ClientConfig) -> Layout {
    let prefixes: BTreeSet<_> = prefixes_by_site(config).into_values().flatten().collect();
    Layout { addresses: config.addresses.clone(), prefixes }
}
