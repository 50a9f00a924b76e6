//! Owns the interface's addresses and the routes of this machine that Adit makes.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
    path::Path,
};

use ipnet::IpNet;
use tokio::sync::{mpsc, oneshot};

use super::{
    journal::Journal,
    known_networks::NetworkId,
    obstacle::chain,
    routing::{Overlap, Route, host_route, overlaps, route_outside, wanted_prefixes},
    task::Task,
};
use crate::platform::{Network, NetworkError, interface_name};

/// Requests wait while the queue is full.
const QUEUE_LEN: usize = 64;

/// What the interface is to look like.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Layout {
    pub(crate) addresses: Vec<IpAddr>,
    pub(crate) prefixes: BTreeSet<IpNet>,
}

enum Request {
    Open {
        interface: u32,
        layout: Layout,
        reply: oneshot::Sender<Result<Vec<String>, NetworkError>>,
    },
    Update {
        layout: Layout,
        reply: oneshot::Sender<Result<Vec<String>, NetworkError>>,
    },
    KeepOutside {
        address: IpAddr,
        reply: oneshot::Sender<()>,
    },
    FindNetwork {
        reply: oneshot::Sender<Option<NetworkId>>,
    },
    Close {
        reply: oneshot::Sender<()>,
    },
}

/// A handle of the router's task; the task ends when the last handle is gone.
#[derive(Clone)]
pub(crate) struct Router {
    requests: mpsc::Sender<Request>,
}

impl Router {
    /// Starts the task and removes what a crashed daemon has left behind.
    pub(crate) async fn start(journal_path: &Path) -> anyhow::Result<(Self, Task)> {
        let network = Network::try_new()?;
        let mut actor = Actor { network, journal: Journal::open(journal_path)?, open: None };
        actor.remove_journalled().await;
        let (requests, receiver) = mpsc::channel(QUEUE_LEN);
        let task = Task::spawn(actor.run(receiver));
        Ok((Self { requests }, task))
    }

    /// Gives the interface its addresses and routes; returns what the user should know.
    pub(crate) async fn open(
        &self,
        interface: u32,
        layout: Layout,
    ) -> Result<Vec<String>, NetworkError> {
        self.ask(|reply| Request::Open { interface, layout, reply }).await.unwrap_or(Ok(Vec::new()))
    }

    /// Changes addresses and routes of the open interface.
    pub(crate) async fn update(&self, layout: Layout) -> Result<Vec<String>, NetworkError> {
        self.ask(|reply| Request::Update { layout, reply }).await.unwrap_or(Ok(Vec::new()))
    }

    /// Makes sure that packets to this address go outside the tunnel, however its prefixes lie.
    pub(crate) async fn keep_outside(&self, address: IpAddr) {
        self.ask(|reply| Request::KeepOutside { address, reply }).await;
    }

    /// The network that this machine is in; none: there is no default route.
    pub(crate) async fn find_network(&self) -> Option<NetworkId> {
        self.ask(|reply| Request::FindNetwork { reply }).await.flatten()
    }

    /// Takes away all that was made.
    pub(crate) async fn close(&self) {
        self.ask(|reply| Request::Close { reply }).await;
    }

    async fn ask<T>(&self, request: impl FnOnce(oneshot::Sender<T>) -> Request) -> Option<T> {
        let (reply, answer) = oneshot::channel();
        self.requests.send(request(reply)).await.ok()?;
        answer.await.ok()
    }
}

struct Actor {
    network: Network,
    journal: Journal,
    open: Option<OpenInterface>,
}

struct OpenInterface {
    index: u32,
    addresses: BTreeSet<IpAddr>,
    /// Routes through the interface.
    routes: BTreeMap<IpNet, Route>,
    /// All that is wanted, whether it could be routed or not.
    prefixes: BTreeSet<IpNet>,
    /// Addresses that must stay outside, with the route that was made for it where one is needed.
    outside: BTreeMap<IpAddr, Option<Route>>,
}

