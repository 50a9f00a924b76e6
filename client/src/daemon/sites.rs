//! Which connector carries each site's packets.

mod carriers;
mod contest;
mod latency;
mod nearness;
mod search;
mod seek;
mod session;
mod sessions;
mod site;
#[cfg(test)]
mod tests;

use std::{
    collections::{BTreeMap, BTreeSet, VecDeque},
    net::SocketAddr,
    time::{Duration, Instant},
};

use adit_proto::{
    ClientConfig, ClientMessage, ConnectorId, ConnectorOnClient, PresharedKey, Reason, SiteId,
    Timestamp, WireguardPublicKey,
};
use ipnet::IpNet;

use self::site::Site;
use super::{backoff::Jitter, clock::Now, state::Progress};
use crate::{
    carrier::{Carrier, CarrierChoice},
    ipc::SessionState,
};

/// A carrier without an answer is tried again after this time, and the user is told.
const HANDSHAKE_PATIENCE: Duration = Duration::from_secs(10);

/// One try to open a session with one connector, and the session that comes of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct AttemptId(u64);

impl std::fmt::Display for AttemptId {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.0.fmt(f)
    }
}

/// What is asked of the event loop.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum SiteCommand {
    /// Open a session channel and present the credential.
    StartSession {
        /// Names the session in what follows.
        attempt: AttemptId,
        /// With whom.
        connector: Box<ConnectorOnClient>,
    },
    /// Close it.
    StopSession {
        /// Which.
        attempt: AttemptId,
    },
    /// Send packets for these prefixes to this peer.
    UpsertPeer(Box<UpsertedPeer>),
    /// Send them to another peer from here on, all at once.
    MovePackets {
        /// Where they went.
        from: Box<UpsertedPeer>,
        /// Where they go.
        to: Box<UpsertedPeer>,
        /// What becomes of those of flows that are open.
        open_flows: OpenFlows,
    },
    /// Say something on a session channel.
    Tell {
        /// Which.
        attempt: AttemptId,
        /// What.
        message: ClientMessage,
    },
    /// Try a carrier, or try it again.
    OpenCarrier {
        /// With whom.
        connector: Box<ConnectorOnClient>,
        /// Where.
        endpoint: SocketAddr,
        /// Which.
        carrier: Carrier,
    },
    /// Find out whether a carrier still carries.
    ProbeCarrier {
        /// To whom.
        public_key: WireguardPublicKey,
        /// Which.
        carrier: Carrier,
    },
    /// Give a carrier up.
    CloseCarrier {
        /// Whose key.
        public_key: WireguardPublicKey,
        /// Which.
        carrier: Carrier,
    },
    /// Packets to this peer go by this carrier from here on.
    UseCarrier {
        /// Whose key.
        public_key: WireguardPublicKey,
        /// Which.
        carrier: Carrier,
    },
    /// Send no more packets to it.
    RemovePeer {
        /// Whose key.
        public_key: WireguardPublicKey,
    },
}

/// A peer as it is to be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct UpsertedPeer {
    /// Whose key.
    pub(crate) public_key: WireguardPublicKey,
    /// Where, if it may be reached by WireGuard.
    pub(crate) endpoint: Option<SocketAddr>,
    /// Of the session; none: as before.
    pub(crate) preshared_key: Option<PresharedKey>,
    /// What is sent to it.
    pub(crate) prefixes: Vec<IpNet>,
    /// Where its packets may come from, whoever is sent those for there.
    pub(crate) shared: Vec<IpNet>,
}

/// What becomes of open flows when packets move to another peer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum OpenFlows {
    /// They stay where they are until they end.
    Stay,
    /// They go, too; what they have said last is said again there, as it may be lost.
    Follow,
}

/// Why a session ended, or never came about.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum SessionEnd {
    /// The connector cannot be reached.
    Unreachable(String),
    /// It does not admit us.
    Refused(Reason),
    /// It was there and went away.
    Lost(String),
}

impl std::fmt::Display for SessionEnd {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Unreachable(why) => f.write_str(why),
            Self::Refused(reason) => write!(f, "refused: {reason}. {}", reason.remedy()),
            Self::Lost(why) => write!(f, "lost: {why}"),
        }
    }
}

/// A site as the user sees it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct SiteView<'a> {
    pub(crate) id: SiteId,
    pub(crate) name: &'a str,
    pub(crate) state: SessionState,
    pub(crate) connector: Option<&'a ConnectorOnClient>,
    pub(crate) attempt: Option<AttemptId>,
    pub(crate) endpoint: Option<SocketAddr>,
    pub(crate) carrier: Option<Carrier>,
    pub(crate) round_trip: Option<Duration>,
    /// In per cent.
    pub(crate) load: Option<u8>,
    pub(crate) since: Option<Timestamp>,
    pub(crate) standby: Option<StandbyView<'a>>,
    pub(crate) problem: Option<String>,
}

