use std::{
    env,
    ffi::OsString,
    path::PathBuf,
    process::{Command, ExitCode, ExitStatus},
    thread,
};

use anyhow::{Context as _, bail};

/// Builds everything the tests run: the programs, and the tests themselves.
///
/// One build of all targets, because tests and programs built apart would be built with different
/// features of the same dependencies, and thus twice.
pub(crate) fn build() -> anyhow::Result<()> {
    build_with(cargo().args(["build", "--workspace", "--all-targets"]))
}

/// How programs are built.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Profile {
    /// As for the tests.
    Dev,
    /// As users get them.
    Release,
}

/// Builds the programs alone.
pub(crate) fn build_programs(profile: Profile) -> anyhow::Result<()> {
    let mut command = cargo();
    command.args(["build", "--workspace", "--bins"]);
    if profile == Profile::Release {
        command.args(["--release", "--exclude", "xtask"]);
    }

    build_with(&mut command)
}

/// How long the tests may take.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Length {
    /// As many repetitions as show that something works.
    Ordinary,
    /// As many as were promised.
    Nightly,
}

/// Runs the tests, all of them or those whose name holds `filter`.
pub(crate) fn test(filter: Option<&str>, length: Length) -> anyhow::Result<ExitCode> {
    let mut command = cargo();
    if length == Length::Nightly {
        command.env("ADIT_NIGHTLY", "1");
    }
    command.args(["test", "--workspace", "--no-fail-fast"]);
    if env::var_os("RUST_TEST_THREADS").is_none() {
        command.env("RUST_TEST_THREADS", test_threads().to_string());
    }
    if let Some(filter) = filter {
        // Without the examples in the documentation, which are compiled one by one.
        command.args(["--lib", "--bins", "--tests"]);
        if names_of_tests(filter)? == 0 {
            bail!("no test has {filter:?} in its name");
        }
        command.args(["--", filter]);
    }

    let code = run(&mut command)?;
    if filter.is_some() || code != ExitCode::SUCCESS {
        return Ok(code);
    }
    // What holds for the carrier that is chosen by itself holds for the others.
    for carrier in OTHER_CARRIERS {
        eprintln!("\nThe same by {carrier}");
        let code = run(&mut test_by(carrier, length))?;
        if code != ExitCode::SUCCESS {
            return Ok(code);
        }
    }
    Ok(ExitCode::SUCCESS)
}

/// Carriers other than the one that is chosen where nothing is in its way.
const OTHER_CARRIERS: &[&str] = &["quic", "http2"];

/// End-to-end tests that say nothing of the way between client and connector.
const BY_NO_CARRIER: &[&str] = &[
    "agreement::",
    "api_conformance::",
    "bad_input::",
    "carriers::",
    "diagnosis::a_check",
    "diagnosis::a_ping_shows",
    "durability::",
    "floods::",
    "harness::",
    "masque::",
    "peers::",
    "trouble::",
];

/// The end-to-end tests with clients that use one carrier alone.
fn test_by(carrier: &str, length: Length) -> Command {
    let mut command = cargo();
    if length == Length::Nightly {
        command.env("ADIT_NIGHTLY", "1");
    }
    command.env("ADIT_TEST_CARRIER", carrier);
    if env::var_os("RUST_TEST_THREADS").is_none() {
        command.env("RUST_TEST_THREADS", test_threads().to_string());
    }
    command.args(["test", "--workspace", "--test", "e2e", "--"]);
    for other in BY_NO_CARRIER {
        command.args(["--skip", other]);
    }

    command
}

/// Runs the demo, which was built before.
pub(crate) fn run_demo(keep: bool) -> anyhow::Result<ExitCode> {
    let mut command = Command::new(target_dir().join("debug/demo"));
    if keep {
        command.arg("--keep");
    }

    run(&mut command)
}

/// Runs the benchmark, which was built before.
pub(crate) fn run_bench(arguments: &[OsString]) -> anyhow::Result<ExitCode> {
    run(Command::new(target_dir().join("release/bench")).args(arguments))
}

/// Counts the tests whose name holds `filter`.
fn names_of_tests(filter: &str) -> anyhow::Result<usize> {
    let mut command = cargo();
    command.args(["test", "--workspace", "--quiet", "--lib", "--bins", "--tests", "--"]);
    let output = command.args(["--list", filter]).output().context("failed to run cargo")?;
    if !output.status.success() {
        bail!("failed to list the tests: {}", String::from_utf8_lossy(&output.stderr));
    }
    let names = String::from_utf8_lossy(&output.stdout);

    Ok(names.lines().filter(|line| line.ends_with(": test")).count())
}

/// Most end-to-end tests wait more than they compute, but some measure time.
fn test_threads() -> usize {
    thread::available_parallelism().map_or(2, usize::from).clamp(2, 8)
}

fn cargo() -> Command {
    let mut command = Command::new(env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    command.current_dir(workspace_dir());

    command
}

/// Returns the checkout for which cargo runs this. It need not be that for which it was built, when
/// two share a target folder.
fn workspace_dir() -> PathBuf {
    let manifest_dir = env::var_os("CARGO_MANIFEST_DIR")
        .map_or_else(|| PathBuf::from(env!("CARGO_MANIFEST_DIR")), PathBuf::from);
    let dir = manifest_dir.ancestors().nth(2);

    dir.expect("this package is two folders below the workspace").to_owned()
}

/// Returns where cargo builds.
pub(crate) fn target_dir() -> PathBuf {
    match env::var_os("CARGO_TARGET_DIR") {
        Some(dir) => workspace_dir().join(dir),
        None => workspace_dir().join("target"),
    }
}

fn build_with(command: &mut Command) -> anyhow::Result<()> {
    if !status(command)?.success() {
        bail!("failed to build: see above");
    }

    Ok(())
}

/// Runs a command and passes its exit code on.
fn run(command: &mut Command) -> anyhow::Result<ExitCode> {
    let status = status(command)?;
    let code = status.code().and_then(|code| u8::try_from(code).ok());

    Ok(code.map_or(ExitCode::FAILURE, ExitCode::from))
}

fn status(command: &mut Command) -> anyhow::Result<ExitStatus> {
    command.status().with_context(|| format!("failed to run {command:?}"))
}
