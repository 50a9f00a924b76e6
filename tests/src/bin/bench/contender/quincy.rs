use adit_tests::Process;

use super::{Ends, Tunnel, identity::Identity};
use crate::{
    pair::{INNER_MTU, INNER_SERVER, Pair, SERVER, Side},
    program,
};

pub(super) const CLIENT: &str = "quincy-client";
pub(super) const SERVER_PROGRAM: &str = "quincy-server";

const PORT: u16 = 55_555;

/// quincy between a client and a server, by TLS with certificates both ways.
#[track_caller]
pub(super) fn start(pair: &Pair) -> Tunnel {
    let sides = pair.sides();
    let identities = sides.each_ref().map(Identity::new);
    let [laptop, server] = &sides;
    let trusted = laptop.host.write("quincy-server.crt", &identities[1].certificate);
    let users = format!(
        "[users.laptop]\nauthorized_keys = []\nauthorized_certs = [\"sha256:{}\"]\n",
        identities[0].fingerprint("")
    );
    let users = server.host.write("quincy-users.toml", users);
    let server_config = format!(
        "name = \"{0}\"\ninterface_name = \"{0}\"\nbind_address = \"{SERVER}\"\n\
         bind_port = {PORT}\ntunnel_network = \"{INNER_SERVER}/24\"\nusers_file = {users:?}\n\
         [protocol]\nmode = \"tls\"\ncertificate_file = {1:?}\ncertificate_key_file = {2:?}\n",
        server.interface,
        server.host.write("quincy.crt", &identities[1].certificate),
        server.host.write("quincy.key", &identities[1].key),
    );
    let client_config = format!(
        "connection_string = \"{SERVER}:{PORT}\"\n\
         [network]\ninterface_name = \"{}\"\n\
         [protocol]\nmode = \"tls\"\ntrusted_certificate_paths = [{trusted:?}]\n\
         client_certificate_file = {:?}\nclient_certificate_key_file = {:?}\n",
        laptop.interface,
        laptop.host.write("quincy.crt", &identities[0].certificate),
        laptop.host.write("quincy.key", &identities[0].key),
    );
    let server_program = spawn(server, SERVER_PROGRAM, &server_config);
    server.wait_for_interface();
    let client_program = spawn(laptop, CLIENT, &client_config);
    laptop.wait_for_interface();

    Tunnel { server: INNER_SERVER, ends: Ends::Programs(vec![client_program, server_program]) }
}

#[track_caller]
fn spawn(side: &Side<'_>, name: &str, config: &str) -> Process {
    let shared = format!("[connection]\nmtu = {INNER_MTU}\n[log]\nlevel = \"info\"\n");
    let file = side.host.write("quincy.toml", format!("{config}{shared}"));
    let program = program::find(name).expect("it was looked for before");

    side.host.command(program).arg("--config-path").arg(file).spawn()
}