/// A connector that is ready to take over.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct StandbyView<'a> {
    pub(crate) connector: &'a ConnectorOnClient,
    pub(crate) endpoint: SocketAddr,
    pub(crate) carrier: Option<Carrier>,
    pub(crate) round_trip: Option<Duration>,
    pub(crate) load: u8,
    pub(crate) since: Timestamp,
}

/// For each site with resources a connector that admits us, and another that could take over at
/// once; found anew whenever one is lost.
///
/// In: [`Self::handle_config`] and the other `handle_*` methods. Out: [`Self::poll_command`] until
/// it is empty, after any of them; [`Self::poll_timeout`] says when to call
/// [`Self::handle_timeout`].
#[derive(Debug)]
pub(crate) struct Sites {
    sites: BTreeMap<SiteId, Site>,
    outbox: Outbox,
    jitter: Jitter,
    choice: CarrierChoice,
}

/// What a connector that admits us has said.
struct Admittance {
    endpoint: SocketAddr,
    preshared_key: Option<PresharedKey>,
    choice: CarrierChoice,
    remembered: Option<Carrier>,
}

/// Where sites leave what they want done.
#[derive(Debug, Default)]
struct Outbox {
    commands: VecDeque<SiteCommand>,
    next_attempt: u64,
    next_request: u64,
}

impl Outbox {
    fn start(&mut self, connector: &ConnectorOnClient) -> AttemptId {
        let attempt = AttemptId(self.next_attempt);
        self.next_attempt += 1;
        let connector = Box::new(connector.clone());
        self.commands.push_back(SiteCommand::StartSession { attempt, connector });
        attempt
    }

    fn push(&mut self, command: SiteCommand) {
        self.commands.push_back(command);
    }
}

impl Sites {
    pub(crate) fn new(jitter: Jitter, choice: CarrierChoice) -> Self {
        Self { sites: BTreeMap::new(), outbox: Outbox::default(), jitter, choice }
    }

    /// Which carriers may be used.
    pub(crate) const fn choice(&self) -> CarrierChoice {
        self.choice
    }

    /// Other carriers may be used than before.
    pub(crate) fn set_choice(&mut self, choice: CarrierChoice, now: Now) {
        self.choice = choice;
        for site in self.sites.values_mut() {
            site.set_choice(choice, &mut self.outbox, now);
        }
    }

    /// Takes over sites, connectors and prefixes; what did not change goes on.
    pub(crate) fn handle_config(&mut self, config: &ClientConfig, now: Now) {
        let prefixes = prefixes_by_site(config);
        let gone: Vec<SiteId> =
            self.sites.keys().filter(|id| !prefixes.contains_key(id)).copied().collect();
        for id in gone {
            if let Some(mut site) = self.sites.remove(&id) {
                site.stop(&mut self.outbox);
            }
        }
        // Prefixes move between peers only when the one that loses them is told first.
        let mut gains = Vec::new();
        for (id, prefixes) in prefixes {
            let Some(described) = config.sites.iter().find(|site| site.id == id) else {
                continue;
            };
            let site = self.sites.entry(id).or_insert_with(|| {
                let first = self.jitter.below(described.connectors.len());
                Site::new(described.name.clone(), first, now.instant)
            });
            let grows = prefixes.iter().any(|prefix| !site.prefixes().contains(prefix));
            if grows {
                let kept = prefixes.intersection(site.prefixes()).copied().collect();
                site.update_prefixes(kept, &mut self.outbox);
                gains.push((id, prefixes));
            } else {
                site.update_prefixes(prefixes, &mut self.outbox);
            }
            site.update_connectors(&described.name, &described.connectors, &mut self.outbox, now);
        }
        for (id, prefixes) in gains {
            if let Some(site) = self.sites.get_mut(&id) {
                site.update_prefixes(prefixes, &mut self.outbox);
            }
        }
        self.handle_timeout(now);
    }

    /// A connector admits us; the remembered carrier is the one that worked here last.
    pub(crate) fn handle_admitted(
        &mut self,
        attempt: AttemptId,
        endpoint: SocketAddr,
        preshared_key: Option<PresharedKey>,
        remembered: Option<Carrier>,
        now: Now,
    ) {
        let at = Admittance { endpoint, preshared_key, choice: self.choice, remembered };
        if let Some(id) = self.site_of(attempt)
            && let Some(site) = self.sites.get_mut(&id)
        {
            site.handle_admitted(attempt, at, &mut self.outbox, now);
        }
    }

    /// A session ended or never came about.
    pub(crate) fn handle_ended(&mut self, attempt: AttemptId, end: SessionEnd, now: Now) {
        if let Some(id) = self.site_of(attempt)
            && let Some(site) = self.sites.get_mut(&id)
        {
            site.handle_ended(attempt, end, &mut self.outbox, &mut self.jitter, now);
            site.handle_timeout(&mut self.outbox, now);
        }
    }

    /// A connector is about to stop.
    pub(crate) fn handle_draining(&mut self, attempt: AttemptId, now: Now) {
        if let Some(id) = self.site_of(attempt)
            && let Some(site) = self.sites.get_mut(&id)
        {
            site.handle_draining(attempt, &mut self.outbox, now);
            site.handle_timeout(&mut self.outbox, now);
        }
    }

