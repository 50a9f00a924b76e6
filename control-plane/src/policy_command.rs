//! `adit-control policy`: policies in a file, for those who keep them in git.

mod api_client;
mod file;
mod report;
#[cfg(test)]
mod tests;

use std::{
    fs,
    io::{self, Write as _},
    path::{Path, PathBuf},
    process::ExitCode,
};

use adit_proto::api::PolicySetChange;
use anyhow::{Context as _, bail};
use clap::{Args, Subcommand};

use self::{
    api_client::{ApiClient, Server},
    file::{Format, PolicyFile},
};

/// What to do with policies in a file.
#[derive(Debug, Subcommand)]
pub(crate) enum PolicyCommand {
    /// Writes all policies and policy tests to a file, or prints them as YAML.
    Export {
        #[command(flatten)]
        server: Server,
        /// `*.yaml`, `*.yml` or `*.json`.
        file: Option<PathBuf>,
    },
    /// Runs the tests of a file against its policies, and changes nothing.
    Test {
        #[command(flatten)]
        server: Server,
        /// `*.yaml`, `*.yml` or `*.json`.
        file: PathBuf,
    },
    /// Shows what `apply` would change, and who would gain and lose access; exits with 2 when
    /// there is something to change.
    Plan {
        #[command(flatten)]
        server: Server,
        /// `*.yaml`, `*.yml` or `*.json`.
        file: PathBuf,
        /// Prints JSON.
        #[arg(long)]
        json: bool,
    },
    /// Makes the policies and policy tests those of a file, all at once or not at all.
    Apply {
        #[command(flatten)]
        server: Server,
        /// `*.yaml`, `*.yml` or `*.json`.
        file: PathBuf,
        #[command(flatten)]
        how: ApplyOptions,
    },
}

/// How to apply a file.
#[derive(Debug, Args)]
pub(crate) struct ApplyOptions {
    /// The version that the file was made from, as `plan` prints it; `base` in the file unless said.
    #[arg(long, value_name = "VERSION")]
    base: Option<u64>,
    /// Why, for the history.
    #[arg(long, value_name = "TEXT")]
    reason: Option<String>,
    /// Prints JSON.
    #[arg(long)]
    json: bool,
}

/// Exit code of a plan that would change something.
const SOMETHING_TO_CHANGE: u8 = 2;

pub(crate) async fn run(command: PolicyCommand) -> anyhow::Result<ExitCode> {
    match command {
        PolicyCommand::Export { server, file } => export(&server, file.as_deref()).await,
        PolicyCommand::Test { server, file } => test(&server, &file).await,
        PolicyCommand::Plan { server, file, json } => plan(&server, &file, json).await,
        PolicyCommand::Apply { server, file, how } => apply(&server, &file, &how).await,
    }
}

async fn export(server: &Server, file: Option<&Path>) -> anyhow::Result<ExitCode> {
    let format = file.map_or(Ok(Format::Yaml), Format::of)?;
    let (set, version) = ApiClient::new(server)?.read().await?;
    let text = PolicyFile::new(set, version).to_text(format)?;
    match file {
        Some(file) => {
            fs::write(file, text).with_context(|| format!("failed to write {}", file.display()))?
        }
        None => print(&text)?,
    }
    Ok(ExitCode::SUCCESS)
}

async fn test(server: &Server, file: &Path) -> anyhow::Result<ExitCode> {
    let change = ApiClient::new(server)?.plan(&PolicyFile::read(file)?.into_set()).await?;
    let tests = change.dry_run.unwrap_or_default().tests;
    print(&report::tests(&tests))?;
    Ok(if tests.failed.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

async fn plan(server: &Server, file: &Path, json: bool) -> anyhow::Result<ExitCode> {
    let file = PolicyFile::read(file)?;
    let base = file.base;
    let change = ApiClient::new(server)?.plan(&file.into_set()).await?;
    print_change(&change, json)?;
    if let Some(base) = base.filter(|base| *base != change.version) {
        eprintln!(
            "The file was made from version {base}, and there is version {version}: `apply` will \
             refuse. Export anew and merge, or say `apply --base {version}` to overwrite it.",
            version = change.version
        );
    }
    let tests = change.dry_run.as_ref().map(|dry_run| &dry_run.tests);
    Ok(if tests.is_some_and(|tests| !tests.failed.is_empty()) {
        ExitCode::FAILURE
    } else if change.policies.is_empty() && change.tests.is_empty() {
        ExitCode::SUCCESS
    } else {
        ExitCode::from(SOMETHING_TO_CHANGE)
    })
}

async fn apply(server: &Server, path: &Path, how: &ApplyOptions) -> anyhow::Result<ExitCode> {
    let file = PolicyFile::read(path)?;
    let Some(base) = how.base.or(file.base) else {
        bail!(
            "{} does not say which version it was made from; say --base with what `plan` printed",
            path.display()
        );
    };
    let has_base = file.base.is_some();
    let reason = how.reason.as_deref();
    let change = ApiClient::new(server)?.apply(&file.into_set(), base, reason).await?;
    print_change(&change, how.json)?;
    // The file is now what the new version consists of, and the base of the next.
    if has_base {
        file::set_base(path, change.version)
            .with_context(|| format!("failed to write `base` in {}", path.display()))?;
    }
    Ok(ExitCode::SUCCESS)
}

fn print_change(change: &PolicySetChange, json: bool) -> anyhow::Result<()> {
    if json {
        let text = serde_json::to_string_pretty(change).context("failed to write JSON")?;
        print(&format!("{text}\n"))
    } else {
        print(&report::change(change))
    }
}

fn print(text: &str) -> anyhow::Result<()> {
    io::stdout().write_all(text.as_bytes()).context("failed to print")
}
