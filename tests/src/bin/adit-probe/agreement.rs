//! Control plane and connector are asked the same random questions, and a naive evaluator of these
//! tests answers them too: all three must give the same verdict, reason, resource and policy.

mod devices;
mod naive;
mod scenery;

use std::{
    collections::BTreeMap,
    net::{IpAddr, SocketAddr},
    path::PathBuf,
    sync::Arc,
    thread,
    time::Duration,
};

use adit_proto::Protocol;
use adit_tests::{ApiConnection, Random, monotonic_ns};
use anyhow::{Context as _, bail, ensure};
use serde_json::json;

use self::{
    devices::{Devices, Subject},
    naive::Naive,
    scenery::Scenery,
};
use crate::event;

#[derive(clap::Args)]
pub(crate) struct Args {
    /// Where the control plane listens.
    #[arg(long)]
    control_plane: SocketAddr,
    /// Its data directory.
    #[arg(long)]
    data_dir: PathBuf,
    /// The site whose connector is asked.
    #[arg(long)]
    site: String,
    /// How many questions to ask.
    #[arg(long)]
    questions: usize,
    /// How often to write other policies and resources in between.
    #[arg(long, default_value_t = 10)]
    rounds: usize,
    /// Brings the same questions back.
    #[arg(long)]
    seed: u64,
}

/// A flow that may be let through or not.
#[derive(Debug, Clone)]
struct Question {
    /// Its place in [`Devices`].
    device: usize,
    destination: IpAddr,
    port: u16,
    protocol: Protocol,
}

/// What one of the three says.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Decision {
    allowed: bool,
    reason: String,
    resource_id: Option<String>,
    policy_id: Option<String>,
}

/// Connections to the control plane.
const CONNECTIONS: usize = 4;

/// Questions that are under way on one connection.
const PIPELINE: usize = 32;

pub(crate) fn run(args: &Args) -> anyhow::Result<()> {
    let mut random = Random::from_seed(args.seed);
    let mut api = args.connect()?;
    let mut scenery = Scenery::new(&mut api, &args.site, &mut random)?;
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
        .context("failed to start the runtime")?;
    let mut devices = runtime.block_on(Devices::enroll(args, &mut api, &scenery))?;
    // An age is either far below a limit of a policy or above it.
    thread::sleep(scenery::SHORT_SIGN_IN + Duration::from_secs(1));

    let per_round = args.questions.div_ceil(args.rounds);
    let (mut asked, mut allowed) = (0, 0);
    let mut reasons = BTreeMap::<String, u64>::new();
    for round in 0..args.rounds {
        let began = monotonic_ns();
        // The control plane closes connections on which nothing is asked for a while.
        let mut api = args.connect()?;
        let marker = scenery.rewrite(&mut api, &mut random)?;
        runtime.block_on(devices.wait_for_resource(marker))?;
        let naive = Naive::read(&mut api, devices.subjects())?;
        let questions: Arc<[Question]> =
            (0..per_round).map(|_| scenery.question(devices.count(), &mut random)).collect();

        let subjects = devices.subjects().to_vec();
        let (from_connector, from_control_plane) = thread::scope(|scope| {
            let control_plane = scope.spawn(|| ask_control_plane(args, &subjects, &questions));
            let connector = runtime.block_on(devices.ask(&questions));
            let connector_ms = (monotonic_ns() - began) / 1_000_000;
            event::print("connector", json!({ "round": round, "ms": connector_ms }));
            let control_plane = control_plane.join().unwrap_or_else(|_| bail!("a thread panicked"));
            (connector, control_plane)
        });
        let (from_connector, from_control_plane) = (from_connector?, from_control_plane?);
        for (place, question) in questions.iter().enumerate() {
            let expected = naive.decide(question);
            ensure!(
                from_control_plane[place] == expected && from_connector[place] == expected,
                "round {round}: {question:?} of {:?}:\n  naive {expected:?}\n  control plane \
                 {:?}\n  connector {:?}",
                subjects[question.device],
                from_control_plane[place],
                from_connector[place],
            );
            allowed += u64::from(expected.allowed);
            *reasons.entry(expected.reason).or_default() += 1;
        }
        asked += questions.len();
        event::print(
            "round",
            json!({ "round": round, "asked": asked, "ms": (monotonic_ns() - began) / 1_000_000 }),
        );
    }
    event::print(
        "agreed",
        json!({ "seed": args.seed, "asked": asked, "allowed": allowed, "reasons": reasons }),
    );

    Ok(())
}

impl Args {
    fn connect(&self) -> anyhow::Result<ApiConnection> {
        ApiConnection::open(self.control_plane, &self.data_dir)
            .context("failed to connect to the control plane")
    }
}

/// Asks the control plane, on several connections.
fn ask_control_plane(
    args: &Args,
    subjects: &[Subject],
    questions: &[Question],
) -> anyhow::Result<Vec<Decision>> {
    let share = questions.len().div_ceil(CONNECTIONS).max(1);

    thread::scope(|scope| {
        let threads: Vec<_> = questions
            .chunks(share)
            .map(|questions| scope.spawn(move || ask_on_one_connection(args, subjects, questions)))
            .collect();
        let mut decisions = Vec::with_capacity(questions.len());
        for thread in threads {
            decisions.extend(thread.join().unwrap_or_else(|_| bail!("a thread panicked"))?);
        }
        Ok(decisions)
    })
}

fn ask_on_one_connection(
    args: &Args,
    subjects: &[Subject],
    questions: &[Question],
) -> anyhow::Result<Vec<Decision>> {
    let mut api = args.connect()?;
    let mut decisions = Vec::with_capacity(questions.len());
    for questions in questions.chunks(PIPELINE) {
        for question in questions {
            let body = json!({
                "device_id": subjects[question.device].device_id,
                "destination": question.destination,
                "port": question.port,
                "protocol": question.protocol,
            });
            api.send("POST", "/v1/policy/explain", &[], Some(&body))?;
        }
        for question in questions {
            let answer = api.receive()?;
            ensure!(answer.status == 200, "{question:?}: {answer:?}");
            let text = |member: &str| answer.body[member].as_str().map(str::to_owned);
            decisions.push(Decision {
                allowed: answer.body["allowed"] == true,
                reason: text("reason").context("no reason")?,
                resource_id: text("resource_id"),
                policy_id: text("policy_id"),
            });
        }
    }

    Ok(decisions)
}
