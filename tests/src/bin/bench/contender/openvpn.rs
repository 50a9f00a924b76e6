use adit_tests::Process;

use super::{Ends, Tunnel, identity::Identity};
use crate::{
    pair::{INNER_LAPTOP, INNER_MTU, INNER_SERVER, LAPTOP, Pair, READY, SERVER, Side},
    program,
};

pub(super) const PROGRAM: &str = "openvpn";

/// OpenVPN between two hosts over UDP, with certificates that they know each other by and its
/// choice of ciphers.
#[track_caller]
pub(super) fn start(pair: &Pair) -> Tunnel {
    let sides = pair.sides();
    let identities = sides.each_ref().map(Identity::new);
    let [laptop, server] = &sides;
    let programs = vec![
        spawn(server, &identities[1], &identities[0], "--tls-server --dh none"),
        spawn(laptop, &identities[0], &identities[1], "--tls-client"),
    ];
    for program in &programs {
        program.wait_for_line("Initialization Sequence Completed", READY);
    }

    Tunnel { server: INNER_SERVER, ends: Ends::Programs(programs) }
}

#[track_caller]
fn spawn(side: &Side<'_>, own: &Identity, peer: &Identity, role: &str) -> Process {
    let host = side.host;
    let certificate = host.write("openvpn.crt", &own.certificate);
    let key = host.write("openvpn.key", &own.key);
    host.command("chmod").arg("0600").arg(&key).check();
    let (outer_peer, inner_peer) =
        if side.outer == LAPTOP { (SERVER, INNER_SERVER) } else { (LAPTOP, INNER_LAPTOP) };
    let program = program::find(PROGRAM).expect("it was looked for before");

    host.command(program)
        .args(["--dev", &side.interface, "--dev-type", "tun", "--proto", "udp"])
        .args(["--local", &side.outer.to_string(), "--remote", &outer_peer.to_string()])
        .args(["--ifconfig", &side.inner.to_string(), &inner_peer.to_string()])
        .args(["--tun-mtu", &INNER_MTU.to_string()])
        .args(role.split(' '))
        .arg("--cert")
        .arg(certificate)
        .arg("--key")
        .arg(key)
        .args(["--peer-fingerprint", &peer.fingerprint(":")])
        .spawn()
}
