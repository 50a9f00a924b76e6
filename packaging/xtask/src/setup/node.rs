use std::{
    fs,
    path::Path,
    process::{Command, Stdio},
};

use anyhow::{Context as _, bail};

use super::packages;

/// Packages of npm that tests need, with the version for whose behaviour these are written.
const PACKAGES: &[(&str, &str, &str)] =
    &[("oidc-provider", "9.13.3", "the test of signing in at a provider")];

/// Installs the packages below the target folder, unless they are there.
///
/// Without one of them its tests fail and say so, which is no reason to keep all others from
/// running.
pub(crate) fn ensure(target: &Path) {
    for (package, version, tests) in PACKAGES {
        let dir = target.join("tools").join(package);
        if is_installed(&dir, package, version) {
            continue;
        }
        eprintln!("Installing {package} {version} in {}", dir.display());
        if let Err(error) = install(&dir, package, version) {
            eprintln!("warning: {tests} will fail: {error:#}");
        }
    }
}

fn is_installed(dir: &Path, package: &str, version: &str) -> bool {
    let description = dir.join("node_modules").join(package).join("package.json");
    fs::read_to_string(description)
        .is_ok_and(|text| text.contains(&format!("\"version\": \"{version}\"")))
}

fn install(dir: &Path, package: &str, version: &str) -> anyhow::Result<()> {
    packages::ensure_one("node", "nodejs")?;
    packages::ensure_one("npm", "npm")?;
    // What is there is of another version, or half an installation.
    if dir.exists() {
        fs::remove_dir_all(dir).with_context(|| format!("failed to remove {}", dir.display()))?;
    }
    fs::create_dir_all(dir).with_context(|| format!("failed to make {}", dir.display()))?;
    let output = Command::new("npm")
        .args(["install", "--silent", "--no-audit", "--no-fund", "--ignore-scripts", "--prefix"])
        .arg(dir)
        .arg(format!("{package}@{version}"))
        .stdin(Stdio::null())
        .output()
        .context("failed to run npm")?;
    if !output.status.success() {
        bail!("npm failed: {}", String::from_utf8_lossy(&output.stderr).trim());
    }

    Ok(())
}
