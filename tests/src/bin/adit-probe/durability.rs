//! Kills a control plane with `SIGKILL` while it is written to, starts it again with the same
//! data, and compares what is there with what it had acknowledged.

mod audit_chain;
mod server;
mod writer;

use std::{
    collections::BTreeMap,
    fs,
    path::{Path, PathBuf},
    process::Command,
    thread,
    time::Duration,
};

use adit_tests::{Distribution, Random};
use anyhow::{Context as _, bail, ensure};
use serde_json::json;

use self::{
    audit_chain::AuditChain,
    server::{Running, Server},
    writer::{Kind, Writer},
};
use crate::event;

#[derive(clap::Args)]
pub(crate) struct Args {
    /// The program.
    #[arg(long)]
    control_plane: PathBuf,
    /// Its data directory, which is made.
    #[arg(long)]
    data_dir: PathBuf,
    /// How many times to kill it.
    #[arg(long)]
    kills: u32,
    /// After how many kills to look whether everything is there.
    #[arg(long, default_value_t = 100)]
    check_every: u32,
    /// Brings the same moments and writes back.
    #[arg(long)]
    seed: u64,
}

/// Connections that write at the same time.
const WRITERS: usize = 3;

/// The longest load between two kills: time for dozens of writes.
const LONGEST_LOAD: Duration = Duration::from_millis(200);

/// One of this many kills hits the control plane while it starts.
const EARLY_KILLS: usize = 8;

/// First runs that are killed, and the longest that one may go on: longer than it takes.
const FIRST_RUNS: usize = 20;
const LONGEST_FIRST_RUN: Duration = Duration::from_millis(150);

pub(crate) fn run(args: &Args) -> anyhow::Result<()> {
    let mut random = Random::from_seed(args.seed);
    kill_first_runs(args, &mut random)?;
    let server = Server::new(&args.control_plane, &args.data_dir);
    let mut writers: Vec<_> = (0..WRITERS).map(|n| Writer::new(n, random.fork())).collect();
    let mut chain = AuditChain::default();
    let mut starts = Distribution::default();
    let mut killed_while_starting = 0;
    let mut running = server.start()?;

    for kill in 1..=args.kills {
        writers = load(&running, writers, &mut random)?;
        running.kill()?;
        if kill % args.check_every == 0 || kill == args.kills {
            check_integrity(&args.data_dir)?;
        }
        if random.below(EARLY_KILLS) == 0 {
            killed_while_starting += 1;
            server.start_and_kill(random_duration(&mut random, Duration::from_millis(40)))?;
        }
        running = server.start()?;
        starts.add_ns(running.started_in_ns());
        if kill % args.check_every == 0 || kill == args.kills {
            for writer in &mut writers {
                writer.settle(&mut running.connect()?)?;
            }
            check(&running, &writers, &mut chain).with_context(|| format!("after {kill} kills"))?;
            event::print("checked", json!({ "kills": kill, "events": chain.len() }));
        }
    }
    let acknowledged: u64 = writers.iter().map(Writer::acknowledged).sum();
    ensure!(acknowledged > u64::from(args.kills), "hardly anything was written: {acknowledged}");
    event::print(
        "durable",
        json!({
            "seed": args.seed,
            "kills": args.kills,
            "kills_while_starting": killed_while_starting,
            "acknowledged_writes": acknowledged,
            "audit_events": chain.len(),
            "start": starts.to_json(),
        }),
    );

    Ok(())
}

/// Kills control planes while they make their organisation, keys and token, after which each must
/// start and let the admin in.
fn kill_first_runs(args: &Args, random: &mut Random) -> anyhow::Result<()> {
    for number in 0..FIRST_RUNS {
        let data_dir = args.data_dir.with_extension(format!("first-run-{number}"));
        let server = Server::new(&args.control_plane, &data_dir);
        server.start_and_kill(random_duration(random, LONGEST_FIRST_RUN))?;
        let running = server.start().context("after a first run that was killed")?;
        let answer = running.connect()?.request("GET", "/v1/organisation", &[], None)?;
        ensure!(answer.status == 200, "after a first run that was killed: {answer:?}");
        running.kill()?;
        check_integrity(&data_dir)?;
    }

    Ok(())
}

/// Lets all writers write until a random moment, and kills the control plane in it.
fn load(
    running: &Running,
    writers: Vec<Writer>,
    random: &mut Random,
) -> anyhow::Result<Vec<Writer>> {
    let moment = random_duration(random, LONGEST_LOAD);

    thread::scope(|scope| {
        let threads: Vec<_> = writers
            .into_iter()
            .map(|mut writer| {
                scope.spawn(move || -> anyhow::Result<Writer> {
                    writer.write_until_cut(running)?;
                    Ok(writer)
                })
            })
            .collect();
        // The moment is what is tested; nothing is waited for.
        thread::sleep(moment);
        running.signal_kill()?;

        threads
            .into_iter()
            .map(|thread| thread.join().unwrap_or_else(|_| bail!("a writer panicked")))
            .collect()
    })
}

fn random_duration(random: &mut Random, longest: Duration) -> Duration {
    let microseconds = usize::try_from(longest.as_micros()).unwrap_or(usize::MAX);
    Duration::from_micros(random.below(microseconds) as u64)
}

/// Compares lists and audit log with what the writers know.
fn check(running: &Running, writers: &[Writer], chain: &mut AuditChain) -> anyhow::Result<()> {
    let mut api = running.connect()?;
    for kind in Kind::ALL {
        let mut expected = BTreeMap::new();
        for writer in writers {
            expected.extend(writer.objects(kind));
        }
        let mut found = BTreeMap::new();
        for item in api.list(kind.path())? {
            let text = |member: &str| item[member].as_str().unwrap_or_default().to_owned();
            found.insert(text("id"), text("name"));
        }
        for (id, name) in &expected {
            let held = found.get(id);
            ensure!(held == Some(name), "{id} was acknowledged as {name:?}, found {held:?}");
        }
        for (id, name) in &found {
            ensure!(expected.contains_key(id), "{id} ({name}) was never written, or deleted");
        }
    }
    chain.follow(&mut api)?;
    for writer in writers {
        writer.compare_with(chain)?;
    }

    Ok(())
}

/// Lets SQLite look at a copy of the database, as the crash has left it.
fn check_integrity(data_dir: &Path) -> anyhow::Result<()> {
    let copy = data_dir.with_extension("copy");
    fs::create_dir_all(&copy).context("failed to make a folder for the copy")?;
    for file in ["adit.db", "adit.db-wal"] {
        let (from, to) = (data_dir.join(file), copy.join(file));
        let _ = fs::remove_file(&to);
        if from.exists() {
            fs::copy(&from, &to).with_context(|| format!("failed to copy {file}"))?;
        }
    }
    let script = "import sqlite3, sys\n\
                  connection = sqlite3.connect(sys.argv[1])\n\
                  print(connection.execute('PRAGMA integrity_check').fetchone()[0])\n\
                  print(connection.execute('PRAGMA foreign_key_check').fetchone())\n";
    let output = Command::new("python3")
        .args(["-c", script])
        .arg(copy.join("adit.db"))
        .output()
        .context("failed to run python3")?;
    let said = String::from_utf8_lossy(&output.stdout);
    ensure!(said == "ok\nNone\n", "the database is damaged: {output:?}");

    Ok(())
}
