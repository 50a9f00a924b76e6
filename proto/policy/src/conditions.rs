//! The conditions of a policy, checked without Cedar.
//!
//! They choose which policy Cedar is asked about, and say what was missing where Cedar says only
//! that something was.

use adit_proto::{
    Reason, Timestamp,
    api::{Check, Effect},
};

use crate::{
    compile::CompiledPolicy,
    evaluate::{Subject, age_s},
    time_window::is_open,
};

/// What a policy can ask of subject and moment.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Condition {
    Posture,
    SourceNetwork,
    SignInAge,
    AuthenticationMethods,
    TimeWindow,
    Expiry,
}

impl Condition {
    /// In the order in which one that is not met becomes the reason.
    const ALL: [Self; 6] = [
        Self::Expiry,
        Self::Posture,
        Self::SourceNetwork,
        Self::SignInAge,
        Self::AuthenticationMethods,
        Self::TimeWindow,
    ];

    /// Why nothing passes where a permit lacks this alone.
    pub(crate) const fn reason(self) -> Reason {
        match self {
            Self::Posture => Reason::PostureFailed,
            Self::SourceNetwork => Reason::SourceNetworkOther,
            Self::SignInAge => Reason::SignInTooOld,
            Self::AuthenticationMethods => Reason::AuthenticationMethodsMissing,
            Self::TimeWindow => Reason::TimeWindowClosed,
            Self::Expiry => Reason::PolicyExpired,
        }
    }

    const fn check(self, is_met: bool) -> Check {
        match (self, is_met) {
            (Self::Posture, true) => Check::PostureOk,
            (Self::Posture, false) => Check::PostureFailed,
            (Self::SourceNetwork, true) => Check::SourceNetworkOk,
            (Self::SourceNetwork, false) => Check::SourceNetworkOther,
            (Self::SignInAge, true) => Check::SignInAgeOk,
            (Self::SignInAge, false) => Check::SignInTooOld,
            (Self::AuthenticationMethods, true) => Check::AuthenticationMethodsOk,
            (Self::AuthenticationMethods, false) => Check::AuthenticationMethodsMissing,
            (Self::TimeWindow, true) => Check::TimeWindowOk,
            (Self::TimeWindow, false) => Check::TimeWindowClosed,
            (Self::Expiry, true) => Check::ExpiryOk,
            (Self::Expiry, false) => Check::PolicyExpired,
        }
    }

    /// Whether `subject` meets this at `now`; none where the policy does not ask for it.
    ///
    /// What is not known is no match for a permit and a match for a forbid.
    fn is_met(self, compiled: &CompiledPolicy, subject: &Subject, now: Timestamp) -> Option<bool> {
        let conditions = &compiled.policy.conditions;
        let if_unknown = compiled.policy.effect == Effect::Forbid;
        match self {
            Self::Posture => has_all(&conditions.posture, &subject.posture),
            Self::SourceNetwork => (!compiled.source_networks.is_empty()).then(|| {
                subject.source.map_or(if_unknown, |source| {
                    let source = source.to_canonical();
                    compiled.source_networks.iter().any(|network| network.contains(&source))
                })
            }),
            Self::SignInAge => conditions.authenticated_within_s.map(|limit| {
                let limit = i64::try_from(limit).unwrap_or(i64::MAX);
                let authentication = subject.authentication.as_ref();
                authentication
                    .map_or(if_unknown, |authentication| age_s(authentication.at, now) < limit)
            }),
            Self::AuthenticationMethods => match &subject.authentication {
                Some(authentication) => {
                    has_all(&conditions.authentication_methods, &authentication.methods)
                }
                None => (!conditions.authentication_methods.is_empty()).then_some(if_unknown),
            },
            Self::TimeWindow => (!compiled.time_windows.is_empty())
                .then(|| is_open(&compiled.time_windows, now).unwrap_or(if_unknown)),
            Self::Expiry => conditions.expires_at.map(|expires_at| now < expires_at),
        }
    }
}

fn has_all(asked: &[String], had: &[String]) -> Option<bool> {
    (!asked.is_empty()).then(|| asked.iter().all(|one| had.contains(one)))
}

/// The conditions of a policy that `subject` does not meet at `now`.
pub(crate) fn unmet(
    compiled: &CompiledPolicy,
    subject: &Subject,
    now: Timestamp,
) -> impl Iterator<Item = Condition> {
    Condition::ALL
        .into_iter()
        .filter(move |condition| condition.is_met(compiled, subject, now) == Some(false))
}

/// What came of each condition that a policy has.
pub(crate) fn checks(
    compiled: &CompiledPolicy,
    subject: &Subject,
    now: Timestamp,
) -> impl Iterator<Item = Check> {
    Condition::ALL.into_iter().filter_map(move |condition| {
        condition.is_met(compiled, subject, now).map(|is_met| condition.check(is_met))
    })
}
