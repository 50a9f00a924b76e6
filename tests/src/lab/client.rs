use std::{path::PathBuf, time::Duration};

use serde_json::Value;

use super::{ControlPlane, READY_TIMEOUT};
use crate::{Host, Output, Process, binary, wait_until};

/// A running client daemon and its command line.
pub struct Client {
    host: Host,
    process: Process,
}

impl Client {
    /// Starts the daemon with an empty state directory, and waits until it answers.
    #[track_caller]
    pub fn start(host: &Host) -> Self {
        let client = Self { host: host.clone(), process: spawn(host, &[]) };
        client.wait_until_answering();
        // The same tests hold for every carrier.
        if let Ok(carrier) = std::env::var("ADIT_TEST_CARRIER") {
            client.set_carrier(&carrier);
        }

        client
    }

    /// Returns the host.
    #[must_use]
    pub fn host(&self) -> &Host {
        &self.host
    }

    /// Returns the running daemon.
    #[must_use]
    pub fn process(&self) -> &Process {
        &self.process
    }

    /// Returns where the daemon's socket is, as seen on its host.
    #[must_use]
    pub fn socket(&self) -> PathBuf {
        socket(&self.host)
    }

    /// Starts the daemon again, with the same state.
    #[track_caller]
    pub fn restart(&mut self) {
        self.restart_with(&[]);
    }

    /// As [`Self::restart`], with further arguments.
    #[track_caller]
    pub fn restart_with(&mut self, args: &[&str]) {
        self.process.kill();
        self.process = spawn(&self.host, args);
        self.wait_until_answering();
    }

    /// Runs the command line, such as `["explain", "10.9.0.2:80", "--json"]`.
    #[track_caller]
    pub fn adit(&self, args: &[&str]) -> Output {
        let command = self.host.command(binary("adit")).arg("--socket").arg(socket(&self.host));
        command.args(args).run()
    }

    /// Chooses what carries packets, such as `quic`.
    #[track_caller]
    pub fn set_carrier(&self, carrier: &str) {
        let output = self.adit(&["set", "carrier", carrier]);
        assert!(output.success(), "{output:#?}");
    }

    /// Returns what carries packets to the first site at this moment.
    #[must_use]
    #[track_caller]
    pub fn carrier(&self) -> Option<String> {
        self.status()["sessions"][0]["carrier"].as_str().map(str::to_owned)
    }

    /// Waits until packets go by this carrier.
    #[track_caller]
    pub fn wait_for_carrier(&self, carrier: &str, timeout: Duration) {
        wait_until(&format!("packets go by {carrier}"), timeout, || {
            (self.carrier().as_deref() == Some(carrier)).then_some(())
        });
    }

    /// Returns the name of the connector that packets of the first site go to.
    #[must_use]
    #[track_caller]
    pub fn active(&self) -> String {
        let status = self.status();
        status["sessions"][0]["connector_id"].as_str().unwrap_or_default().to_owned()
    }

    /// Waits until another connector of the first site could take over at once, and returns its id.
    #[track_caller]
    pub fn wait_for_standby(&self) -> String {
        wait_until("a connector stands by", READY_TIMEOUT, || {
            let standby = &self.status()["sessions"][0]["standby"];
            standby["carrier"].as_str()?;
            standby["connector_id"].as_str().map(str::to_owned)
        })
    }

    /// Enrols the device with a key.
    #[track_caller]
    pub fn enroll(&self, key: &str) {
        let file = self.host.write("enrollment-key", key);
        let output = self.adit(&["enroll", "--key-file", &file.to_string_lossy()]);
        assert!(output.success(), "{output:#?}");
    }

    /// Begins to sign in; returns the command, which waits, and the code that it shows.
    #[must_use]
    #[track_caller]
    pub fn begin_login(&self, args: &[&str]) -> (Process, String) {
        let command = self.host.command(binary("adit")).arg("--socket").arg(socket(&self.host));
        let login = command.args(["login", "--no-browser", "--json"]).args(args).spawn();
        let line = login.wait_for_line("\"user_code\"", READY_TIMEOUT);
        let code = line.split('"').nth(3).unwrap_or_else(|| panic!("no code: {line}")).to_owned();

        (login, code)
    }

    /// Signs in as a user, because the administrator says so.
    #[track_caller]
    pub fn log_in(&self, args: &[&str], control_plane: &ControlPlane, user: &str) {
        let (login, code) = self.begin_login(args);
        let answer = control_plane.approve_sign_in(&code, user);
        assert_eq!(answer.status, 200, "{answer:?}");
        let output = login.wait(READY_TIMEOUT);
        assert!(output.success(), "{output:#?}");
    }

    /// Connects, and waits until the daemon says so.
    #[track_caller]
    pub fn up(&self) {
        let output = self.adit(&["up"]);
        assert!(output.success(), "{output:#?}");
        self.wait_for_state("connected", READY_TIMEOUT);
    }

    /// Returns what `adit status --json` says.
    #[must_use]
    #[track_caller]
    pub fn status(&self) -> Value {
        let output = self.adit(&["status", "--json"]);
        assert!(output.success(), "{output:#?}");

        output.json()
    }

    /// Returns what `adit explain HOST:PORT --json` says, whatever its exit code.
    #[must_use]
    #[track_caller]
    pub fn explain(&self, target: &str) -> Value {
        self.adit(&["explain", target, "--json"]).json()
    }

    /// Waits until `adit status` reports this state.
    #[track_caller]
    pub fn wait_for_state(&self, state: &str, timeout: Duration) {
        wait_until(&format!("the client is {state}"), timeout, || {
            (self.status()["state"] == state).then_some(())
        });
    }

    #[track_caller]
    fn wait_until_answering(&self) {
        wait_until("the client daemon answers", READY_TIMEOUT, || {
            assert!(self.process.is_running(), "the daemon ended: {}", self.process.output());
            self.adit(&["status", "--json"]).success().then_some(())
        });
    }
}

fn socket(host: &Host) -> PathBuf {
    host.dir().join("adit.sock")
}

#[track_caller]
fn spawn(host: &Host, args: &[&str]) -> Process {
    host.command(binary("adit"))
        .args(["daemon", "--state-dir"])
        .arg(host.dir().join("client"))
        .arg("--socket")
        .arg(socket(host))
        .args(args)
        .env("RUST_LOG", super::log_filter())
        .spawn()
}
