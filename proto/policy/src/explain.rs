//! The whole trace of a decision.

use std::collections::BTreeSet;

use adit_proto::{
    PolicyId, Reason, Timestamp,
    api::{Effect, Explanation, Policy, PolicyTrace, TraceOutcome},
};
use cedar_policy::PolicySet;

use crate::{
    compile::CompiledPolicy,
    evaluate::{Destination, Question, Subject, Verdict, age_s},
    evaluator::{CompiledResource, Evaluator, selects},
    schema::canonical_network,
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
        let question = Question::try_new(subject, resource, now).ok();
        let ids: BTreeSet<PolicyId> =
            self.slices_of(resource).flat_map(|slice| slice.policy_ids.iter().copied()).collect();
        ids.into_iter()
            .filter_map(|id| self.policy(id))
            .map(|compiled| PolicyTrace {
                policy_id: compiled.policy.id,
                name: compiled.policy.name.clone(),
                effect: compiled.policy.effect,
                outcome: question.as_ref().map_or(TraceOutcome::Failed, |question| {
                    self.outcome(compiled, subject, question, now)
                }),
            })
            .collect()
    }

    /// Cedar is asked about the policy alone: beside a forbid that matches it says nothing of the
    /// permits.
    fn outcome(
        &self,
        compiled: &CompiledPolicy,
        subject: &Subject,
        question: &Question,
        now: Timestamp,
    ) -> TraceOutcome {
        let CompiledPolicy { policy, cedar } = compiled;
        let mut alone = PolicySet::new();
        if alone.add(cedar.clone()).is_err() {
            return TraceOutcome::Failed;
        }
        let mut verdict = Verdict::default();
        verdict.add(&self.ask(question, &alone));
        if verdict.failed {
            TraceOutcome::Failed
        } else if verdict.has_matched(policy.effect, policy.id) {
            TraceOutcome::Matched
        } else {
            // Cedar does not say which condition was missing.
            first_missing(policy, subject, now).unwrap_or(TraceOutcome::Failed)
        }
    }
}

/// The first thing that `policy` asks for and `subject` lacks.
fn first_missing(policy: &Policy, subject: &Subject, now: Timestamp) -> Option<TraceOutcome> {
    let conditions = &policy.conditions;
    let if_unknown = match policy.effect {
        Effect::Permit => false,
        Effect::Forbid => true,
    };
    let from_there = subject.source.map_or(if_unknown, |source| {
        let source = source.to_canonical();
        let networks = conditions.source_networks.iter();
        networks.map(|network| canonical_network(*network)).any(|it| it.contains(&source))
    });
    let young = conditions.authenticated_within_s.is_none_or(|limit| {
        let limit = i64::try_from(limit).unwrap_or(i64::MAX);
        subject.authenticated_at.map_or(if_unknown, |at| age_s(at, now) < limit)
    });

    if !selects(&policy.subjects, subject.user_id, &subject.groups, subject.device_id) {
        Some(TraceOutcome::SubjectOther)
    } else if !conditions.posture.iter().all(|label| subject.posture.contains(label)) {
        Some(TraceOutcome::PostureMissing)
    } else if !conditions.source_networks.is_empty() && !from_there {
        Some(TraceOutcome::SourceNetworkOther)
    } else if !young {
        Some(TraceOutcome::SignInTooOld)
    } else {
        None
    }
}
