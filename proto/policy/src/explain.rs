//! The whole trace of a decision.

use std::collections::BTreeMap;

use adit_proto::{
    PolicyId, Reason, Timestamp,
    api::{Check, Explanation, PolicyTrace, SubjectSelector, TraceOutcome},
};

use crate::{
    compile::CompiledPolicy,
    conditions::checks,
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
                trace
                    .entry(compiled.policy.id)
                    .or_insert_with(|| self.trace_of(compiled, subject, resource, now));
            });
        }
        trace.into_values().collect()
    }

    fn trace_of(
        &self,
        compiled: &CompiledPolicy,
        subject: &Subject,
        resource: &CompiledResource,
        now: Timestamp,
    ) -> PolicyTrace {
        let checks: Vec<Check> = [subject_check(&compiled.policy.subjects, subject)]
            .into_iter()
            .chain(checks(compiled, subject, now))
            .collect();
        let answer = Question::try_new(compiled, subject, resource, now)
            .map_or(Answer::Failed, |question| self.ask(&question, &compiled.cedar));
        PolicyTrace {
            policy_id: compiled.policy.id,
            name: compiled.policy.name.clone(),
            effect: compiled.policy.effect,
            outcome: match answer {
                Answer::Matches => TraceOutcome::Matched,
                Answer::MatchesNot if checks.iter().any(|check| !check.is_met()) => {
                    TraceOutcome::Unmet
                }
                // Cedar found something missing that nobody else did.
                Answer::MatchesNot | Answer::Failed => TraceOutcome::Failed,
            },
            checks,
        }
    }
}

/// Whether a policy speaks of this subject.
fn subject_check(subjects: &SubjectSelector, subject: &Subject) -> Check {
    let SubjectSelector { everyone, users, groups, devices } = subjects;
    if *everyone || users.contains(&subject.user_id) || devices.contains(&subject.device_id) {
        Check::SubjectOk
    } else if groups.iter().any(|group| subject.groups.contains(group)) {
        Check::GroupsOk
    } else if groups.is_empty() {
        Check::SubjectOther
    } else {
        Check::GroupsMissing
    }
}
