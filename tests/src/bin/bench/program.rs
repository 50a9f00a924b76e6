use std::{
    env,
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

/// Finds a program that another project made: one that was installed with cargo for the benchmark,
/// or one of the machine's.
pub(crate) fn find(name: &str) -> Option<PathBuf> {
    installed(name).or_else(|| on_path(name))
}

/// Returns the first of these programs that cannot be found.
pub(crate) fn missing(names: &[&'static str]) -> Option<&'static str> {
    names.iter().copied().find(|name| find(name).is_none())
}

/// Returns the version that a program tells.
pub(crate) fn version(name: &str) -> Option<String> {
    version_of(&find(name)?)
}

/// As [`version`], of a program at this place.
pub(crate) fn version_of(path: &Path) -> Option<String> {
    let output = Command::new(path).arg("--version").stdin(Stdio::null()).output().ok()?;
    let text = [output.stdout, output.stderr].concat();

    version_in(&String::from_utf8_lossy(&text))
}

/// Finds the first word that looks like a version.
fn version_in(text: &str) -> Option<String> {
    let words = text.split_whitespace().map(|word| word.trim_start_matches('v'));
    let mut versions = words.filter(|word| {
        word.starts_with(|first: char| first.is_ascii_digit()) && word.contains('.')
    });

    versions.next().map(str::to_owned)
}

/// Looks where `cargo xtask bench` installs, `target/tools/PACKAGE/bin`.
fn installed(name: &str) -> Option<PathBuf> {
    let current = env::current_exe().ok()?;
    let tools = current.ancestors().nth(2)?.join("tools");
    let mut packages: Vec<_> = tools.read_dir().ok()?.flatten().map(|entry| entry.path()).collect();
    packages.sort();

    packages.iter().map(|package| package.join("bin").join(name)).find(|path| path.is_file())
}

/// Looks where root would, whoever asks.
fn on_path(name: &str) -> Option<PathBuf> {
    let path = env::var_os("PATH").unwrap_or_default();
    let dirs = env::split_paths(&path).collect::<Vec<_>>();
    let sbin = ["/usr/local/sbin", "/usr/sbin", "/sbin"].map(Path::new);
    let mut dirs = dirs.iter().map(PathBuf::as_path).chain(sbin);

    dirs.find_map(|dir| Some(dir.join(name)).filter(|path| path.is_file()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_version_is_found_wherever_it_stands() {
        for (text, version) in [
            ("gotatun 0.10.2\n", Some("0.10.2")),
            ("wireguard-go v0.0.20220316\n\nUserspace", Some("0.0.20220316")),
            ("OpenVPN 2.6.14 x86_64-pc-linux-gnu [SSL", Some("2.6.14")),
            ("error: unexpected argument '--version' found", None),
        ] {
            assert_eq!(version_in(text).as_deref(), version, "{text}");
        }
    }
}
