use std::{
    ffi::OsString,
    fs,
    path::Path,
    process::{Command, Stdio},
};

use anyhow::{Context as _, bail};

use super::packages;

/// Something that cargo installs so that one can measure it: the contender, package and version.
const FROM_CARGO: &[(&str, &str, &str)] = &[
    ("gotatun", "gotatun-cli", "0.10.2"),
    ("boringtun", "boringtun-cli", "0.7.1"),
    ("quincy", "quincy-server", "3.1.1"),
    ("quincy", "quincy-client", "3.1.1"),
];

/// Something that Debian brings: the contender, its program and package. `wireguard-go` is not
/// here, because the tests need it too.
const FROM_DEBIAN: &[(&str, &str, &str)] = &[("openvpn", "openvpn", "openvpn")];

/// Installs what others made to be compared with, those of `only` or everybody.
///
/// Who cannot be installed is left out of the benchmark, which is no reason to keep all others
/// from being measured.
pub(crate) fn ensure(target: &Path, only: Option<&[String]>) {
    let wanted =
        |contender: &str| only.is_none_or(|only| only.iter().any(|name| name == contender));
    for (contender, program, package) in FROM_DEBIAN.iter().filter(|entry| wanted(entry.0)) {
        if let Err(error) = packages::ensure_one(program, package) {
            eprintln!("warning: {contender} cannot be measured: {error:#}");
        }
    }
    let build_dir = target.join("tools/build");
    for (contender, package, version) in FROM_CARGO.iter().filter(|entry| wanted(entry.0)) {
        let dir = target.join("tools").join(package);
        if is_installed(&dir, package, version) {
            continue;
        }
        eprintln!("Installing {package} {version} in {}", dir.display());
        if let Err(error) = install(&build_dir, &dir, package, version) {
            eprintln!("warning: {contender} cannot be measured: {error:#}");
        }
    }
    // As large as it is useless from here on.
    let _ = fs::remove_dir_all(&build_dir);
}

/// Finds the contenders that the benchmark is told to measure; none if it is everybody.
pub(crate) fn only(arguments: &[OsString]) -> Option<Vec<String>> {
    let mut arguments = arguments.iter().map(|argument| argument.to_string_lossy());
    while let Some(argument) = arguments.next() {
        let value = match argument.strip_prefix("--only") {
            Some("") => arguments.next().map(String::from),
            Some(value) => value.strip_prefix('=').map(str::to_owned),
            None => None,
        };
        if let Some(value) = value {
            return Some(value.split(',').map(str::to_owned).collect());
        }
    }

    None
}

/// Asks the list that cargo keeps of what it installed.
fn is_installed(dir: &Path, package: &str, version: &str) -> bool {
    let list = fs::read_to_string(dir.join(".crates.toml")).unwrap_or_default();

    list.contains(&format!("\"{package} {version} "))
}

fn install(build_dir: &Path, dir: &Path, package: &str, version: &str) -> anyhow::Result<()> {
    let mut command = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    command.args(["install", "--quiet", "--locked", "--root"]).arg(dir);
    command.args(["--version", version, package]).env("CARGO_TARGET_DIR", build_dir);
    let status = command
        .stdin(Stdio::null())
        .status()
        .with_context(|| format!("failed to run {command:?}"))?;
    if !status.success() {
        bail!("cargo could not install {package} {version}: see above");
    }

    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_is_found_in_both_spellings() {
        for arguments in [&["--rounds", "1", "--only", "adit,veth"][..], &["--only=adit,veth"]] {
            let arguments: Vec<_> = arguments.iter().map(OsString::from).collect();

            let only = only(&arguments);

            assert_eq!(only.expect("it is there"), ["adit", "veth"]);
        }
    }

    #[test]
    fn without_only_it_is_everybody() {
        assert_eq!(only(&["--rounds".into(), "1".into()]), None);
    }
}
