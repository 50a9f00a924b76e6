use std::{collections::BTreeSet, env, path::PathBuf, process::Command};

use anyhow::{Context as _, bail};

/// What must be there, and the Debian package that brings it.
const NEEDED: &[(&str, &str)] = &[
    ("cc", "gcc"),
    ("curl", "curl"),
    ("ethtool", "ethtool"),
    ("ip", "iproute2"),
    ("iperf3", "iperf3"),
    ("nft", "nftables"),
    ("nginx", "nginx-light"),
    ("nsenter", "util-linux"),
    ("openssl", "openssl"),
    ("pgrep", "procps"),
    ("ping", "iputils-ping"),
    ("python3", "python3"),
    ("ssh", "openssh-client"),
    ("sshd", "openssh-server"),
    ("unshare", "util-linux"),
    ("wg", "wireguard-tools"),
    ("wireguard-go", "wireguard-go"),
];

/// Services that their packages would start now and at every boot; the tests run their own.
const SERVICES: &[(&str, &str)] = &[
    ("nginx-light", "nginx.service"),
    ("openssh-server", "ssh.service"),
    ("openvpn", "openvpn.service"),
];

/// Installs what is missing, or says what to install.
pub(crate) fn ensure(root: bool) -> anyhow::Result<()> {
    let missing = missing();
    if missing.is_empty() {
        return Ok(());
    }

    let names = missing.iter().copied().collect::<Vec<_>>().join(" ");
    if find("apt-get").is_none() {
        bail!("missing on this machine: {names} (names of Debian's packages)");
    }
    if !root {
        bail!("missing on this machine; run as root: apt-get install {names}");
    }
    eprintln!("Installing {names}");
    install(&missing)?;

    let still_missing = self::missing();
    if !still_missing.is_empty() {
        let names = still_missing.into_iter().collect::<Vec<_>>().join(" ");
        bail!("installed, but not found afterwards: {names}");
    }

    Ok(())
}

/// Installs a program that only some need, or says what to install.
pub(crate) fn ensure_one(program: &str, package: &'static str) -> anyhow::Result<()> {
    if find(program).is_some() {
        return Ok(());
    }
    if !nix::unistd::geteuid().is_root() || find("apt-get").is_none() {
        bail!("missing on this machine; run as root: apt-get install {package}");
    }
    eprintln!("Installing {package}");
    install(&BTreeSet::from([package]))
}

fn missing() -> BTreeSet<&'static str> {
    let programs = NEEDED.iter().filter(|(program, _)| find(program).is_none());
    let mut packages: BTreeSet<_> = programs.map(|(_, package)| *package).collect();
    // Debian's python3 comes without what fills a new virtual environment.
    let pip = Command::new("python3").args(["-c", "import ensurepip"]).output();
    if !pip.is_ok_and(|output| output.status.success()) {
        packages.insert("python3-venv");
    }

    packages
}

/// Installs packages without starting the services in them, now or at the next boot.
fn install(packages: &BTreeSet<&str>) -> anyhow::Result<()> {
    // The trap takes the policy away however the script ends, and leaves one alone that was there.
    let script = r#"
        set -e
        policy=/usr/sbin/policy-rc.d
        if [ ! -e "$policy" ]; then
            trap 'rm -f "$policy"' EXIT
            trap 'exit 130' INT TERM HUP
            printf '#!/bin/sh\nexit 101\n' > "$policy"
            chmod 0755 "$policy"
        fi
        apt-get update -qq || echo "warning: failed to update the list of packages" >&2
        apt-get install -y -qq --no-install-recommends "$@" < /dev/null >&2
    "#;
    let status = Command::new("sh")
        .args(["-c", script, "sh"])
        .args(packages)
        .env("DEBIAN_FRONTEND", "noninteractive")
        .status()
        .context("failed to run sh")?;
    if !status.success() {
        let names = packages.iter().copied().collect::<Vec<_>>().join(" ");
        bail!("failed to install: try `apt-get update && apt-get install {names}`");
    }

    for (package, service) in SERVICES {
        if packages.contains(package) && find("systemctl").is_some() {
            // Without a running systemd there is nothing that would start it.
            let _ = Command::new("systemctl").args(["--quiet", "disable", service]).status();
        }
    }

    Ok(())
}

/// Finds a program where root would, whoever asks.
fn find(program: &str) -> Option<PathBuf> {
    let path = env::var_os("PATH").unwrap_or_default();
    env::split_paths(&path)
        .chain(["/usr/local/sbin", "/usr/sbin", "/sbin"].map(PathBuf::from))
        .map(|dir| dir.join(program))
        .find(|candidate| candidate.is_file())
}
