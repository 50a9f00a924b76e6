use std::{net::Ipv4Addr, path::Path, time::Duration};

use adit_tests::{Client, Command, Connector, ControlPlane, Process};

use super::{Ends, Tunnel};
use crate::pair::{Pair, READY, SERVER};

/// A service on the connector's own machine. The connector never forwards to an address of its own
/// unless a resource names that very address, and one does.
pub(crate) const SERVICE: Ipv4Addr = Ipv4Addr::new(10, 9, 0, 1);

/// Adit as it is used: a client, a connector that decides every flow, and a control plane.
#[derive(Debug, Clone)]
pub(crate) struct Adit {
    /// How many policies the connector is given.
    pub(crate) policies: u32,
    /// What carries the packets.
    pub(crate) carrier: &'static str,
}

/// Adit's side of the server, and a user who may use what is there.
pub(crate) struct AditServer {
    pub(crate) connector: Connector,
    pub(crate) control_plane: ControlPlane,
    site: String,
    user: String,
}

/// Adit's programs on both sides.
pub(crate) struct AditEnds {
    client: Client,
    server: AditServer,
}

impl Adit {
    #[track_caller]
    pub(crate) fn start(&self, pair: &Pair) -> Tunnel {
        let server = self.start_server(pair);
        let client = Client::start(&pair.laptop);
        client.set_carrier(self.carrier);
        client.enroll(&server.create_enrollment_key());
        client.up();

        Tunnel { server: SERVICE, ends: Ends::Adit(Box::new(AditEnds { client, server })) }
    }

    /// Starts a control plane and a connector, and writes policies.
    #[track_caller]
    pub(crate) fn start_server(&self, pair: &Pair) -> AditServer {
        let (host, ip) = (&pair.server, SERVER.to_string());
        host.check(["ip", "addr", "add", &format!("{SERVICE}/32"), "dev", "lo"]);
        let control_plane = ControlPlane::start(host, &ip);
        let site = control_plane.create_site("site");
        let user = control_plane.create_user("ada");
        let service =
            control_plane.create_resource(&site, "service", &[&format!("{SERVICE}/32")], &[]);
        control_plane.permit(&[&user], &[&service]);
        // The one that matters is written already.
        let policies = (self.policies - 1).to_string();
        populate(pair, &control_plane, &site, &user).args(["--policies", &policies]).check();
        let connector = Connector::start(host, &ip, &control_plane, &site);

        AditServer { connector, control_plane, site, user }
    }
}

impl AditServer {
    /// Creates a key for one device of the user.
    #[track_caller]
    pub(crate) fn create_enrollment_key(&self) -> String {
        self.control_plane.create_enrollment_key(&self.user)
    }

    pub(crate) fn processes(&self) -> Vec<&Process> {
        vec![self.connector.process(), self.control_plane.process()]
    }

    /// Registers plain WireGuard devices, whose keys and addresses it writes to `file`.
    #[track_caller]
    pub(crate) fn register_devices(&self, pair: &Pair, count: u32, file: &Path) {
        populate(pair, &self.control_plane, &self.site, &self.user)
            .args(["--devices", &count.to_string(), "--devices-file"])
            .arg(file)
            .timeout(READY + Duration::from_millis(20) * count)
            .check();
    }

    /// Returns the connector's WireGuard key.
    #[track_caller]
    pub(crate) fn wireguard_key(&self) -> String {
        let connectors = self.control_plane.get("/v1/connectors").ok();
        let key = connectors["items"][0]["wireguard_public_key"].as_str();

        key.unwrap_or_else(|| panic!("no key in {connectors}")).to_owned()
    }
}

impl AditEnds {
    #[track_caller]
    pub(crate) fn reconnect(&self) {
        let output = self.client.adit(&["down"]);
        assert!(output.success(), "{output:#?}");
        self.client.up();
    }

    pub(crate) fn processes(&self) -> Vec<&Process> {
        let mut processes = self.server.processes();
        processes.push(self.client.process());
        processes
    }
}

/// Prepares to write to a control plane what is too much for one request after the other.
#[track_caller]
fn populate(pair: &Pair, control_plane: &ControlPlane, site: &str, user: &str) -> Command {
    let url = control_plane.url();
    let address = url.strip_prefix("https://").unwrap_or(url);
    let command = pair.server.probe("populate").args([address, "--site", site, "--user", user]);

    command.arg("--data-dir").arg(control_plane.data_dir())
}
