//! One policy, one verdict: whoever decides.

use std::{net::SocketAddr, time::Duration};

use adit_tests::{Scene, report};
use serde_json::json;

use crate::durability::seed;

#[test]
fn control_plane_and_connector_agree_with_a_naive_evaluator() {
    let seed = seed();
    let scene = Scene::new("agreement");
    let control_plane = &scene.control_plane;
    let address: SocketAddr = control_plane
        .url()
        .strip_prefix("https://")
        .and_then(|address| address.parse().ok())
        .expect("a URL of address and port");

    let process = scene
        .lab
        .laptop
        .probe("agreement")
        .args(["--control-plane", &address.to_string(), "--data-dir"])
        .arg(control_plane.data_dir())
        .args(["--site", &scene.site, "--questions", "100000", "--seed", &seed.to_string()])
        .spawn();
    let output = process.wait(Duration::from_secs(600));

    assert!(output.success(), "seed {seed}: {output:#?}");
    let agreed = process.wait_for_event("agreed", Duration::ZERO);
    report(&json!({ "id": "S5", "what": "questions and answers", "result": agreed }));
    assert!(agreed["asked"].as_u64() >= Some(100_000), "{agreed}");
    // Questions that are all answered alike would prove little.
    let reasons = agreed["reasons"].as_object().expect("an object");
    for (reason, least) in [
        ("policy-permits", 1_000),
        ("policy-forbids", 1_000),
        ("no-policy-permits", 1_000),
        ("resource-unknown", 1_000),
        ("address-reserved", 1_000),
        ("posture-failed", 1),
        ("source-network-other", 1),
        ("sign-in-too-old", 1),
        ("authentication-methods-missing", 1),
        ("time-window-closed", 1),
        ("policy-expired", 1),
    ] {
        let count = reasons.get(reason).and_then(serde_json::Value::as_u64).unwrap_or_default();
        assert!(count >= least, "{reason}: {agreed}");
    }
}
