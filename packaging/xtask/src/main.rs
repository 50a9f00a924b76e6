//! The developers' commands. Each does its own set-up, so that a newcomer needs only cargo.

mod cargo;
mod setup;

use std::{ffi::OsString, process::ExitCode};

use clap::Parser;

use self::cargo::{Length, Profile};

/// The developers' commands.
#[derive(Parser)]
#[command(name = "cargo xtask", bin_name = "cargo xtask")]
enum Cli {
    /// Run every test, or those whose name holds FILTER.
    Test {
        /// Part of the names of the tests to run.
        filter: Option<String>,
    },
    /// Run every test, and those at full length that the others do in part.
    Nightly,
    /// Show Adit at work: permitted, denied with a reason, and revoked while it runs.
    Demo {
        /// Hold the world when done, and print the commands to look around in it.
        #[arg(long)]
        keep: bool,
    },
    /// Measure Adit beside other tunnels; see `cargo xtask bench --help`.
    #[command(disable_help_flag = true)]
    Bench {
        /// What the benchmark is told.
        #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
        arguments: Vec<OsString>,
    },
    /// Check the machine, and install what the tests need, as the other commands do.
    Setup,
}

fn main() -> ExitCode {
    let result = match Cli::parse() {
        Cli::Test { filter } => test(filter.as_deref(), Length::Ordinary),
        Cli::Nightly => test(None, Length::Nightly),
        Cli::Demo { keep } => demo(keep),
        Cli::Bench { arguments } => bench(&arguments),
        Cli::Setup => setup::run().map(|()| ExitCode::SUCCESS),
    };

    result.unwrap_or_else(|error| {
        eprintln!("error: {error:#}");
        ExitCode::FAILURE
    })
}

fn test(filter: Option<&str>, length: Length) -> anyhow::Result<ExitCode> {
    setup::run()?;
    setup::ensure_python_tools(&cargo::target_dir());
    setup::ensure_node_packages(&cargo::target_dir());
    cargo::build()?;

    cargo::test(filter, length)
}

fn demo(keep: bool) -> anyhow::Result<ExitCode> {
    setup::run()?;
    cargo::build_programs(Profile::Dev)?;

    cargo::run_demo(keep)
}

fn bench(arguments: &[OsString]) -> anyhow::Result<ExitCode> {
    let asks_for_help = |argument: &OsString| argument == "--help" || argument == "-h";
    if !arguments.iter().any(asks_for_help) {
        setup::run()?;
        let only = setup::only_contenders(arguments);
        setup::ensure_contenders(&cargo::target_dir(), only.as_deref());
    }
    cargo::build_programs(Profile::Release)?;

    cargo::run_bench(arguments)
}
