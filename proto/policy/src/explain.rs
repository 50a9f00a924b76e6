//! The whole trace of a decision.

use std::collections::BTreeMap;

use adit_proto::{
    PolicyId, Reason, ResourceId, Timestamp,
    api::{Check, Explanation, PolicyTrace, SubjectSelector, TraceOutcome},
};

use crate::{
    compile::CompiledPolicy,
    conditions::checks,
    evaluate::{Answer, Authorization, Denial, Destination, Question, Subject},
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
        let resource = self.find(destination).map(|found| found.value.as_ref());
        let decision = self.evaluate(subject, destination, now);
        self.explain_decision(&decision, subject, resource, now)
    }

    /// As [`Self::explain`], of whatever belongs to a resource.
    pub fn explain_resource(
        &self,
        subject: &Subject,
        resource_id: ResourceId,
        now: Timestamp,
    ) -> Explanation {
        let resource = self.resource(resource_id);
        let decision = self.decide_resource(subject, resource, now);
        self.explain_decision(&decision, subject, resource, now)
    }

    /// Whether a subject can reach what belongs to a resource.
    pub fn allows_resource(
        &self,
        subject: &Subject,
        resource_id: ResourceId,
        now: Timestamp,
    ) -> bool {
        self.decide_resource(subject, self.resource(resource_id), now).is_ok()
    }

    fn decide_resource(
        &self,
        subject: &Subject,
        resource: Option<&CompiledResource>,
        now: Timestamp,
    ) -> Result<Authorization, Denial> {
        let reason = Reason::ResourceUnknown;
        let unknown = Denial { reason, resource_id: None, policy_id: None };
        self.judge(subject, &self.policies_of(subject), resource.ok_or(unknown)?, now)
    }

    fn resource(&self, id: ResourceId) -> Option<&CompiledResource> {
        let resources = self.resources();
        let place = resources.binary_search_by_key(&id, |one| one.resource.id).ok()?;
        resources.get(place).map(AsRef::as_ref)
    }

    fn explain_decision(
        &self,
        decision: &Result<Authorization, Denial>,
        subject: &Subject,
        resource: Option<&CompiledResource>,
        now: Timestamp,
    ) -> Explanation {
        let (reason, policy_id) = match decision {
            Ok(authorization) => (Reason::PolicyPermits, Some(authorization.policy_id())),
            Err(denial) => (denial.reason, denial.policy_id),
        };
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
