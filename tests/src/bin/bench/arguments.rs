use std::path::PathBuf;

use anyhow::{Context as _, bail, ensure};
use clap::Parser;

use crate::{
    contender::{CommandLine, Contender, PointToPoint, WireGuard},
    machine::Machine,
    test::Test,
};

/// Measures Adit beside other tunnels on this machine.
///
/// Each contender joins two hosts of its own, which are there for one round, and all take each test
/// one after the other. The table shows medians over the rounds, and how many times the other's
/// figure Adit's is. Nothing else should run on the machine meanwhile.
#[derive(Parser)]
#[command(name = "cargo xtask bench", bin_name = "cargo xtask bench")]
pub(crate) struct Arguments {
    /// Contenders to measure, separated by commas; everybody if not given.
    #[arg(long, value_delimiter = ',', value_name = "NAMES")]
    only: Vec<String>,

    /// Tests to run, separated by commas; all of them if not given. A congestion control can be
    /// added to those of TCP, as in tcp1-cubic; without one they use the machine's.
    #[arg(long, value_delimiter = ',', value_name = "NAMES")]
    tests: Vec<String>,

    /// Run the tests by paths that lose packets, beside the bare path, instead of all the others.
    #[arg(long, conflicts_with = "tests")]
    pub(crate) sweep: bool,

    /// How often everything is measured.
    #[arg(long, default_value_t = 5, value_parser = clap::value_parser!(u32).range(1..=1000))]
    pub(crate) rounds: u32,

    /// How long each measurement takes, in seconds.
    #[arg(long, default_value_t = 3, value_parser = clap::value_parser!(u64).range(1..=600))]
    pub(crate) seconds: u64,

    /// How many policies Adit's connector is given.
    #[arg(long, default_value_t = 100, value_parser = clap::value_parser!(u32).range(1..=100_000))]
    pub(crate) policies: u32,

    /// Where to write the results as JSON.
    #[arg(long, value_name = "FILE")]
    pub(crate) json: Option<PathBuf>,

    /// Where to draw the results as an SVG picture.
    #[arg(long, value_name = "FILE")]
    pub(crate) svg: Option<PathBuf>,

    /// A further contender: a program that, started on both hosts, makes the interface {interface}
    /// and carries its packets from {local} to {peer}, two addresses of the cable. It gets
    /// addresses and MTU from the benchmark.
    #[arg(long, value_name = "NAME=COMMAND", value_parser = CommandLine::parse_named)]
    contender: Vec<(String, CommandLine)>,

    /// A further contender: a WireGuard program that makes the interface {interface} and that `wg`
    /// can configure.
    #[arg(long, value_name = "NAME=COMMAND", value_parser = CommandLine::parse_named)]
    wireguard: Vec<(String, CommandLine)>,
}

impl Arguments {
    /// Returns who takes part. Those of whom a program is missing are named and left out.
    pub(crate) fn contenders(&self) -> anyhow::Result<Vec<Contender>> {
        let mut contenders = Contender::all(self.policies);
        let known: Vec<_> = contenders.iter().map(|known| known.name().to_owned()).collect();
        if let Some(unknown) = self.only.iter().find(|name| !known.contains(name)) {
            bail!("there is no contender {unknown:?}: there are {}", known.join(", "));
        }
        if self.sweep && self.only.is_empty() {
            contenders.retain(|contender| {
                matches!(contender, Contender::Veth | Contender::Adit(_) | Contender::Streams(_))
            });
        }
        if !self.only.is_empty() {
            contenders.retain(|contender| self.only.iter().any(|name| name == contender.name()));
        }
        contenders.extend(
            self.contender
                .iter()
                .cloned()
                .map(|(name, command)| Contender::PointToPoint(PointToPoint { name, command })),
        );
        contenders.extend(
            self.wireguard
                .iter()
                .cloned()
                .map(|(name, command)| Contender::WireGuard(WireGuard { name, command })),
        );
        contenders.retain(|contender| match contender.missing_program() {
            Some(program) => {
                eprintln!("Leaving out {}: there is no program {program}", contender.name());
                false
            }
            None => true,
        });
        ensure!(!contenders.is_empty(), "there is nobody to measure");

        Ok(contenders)
    }

    /// Returns what is measured.
    pub(crate) fn tests(&self, machine: &Machine) -> anyhow::Result<Vec<Test>> {
        let all = if self.sweep { Test::sweep(machine) } else { Test::names(machine) };
        let names = if self.tests.is_empty() { &all } else { &self.tests };
        let tests = names.iter().map(|name| {
            Test::parse(name, machine).with_context(|| format!("there are {}", all.join(", ")))
        });

        tests.collect()
    }
}
