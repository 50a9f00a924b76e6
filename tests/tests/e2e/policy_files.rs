//! Policies that live in a file: exported, edited, planned, applied and taken back.

use adit_tests::{Output, Scene, binary, lab::SVC_V4};
use serde_json::json;

/// The file, on the control plane's host.
const FILE: &str = "policies.yaml";

#[test]
fn a_policy_file_is_planned_applied_and_taken_back() {
    let scene = Scene::new("policy-files");
    let plane = &scene.control_plane;
    let service = scene.lab.svc.tcp_echo(SVC_V4);
    let server = service.address;
    let (prefix, port) = (format!("{}/32", server.ip()), server.port().to_string());
    let resource =
        plane.create_resource(&scene.site, "web", &[&prefix], &[("tcp", &[port.as_str()])]);
    let lobby = plane.create_resource(&scene.site, "lobby", &[&prefix], &[("tcp", &["1"])]);
    let user = plane.create_user("ada");
    let crew = plane.create_group("crew", &[&user]);
    let (subjects, these) = (json!({ "groups": [crew] }), json!({ "ids": [resource] }));
    plane.create_policy("crew to web", "permit", &subjects, &these);
    // Who loses the one still has a way into the tunnel.
    plane.create_policy(
        "lobby",
        "permit",
        &json!({ "everyone": true }),
        &json!({ "ids": [lobby] }),
    );
    let client = scene.start_client(&scene.lab.laptop, &user);
    client.wait_until_reached(server);

    let path = scene.lab.cp.dir().join(FILE);
    let path = path.to_str().expect("the folder has a name in UTF-8");
    assert!(policy(&scene, &["export", path]).success());
    let unchanged = policy(&scene, &["plan", path, "--json"]);
    assert_eq!(unchanged.code, Some(0), "{unchanged:?}");
    assert_eq!(unchanged.json()["dry_run"]["difference"]["changes"], json!([]));
    let exported = scene.lab.cp.read(FILE);
    assert!(exported.contains("crew to web") && !exported.contains("grp_"), "{exported}");

    let edited = exported.replace("crew to web", "nobody to web").replacen("permit", "forbid", 1);
    let edited = format!("# Closed for the night.\n{edited}");
    scene.lab.cp.write(FILE, &edited);
    let planned = policy(&scene, &["plan", path]);
    assert_eq!(planned.code, Some(2), "{planned:?}");
    for line in ["+ nobody to web", "- crew to web", "- ada  web  always -> none", "1 lost"] {
        assert!(planned.stdout.contains(line), "no `{line}` in {}", planned.stdout);
    }
    client.wait_until_reached(server);

    let applied = policy(&scene, &["apply", path, "--reason", "night", "--json"]);
    assert_eq!(applied.code, Some(0), "{applied:?}");
    client.wait_until_refused(server);
    let explained = client.explain(&server.to_string());
    assert_eq!(explained["reason"], "policy-forbids", "{explained}");
    let version = applied.json()["version"].as_u64().expect("versions are numbers");
    let kept = scene.lab.cp.read(FILE);
    assert!(kept.starts_with("# Closed") && kept.contains(&format!("base: {version}\n")), "{kept}");

    // Whoever still has the file of before overwrites nothing.
    scene.lab.cp.write(FILE, &exported);
    let refused = policy(&scene, &["apply", path]);
    assert_eq!(refused.code, Some(1), "{refused:?}");
    assert!(refused.stderr.contains("changed since version"), "{}", refused.stderr);

    let history = plane.get("/v1/policy-history").ok();
    assert_eq!(history["items"][0]["reason"], "night", "{history}");
    let before = version - 1;
    let rollback = format!("/v1/policy-history/{before}/rollback");
    let _ = plane.request("POST", &rollback, &[], None).ok();
    client.wait_until_reached(server);
}

#[test]
fn a_file_whose_tests_do_not_hold_is_not_applied() {
    let scene = Scene::new("policy-tests");
    let plane = &scene.control_plane;
    plane.create_resource(&scene.site, "web", &["10.9.0.2/32"], &[]);
    plane.create_user("ada");
    let text = r#"
base: 1
policies:
  - name: everyone to web
    effect: permit
    subjects: {everyone: true}
    resources: {names: [web]}
tests:
  - name: ada stays out
    subject: {user: ada}
    target: {resource: web}
    expect: deny
"#;
    let path = scene.lab.cp.write(FILE, text);
    let path = path.to_str().expect("the folder has a name in UTF-8");
    let tested = policy(&scene, &["test", path]);
    assert_eq!(tested.code, Some(1), "{tested:?}");
    let failure = "ada stays out: allowed by `everyone to web`, policy-permits";
    assert!(tested.stdout.contains(failure), "{}", tested.stdout);
    assert_eq!(policy(&scene, &["plan", path]).code, Some(1));
    let refused = policy(&scene, &["apply", path]);
    assert_eq!(refused.code, Some(1), "{refused:?}");
    assert!(refused.stderr.contains(failure), "{}", refused.stderr);
    assert_eq!(plane.get("/v1/policies").ok()["items"], json!([]));

    scene.lab.cp.write(FILE, text.replace("expect: deny", "expect: allow"));
    assert_eq!(policy(&scene, &["test", path]).code, Some(0));
    assert_eq!(policy(&scene, &["apply", path]).code, Some(0));
    assert_eq!(policy(&scene, &["plan", path]).code, Some(0));
}

/// `adit-control policy`, on the control plane's own host.
fn policy(scene: &Scene, arguments: &[&str]) -> Output {
    let command = scene.lab.cp.command(binary("adit-control")).arg("policy");
    command.args(arguments).arg("--data-dir").arg(scene.control_plane.data_dir()).run()
}
