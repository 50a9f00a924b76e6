//! The commands against a server with HTTPS.

use std::{fs, path::Path};

use adit_proto::api::{Page, PolicyVersion};
use clap::Parser as _;
use serde_json::json;

use super::run;
use crate::{
    config::{Arguments, Command},
    data_dir::{self, DataDir},
    fixture::Fixture,
    server::{Listener, Server},
};

struct Served {
    fixture: Fixture,
    data_dir: DataDir,
    folder: tempfile::TempDir,
    _server: Server,
}

impl Served {
    /// A user and a resource, served with HTTPS from a folder of its own.
    async fn new() -> Self {
        let fixture = Fixture::new().await;
        fixture.user("ada").await;
        let site = fixture.site("home").await;
        let web = json!({ "name": "web", "site_id": site.id, "addresses": ["10.9.0.1/32"] });
        fixture.post("/v1/resources", web).await.expect(201);
        let folder = tempfile::tempdir().unwrap();
        let data_dir = DataDir::open(folder.path()).unwrap();
        let token = fixture.admin_authorization();
        let token = token.trim_start_matches("Bearer ");
        data_dir.write_secret(&data_dir.admin_token(), token).unwrap();
        let certificate = data_dir.certificate("https://c.example").unwrap();
        let listener = Listener::bind("127.0.0.1:0".parse().unwrap()).unwrap();
        let address = listener.local_address();
        let server = Server::start(listener, &certificate, fixture.app.clone()).unwrap();
        data_dir.write_local_url(address).unwrap();
        Self { fixture, data_dir, folder, _server: server }
    }

    fn file(&self, name: &str) -> String {
        self.folder.path().join(name).to_str().unwrap().to_owned()
    }

    /// The exit code, or what went wrong.
    async fn policy(&self, arguments: &[&str]) -> Result<String, String> {
        let folder = self.data_dir.path().to_str().unwrap();
        command(&[arguments, &["--data-dir", folder]].concat()).await
    }
}

async fn command(arguments: &[&str]) -> Result<String, String> {
    let arguments = [&["adit-control", "policy"][..], arguments].concat();
    let Command::Policy(command) = Arguments::parse_from(arguments).command else {
        panic!("it is a command about policies")
    };
    let ended = run(command).await;
    ended.map(|code| exit_code(format!("{code:?}"))).map_err(|error| format!("{error:#}"))
}

/// The number in the name of an exit code.
fn exit_code(shown: String) -> String {
    shown.chars().filter(char::is_ascii_digit).collect()
}

#[track_caller]
fn write(file: &str, change: impl FnOnce(String) -> String) {
    let text = fs::read_to_string(file).unwrap();
    fs::write(file, change(text)).unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_file_is_exported_planned_and_applied() {
    let served = Served::new().await;
    let file = served.file("policies.yaml");
    assert_eq!(served.policy(&["export", &file]).await.unwrap(), "0");
    assert_eq!(served.policy(&["plan", &file]).await.unwrap(), "0");

    let policies = "policies:
  - name: ada to web # for now
    effect: permit
    subjects: {users: [ada]}
    resources: {names: [web]}
tests:
  - {name: ada to web, subject: {user: ada}, target: {resource: web}, expect: allow}
";
    write(&file, |text| {
        let base = text.lines().find(|line| line.starts_with("base:")).unwrap().to_owned();
        format!("# Ours.\n{base}\n{policies}")
    });
    assert_eq!(served.policy(&["test", &file]).await.unwrap(), "0");
    assert_eq!(served.policy(&["plan", &file]).await.unwrap(), "2");
    assert_eq!(served.policy(&["apply", &file, "--reason", "spring"]).await.unwrap(), "0");
    assert_eq!(served.policy(&["plan", &file]).await.unwrap(), "0");
    let kept = fs::read_to_string(&file).unwrap();
    assert!(kept.starts_with("# Ours.\nbase: 2\n") && kept.contains("# for now"), "{kept}");
    let history: Page<PolicyVersion> =
        served.fixture.get("/v1/policy-history").await.expect(200).json();
    assert_eq!(history.items[0].reason.as_deref(), Some("spring"));

    let json = served.file("policies.json");
    assert_eq!(served.policy(&["export", &json]).await.unwrap(), "0");
    assert_eq!(served.policy(&["plan", &json]).await.unwrap(), "0");
    assert_eq!(served.policy(&["apply", &json]).await.unwrap(), "0");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_file_of_an_older_version_is_not_applied_unless_said() {
    let served = Served::new().await;
    let file = served.file("policies.yaml");
    served.policy(&["export", &file]).await.unwrap();
    let policy = json!({
        "name": "all", "effect": "permit",
        "subjects": { "everyone": true }, "resources": { "all": true },
    });
    served.fixture.post("/v1/policies", policy).await.expect(201);
    let error = served.policy(&["apply", &file]).await.unwrap_err();
    assert!(error.contains("changed since version 1"), "{error}");
    assert_eq!(served.policy(&["apply", &file, "--base", "2"]).await.unwrap(), "0");
    fs::write(&file, "policies: []\n").unwrap();
    let error = served.policy(&["apply", &file]).await.unwrap_err();
    assert!(error.contains("--base"), "{error}");
}

#[tokio::test(flavor = "multi_thread")]
async fn tests_of_a_file_that_fail_are_told() {
    let served = Served::new().await;
    let file = served.file("policies.yaml");
    let text = "base: 1
policies: []
tests:
  - {name: ada to web, subject: {user: ada}, target: {resource: web}, expect: allow}
";
    fs::write(&file, text).unwrap();
    assert_eq!(served.policy(&["test", &file]).await.unwrap(), "1");
    assert_eq!(served.policy(&["plan", &file]).await.unwrap(), "1");
    let error = served.policy(&["apply", &file]).await.unwrap_err();
    assert!(error.contains("ada to web: denied, no-policy-permits"), "{error}");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_control_plane_is_known_by_its_pin_or_by_who_vouches_for_it() {
    let served = Served::new().await;
    let folder = served.data_dir.path();
    let url = fs::read_to_string(data_dir::local_url_file(folder)).unwrap();
    let token = data_dir::admin_token_file(folder);
    let certificate = served.data_dir.certificate("https://c.example").unwrap();
    let token: &str = token.to_str().unwrap();
    let (file, pin) = (served.file("out.yaml"), certificate.pin.to_string());
    let export = async |known_by: &[&str]| {
        let common = ["export", &file, "--url", url.trim(), "--token-file", token];
        command(&[&common[..], known_by].concat()).await
    };
    assert_eq!(export(&["--pin", &pin]).await.unwrap(), "0");
    let other = adit_proto::Pin::from_spki(b"other").to_string();
    let error = export(&["--pin", &other]).await.unwrap_err();
    assert!(error.contains("no answer"), "{error}");
    let stranger = tempfile::tempdir().unwrap();
    let foreign = DataDir::open(stranger.path()).unwrap();
    foreign.certificate("https://c.example").unwrap();
    let ca = data_dir::certificate_file(Path::new(stranger.path()));
    assert!(export(&["--ca", ca.to_str().unwrap()]).await.is_err());
}
