use std::{
    net::{IpAddr, SocketAddr},
    path::{Path, PathBuf},
};

use serde_json::json;

use super::{READY_TIMEOUT, control_plane::free_port};
use crate::{ControlPlane, Host, Process, binary};

/// A running connector.
pub struct Connector {
    host: Host,
    listen: String,
    state_dir: PathBuf,
    process: Process,
}

impl Connector {
    /// Starts a connector with an empty state directory that joins `site`, and waits until the
    /// control plane sees it online.
    #[track_caller]
    pub fn start(host: &Host, ip: &str, control_plane: &ControlPlane, site: &str) -> Self {
        Self::start_with(host, ip, control_plane, site, &[])
    }

    /// As [`Self::start`], with further arguments.
    #[track_caller]
    pub fn start_with(
        host: &Host,
        ip: &str,
        control_plane: &ControlPlane,
        site: &str,
        args: &[&str],
    ) -> Self {
        let token = control_plane.create_connector_token(site);
        host.write("connector-token", token);
        let ip_address: IpAddr = ip.parse().unwrap_or_else(|e| panic!("{ip}: {e}"));
        let listen = SocketAddr::new(ip_address, free_port(host, ip)).to_string();
        let state_dir = host.dir().join("connector");
        let process = spawn(host, &listen, &state_dir, args);
        let connector = Self { host: host.clone(), listen: listen.clone(), state_dir, process };
        control_plane.wait_for_item("/v1/connectors", READY_TIMEOUT, |item| {
            assert!(connector.process.is_running(), "ended: {}", connector.process.output());
            let is_it = item["endpoints"].as_array().is_some_and(|it| it.contains(&json!(listen)));
            is_it && item["site_id"] == site && item["connected"] == true
        });

        connector
    }

    /// Returns the host.
    #[must_use]
    pub fn host(&self) -> &Host {
        &self.host
    }

    /// Returns address and port where clients reach it.
    #[must_use]
    pub fn listen(&self) -> &str {
        &self.listen
    }

    /// Returns the state directory, as seen on its host.
    #[must_use]
    pub fn state_dir(&self) -> &Path {
        &self.state_dir
    }

    /// Returns the running program.
    #[must_use]
    pub fn process(&self) -> &Process {
        &self.process
    }

    /// Returns the value of a metric by its whole name, labels included; 0 when it is not there.
    #[must_use]
    #[track_caller]
    pub fn metric(&self, name: &str) -> u64 {
        let page = self.host.check(["curl", "--silent", "--fail", &self.health_url("metrics")]);
        page.lines()
            .find_map(|line| line.strip_prefix(name)?.trim().parse().ok())
            .unwrap_or_default()
    }

    /// Returns where `healthz`, `readyz` or `metrics` is served, for programs on its host.
    #[must_use]
    #[track_caller]
    pub fn health_url(&self, page: &str) -> String {
        let line = self.process.wait_for_line("Serving metrics", READY_TIMEOUT);
        let address = line.rsplit("address=").next().unwrap_or_default();
        format!("http://{}/{page}", address.trim())
    }

    /// Starts the program again, with the same state and the used token.
    #[track_caller]
    pub fn restart(&mut self) {
        self.restart_with(&[]);
    }

    /// As [`Self::restart`], with further arguments.
    #[track_caller]
    pub fn restart_with(&mut self, args: &[&str]) {
        self.process.kill();
        self.process = spawn(&self.host, &self.listen, &self.state_dir, args);
    }
}

#[track_caller]
fn spawn(host: &Host, listen: &str, state_dir: &Path, args: &[&str]) -> Process {
    host.command(binary("adit-connector"))
        .args(["run", "--token-file"])
        .arg(host.dir().join("connector-token"))
        .args(["--listen", listen, "--state-dir"])
        .arg(state_dir)
        .args(args)
        .env("RUST_LOG", super::log_filter())
        .spawn()
}
