use std::net::Ipv4Addr;

use adit_tests::{Client, Connector, ControlPlane, Process};

use super::{Ends, Tunnel};
use crate::pair::{Pair, SERVER};

/// A service on the connector's own machine. The connector never forwards to an address of its own
/// unless a resource names that very address, and one does.
const SERVICE: Ipv4Addr = Ipv4Addr::new(10, 9, 0, 1);

/// Adit as it is used: a client, a connector that decides every flow, and a control plane.
#[derive(Debug, Clone)]
pub(crate) struct Adit {
    /// How many policies the connector is given.
    pub(crate) policies: u32,
}

/// Adit's programs.
pub(crate) struct AditEnds {
    client: Client,
    connector: Connector,
    control_plane: ControlPlane,
}

impl Adit {
    #[track_caller]
    pub(crate) fn start(&self, pair: &Pair) -> Tunnel {
        let server = SERVER.to_string();
        pair.server.check(["ip", "link", "add", "service", "type", "dummy"]);
        pair.server.check(["ip", "addr", "add", &format!("{SERVICE}/32"), "dev", "service"]);
        pair.server.check(["ip", "link", "set", "service", "up"]);

        let control_plane = ControlPlane::start(&pair.server, &server);
        let site = control_plane.create_site("site");
        let user = control_plane.create_user("ada");
        let service =
            control_plane.create_resource(&site, "service", &[&format!("{SERVICE}/32")], &[]);
        control_plane.permit(&[&user], &[&service]);
        let connector = Connector::start(&pair.server, &server, &control_plane, &site);
        let client = Client::start(&pair.laptop);
        client.enroll(&control_plane.create_enrollment_key(&user));
        client.up();
        let ends = AditEnds { client, connector, control_plane };

        Tunnel { server: SERVICE, ends: Ends::Adit(Box::new(ends)) }
    }
}

impl AditEnds {
    pub(crate) fn processes(&self) -> Vec<&Process> {
        vec![self.client.process(), self.connector.process(), self.control_plane.process()]
    }
}
