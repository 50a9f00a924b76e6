mod contenders;
mod node;
mod packages;
mod python;

use std::{
    fs::OpenOptions,
    io::ErrorKind,
    path::Path,
    process::{Command, Stdio},
};

use anyhow::{Context as _, bail};

pub(crate) use self::{
    contenders::{ensure as ensure_contenders, only as only_contenders},
    node::ensure as ensure_node_packages,
    python::ensure as ensure_python_tools,
};

/// Makes sure that this machine can run worlds: programs, TUN devices, namespaces.
pub(crate) fn run() -> anyhow::Result<()> {
    let root = nix::unistd::geteuid().is_root();
    packages::ensure(root)?;
    check_tun(root)?;
    check_namespaces(root)?;

    Ok(())
}

const TUN: &str = "/dev/net/tun";

fn check_tun(root: bool) -> anyhow::Result<()> {
    if root && !Path::new(TUN).exists() {
        // The error of opening it below says more than these could.
        let script = "modprobe tun; [ -e /dev/net/tun ] || { mkdir -p /dev/net && \
                      mknod -m 0666 /dev/net/tun c 10 200; }";
        let _ = Command::new("sh").args(["-c", script]).stderr(Stdio::null()).status();
    }
    match OpenOptions::new().read(true).write(true).open(TUN) {
        Ok(_) => Ok(()),
        Err(error) if error.kind() == ErrorKind::PermissionDenied => {
            bail!("{TUN} may not be opened: run `chmod 0666 {TUN}` as root")
        }
        Err(error) => bail!(
            "no TUN devices here ({TUN}: {error}): load the kernel module with `modprobe tun`; in \
             a container start it with `--device {TUN}`"
        ),
    }
}

fn check_namespaces(root: bool) -> anyhow::Result<()> {
    let mut command = Command::new("unshare");
    if !root {
        command.args(["--user", "--map-root-user"]);
    }
    command.args(["--mount", "--net", "--pid", "--fork", "--mount-proc"]);
    // What a world does first.
    command.args([
        "--",
        "sh",
        "-c",
        "mount -t tmpfs none /run && mkdir /run/netns && ip netns add x",
    ]);
    let output =
        command.stdin(Stdio::null()).output().context("failed to run unshare (util-linux)")?;
    if output.status.success() {
        return Ok(());
    }

    let said = String::from_utf8_lossy(&output.stderr);
    if root {
        bail!(
            "namespaces cannot be made ({}): in a container, start it with `--privileged`",
            said.trim()
        );
    }
    bail!(
        "namespaces cannot be made ({}): run this as root, or allow user namespaces as root with \
         `sysctl -w kernel.unprivileged_userns_clone=1 user.max_user_namespaces=10000` on Debian, \
         `sysctl -w kernel.apparmor_restrict_unprivileged_userns=0` on Ubuntu",
        said.trim()
    )
}
