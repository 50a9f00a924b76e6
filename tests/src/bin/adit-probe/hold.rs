use std::thread;

use adit_tests::World;
use serde_json::json;

use crate::event;

/// Makes a world with two hosts and a process, prints what identifies it, and waits to be killed.
pub(crate) fn run() -> anyhow::Result<()> {
    let world = World::new("held");
    let (a, b) = (world.host("a"), world.host("b"));
    let _link = world.link((&a, "10.0.0.1/24"), (&b, "10.0.0.2/24"));
    let _sleeper = a.spawn(["sleep", "infinity"]);
    let namespace = b.check(["readlink", "/proc/self/ns/net"]);
    event::print("held", json!({ "init": world.init_pid(), "namespace": namespace.trim() }));

    loop {
        thread::park();
    }
}
