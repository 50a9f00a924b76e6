//! Programs that cannot work say in one line what is wrong and what to do next, and lose nothing.

use std::{
    net::SocketAddr,
    path::Path,
    time::{Duration, SystemTime},
};

use adit_proto::{JoinToken, JoinTokenKind, Pin};
use adit_tests::{Client, Command, Host, Lab, Output, binary, wait_until};
use serde_json::json;

const SECOND: Duration = Duration::from_secs(1);

#[test]
fn a_connector_that_cannot_start_says_why() {
    let lab = Lab::new("bad-connector");
    let plane = lab.start_control_plane();
    let site = plane.create_site("site");
    let user = plane.create_user("ada");
    let tokens_path = format!("/v1/sites/{site}/connector-tokens");
    let expired = plane.post(&tokens_path, &json!({ "name": "c", "lifetime_s": 1 })).ok();
    let expires_at = SystemTime::now() + Duration::from_millis(1_100);
    let running = lab.start_connector(&plane, &site);
    let used = lab.connector.read("connector-token");
    let good = plane.create_connector_token(&site);
    let parsed: JoinToken = good.parse().expect("the control plane makes good tokens");
    let foreign = |pin: Pin, secret: &str| {
        let url = parsed.url().to_owned();
        JoinToken::new(JoinTokenKind::Connector, url, pin, secret.to_owned()).to_token()
    };
    let host = &lab.laptop;
    let run = |token: Option<&str>| {
        let command = connector(host, "198.18.1.2:0", "state");
        match token {
            Some(token) => command.arg("--token-file").arg(host.write("token", token)),
            None => command,
        }
    };

    fails(run(None), &["has not joined yet", "--token-file"]);
    fails(run(None).args(["--token-file", "/nowhere/token"]), &["/nowhere/token", "No such file"]);
    fails(run(Some("adit_conn_nonsense")), &["no connector token in"]);
    fails(run(Some("")), &["no connector token in"]);
    fails(run(Some(&plane.create_enrollment_key(&user))), &["create a connector token"]);
    fails(run(Some(&used)), &["failed to join", "new"]);
    fails(run(Some(&foreign(*parsed.pin(), "c2VjcmV0"))), &["failed to join"]);
    fails(
        run(Some(&foreign(Pin::from_spki(b"another"), parsed.secret()))),
        &["failed to join", "certificate"],
    );
    wait_until("the token has expired", 5 * SECOND, || {
        (SystemTime::now() > expires_at).then_some(())
    });
    let expired = expired["token"].as_str().expect("a token");
    fails(run(Some(expired)), &["failed to join", "new"]);

    let in_use = connector(&lab.connector, running.listen(), "other")
        .args(["--interface", "adit-conn1", "--token-file"])
        .arg(lab.connector.write("token", &good));
    fails(in_use, &["in use", "choose another"]);
    let taken = connector(&lab.connector, "198.18.10.2:0", "other").arg("--token-file");
    fails(taken.arg(lab.connector.write("token", &good)), &["adit-conn0", "another name"]);
    fails(without_privileges(host, &run(Some(&good))), &["root"]);
    fails(without_tun(host, &run(Some(&good))), &["modprobe tun"]);
    fails(with_full_disk(host, "state", &run(Some(&good))), &["state", "No space left"]);
    host.sh("cd $HOME && mkdir damaged && echo '{}' > damaged/connector.json");
    fails(connector(host, "198.18.1.2:0", "damaged"), &["damaged", "join again"]);
    let wrong_usage = connector(host, "nowhere", "state").run();
    assert_eq!(wrong_usage.code, Some(2), "{wrong_usage:#?}");

    // None of this used the good token up.
    let joined = run(Some(&good)).spawn();
    joined.wait_for_line("Joined", 10 * SECOND);
    assert!(running.process().is_running());
}

#[test]
fn a_client_that_cannot_go_on_says_why() {
    let lab = Lab::new("bad-client");
    let plane = lab.start_control_plane();
    let site = plane.create_site("site");
    let user = plane.create_user("ada");
    let expiring = json!({ "name": "k", "user_id": user, "lifetime_s": 1 });
    let expired = plane.post("/v1/enrollment-keys", &expiring).ok();
    let expires_at = SystemTime::now() + Duration::from_millis(1_100);
    let host = &lab.laptop;
    let cli =
        |args: &[&str]| host.command(binary("adit")).args(["--socket", "nobody.sock"]).args(args);
    let no_daemon = cli(&["status"]).run();
    assert_eq!(no_daemon.code, Some(3), "{no_daemon:#?}");
    assert!(no_daemon.stderr.contains("adit daemon"), "{no_daemon:#?}");
    fails(without_privileges(host, &daemon(host, "state")), &["no permission", "run as root"]);
    fails(without_tun(host, &daemon(host, "state")), &["modprobe tun"]);

    let client = Client::start(host);
    let asked = |args: &[&str], words: &[&str]| says(&client.adit(args), words);
    let enroll = |key: &str| {
        let file = host.write("key", key);
        client.adit(&["enroll", "--key-file", &file.to_string_lossy()])
    };
    asked(&["up"], &["not enrolled", "adit enroll --key-file"]);
    asked(&["enroll", "--key-file", "/nowhere/key"], &["/nowhere/key", "No such file"]);
    asked(&["enroll"], &["adit enroll --key-file"]);
    says(&enroll(""), &["empty"]);
    says(&enroll("adit_enroll_nonsense"), &["copy all of the key again"]);
    says(&enroll(&plane.create_connector_token(&site)), &["connector's token"]);
    let good = plane.create_enrollment_key(&user);
    let parsed: JoinToken = good.parse().expect("the control plane makes good keys");
    let foreign = |pin: Pin, secret: &str| {
        let url = parsed.url().to_owned();
        JoinToken::new(JoinTokenKind::Enrollment, url, pin, secret.to_owned()).to_token()
    };
    says(&enroll(&foreign(*parsed.pin(), "c2VjcmV0")), &["ask an administrator for a new"]);
    says(
        &enroll(&foreign(Pin::from_spki(b"another"), parsed.secret())),
        &["another certificate", "ask an administrator"],
    );
    wait_until("the key has expired", 5 * SECOND, || {
        (SystemTime::now() > expires_at).then_some(())
    });
    says(&enroll(expired["key"].as_str().expect("a key")), &["ask an administrator for a new"]);

    assert!(enroll(&good).success(), "none of this used the good key up");
    says(&enroll(&plane.create_enrollment_key(&user)), &["already enrolled", "--replace"]);
    let second = Client::start(&lab.laptop2);
    let file = lab.laptop2.write("key", &good);
    let used = second.adit(&["enroll", "--key-file", &file.to_string_lossy()]);
    says(&used, &["ask an administrator for a new"]);
    assert_eq!(plane.devices_of(&user).len(), 1);

    // A second daemon on the same machine.
    fails(daemon(host, "client"), &["client", "another"]);
    let other_state = host.command(binary("adit")).args(["daemon", "--interface", "adit1"]);
    let other_state = other_state.arg("--state-dir").arg(host.dir().join("second"));
    fails(other_state.arg("--socket").arg(host.dir().join("adit.sock")), &["adit.sock"]);
    // Nothing to connect to yet.
    asked(&["explain", "10.9.0.2:80"], &["adit up"]);
    asked(&["explain", "10.9.0.2"], &["port is missing"]);
}

