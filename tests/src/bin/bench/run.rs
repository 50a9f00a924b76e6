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
    arguments::Arguments, contender::Contender, machine::Machine, pair::Pair, picture::picture,
    report::Report, table::table, test::Test,
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
    announce(&contenders, &tests, arguments.rounds, duration);

    let mut report = Report::new(machine);
    let mut failed = false;
    for round in 0..arguments.rounds {
        for contender in in_turn(&contenders, round) {
            let turn = Turn { contender, tests: &tests, duration };
            eprintln!("Round {} of {}: {}", round + 1, arguments.rounds, contender.name());
            // The harness panics when something does not work.
            if let Err(panic) = catch_unwind(AssertUnwindSafe(|| turn.take(&mut report))) {
                eprintln!("error: {} failed: {}", contender.name(), message(&*panic));
                failed = true;
            }
        }
        // What there is so far is not lost with whatever ends this early.
        if let Some(path) = &arguments.json {
            write(path, &format!("{:#}\n", report.to_json()))?;
        }
        if let Some(path) = &arguments.svg {
            write(path, &picture(&report, &contenders, &tests))?;
        }
    }
    show(&table(&report, &contenders, &tests))?;

    Ok(if failed { ExitCode::FAILURE } else { ExitCode::SUCCESS })
}

/// Everything that one contender does in one round.
struct Turn<'a> {
    contender: &'a Contender,
    tests: &'a [Test],
    duration: Duration,
}

impl Turn<'_> {
    #[track_caller]
    fn take(&self, report: &mut Report) {
        let pair = Pair::new(self.contender.name());
        let tunnel = self.contender.start(&pair);
        for test in self.tests.iter().filter(|test| test.is_for(self.contender)) {
            let reading = test.measure(self.contender, &pair, &tunnel, self.duration);
            eprintln!("  {:<12} {}", test.name(), test.describe(&reading));
            report.add(self.contender, test, reading);
        }
    }
}

/// Returns the contenders so that each begins a round once in a while: who follows whom matters to
/// machines that get warm.
fn in_turn(contenders: &[Contender], round: u32) -> impl Iterator<Item = &Contender> {
    let first = usize::try_from(round).unwrap_or_default() % contenders.len();
    contenders[first..].iter().chain(&contenders[..first])
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
