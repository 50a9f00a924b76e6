mod sandbox;

use std::{
    collections::BTreeMap,
    fs,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicU32, Ordering},
    },
    thread,
};

pub(crate) use self::sandbox::{Sandbox, child_of};
use crate::{End, Host, Link};

/// Where a world keeps its hosts' directories, seen from inside.
pub(crate) const WORLD_DIR: &str = "/run/world";

/// A closed set of hosts and links that disappears with this value or with the test process.
pub struct World {
    sandbox: Arc<Sandbox>,
    /// How many links exist between two hosts, to name the interfaces of further ones.
    links: Mutex<BTreeMap<(String, String), u32>>,
    /// How many hosts were put between ends of links.
    relays: AtomicU32,
}

impl World {
    /// Makes an empty world. `name` is for messages only; it need not be unique.
    ///
    /// # Panics
    ///
    /// When namespaces cannot be made; the message says what to enable.
    #[must_use]
    #[track_caller]
    pub fn new(name: &str) -> Self {
        Self {
            sandbox: Arc::new(Sandbox::start(name)),
            links: Mutex::default(),
            relays: AtomicU32::new(0),
        }
    }

    /// Adds a host: a network namespace with loopback up, IPv4 and IPv6, and no other interface.
    #[track_caller]
    pub fn host(&self, name: &str) -> Host {
        assert!(
            !name.is_empty() && name.len() <= 12,
            "host name {name:?} must have 1 to 12 characters: interfaces are named after it"
        );
        let host = Host::new(self.sandbox.clone(), name);

        let dir = self.sandbox.outside(&host.dir());
        fs::create_dir_all(&dir).unwrap_or_else(|e| panic!("cannot create {}: {e}", dir.display()));
        let netns = format!("/etc/netns/{name}");
        fs::create_dir_all(self.sandbox.outside(netns.as_ref()))
            .unwrap_or_else(|e| panic!("cannot create {netns}: {e}"));
        host.set_resolv_conf("");
        // No duplicate address detection: an address works the moment it is added.
        self.sandbox.sh(&format!(
            "ip netns add {name} && ip netns exec {name} sh -ec '\
               ip link set lo up
               cd /proc/sys/net
               for scope in all default; do
                 echo 2 > ipv4/conf/$scope/rp_filter
                 echo 0 > ipv6/conf/$scope/disable_ipv6
                 echo 0 > ipv6/conf/$scope/accept_dad
                 echo 0 > ipv6/conf/$scope/accept_ra
                 echo 0 > ipv6/conf/$scope/router_solicitations
               done'"
        ));

        host
    }

    /// Adds a host that forwards packets between its links.
    #[track_caller]
    pub fn router(&self, name: &str) -> Host {
        let router = self.host(name);
        router.sysctl("net.ipv4.ip_forward", "1");
        router.sysctl("net.ipv6.conf.all.forwarding", "1");

        router
    }

    /// Links two hosts by a cable. Each end gets addresses with prefix lengths, separated by
    /// spaces, and an interface named after the host at the other end.
    ///
    /// ```no_run
    /// # let world = adit_tests::World::new("doc");
    /// # let (laptop, inet) = (world.host("laptop"), world.router("inet"));
    /// let link = world.link(
    ///     (&laptop, "198.18.1.2/24 2001:db8:1::2/64"),
    ///     (&inet, "198.18.1.1/24 2001:db8:1::1/64"),
    /// );
    /// ```
    #[track_caller]
    pub fn link(&self, (a, a_addresses): (&Host, &str), (b, b_addresses): (&Host, &str)) -> Link {
        let suffix = {
            let mut links = self.links.lock().unwrap_or_else(PoisonError::into_inner);
            let count = links.entry((a.name().into(), b.name().into())).or_default();
            *count += 1;
            if *count == 1 { String::new() } else { format!("-{count}") }
        };
        let a_end = End::new(a.clone(), format!("{}{suffix}", b.name()));
        let b_end = End::new(b.clone(), format!("{}{suffix}", a.name()));

        self.sandbox.sh(&format!(
            "ip -n {} link add name {} type veth peer name {} netns {}",
            a.name(),
            a_end.interface(),
            b_end.interface(),
            b.name(),
        ));
        let link = Link::new(a_end, b_end);
        link.up();
        link.a().add_addresses(a_addresses);
        link.b().add_addresses(b_addresses);

        link
    }

    /// Adds a host without a name of its own, to stand between the ends of a link.
    #[track_caller]
    pub(crate) fn relay(&self) -> Host {
        let number = self.relays.fetch_add(1, Ordering::Relaxed);

        self.host(&format!("relay{number}"))
    }

    /// Runs a shell script that must succeed, on no host.
    #[track_caller]
    pub(crate) fn sh(&self, script: &str) {
        self.sandbox.sh(script);
    }

    /// Returns the words that, put before a command, run it inside this world.
    #[must_use]
    pub fn enter_command(&self) -> String {
        self.sandbox.enter_argv().join(" ")
    }

    /// Returns the process id of the world's first process, as this machine sees it.
    #[must_use]
    pub fn init_pid(&self) -> u32 {
        self.sandbox.init()
    }
}

impl Drop for World {
    fn drop(&mut self) {
        if thread::panicking() {
            self.sandbox.print_transcripts();
        }
        self.sandbox.stop();
    }
}
