use std::{
    any::Any,
    fs,
    io::{self, Write as _},
    panic::{AssertUnwindSafe, catch_unwind},
    path::Path,
    process::ExitCode,
    time::Duration,
};

use anyhow::Context as _;

use crate::{
    arguments::Arguments,
    contender::{Contender, Tunnel},
    machine::Machine,
    pair::Pair,
    picture::picture,
    report::Report,
    table::{sweep_table, table},
    test::Test,
};

/// About how long it takes to make a world and to start a contender in it.
const SET_UP: Duration = Duration::from_secs(3);

/// Measures, and shows what came out. Fails when a contender failed, after all others had their
/// turns.
pub(crate) fn run(arguments: &Arguments) -> anyhow::Result<ExitCode> {
    let machine = Machine::read();
    let contenders = arguments.contenders()?;
    let tests = arguments.tests(&machine)?;
    let duration = Duration::from_secs(arguments.seconds);
    if let Some(load) = machine.busy() {
        eprintln!("warning: this machine is busy (load {load}): the figures will say little");
    }
    announce(&contenders, &tests, arguments.rounds, duration);

    let mut report = Report::new(machine);
    let mut failed = false;
    for round in 0..arguments.rounds {
        eprintln!("Round {} of {}", round + 1, arguments.rounds);
        let mut standing: Vec<_> = contenders.iter().filter_map(Standing::start).collect();
        failed |= standing.len() < contenders.len();
        // Each begins once in a while: who follows whom matters to machines that get warm.
        let first = usize::try_from(round).unwrap_or_default() % standing.len().max(1);
        standing.rotate_left(first);
        for test in &tests {
            let before = standing.len();
            let turns = standing.into_iter();
            standing = turns.filter_map(|turn| turn.measure(test, duration, &mut report)).collect();
            failed |= standing.len() < before;
        }
        drop(standing);
        // What there is so far is not lost with whatever ends this early.
        if let Some(path) = &arguments.json {
            write(path, &format!("{:#}\n", report.to_json(arguments)))?;
        }
        if let Some(path) = &arguments.svg {
            write(path, &picture(&report, &contenders, &tests))?;
        }
    }
    show(&if arguments.sweep {
        sweep_table(&report, &contenders, &tests)
    } else {
        table(&report, &contenders, &tests)
    })?;

    Ok(if failed { ExitCode::FAILURE } else { ExitCode::SUCCESS })
}

/// A contender that stands ready in a world of its own, idle until it is measured.
struct Standing<'a> {
    contender: &'a Contender,
    tunnel: Tunnel,
    /// The world. Last, so that it goes last.
    pair: Pair,
}

impl<'a> Standing<'a> {
    /// Starts both ends; says why if it cannot.
    fn start(contender: &'a Contender) -> Option<Self> {
        attempt(contender, || {
            let pair = Pair::new(contender.name());
            let tunnel = contender.start(&pair);
            Self { contender, tunnel, pair }
        })
    }

    /// Takes a test if it is for this contender, who is gone when it fails.
    fn measure(self, test: &Test, duration: Duration, report: &mut Report) -> Option<Self> {
        if !test.is_for(self.contender) {
            return Some(self);
        }
        attempt(self.contender, || {
            let reading = test.measure(self.contender, &self.pair, &self.tunnel, duration);
            let (name, test_name) = (self.contender.name(), test.name());
            eprintln!("  {test_name:<14} {name:<14} {}", test.describe(&reading));
            report.add(self.contender, test, reading);
            self
        })
    }
}

/// Does something in which the harness panics when it does not work.
fn attempt<T>(contender: &Contender, action: impl FnOnce() -> T) -> Option<T> {
    let result = catch_unwind(AssertUnwindSafe(action));
    if let Err(panic) = &result {
        eprintln!("error: {} failed: {}", contender.name(), message(&**panic));
    }

    result.ok()
}

fn announce(contenders: &[Contender], tests: &[Test], rounds: u32, duration: Duration) {
    let turn = |contender| {
        let tests = tests.iter().filter(|test| test.is_for(contender));
        SET_UP + tests.map(|test| test.estimate(duration)).sum::<Duration>()
    };
    let round: Duration = contenders.iter().map(turn).sum();
    let names = contenders.iter().map(Contender::name).collect::<Vec<_>>();
    eprintln!(
        "Measuring {} in {rounds} rounds, about {} minutes",
        names.join(", "),
        (round * rounds).as_secs().div_ceil(60)
    );
}

fn write(path: &Path, text: &str) -> anyhow::Result<()> {
    fs::write(path, text).with_context(|| format!("failed to write {}", path.display()))
}

fn show(text: &str) -> anyhow::Result<()> {
    let mut stdout = io::stdout().lock();
    writeln!(stdout, "\n{text}").and_then(|()| stdout.flush()).context("failed to print")
}

fn message(panic: &(dyn Any + Send)) -> &str {
    let text = panic.downcast_ref::<String>().map(String::as_str);
    let text = text.or_else(|| panic.downcast_ref::<&str>().copied()).unwrap_or("it panicked");

    text.lines().next().unwrap_or_default()
}
