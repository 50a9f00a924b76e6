use adit_tests::{Process, wait_until};

use super::{CommandLine, Ends, Tunnel};
use crate::pair::{INNER_SERVER, Pair, READY, Side};

const PORT: &str = "51820";

/// A WireGuard program that `wg` configures.
#[derive(Debug, Clone)]
pub(crate) struct WireGuard {
    pub(crate) name: String,
    pub(crate) command: CommandLine,
}

impl WireGuard {
    pub(crate) fn wireguard_go() -> Self {
        Self::new("wireguard-go", "wireguard-go -f {interface}")
    }

    pub(crate) fn gotatun() -> Self {
        Self::new("gotatun", "gotatun --disable-drop-privileges --foreground {interface}")
    }

    pub(crate) fn boringtun() -> Self {
        Self::new("boringtun", "boringtun-cli --disable-drop-privileges --foreground {interface}")
    }

    fn new(name: &str, command: &str) -> Self {
        Self { name: name.to_owned(), command: CommandLine::new(command) }
    }

    #[track_caller]
    pub(crate) fn start(&self, pair: &Pair) -> Tunnel {
        let sides = pair.sides();
        let programs: Vec<_> = sides.iter().map(|side| self.spawn(side)).collect();
        let keys = sides.each_ref().map(|side| side.host.check(["wg", "genkey"]));
        let [laptop, server] = &sides;
        configure(laptop, &keys[0], server, &keys[1]);
        configure(server, &keys[1], laptop, &keys[0]);

        Tunnel { server: INNER_SERVER, ends: Ends::Programs(programs) }
    }

    #[track_caller]
    fn spawn(&self, side: &Side<'_>) -> Process {
        let command = self.command.command(side);
        // Without it wireguard-go refuses to run where the kernel could have WireGuard itself.
        let process = command.env("WG_I_PREFER_BUGGY_USERSPACE_TO_POLISHED_KMOD", "1").spawn();
        wait_until(&format!("{} can be configured", self.name), READY, || {
            assert!(process.is_running(), "{} ended: {}", self.name, process.output());
            side.host.run(["wg", "show", &side.interface]).success().then_some(())
        });

        process
    }
}

#[track_caller]
fn configure(side: &Side<'_>, private_key: &str, peer: &Side<'_>, peer_private_key: &str) {
    let wg = || side.host.command("wg");
    let peer_key = wg().arg("pubkey").stdin(peer_private_key).check();
    wg().args(["set", &side.interface, "private-key", "/dev/stdin", "listen-port", PORT])
        .args(["peer", peer_key.trim(), "endpoint", &format!("{}:{PORT}", peer.outer)])
        .args(["allowed-ips", &format!("{}/32", peer.inner)])
        .stdin(private_key)
        .check();
    side.configure_interface();
}
