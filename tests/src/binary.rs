use std::{env, path::PathBuf};

/// Returns the path of a program of this workspace, built beside the running executable.
///
/// # Panics
///
/// When it has not been built.
#[must_use]
#[track_caller]
pub fn binary(name: &str) -> PathBuf {
    let current = env::current_exe().expect("Linux knows the running executable");
    // Test executables are in target/debug/deps, programs one level above.
    let found = current.ancestors().skip(1).take(2).map(|dir| dir.join(name)).find(|p| p.is_file());

    found.unwrap_or_else(|| panic!("{name} is not built: run `cargo xtask test`"))
}

/// Returns the path of a program in the environment of a Python package, which `cargo xtask test`
/// installs in the target folder.
///
/// # Panics
///
/// When it is not there.
#[must_use]
#[track_caller]
pub fn python_tool(package: &str, program: &str) -> PathBuf {
    tool(package, &format!("bin/{program}"))
}

/// Returns the folder of a package of npm, which `cargo xtask test` installs in the target folder.
///
/// # Panics
///
/// When it is not there.
#[must_use]
#[track_caller]
pub fn node_package(package: &str) -> PathBuf {
    tool(package, &format!("node_modules/{package}"))
}

#[track_caller]
fn tool(package: &str, path: &str) -> PathBuf {
    let current = env::current_exe().expect("Linux knows the running executable");
    let tool = format!("tools/{package}/{path}");
    let found = current.ancestors().skip(2).take(2).map(|dir| dir.join(&tool)).find(|p| p.exists());

    found.unwrap_or_else(|| panic!("{package} is not installed: run `cargo xtask test`"))
}
