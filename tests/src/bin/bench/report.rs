use serde_json::{Map, Value, json};

use crate::{
    arguments::Arguments, contender::Contender, machine::Machine, reading::Reading, test::Test,
};

/// Everything that was measured.
pub(crate) struct Report {
    pub(crate) machine: Machine,
    pub(crate) results: Vec<Outcome>,
}

/// What one contender did in one test.
pub(crate) struct Outcome {
    pub(crate) contender: Contender,
    pub(crate) test: Test,
    pub(crate) rounds: Vec<Reading>,
}

impl Report {
    pub(crate) fn new(machine: Machine) -> Self {
        Self { machine, results: Vec::new() }
    }

    pub(crate) fn add(&mut self, contender: &Contender, test: &Test, reading: Reading) {
        let known = self.results.iter_mut().find(|outcome| {
            outcome.contender.name() == contender.name() && outcome.test.name() == test.name()
        });
        match known {
            Some(outcome) => outcome.rounds.push(reading),
            None => self.results.push(Outcome {
                contender: contender.clone(),
                test: test.clone(),
                rounds: vec![reading],
            }),
        }
    }

    pub(crate) fn outcome(&self, contender: &str, test: &str) -> Option<&Outcome> {
        let mut results = self.results.iter();
        results.find(|outcome| outcome.contender.name() == contender && outcome.test.name() == test)
    }

    pub(crate) fn to_json(&self, arguments: &Arguments) -> Value {
        let results: Vec<_> = self.results.iter().map(Outcome::to_json).collect();

        json!({
            "schema_version": 1,
            "machine": self.machine.to_json(),
            "seconds": arguments.seconds,
            "policies": arguments.policies,
            "results": results,
        })
    }
}

impl Outcome {
    pub(crate) fn median(&self) -> Reading {
        Reading::median(&self.rounds)
    }

    /// Returns the smallest and the largest of a figure.
    pub(crate) fn range(&self, figure: &str) -> Option<(f64, f64)> {
        let values = self.rounds.iter().filter_map(|round| round.figure(figure));
        values.fold(None, |range, value| match range {
            Some((low, high)) => Some((value.min(low), value.max(high))),
            None => Some((value, value)),
        })
    }

    fn to_json(&self) -> Value {
        let mut object = Map::new();
        object.insert("contender".to_owned(), self.contender.name().into());
        object.insert("version".to_owned(), self.contender.version().into());
        object.insert("carrier".to_owned(), self.contender.carrier().into());
        object.insert("test".to_owned(), self.test.name().into());
        // There whatever the test is, so that readers need not ask.
        object.insert("gbit_s".to_owned(), Value::Null);
        object.insert("cpu_s_per_gbit".to_owned(), Value::Null);
        object.extend(members(&self.median()));
        if let Some(congestion_control) = self.test.congestion_control() {
            object.insert("congestion_control".to_owned(), congestion_control.into());
        }
        if let Some(sender) = self.test.sender() {
            object.insert("sender".to_owned(), sender.into());
        }
        let rounds = self.rounds.iter().map(|reading| Value::Object(members(reading).collect()));
        object.insert("rounds".to_owned(), rounds.collect());

        Value::Object(object)
    }
}

fn members(reading: &Reading) -> impl Iterator<Item = (String, Value)> + '_ {
    reading.figures().map(|(name, value)| (name.to_owned(), rounded(value).into()))
}

/// Rounds to what a measurement can claim at most.
fn rounded(value: f64) -> f64 {
    (value * 1e4).round() / 1e4
}
