use std::{cell::RefCell, net::Ipv4Addr, time::Duration};

use adit_tests::{BadPath, Host, Impairment, Link, World, wait_until};

/// Address of the laptop on the cable.
pub(crate) const LAPTOP: Ipv4Addr = Ipv4Addr::new(198, 18, 0, 1);
/// Address of the server on the cable.
pub(crate) const SERVER: Ipv4Addr = Ipv4Addr::new(198, 18, 0, 2);
/// Address of the laptop inside a tunnel that has no idea of its own.
pub(crate) const INNER_LAPTOP: Ipv4Addr = Ipv4Addr::new(10, 7, 0, 1);
/// Address of the server inside a tunnel that has no idea of its own.
pub(crate) const INNER_SERVER: Ipv4Addr = Ipv4Addr::new(10, 7, 0, 2);

/// What others take by default of 1,500 bytes, and therefore what everybody gets who can be told.
/// Adit, which cannot, takes 16 more.
pub(crate) const INNER_MTU: u16 = 1420;

/// Time for a program to do what it was told, on a busy machine.
pub(crate) const READY: Duration = Duration::from_secs(20);

/// Two hosts joined by a cable.
pub(crate) struct Pair {
    /// Where clients run.
    pub(crate) laptop: Host,
    /// Where servers run.
    pub(crate) server: Host,
    cable: Link,
    /// What is in the cable's place, if it is a bad one.
    path: RefCell<Option<BadPath>>,
    /// The world itself. Last, so that it goes last.
    world: World,
}

/// One of the two hosts, and what a tunnel has to know of it.
pub(crate) struct Side<'a> {
    pub(crate) host: &'a Host,
    /// Name for an interface, of which there must not be two in a world.
    pub(crate) interface: String,
    pub(crate) outer: Ipv4Addr,
    pub(crate) inner: Ipv4Addr,
}

impl Pair {
    pub(crate) fn new(name: &str) -> Self {
        let world = World::new(name);
        let (laptop, server) = (world.host("laptop"), world.host("server"));
        let ends = (&laptop, &*format!("{LAPTOP}/24"));
        let cable = world.link(ends, (&server, &format!("{SERVER}/24")));

        Self { laptop, server, cable, path: RefCell::new(None), world }
    }

    /// Makes the cable as bad as this, from here on.
    #[track_caller]
    pub(crate) fn impair(&self, impairment: &Impairment) {
        match &mut *self.path.borrow_mut() {
            Some(path) => path.change(impairment),
            none => *none = Some(self.world.impair(&self.cable, impairment)),
        }
    }

    /// Returns the laptop's side and the server's.
    pub(crate) fn sides(&self) -> [Side<'_>; 2] {
        let side = |host, name: &str, outer, inner| Side {
            host,
            interface: format!("tun-{name}"),
            outer,
            inner,
        };

        [
            side(&self.laptop, "laptop", LAPTOP, INNER_LAPTOP),
            side(&self.server, "server", SERVER, INNER_SERVER),
        ]
    }
}

impl Side<'_> {
    /// Waits for the tunnel's interface.
    pub(crate) fn wait_for_interface(&self) {
        wait_until(&format!("{} is there", self.interface), READY, || {
            self.host.run(["ip", "link", "show", &self.interface]).success().then_some(())
        });
    }

    /// Gives the tunnel's interface its address, and brings it up.
    pub(crate) fn configure_interface(&self) {
        let (interface, address) = (&self.interface, format!("{}/24", self.inner));
        let mtu = INNER_MTU.to_string();
        self.host.check(["ip", "addr", "add", &address, "dev", interface]);
        self.host.check(["ip", "link", "set", "dev", interface, "mtu", &mtu, "up"]);
    }
}
