use crate::{Host, Sniffer};

/// A cable between two hosts.
pub struct Link {
    a: End,
    b: End,
}

impl Link {
    pub(crate) fn new(a: End, b: End) -> Self {
        Self { a, b }
    }

    /// Returns the end at the host that was named first.
    #[must_use]
    pub fn a(&self) -> &End {
        &self.a
    }

    /// Returns the end at the host that was named second.
    #[must_use]
    pub fn b(&self) -> &End {
        &self.b
    }

    /// Plugs the cable in.
    #[track_caller]
    pub fn up(&self) {
        self.a.set("up");
        self.b.set("up");
    }

    /// Pulls the cable out at the first host. Its IPv6 addresses and its routes go with it.
    #[track_caller]
    pub fn down(&self) {
        self.a.set("down");
    }

    /// Sets the largest packet that passes, at both ends.
    #[track_caller]
    pub fn set_mtu(&self, mtu: u16) {
        self.a.set(&format!("mtu {mtu}"));
        self.b.set(&format!("mtu {mtu}"));
    }

    /// Watches everything that passes for `marker`, until the [`Sniffer`] is finished.
    #[track_caller]
    pub fn sniff(&self, marker: &str) -> Sniffer {
        Sniffer::start(&self.b.host, &[self.b.interface()], marker)
    }
}

/// One end of a [`Link`]: an interface of a host.
pub struct End {
    host: Host,
    interface: String,
}

impl End {
    pub(crate) fn new(host: Host, interface: String) -> Self {
        Self { host, interface }
    }

    /// Returns the host at this end.
    #[must_use]
    pub fn host(&self) -> &Host {
        &self.host
    }

    /// Returns the name of the interface.
    #[must_use]
    pub fn interface(&self) -> &str {
        &self.interface
    }

    /// Adds addresses with prefix lengths, separated by spaces.
    #[track_caller]
    pub fn add_addresses(&self, addresses: &str) {
        for address in addresses.split_whitespace() {
            // The flag exists for IPv6 only, and does nothing for IPv4.
            self.ip(&["addr", "add", address, "dev", &self.interface, "nodad"]);
        }
    }

    /// Removes an address.
    #[track_caller]
    pub fn remove_address(&self, address: &str) {
        self.ip(&["addr", "del", address, "dev", &self.interface]);
    }

    #[track_caller]
    fn set(&self, what: &str) {
        let mut argv = vec!["link", "set", "dev", &self.interface];
        argv.extend(what.split(' '));
        self.ip(&argv);
    }

    #[track_caller]
    fn ip(&self, argv: &[&str]) {
        self.host.command("ip").args(argv).check();
    }
}
