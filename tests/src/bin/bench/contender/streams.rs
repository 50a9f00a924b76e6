use adit_tests::{Process, binary};

use super::{
    Ends, Tunnel,
    adit::{Adit, AditServer, SERVICE},
};
use crate::pair::{Pair, READY};

/// Each connection of TCP as a CONNECT to Adit's connector, without packets in between.
#[derive(Debug, Clone)]
pub(crate) struct Streams {
    /// The connector that it is for.
    pub(crate) adit: Adit,
}

/// Adit's side of the server, and what takes connections on the laptop.
pub(crate) struct StreamEnds {
    forwarder: Process,
    server: AditServer,
}

/// Where iperf3 is, unless told otherwise.
const PORT: u16 = 5201;

impl Streams {
    #[track_caller]
    pub(crate) fn start(&self, pair: &Pair) -> Tunnel {
        let server = self.adit.start_server(pair);
        let key = pair.laptop.write("streams-key", server.create_enrollment_key());
        // The service's own address leads to the forwarder on the laptop.
        pair.laptop.check(["ip", "addr", "add", &format!("{SERVICE}/32"), "dev", "lo"]);
        let socket = format!("{SERVICE}:{PORT}");
        let forwarder = pair
            .laptop
            .command(binary("adit-probe"))
            .arg("connect-forward")
            .arg("--key-file")
            .arg(key)
            .args(["--listen", &socket, &socket])
            .spawn();
        forwarder.wait_for_event("listening", READY);

        Tunnel { server: SERVICE, ends: Ends::Streams(Box::new(StreamEnds { forwarder, server })) }
    }
}

impl StreamEnds {
    pub(crate) fn processes(&self) -> Vec<&Process> {
        let mut processes = self.server.processes();
        processes.push(&self.forwarder);
        processes
    }
}
