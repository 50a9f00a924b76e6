//! Switches of the kernel, under `/proc/sys`.

use std::{fs, io, path::Path};

use anyhow::Context as _;
use ipnet::IpNet;
use tracing::{debug, info, warn};

/// Lets the kernel forward packets of these ranges.
///
/// The switches stay on when the connector stops: others may have come to rely on them.
pub(super) fn enable_forwarding(interface: &str, device_ranges: &[IpNet]) -> anyhow::Result<()> {
    // The interface needs no address of its own, and no neighbours.
    let quiet = format!("/proc/sys/net/ipv6/conf/{interface}/addr_gen_mode");
    if let Err(error) = fs::write(&quiet, "1") {
        debug!(%error, path = %quiet, "Failed to keep the interface without an address");
    }
    if device_ranges.iter().any(|range| matches!(range, IpNet::V4(_))) {
        switch_on("/proc/sys/net/ipv4/ip_forward").context(
            "failed to switch on forwarding of IPv4; run `sysctl -w net.ipv4.ip_forward=1` on the \
             host",
        )?;
    }
    if device_ranges.iter().any(|range| matches!(range, IpNet::V6(_))) {
        let forwarding = "/proc/sys/net/ipv6/conf/all/forwarding";
        if let Err(error) = keep_router_advertisements().and_then(|()| switch_on(forwarding)) {
            warn!(
                %error,
                "No forwarding of IPv6; run `sysctl -w net.ipv6.conf.all.forwarding=1` on the host"
            );
        }
    }
    Ok(())
}

fn switch_on(path: &str) -> io::Result<()> {
    if fs::read_to_string(path)?.trim() == "1" {
        return Ok(());
    }
    fs::write(path, "1")?;
    info!(path, "Switched on forwarding");
    Ok(())
}

/// A host that forwards ignores router advertisements unless told otherwise, and so would lose its
/// own default route (Linux, Documentation/networking/ip-sysctl.rst, `accept_ra`).
fn keep_router_advertisements() -> io::Result<()> {
    for interface in fs::read_dir("/proc/sys/net/ipv6/conf")? {
        let path = interface?.path();
        let forwards = read_switch(&path.join("forwarding"));
        let accepts = path.join("accept_ra");
        if forwards.as_deref() == Some("0") && read_switch(&accepts).as_deref() == Some("1") {
            fs::write(&accepts, "2")?;
        }
    }
    Ok(())
}

fn read_switch(path: &Path) -> Option<String> {
    fs::read_to_string(path).ok().map(|text| text.trim().to_owned())
}
