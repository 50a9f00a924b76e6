use std::{
    env,
    path::{Path, PathBuf},
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