impl Actor {
    async fn run(mut self, mut requests: mpsc::Receiver<Request>) {
        while let Some(request) = requests.recv().await {
            // Who no longer waits for the answer still wanted it done.
            match request {
                Request::Open { interface, layout, reply } => {
                    let _ = reply.send(self.open(interface, layout).await);
                }
                Request::Update { layout, reply } => {
                    let _ = reply.send(self.update(layout).await);
                }
                Request::KeepOutside { address, reply } => {
                    self.keep_outside(address).await;
                    let _ = reply.send(());
                }
                Request::FindNetwork { reply } => {
                    let _ = reply.send(self.find_network().await);
                }
                Request::Close { reply } => {
                    self.close().await;
                    let _ = reply.send(());
                }
            }
        }
    }

    async fn open(&mut self, index: u32, layout: Layout) -> Result<Vec<String>, NetworkError> {
        self.network.bring_up(index).await?;
        self.open = Some(OpenInterface {
            index,
            addresses: BTreeSet::new(),
            routes: BTreeMap::new(),
            prefixes: BTreeSet::new(),
            outside: BTreeMap::new(),
        });
        self.update(layout).await
    }

    async fn update(&mut self, layout: Layout) -> Result<Vec<String>, NetworkError> {
        let Some(mut open) = self.open.take() else {
            return Ok(Vec::new());
        };
        let result = self.apply(&mut open, layout).await;
        self.open = Some(open);
        result
    }

    async fn apply(
        &mut self,
        open: &mut OpenInterface,
        layout: Layout,
    ) -> Result<Vec<String>, NetworkError> {
        let mut warnings = Vec::new();
        self.apply_addresses(open, &layout.addresses, &mut warnings).await?;

        let wanted = wanted_prefixes(layout.prefixes);
        let table = self.network.routes().await?;
        let dropped: Vec<IpNet> =
            open.routes.keys().filter(|prefix| !wanted.contains(prefix)).copied().collect();
        for prefix in dropped {
            if let Some(route) = open.routes.remove(&prefix) {
                self.remove_route(&route).await;
            }
        }
        open.prefixes.clone_from(&wanted);
        // Before the prefixes are routed, so that no packet of a session enters the tunnel.
        let addresses: Vec<IpAddr> = open.outside.keys().copied().collect();
        for address in addresses {
            self.route_outside(open, address, &table).await;
        }
        for prefix in wanted {
            let mut is_taken = false;
            for (overlap, route) in overlaps(&prefix, &table, open.index) {
                if open.outside.values().flatten().any(|ours| ours.destination == route.destination)
                {
                    continue;
                }
                is_taken |= overlap == Overlap::Same;
                warnings.push(warning(overlap, &prefix, route));
            }
            if is_taken || open.routes.contains_key(&prefix) {
                continue;
            }
            let source = open
                .addresses
                .iter()
                .find(|address| address.is_ipv4() == prefix.addr().is_ipv4())
                .copied();
            if source.is_none() {
                warnings.push(format!("{prefix} is not routed: the device has no such address"));
                continue;
            }
            let route = Route {
                destination: prefix,
                gateway: None,
                interface: open.index,
                metric: 0,
                source,
            };
            match self.network.add_route(&route).await {
                Ok(()) => {
                    open.routes.insert(prefix, route);
                }
                Err(error) if error.is_already_there() => {
                    warnings.push(format!("{prefix} is not routed: another route has it"));
                }
                Err(error) => return Err(error),
            }
        }
        Ok(warnings)
    }