    /// A connector answers a ping.
    pub(crate) fn handle_pong(&mut self, attempt: AttemptId, request_id: u64, load: u8, now: Now) {
        if let Some(id) = self.site_of(attempt)
            && let Some(site) = self.sites.get_mut(&id)
        {
            site.handle_pong(attempt, request_id, load, &mut self.outbox, now);
        }
    }

    /// What was sent to a connector is not answered, so it is asked.
    pub(crate) fn handle_suspected(&mut self, public_key: &WireguardPublicKey, now: Now) {
        for site in self.sites.values_mut() {
            site.handle_suspected(public_key, &mut self.outbox, now);
        }
    }

    /// Packets can pass to a connector by a carrier: it has just come about, or was asked and has
    /// answered.
    pub(crate) fn handle_carrier_up(
        &mut self,
        public_key: &WireguardPublicKey,
        carrier: Carrier,
        now: Now,
    ) {
        for site in self.sites.values_mut() {
            site.handle_carrier_up(public_key, carrier, &mut self.outbox, now);
        }
    }

    /// No packet can pass to a connector by a carrier any more, or it did not come about.
    pub(crate) fn handle_carrier_down(
        &mut self,
        public_key: &WireguardPublicKey,
        carrier: Carrier,
        why: &str,
        now: Now,
    ) {
        for site in self.sites.values_mut() {
            site.handle_carrier_down(public_key, carrier, why, &mut self.outbox, now);
        }
    }

    pub(crate) fn handle_timeout(&mut self, now: Now) {
        for site in self.sites.values_mut() {
            site.handle_timeout(&mut self.outbox, now);
        }
    }

    /// Ends all sessions and forgets the sites.
    pub(crate) fn stop(&mut self) {
        for mut site in std::mem::take(&mut self.sites).into_values() {
            site.stop(&mut self.outbox);
        }
    }

    pub(crate) fn poll_command(&mut self) -> Option<SiteCommand> {
        self.outbox.commands.pop_front()
    }

    pub(crate) fn poll_timeout(&self) -> Option<Instant> {
        self.sites.values().filter_map(Site::poll_timeout).min()
    }

    pub(crate) fn progress(&self) -> Progress {
        Progress {
            total: self.sites.len(),
            established: self.sites.values().filter(|site| site.is_established()).count(),
            unsettled: self.sites.values().filter(|site| !site.is_settled()).count(),
        }
    }

    pub(crate) fn views(&self) -> impl Iterator<Item = SiteView<'_>> {
        self.sites.iter().map(|(id, site)| site.view(*id))
    }

    /// The site whose longest prefix holds the address.
    pub(crate) fn site_at(&self, address: std::net::IpAddr) -> Option<SiteView<'_>> {
        let longest = |site: &Site| {
            let holding = site.prefixes().iter().filter(|prefix| prefix.contains(&address));
            holding.map(IpNet::prefix_len).max()
        };
        let (_, id, site) = self
            .sites
            .iter()
            .filter_map(|(id, site)| Some((longest(site)?, id, site)))
            .max_by_key(|(length, _, _)| *length)?;
        Some(site.view(*id))
    }

    fn site_of(&self, attempt: AttemptId) -> Option<SiteId> {
        self.sites.iter().find(|(_, site)| site.owns(attempt)).map(|(id, _)| *id)
    }
}

/// The prefixes of each site; a prefix that several sites have goes to the first.
pub(crate) fn prefixes_by_site(config: &ClientConfig) -> BTreeMap<SiteId, BTreeSet<IpNet>> {
    let mut owners: BTreeMap<IpNet, SiteId> = BTreeMap::new();
    let mut resources: Vec<_> = config.resources.iter().collect();
    resources.sort_by_key(|resource| resource.id);
    for resource in resources {
        for prefix in &resource.addresses {
            owners.entry(prefix.trunc()).or_insert(resource.site_id);
        }
    }
    let mut sites: BTreeMap<SiteId, BTreeSet<IpNet>> = BTreeMap::new();
    for (prefix, site) in owners {
        sites.entry(site).or_default().insert(prefix);
    }
    sites.retain(|id, _| config.sites.iter().any(|site| site.id == *id));
    sites
}

/// Prefixes that more than one site has, so that only the first gets the packets.
pub(crate) fn contested_prefixes(config: &ClientConfig) -> BTreeSet<IpNet> {
    let mut sites: BTreeMap<IpNet, BTreeSet<SiteId>> = BTreeMap::new();
    for resource in &config.resources {
        for prefix in &resource.addresses {
            sites.entry(prefix.trunc()).or_default().insert(resource.site_id);
        }
    }
    sites.into_iter().filter(|(_, sites)| sites.len() > 1).map(|(prefix, _)| prefix).collect()
}

/// The connector that a view names, as the status shows it.
pub(crate) fn connector_of(view: &SiteView<'_>) -> Option<(ConnectorId, String)> {
    view.connector.map(|connector| (connector.id, connector.name.clone()))
}
