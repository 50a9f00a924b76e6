use std::{
    net::IpAddr,
    path::{Path, PathBuf},
    time::Duration,
};

use serde_json::Value;

use super::READY_TIMEOUT;
use crate::{Host, Output, process::parse_events, python_tool};

/// Time for everything that the peer does in one run, on a busy machine.
const RUN_TIMEOUT: Duration = Duration::from_secs(30);

/// A device whose client is `tests/peers/masque.py`: stacks of HTTP/3 and HTTP/2 that share no code
/// with the connector's.
pub struct MasquePeer {
    host: Host,
    id: String,
    addresses: Vec<IpAddr>,
    connector: String,
    pin: String,
    directory: PathBuf,
}

/// What a peer printed, and how it ended.
#[derive(Debug, Clone)]
pub struct Conversation {
    /// The peer's output.
    pub output: Output,
    /// The events in it.
    pub events: Vec<Value>,
}

impl MasquePeer {
    /// Enrols a device with a key. It finds the connector of the first site whose resources it may
    /// use. One on a host.
    #[must_use]
    #[track_caller]
    pub fn enroll(host: &Host, key: &str) -> Self {
        let directory = host.dir().join("masque-peer");
        let key = host.write("masque-enrollment-key", key);
        let command = host.probe("enroll").arg("--key-file").arg(key).arg("--directory");
        let enrolled = command.arg(&directory).spawn().wait_for_event("enrolled", READY_TIMEOUT);
        let connector = &enrolled["connectors"][0];
        let text = |value: &Value| {
            value.as_str().unwrap_or_else(|| panic!("no connector: {enrolled}")).to_owned()
        };

        Self {
            host: host.clone(),
            id: text(&enrolled["device_id"]),
            addresses: serde_json::from_value(enrolled["addresses"].clone())
                .expect("the probe prints addresses"),
            connector: text(&connector["endpoints"][0]),
            pin: text(&connector["pin"]),
            directory,
        }
    }

    /// Returns the id of the device.
    #[must_use]
    pub fn id(&self) -> &str {
        &self.id
    }

    /// Returns the device's addresses inside the tunnel.
    #[must_use]
    pub fn addresses(&self) -> &[IpAddr] {
        &self.addresses
    }

    /// Returns where the device's credential is, as seen on its host.
    #[must_use]
    pub fn credential_file(&self) -> PathBuf {
        self.directory.join("credential")
    }

    /// Runs the peer with a subcommand, such as `["connect", "--target", "10.9.0.2:80"]`.
    #[must_use]
    #[track_caller]
    pub fn run(&self, args: &[&str]) -> Conversation {
        self.run_with(&[], args)
    }

    /// As [`Self::run`], with options before the subcommand; the last of one kind counts.
    #[must_use]
    #[track_caller]
    pub fn run_with(&self, options: &[&str], args: &[&str]) -> Conversation {
        let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("peers/masque.py");
        let output = self
            .host
            .command(python_tool("aioquic", "python3"))
            // Nothing is written beside the script.
            .arg("-B")
            .arg(script)
            .args(["--connector", &self.connector])
            // A pin may begin with a dash.
            .arg(format!("--pin={}", self.pin))
            .arg("--certificate")
            .arg(self.directory.join("certificate.pem"))
            .arg("--key")
            .arg(self.directory.join("device-key.pem"))
            .arg("--credential-file")
            .arg(self.credential_file())
            .args(options)
            .args(args)
            .timeout(RUN_TIMEOUT)
            .run();

        Conversation { events: parse_events(&output.stdout), output }
    }
}

impl Conversation {
    /// Returns the first event of this name.
    ///
    /// # Panics
    ///
    /// When there is none.
    #[must_use]
    #[track_caller]
    pub fn event(&self, name: &str) -> &Value {
        let event = self.events.iter().find(|event| event["event"] == name);
        event.unwrap_or_else(|| panic!("no event {name}: {:#?}", self.output))
    }

    /// Returns all events of this name.
    #[must_use]
    pub fn events_of(&self, name: &str) -> Vec<&Value> {
        self.events.iter().filter(|event| event["event"] == name).collect()
    }

    /// Returns the status of the connector's answer, if it gave one.
    #[must_use]
    pub fn status(&self) -> Option<u64> {
        self.events.iter().find(|event| event["event"] == "answer")?["status"].as_u64()
    }

    /// Returns a header of the connector's answer by its name in lower case.
    #[must_use]
    #[track_caller]
    pub fn header(&self, name: &str) -> Option<&str> {
        self.event("answer")["headers"][name].as_str()
    }
}
