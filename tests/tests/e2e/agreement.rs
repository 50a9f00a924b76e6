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
    for reason in [
        "policy-permits",
        "policy-forbids",
        "no-policy-permits",
        "sign-in-too-old",
        "authentication-methods-missing",
        "time-window-closed",
        "policy-expired",
        "resource-unknown",
        "address-reserved",
    ] {
        let count = reasons.get(reason).and_then(serde_json::Value::as_u64).unwrap_or_default();
        assert!(count >= 1_000, "{reason}: {agreed}");
    }
}
