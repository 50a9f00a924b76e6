use std::{
    fs,
    path::Path,
    process::{Command, Output, Stdio},
};

use anyhow::{Context as _, bail};

/// Something written in Python that tests need, in a virtual environment of its own.
struct Tool {
    package: &'static str,
    /// The version for whose behaviour the tests are written.
    version: &'static str,
    /// What is installed beside it, with its version.
    beside: &'static [(&'static str, &'static str)],
    tests: &'static str,
}

impl Tool {
    fn packages(&self) -> impl Iterator<Item = (&'static str, &'static str)> {
        std::iter::once((self.package, self.version)).chain(self.beside.iter().copied())
    }

    /// As pip has them.
    fn requirements(&self) -> impl Iterator<Item = String> {
        self.packages().map(|(name, version)| format!("{name}=={version}"))
    }
}

const TOOLS: &[Tool] = &[
    Tool {
        package: "schemathesis",
        version: "4.32.5",
        beside: &[],
        tests: "the test of the REST API",
    },
    Tool {
        package: "aioquic",
        version: "1.7.2",
        beside: &[("h2", "4.3.0")],
        tests: "the tests with other stacks of HTTP",
    },
];

/// Installs the tools below the target folder, unless they are there.
///
/// Without one of them its tests fail and say so, which is no reason to keep all others from
/// running.
pub(crate) fn ensure(target: &Path) {
    for tool in TOOLS {
        let Tool { package, version, tests, .. } = tool;
        let dir = target.join("tools").join(package);
        if is_installed(&dir, tool) {
            continue;
        }
        eprintln!("Installing {package} {version} in {}", dir.display());
        if let Err(error) = install(&dir, tool) {
            eprintln!("warning: {tests} will fail: {error:#}");
        }
    }
}

/// Asks the Python of the environment, which is of no use if it does not run.
fn is_installed(dir: &Path, tool: &Tool) -> bool {
    let script = "import sys, importlib.metadata as m; \
                  print(*(f'{name}=={m.version(name)}' for name in sys.argv[1:]))";
    let mut command = Command::new(dir.join("bin/python3"));
    command.args(["-c", script]).args(tool.packages().map(|(name, _version)| name));
    let output = command.stdin(Stdio::null()).output();

    output.is_ok_and(|output| {
        let installed = String::from_utf8_lossy(&output.stdout);
        installed.split_whitespace().eq(tool.requirements())
    })
}

fn install(dir: &Path, tool: &Tool) -> anyhow::Result<()> {
    // What is there is of another version, or half an installation.
    if dir.exists() {
        fs::remove_dir_all(dir).with_context(|| format!("failed to remove {}", dir.display()))?;
    }
    run(Command::new("python3").args(["-m", "venv"]).arg(dir))?;
    run(Command::new(dir.join("bin/pip"))
        .args(["install", "--quiet", "--disable-pip-version-check"])
        .args(tool.requirements()))
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
