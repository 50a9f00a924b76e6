//! What the control plane has acknowledged is there after a crash.

use std::{env, time::Duration};

use adit_tests::{World, binary, monotonic_ns, report};
use serde_json::json;

#[test]
fn acknowledged_writes_survive_kills_at_random_moments() {
    // As many as were promised take minutes; each night has them.
    let kills = if env::var_os("ADIT_NIGHTLY").is_some() { 1_000 } else { 150 };
    let seed = seed();
    let world = World::new("durability");
    let host = world.host("cp");
    let program = binary("adit-control");
    let data_dir = host.dir().join("data");

    let process = host
        .probe("durability")
        .arg("--control-plane")
        .arg(program)
        .arg("--data-dir")
        .arg(data_dir)
        .args(["--kills", &kills.to_string(), "--seed", &seed.to_string()])
        .args(["--check-every", if kills > 150 { "100" } else { "50" }])
        .spawn();
    let output = process.wait(Duration::from_secs(1_200));

    assert!(output.success(), "seed {seed}: {output:#?}");
    let durable = process.wait_for_event("durable", Duration::ZERO);
    report(&json!({ "id": "S6", "what": "kills of the control plane", "result": durable }));
    assert_eq!(durable["kills"], kills);
}

/// The seed in `ADIT_SEED`, or one that differs from run to run and is part of every message.
pub(crate) fn seed() -> u64 {
    let given = env::var("ADIT_SEED").ok();
    let seed = given.and_then(|seed| seed.parse().ok()).unwrap_or_else(monotonic_ns);
    eprintln!("seed {seed}: ADIT_SEED={seed} brings it back");

    seed
}
