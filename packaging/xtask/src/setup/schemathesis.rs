use std::{
    fs,
    path::Path,
    process::{Command, Output, Stdio},
};

use anyhow::{Context as _, bail};

/// The version whose findings the test of the REST API is written for.
const VERSION: &str = "4.32.5";

/// Installs schemathesis below the target folder, unless it is there.
///
/// Without it one test fails and says so, which is no reason to keep all others from running.
pub(crate) fn ensure(target: &Path) {
    let dir = target.join("tools/schemathesis");
    if is_installed(&dir) {
        return;
    }
    eprintln!("Installing schemathesis {VERSION} in {}", dir.display());
    if let Err(error) = install(&dir) {
        eprintln!("warning: the test of the REST API will fail: {error:#}");
    }
}

fn is_installed(dir: &Path) -> bool {
    let mut command = Command::new(dir.join("bin/schemathesis"));
    let output = command.arg("--version").stdin(Stdio::null()).output();

    output.is_ok_and(|output| String::from_utf8_lossy(&output.stdout).contains(VERSION))
}

fn install(dir: &Path) -> anyhow::Result<()> {
    // What is there is of another version, or half an installation.
    if dir.exists() {
        fs::remove_dir_all(dir).with_context(|| format!("failed to remove {}", dir.display()))?;
    }
    run(Command::new("python3").args(["-m", "venv"]).arg(dir))?;
    run(Command::new(dir.join("bin/pip"))
        .args(["install", "--quiet", "--disable-pip-version-check"])
        .arg(format!("schemathesis=={VERSION}")))
}

fn run(command: &mut Command) -> anyhow::Result<()> {
    let output: Output = command
        .stdin(Stdio::null())
        .output()
        .with_context(|| format!("failed to run {command:?}"))?;
    if !output.status.success() {
        bail!("{command:?} failed: {}", String::from_utf8_lossy(&output.stderr).trim());
    }

    Ok(())
}
