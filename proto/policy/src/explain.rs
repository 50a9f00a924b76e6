//! The whole trace of a decision.

use std::collections::BTreeMap;

use adit_proto::{
    PolicyId, Reason, Timestamp,
    api::{Explanation, PolicyTrace, SubjectSelector, TraceOutcome},
};

use crate::{
    compile::CompiledPolicy,
    conditions::first_unmet,
    evaluate::{Answer, Destination, Question, Subject},
    evaluator::{CompiledResource, Evaluator},
};

impl Evaluator {
    /// Decides a flow as [`Self::evaluate`] does, and says what every policy of the resource had to
    /// say.
    pub fn explain(
        &self,
        subject: &Subject,
        destination: &Destination,
        now: Timestamp,
    ) -> Explanation {
        let (reason, policy_id) = match self.evaluate(subject, destination, now) {
            Ok(authorization) => (Reason::PolicyPermits, Some(authorization.policy_id())),
            Err(denial) => (denial.reason, denial.policy_id),
        };
        let resource = self.find(destination).map(|found| found.value);
        Explanation {
            allowed: reason == Reason::PolicyPermits,
            reason,
            remedy: reason.remedy().to_owned(),
            resource_id: resource.map(|resource| resource.resource.id),
            resource_name: resource.map(|resource| resource.resource.name.clone()),
            policy_id,
            trace: resource.map_or_else(Vec::new, |it| self.trace(subject, it, now)),
        }
    }

    fn trace(
        &self,
        subject: &Subject,
        resource: &CompiledResource,
        now: Timestamp,
    ) -> Vec<PolicyTrace> {
        let mut trace: BTreeMap<PolicyId, PolicyTrace> = BTreeMap::new();
        for slice in self.slices_of(resource) {
            slice.for_each(|place| {
                let Some(compiled) = self.policy_at(place) else { return };
                trace.entry(compiled.policy.id).or_insert_with(|| PolicyTrace {
                    policy_id: compiled.policy.id,
                    name: compiled.policy.name.clone(),
                    effect: compiled.policy.effect,
                    outcome: self.outcome(compiled, subject, resource, now),
                });
            });
        }
        trace.into_values().collect()
    }

    fn outcome(
        &self,
        compiled: &CompiledPolicy,
        subject: &Subject,
        resource: &CompiledResource,
        now: Timestamp,
    ) -> TraceOutcome {
        let Ok(question) = Question::try_new(compiled, subject, resource, now) else {
            return TraceOutcome::Failed;
        };
        match self.ask(&question, &compiled.cedar) {
            Answer::Failed => TraceOutcome::Failed,
            Answer::Matches => TraceOutcome::Matched,
            // Cedar does not say what was missing.
            Answer::MatchesNot if !selects(&compiled.policy.subjects, subject) => {
                TraceOutcome::SubjectOther
            }
            Answer::MatchesNot => {
                first_unmet(compiled, subject, now).unwrap_or(TraceOutcome::Failed)
            }
        }
    }
}

/// Whether a policy speaks of this subject.
fn selects(subjects: &SubjectSelector, subject: &Subject) -> bool {
    subjects.everyone
        || subjects.users.contains(&subject.user_id)
        || subjects.devices.contains(&subject.device_id)
        || subjects.groups.iter().any(|group| subject.groups.contains(group))
}
