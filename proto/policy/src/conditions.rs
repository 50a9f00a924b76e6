//! The conditions of a policy, checked without Cedar.
//!
//! They choose which policy Cedar is asked about, and say what was missing where Cedar says only
//! that something was.

use adit_proto::{
    Timestamp,
    api::{Effect, TraceOutcome},
};

use crate::{
    compile::CompiledPolicy,
    evaluate::{Subject, age_s},
};

/// The first condition of a policy that `subject` does not meet at `now`.
pub(crate) fn first_unmet(
    compiled: &CompiledPolicy,
    subject: &Subject,
    now: Timestamp,
) -> Option<TraceOutcome> {
    let conditions = &compiled.policy.conditions;
    let if_unknown = match compiled.policy.effect {
        Effect::Permit => false,
        Effect::Forbid => true,
    };
    if !conditions.posture.iter().all(|label| subject.posture.contains(label)) {
        return Some(TraceOutcome::PostureMissing);
    }
    let from_there = compiled.source_networks.is_empty()
        || subject.source.map_or(if_unknown, |source| {
            let source = source.to_canonical();
            compiled.source_networks.iter().any(|network| network.contains(&source))
        });
    if !from_there {
        return Some(TraceOutcome::SourceNetworkOther);
    }
    let young = conditions.authenticated_within_s.is_none_or(|limit| {
        let limit = i64::try_from(limit).unwrap_or(i64::MAX);
        subject.authenticated_at.map_or(if_unknown, |at| age_s(at, now) < limit)
    });
    (!young).then_some(TraceOutcome::SignInTooOld)
}
