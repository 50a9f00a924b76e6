//! A subject of whom many flows are decided.

use std::time::Duration;

use adit_proto::Timestamp;

use crate::{
    evaluate::{Authorization, Denial, Destination, Subject},
    evaluator::Evaluator,
    places::Places,
};

/// A subject, with what an evaluator found out about it a moment ago.
///
/// It decides as [`Evaluator::evaluate`] does, but looks the subject up once for each evaluator, and
/// each resource once a second at most.
#[derive(Debug)]
pub struct Principal {
    subject: Subject,
    looked_up: Option<LookedUp>,
    judged: u64,
}

#[derive(Debug)]
struct LookedUp {
    /// The serial of the evaluator that all this is about.
    evaluator: u64,
    policies: Places,
    recent: Box<[Option<Recent>; RECENT]>,
}

/// What was decided of one resource.
#[derive(Debug)]
struct Recent {
    /// The place of the resource.
    resource: usize,
    at: Timestamp,
    decision: Result<Authorization, Denial>,
}

/// How many resources are remembered, each in the seat that its place leads to: some 2 KB.
const RECENT: usize = 16;
/// How long. An authorization says when it ends, but a denial does not: a sign-in may grow too old
/// for the forbid that it met.
const MEMORY: Duration = Duration::from_secs(1);

impl Principal {
    /// A subject that was not looked up yet.
    pub const fn new(subject: Subject) -> Self {
        Self { subject, looked_up: None, judged: 0 }
    }

    /// Who it is.
    pub const fn subject(&self) -> &Subject {
        &self.subject
    }

    /// How many decisions were not remembered, which take some fifty times longer than others.
    pub const fn judged(&self) -> u64 {
        self.judged
    }

    /// Decides a flow.
    ///
    /// # Errors
    ///
    /// [`Denial`] says why the flow must not be let through.
    pub fn decide(
        &mut self,
        evaluator: &Evaluator,
        destination: &Destination,
        now: Timestamp,
    ) -> Result<Authorization, Denial> {
        let Self { subject, looked_up, judged } = self;
        let resource = evaluator.locate(subject, destination, now)?;
        let LookedUp { policies, recent, .. } = match looked_up {
            Some(known) if known.evaluator == evaluator.serial() => known,
            outdated => outdated.insert(LookedUp {
                evaluator: evaluator.serial(),
                policies: evaluator.policies_of(subject),
                recent: Box::default(),
            }),
        };
        let seat = recent.get_mut(resource.place % RECENT).expect("there are so many seats");
        if let Some(recent) = seat
            && recent.resource == resource.place
            && recent.holds(now)
        {
            return recent.decision.clone();
        }
        *judged += 1;
        let decision = evaluator.judge(subject, policies, resource, now);
        *seat = Some(Recent { resource: resource.place, at: now, decision: decision.clone() });
        decision
    }
}

impl Recent {
    fn holds(&self, now: Timestamp) -> bool {
        // A clock that was set back makes everything old.
        let is_new = self.at <= now && now.saturating_duration_since(self.at) < MEMORY;
        is_new && self.decision.as_ref().map_or(true, |authorization| authorization.is_live(now))
    }
}
