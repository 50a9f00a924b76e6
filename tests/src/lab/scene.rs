use std::{net::SocketAddr, time::Duration};

use serde_json::json;

use super::{Client, Connector, ControlPlane, Lab, READY_TIMEOUT};
use crate::{Host, probe::Ended, wait_until};

/// A [`Lab`] in which control plane and connector run: what most tests begin with.
pub struct Scene {
    /// The connector, on the host of that name.
    pub connector: Connector,
    /// The control plane, on the host `cp`.
    pub control_plane: ControlPlane,
    /// The id of the site that the connector serves.
    pub site: String,
    /// The topology. Last, so that it goes last.
    pub lab: Lab,
}

impl Scene {
    /// Makes the topology and starts control plane and connector.
    #[must_use]
    #[track_caller]
    pub fn new(name: &str) -> Self {
        Self::with_connector_at(name, "198.18.10.2")
    }

    /// As [`Self::new`]; clients find the connector at this address of the underlay.
    #[must_use]
    #[track_caller]
    pub fn with_connector_at(name: &str, ip: &str) -> Self {
        let lab = Lab::new(name);
        let control_plane = lab.start_control_plane();
        Self::in_lab(lab, control_plane, ip)
    }

    /// As [`Self::new`], on an underlay without IPv4.
    #[must_use]
    #[track_caller]
    pub fn over_ipv6(name: &str) -> Self {
        let lab = Lab::new(name);
        lab.leave_only_ipv6();
        let control_plane = ControlPlane::start(&lab.cp, "2001:db8:20::2");
        Self::in_lab(lab, control_plane, "2001:db8:10::2")
    }

    /// Starts a connector beside a control plane that runs in the topology.
    #[must_use]
    #[track_caller]
    pub fn in_lab(lab: Lab, control_plane: ControlPlane, ip: &str) -> Self {
        let site = control_plane.create_site("site");
        let connector = Connector::start(&lab.connector, ip, &control_plane, &site);

        Self { connector, control_plane, site, lab }
    }

    /// Starts a client on `host`, enrolled for `user`, and connects it.
    #[must_use]
    #[track_caller]
    pub fn start_client(&self, host: &Host, user: &str) -> Client {
        self.lab.start_client(host, &self.control_plane, user)
    }

    /// Registers a plain WireGuard device of `user`, brings it up on `host` by the file that the
    /// control plane gives, and returns its id.
    #[track_caller]
    pub fn start_wireguard(&self, host: &Host, interface: &str, user: &str) -> String {
        let private = host.check(["wg", "genkey"]);
        let public = host.command("wg").arg("pubkey").stdin(private.clone()).check();
        let body = json!({
            "name": interface, "user_id": user, "wireguard_public_key": public.trim(),
        });
        let device = self.control_plane.post("/v1/devices", &body).id();
        let path = format!("/v1/devices/{device}/wireguard-config");
        let config = self.control_plane.get(&path).ok();
        let config = config.as_str().unwrap_or_else(|| panic!("no text: {config}"));
        assert!(config.contains("# PrivateKey = \n"), "{config}");
        let with_key = format!("PrivateKey = {}\n", private.trim());
        host.wg_quick(interface, &config.replace("# PrivateKey = \n", &with_key));

        device
    }
}

impl Client {
    /// Waits until a TCP echo server answers.
    #[track_caller]
    pub fn wait_until_reached(&self, address: SocketAddr) {
        self.wait_until_reached_within(address, READY_TIMEOUT);
    }

    /// As [`Self::wait_until_reached`], with a limit that the test is about.
    #[track_caller]
    pub fn wait_until_reached_within(&self, address: SocketAddr, timeout: Duration) {
        wait_until(&format!("{address} answers"), timeout, || {
            self.host().tcp_try(address, "hello").ok()
        });
    }

    /// Waits until connections are refused, and returns how the one that was refused ended.
    #[track_caller]
    pub fn wait_until_refused(&self, address: SocketAddr) -> Ended {
        wait_until(&format!("{address} is refused"), READY_TIMEOUT, || {
            self.host().tcp_try(address, "hello").err().filter(|ended| ended.how == "refused")
        })
    }
}