#[test]
fn a_control_plane_that_cannot_start_says_why() {
    let lab = Lab::new("bad-control");
    let plane = lab.start_control_plane();
    let host = &lab.cp;
    let listen: SocketAddr =
        plane.url().trim_start_matches("https://").parse().expect("an address");
    let serve = |listen: &str, data_dir: &Path| {
        host.command(binary("adit-control"))
            .args(["serve", "--listen", listen, "--data-dir"])
            .arg(data_dir)
    };
    let fresh = host.dir().join("fresh");

    fails(serve(&listen.to_string(), &fresh), &["in use", "--listen"]);
    fails(serve("127.0.0.1:0", plane.data_dir()), &["control-plane", "another"]);
    fails(serve("192.0.2.77:0", &fresh), &["192.0.2.77", "--listen"]);
    let file = host.write("file", "no directory");
    fails(serve("127.0.0.1:0", &file), &["file"]);
    let full = with_full_disk(host, "full", &serve("127.0.0.1:0", &host.dir().join("full")));
    fails(full, &["full"]);
    host.sh("cd $HOME && cp -a control-plane damaged && rm -f damaged/adit.db-* damaged/lock
         head -c 10000 /dev/urandom > damaged/adit.db");
    fails(serve("127.0.0.1:0", &host.dir().join("damaged")), &["damaged", "backup"]);
    let wrong_usage = serve("nowhere", &fresh).run();
    assert_eq!(wrong_usage.code, Some(2), "{wrong_usage:#?}");

    let _ = plane.get("/v1/organisation").ok();
}

fn connector(host: &Host, listen: &str, state: &str) -> Command {
    host.command(binary("adit-connector"))
        .args(["run", "--listen", listen, "--state-dir"])
        .arg(host.dir().join(state))
}

fn daemon(host: &Host, state: &str) -> Command {
    host.command(binary("adit"))
        .args(["daemon", "--state-dir"])
        .arg(host.dir().join(state))
        .arg("--socket")
        .arg(host.dir().join("daemon.sock"))
}

/// The same command as root that may nothing.
fn without_privileges(host: &Host, command: &Command) -> Command {
    host.command("setpriv").args(["--bounding-set=-all", "--inh-caps=-all"]).args(command.argv())
}

/// The same command on a machine without `/dev/net/tun`.
fn without_tun(host: &Host, command: &Command) -> Command {
    after(host, "mount -t tmpfs none /dev/net", command)
}

/// The same command where a directory of the host is on a disk that is full.
fn with_full_disk(host: &Host, directory: &str, command: &Command) -> Command {
    let script = format!(
        "mkdir -p $HOME/{directory} && mount -t tmpfs -o size=64k none $HOME/{directory} && \
         ! head -c 100000 /dev/zero > $HOME/{directory}/ballast 2>/dev/null"
    );
    after(host, &script, command)
}

/// The same command after a script that may mount what the command alone sees.
fn after(host: &Host, script: &str, command: &Command) -> Command {
    let script = format!("{script}; exec \"$@\"");
    host.command("sh").args(["-ec", &script, "sh"]).args(command.argv())
}

/// Runs a program that must fail with one line that contains these words.
#[track_caller]
fn fails(command: Command, words: &[&str]) {
    says(&command.timeout(10 * SECOND).run(), words);
}

#[track_caller]
fn says(output: &Output, words: &[&str]) {
    assert!(output.code.is_some_and(|code| code != 0), "{output:#?}");
    let complaint: Vec<_> = output
        .stderr
        .lines()
        .filter(|line| !line.contains(" INFO ") && !line.contains(" WARN "))
        .collect();
    assert!((1..=2).contains(&complaint.len()), "{output:#?}");
    let complaint = complaint.join("\n");
    for word in words {
        assert!(complaint.contains(word), "{word:?} is not in: {complaint}\n{output:#?}");
    }
    assert!(!output.stderr.contains("panicked"), "{output:#?}");
}
