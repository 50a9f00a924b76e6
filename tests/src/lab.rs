//! The standard topology, and Adit's programs in it.
//!
//! ```text
//!  laptop ──┐                       ┌── connector ──── svc      10.9.0.0/24, fd00:9::/64
//!           ├── inet (router) ──────┤                  (private; no route to anywhere)
//!  laptop2 ─┘                       └── cp
//! ```
//!
//! Every link carries IPv4 and IPv6. The links to `inet` are the underlay: nothing private may
//! ever cross them in plain text ([`Lab::watch_underlay`]).

mod client;
mod connector;
mod control_plane;
mod identity_provider;
mod masque_peer;
mod scene;

use std::{env, time::Duration};

pub use self::{
    client::Client,
    connector::Connector,
    control_plane::{Answer, ControlPlane, etag},
    identity_provider::{Browser, IdentityProvider, ProviderCertificate},
    masque_peer::{Conversation, MasquePeer},
    scene::Scene,
};
use crate::{Host, Link, Sniffer, World};

/// Addresses of the private web service, IPv4 and IPv6. `.2` to `.5` and `::2` to `::5` are there.
pub const SVC_V4: &str = "10.9.0.2";
/// See [`SVC_V4`].
pub const SVC_V6: &str = "fd00:9::2";

/// Time for a program under test to start, or to do what it was told, on a busy machine.
pub const READY_TIMEOUT: Duration = Duration::from_secs(20);

/// A world with the standard topology.
pub struct Lab {
    /// A user's machine.
    pub laptop: Host,
    /// Another user's machine.
    pub laptop2: Host,
    /// The network between them, which is where an eavesdropper would be.
    pub inet: Host,
    /// The machine beside the private services.
    pub connector: Host,
    /// A machine with private services, and no way out.
    pub svc: Host,
    /// The machine of the control plane.
    pub cp: Host,
    /// From `laptop` to `inet`.
    pub laptop_link: Link,
    /// From `laptop2` to `inet`.
    pub laptop2_link: Link,
    /// From `connector` to `inet`.
    pub connector_link: Link,
    /// From `cp` to `inet`.
    pub cp_link: Link,
    /// From `connector` to `svc`.
    pub site_link: Link,
    /// The world itself. Last, so that it goes last.
    pub world: World,
}

impl Lab {
    /// Makes the topology; none of Adit's programs runs yet.
    #[must_use]
    #[track_caller]
    pub fn new(name: &str) -> Self {
        let world = World::new(name);
        let inet = world.router("inet");
        let laptop = world.host("laptop");
        let laptop2 = world.host("laptop2");
        let connector = world.host("connector");
        let cp = world.host("cp");
        let svc = world.host("svc");

        let attach = |host: &Host, net: u8| {
            let link = world.link(
                (host, &format!("198.18.{net}.2/24 2001:db8:{net}::2/64")),
                (&inet, &format!("198.18.{net}.1/24 2001:db8:{net}::1/64")),
            );
            host.default_route(&format!("198.18.{net}.1"));
            host.default_route(&format!("2001:db8:{net}::1"));
            link
        };
        let laptop_link = attach(&laptop, 1);
        let laptop2_link = attach(&laptop2, 2);
        let connector_link = attach(&connector, 10);
        let cp_link = attach(&cp, 20);
        let site_link = world.link(
            (&connector, "10.9.0.1/24 fd00:9::1/64"),
            (
                &svc,
                "10.9.0.2/24 10.9.0.3/24 10.9.0.4/24 10.9.0.5/24 \
                 fd00:9::2/64 fd00:9::3/64 fd00:9::4/64 fd00:9::5/64",
            ),
        );

        Self {
            laptop,
            laptop2,
            inet,
            connector,
            svc,
            cp,
            laptop_link,
            laptop2_link,
            connector_link,
            cp_link,
            site_link,
            world,
        }
    }

    /// Adds a machine for another connector beside the private services, at `198.18.11.2` and
    /// `2001:db8:11::2`. Services see it as `10.9.1.1` and `fd00:9:1::1`.
    #[must_use]
    #[track_caller]
    pub fn add_connector_host(&self) -> Host {
        let host = self.world.host("connector2");
        self.world.link(
            (&host, "198.18.11.2/24 2001:db8:11::2/64"),
            (&self.inet, "198.18.11.1/24 2001:db8:11::1/64"),
        );
        host.default_route("198.18.11.1");
        host.default_route("2001:db8:11::1");
        self.world
            .link((&host, "10.9.1.1/24 fd00:9:1::1/64"), (&self.svc, "10.9.1.2/24 fd00:9:1::2/64"));
        host.check(["ip", "route", "add", "10.9.0.0/24", "via", "10.9.1.2"]);
        host.check(["ip", "route", "add", "fd00:9::/64", "via", "fd00:9:1::2"]);

        host
    }

    /// Takes IPv4 away from the underlay.
    #[track_caller]
    pub fn leave_only_ipv6(&self) {
        for (net, link) in [
            (1, &self.laptop_link),
            (2, &self.laptop2_link),
            (10, &self.connector_link),
            (20, &self.cp_link),
        ] {
            link.a().remove_address(&format!("198.18.{net}.2/24"));
            link.b().remove_address(&format!("198.18.{net}.1/24"));
        }
    }

    /// Watches every underlay link for `marker`: what an eavesdropper on the way would see.
    #[must_use]
    #[track_caller]
    pub fn watch_underlay(&self, marker: &str) -> Sniffer {
        let links = [&self.laptop_link, &self.laptop2_link, &self.connector_link, &self.cp_link];
        Sniffer::start(&self.inet, &links.map(|link| link.b().interface()), marker)
    }

    /// Watches the link to the private services, where plain text is expected.
    #[must_use]
    #[track_caller]
    pub fn watch_site(&self, marker: &str) -> Sniffer {
        self.site_link.sniff(marker)
    }

    /// Starts a control plane on `cp`, reachable by every host through `inet`.
    #[must_use]
    #[track_caller]
    pub fn start_control_plane(&self) -> ControlPlane {
        ControlPlane::start(&self.cp, "198.18.20.2")
    }

    /// Starts a connector on `connector` that joins `site` and serves clients on the underlay.
    #[must_use]
    #[track_caller]
    pub fn start_connector(&self, control_plane: &ControlPlane, site: &str) -> Connector {
        Connector::start(&self.connector, "198.18.10.2", control_plane, site)
    }

    /// Starts a client on `host`, enrolled for `user`, and connects it.
    #[must_use]
    #[track_caller]
    pub fn start_client(&self, host: &Host, control_plane: &ControlPlane, user: &str) -> Client {
        let client = Client::start(host);
        client.enroll(&control_plane.create_enrollment_key(user));
        client.up();

        client
    }
}

/// How much the programs say: what `RUST_LOG` asks for, or enough to understand a failure.
///
/// Release builds are there to be measured, as users run them.
fn log_filter() -> String {
    let filter = if cfg!(debug_assertions) { "info,adit=debug" } else { "info" };
    env::var("RUST_LOG").unwrap_or_else(|_| filter.to_owned())
}