    async fn apply_addresses(
        &self,
        open: &mut OpenInterface,
        wanted: &[IpAddr],
        warnings: &mut Vec<String>,
    ) -> Result<(), NetworkError> {
        let dropped: Vec<IpAddr> =
            open.addresses.iter().filter(|address| !wanted.contains(address)).copied().collect();
        for address in dropped {
            open.addresses.remove(&address);
            if let Err(error) = self.network.remove_address(open.index, address).await {
                tracing::debug!(error = %chain(&error), %address, "Address was not removed");
            }
        }
        for address in wanted {
            if open.addresses.contains(address) {
                continue;
            }
            match self.network.add_address(open.index, *address).await {
                Ok(()) => {
                    open.addresses.insert(*address);
                }
                // IPv6 may be switched off on this machine, which IPv4 can do without.
                Err(error) if address.is_ipv6() => {
                    warnings.push(format!("no IPv6 in the tunnel: {}", chain(&error)));
                }
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }

    async fn keep_outside(&mut self, address: IpAddr) {
        let Some(mut open) = self.open.take() else {
            return;
        };
        match self.network.routes().await {
            Ok(table) => self.route_outside(&mut open, address, &table).await,
            Err(error) => tracing::warn!(error = %chain(&error), "Routes cannot be listed"),
        }
        self.open = Some(open);
    }

    /// Makes, changes or removes the host route of an address, as the table has it by now.
    async fn route_outside(&mut self, open: &mut OpenInterface, address: IpAddr, table: &[Route]) {
        let is_covered = open.prefixes.iter().any(|prefix| prefix.contains(&address));
        let others: Vec<Route> = table
            .iter()
            .filter(|route| {
                !open.outside.values().flatten().any(|ours| {
                    ours.destination == route.destination && ours.interface == route.interface
                })
            })
            .cloned()
            .collect();
        let wanted = route_outside(address, &others, open.index)
            .filter(|_| is_covered && !address.is_loopback())
            .map(|outside| host_route(address, outside))
            // The network has a route for this very address already.
            .filter(|route| !others.iter().any(|other| other.destination == route.destination));
        // The kernel drops routes of an interface that goes down.
        let is_there = |held: &Route| {
            let same = |route: &Route| {
                route.destination == held.destination && route.interface == held.interface
            };
            table.iter().any(same)
        };
        let held = open.outside.get(&address).cloned().flatten();
        if held != wanted || held.as_ref().is_some_and(|held| !is_there(held)) {
            if let Some(held) = held {
                self.remove_host_route(&held).await;
            }
            if let Some(wanted) = &wanted {
                self.add_host_route(wanted).await;
            }
        }
        open.outside.insert(address, wanted);
    }

    async fn find_network(&self) -> Option<NetworkId> {
        match self.network.routes().await {
            Ok(mut table) => {
                let own_interface = self.open.as_ref().map(|open| open.index);
                table.retain(|route| Some(route.interface) != own_interface);
                NetworkId::find(&table)
            }
            Err(error) => {
                tracing::debug!(error = %chain(&error), "Network of this machine is not known");
                None
            }
        }
    }

    async fn add_host_route(&mut self, route: &Route) {
        if let Err(error) = self.journal.insert(route) {
            tracing::warn!(%error, "Journal cannot be written, so no host route is made");
            return;
        }
        match self.network.add_route(route).await {
            Ok(()) => {
                tracing::debug!(
                    destination = %route.destination,
                    "Added a route outside the tunnel"
                );
            }
            Err(error) => {
                tracing::warn!(error = %chain(&error), "Host route was not made");
                self.cross_out(route);
            }
        }
    }

    async fn remove_host_route(&mut self, route: &Route) {
        self.remove_route(route).await;
        self.cross_out(route);
    }

    async fn remove_route(&self, route: &Route) {
        match self.network.remove_route(route).await {
            Ok(()) => {}
            Err(error) if error.is_not_there() => {}
            Err(error) => tracing::warn!(error = %chain(&error), "Route was not removed"),
        }
    }

    fn cross_out(&mut self, route: &Route) {
        if let Err(error) = self.journal.remove(route) {
            tracing::warn!(%error, "Journal cannot be written");
        }
    }

    async fn remove_journalled(&mut self) {
        for route in self.journal.routes().to_vec() {
            tracing::info!(destination = %route.destination, "Removing a route of a crashed daemon");
            self.remove_host_route(&route).await;
        }
    }

    async fn close(&mut self) {
        let Some(open) = self.open.take() else {
            return;
        };
        // Prefixes first, so that no packet leaves by a host route that is gone.
        for route in open.routes.values() {
            self.remove_route(route).await;
        }
        for route in open.outside.values().flatten() {
            self.remove_host_route(route).await;
        }
    }
}

fn warning(overlap: Overlap, prefix: &IpNet, route: &Route) -> String {
    let name = interface_name(route.interface);
    let destination = route.destination;
    match overlap {
        Overlap::Same => {
            format!("{prefix} is not routed: {name} has the same network; its own comes first")
        }
        Overlap::RouteInside => {
            format!("{destination} of {name} lies inside {prefix} and stays outside the tunnel")
        }
        Overlap::PrefixInside => format!(
            "{prefix} lies inside {destination} of {name}: these addresses are reached through \
             the tunnel only"
        ),
    }
}
