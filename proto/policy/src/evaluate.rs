//! From a subject and a destination to an authorization, or a denial with its reason.

use std::collections::BTreeMap;
use std::error::Error;
use std::net::IpAddr;
use std::time::Duration;

use adit_proto::{
    DeviceId, GroupId, PolicyId, Protocol, Reason, ResourceId, Timestamp, UserId,
    api::{Effect, Policy},
};
use cedar_policy::{Context, Entities, Entity, PolicySet, Request, RestrictedExpression};

use crate::{
    compile::CompiledPolicy,
    conditions::{Condition, unmet},
    evaluator::{CompiledResource, Evaluator},
    places::Places,
    reserved_address::reserved_address,
    schema::{
        AUTHENTICATED_AGE, AUTHENTICATION_METHODS, CLOCK, CONNECT_ACTION, DEVICE, GROUP, NOW,
        POSTURE, SOURCE, THE_CLOCK, USER, address_literal, schema,
    },
};

/// Where a flow goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Destination {
    /// The address.
    pub address: IpAddr,
    /// The port; of no account for ICMP.
    pub port: u16,
    /// The protocol.
    pub protocol: Protocol,
}

/// Who a flow comes from, as the credential or the bundle says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Subject {
    /// The device.
    pub device_id: DeviceId,
    /// Its user.
    pub user_id: UserId,
    /// The groups of the user.
    pub groups: Vec<GroupId>,
    /// The posture labels of the device.
    pub posture: Vec<String>,
    /// The outer address of the device, when known.
    pub source: Option<IpAddr>,
    /// How the user last signed in; nobody does on a plain WireGuard device.
    pub authentication: Option<Authentication>,
    /// When the credential expires; a plain WireGuard device has none.
    pub expires_at: Option<Timestamp>,
}

/// How a user proved to be it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Authentication {
    /// When.
    pub at: Timestamp,
    /// By which methods (RFC 8176).
    pub methods: Vec<String>,
}

/// Proof that a subject may reach a resource for a while. Only [`Evaluator::evaluate`] makes one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Authorization {
    resource_id: ResourceId,
    policy_id: PolicyId,
    expires_at: Option<Timestamp>,
}

impl Authorization {
    /// What may be reached.
    pub const fn resource_id(&self) -> ResourceId {
        self.resource_id
    }

    /// The policy that permits it; of several the one with the smallest id.
    pub const fn policy_id(&self) -> PolicyId {
        self.policy_id
    }

    /// When this ends: with the credential or the policy, when the sign-in grows too old for it, or
    /// when an hour begins at which one may not permit it any more. What then? Evaluate anew: it may
    /// be permitted still.
    pub const fn expires_at(&self) -> Option<Timestamp> {
        self.expires_at
    }

    /// Whether this still holds at `now`.
    pub fn is_live(&self, now: Timestamp) -> bool {
        self.expires_at.is_none_or(|expires_at| now < expires_at)
    }
}

/// Why a flow is not let through.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, thiserror::Error)]
#[error("{reason}")]
pub struct Denial {
    /// The code.
    pub reason: Reason,
    /// The resource that was found.
    pub resource_id: Option<ResourceId>,
    /// The policy that forbids it or failed, or the permit of which least is missing; of several the
    /// one with the smallest id.
    pub policy_id: Option<PolicyId>,
}

impl Evaluator {
    /// Decides a flow.
    ///
    /// Who decides many flows of one subject keeps a [`Principal`](crate::Principal).
    ///
    /// # Errors
    ///
    /// [`Denial`] says why the flow must not be let through.
    pub fn evaluate(
        &self,
        subject: &Subject,
        destination: &Destination,
        now: Timestamp,
    ) -> Result<Authorization, Denial> {
        let resource = self.locate(subject, destination, now)?;
        self.judge(subject, &self.policies_of(subject), resource, now)
    }

    /// The resource that a flow is for, if subject and destination may be thought of at all.
    pub(crate) fn locate(
        &self,
        subject: &Subject,
        destination: &Destination,
        now: Timestamp,
    ) -> Result<&CompiledResource, Denial> {
        let found = self.find(destination);
        let resource_id = found.as_ref().map(|found| found.value.resource.id);
        let denial = |reason| Denial { reason, resource_id, policy_id: None };

        if subject.expires_at.is_some_and(|expires_at| expires_at <= now) {
            return Err(denial(Reason::CredentialExpired));
        }
        let named_alone = found.as_ref().is_some_and(|found| found.is_alone);
        if reserved_address(destination.address) && !named_alone {
            return Err(denial(Reason::AddressReserved));
        }
        found.map(|found| found.value.as_ref()).ok_or_else(|| denial(Reason::ResourceUnknown))
    }

    /// Decides by the policies that name both the subject and the resource.
    ///
    /// One of them is decisive: of the forbids whose conditions are met the one with the smallest
    /// id, else of such permits. Cedar has the last word on that one, and nothing passes unless it
    /// agrees.
    pub(crate) fn judge(
        &self,
        subject: &Subject,
        policies_of_subject: &Places,
        resource: &CompiledResource,
        now: Timestamp,
    ) -> Result<Authorization, Denial> {
        let denial = |reason, policy_id| Denial {
            reason,
            resource_id: Some(resource.resource.id),
            policy_id,
        };

        let Candidates { forbid, permit, forbidden_at } =
            self.candidates(subject, policies_of_subject, resource, now);
        let Some(decisive) = forbid.or(permit).and_then(|place| self.policy_at(place)) else {
            return Err(match self.nearest(subject, policies_of_subject, resource, now) {
                Some((policy, missing)) => denial(missing.reason(), Some(policy.policy.id)),
                None => denial(Reason::NoPolicyPermits, None),
            });
        };
        let policy_id = decisive.policy.id;
        let answer = Question::try_new(decisive, subject, resource, now)
            .map_or(Answer::Failed, |question| self.ask(&question, decisive.cedar_for_named()));
        match (answer, decisive.policy.effect) {
            (Answer::Matches, Effect::Permit) => Ok(Authorization {
                resource_id: resource.resource.id,
                policy_id,
                expires_at: [subject.expires_at, end(decisive, subject, now), forbidden_at]
                    .into_iter()
                    .flatten()
                    .min(),
            }),
            (Answer::Matches, Effect::Forbid) => {
                Err(denial(Reason::PolicyForbids, Some(policy_id)))
            }
            (Answer::MatchesNot, _) => Err(denial(Reason::PolicyError, Some(policy_id))),
            (Answer::Failed, _) => Err(denial(Reason::PolicyError, Some(policy_id))),
        }
    }

    fn candidates(
        &self,
        subject: &Subject,
        policies_of_subject: &Places,
        resource: &CompiledResource,
        now: Timestamp,
    ) -> Candidates {
        let mut candidates = Candidates { forbid: None, permit: None, forbidden_at: None };
        for slice in self.slices_of(resource) {
            slice.for_each_common(policies_of_subject, |place| {
                let Some(effect) = self.effect_at(place) else { return };
                let smallest = match effect {
                    Effect::Forbid => &mut candidates.forbid,
                    Effect::Permit => &mut candidates.permit,
                };
                if smallest.is_some_and(|smallest| smallest <= place) {
                    return;
                }
                let Some(policy) = self.policy_at(place) else { return };
                let mut unmet = unmet(policy, subject, now);
                match (unmet.next(), unmet.next()) {
                    (None, _) => *smallest = Some(place),
                    // The only condition that time alone brings about.
                    (Some(Condition::TimeWindow), None) if effect == Effect::Forbid => {
                        let turn = next_turn(policy, now);
                        candidates.forbidden_at = earlier(candidates.forbidden_at, turn);
                    }
                    (Some(_), _) => {}
                }
            });
        }
        candidates
    }

    /// Of the permits that name both the subject and the resource the one of which least is missing,
    /// and what that is.
    fn nearest(
        &self,
        subject: &Subject,
        policies_of_subject: &Places,
        resource: &CompiledResource,
        now: Timestamp,
    ) -> Option<(&CompiledPolicy, Condition)> {
        let mut nearest: Option<((usize, u32), &CompiledPolicy, Condition)> = None;
        for slice in self.slices_of(resource) {
            slice.for_each_common(policies_of_subject, |place| {
                if self.effect_at(place) != Some(Effect::Permit) {
                    return;
                }
                let Some(policy) = self.policy_at(place) else { return };
                let mut unmet = unmet(policy, subject, now);
                let Some(first) = unmet.next() else { return };
                let distance = (unmet.count(), place);
                if nearest.is_none_or(|(least, ..)| distance < least) {
                    nearest = Some((distance, policy, first));
                }
            });
        }
        nearest.map(|(_distance, policy, missing)| (policy, missing))
    }

    /// What Cedar says of a set with one policy.
    pub(crate) fn ask(&self, question: &Question, policy: &PolicySet) -> Answer {
        let response =
            self.authorizer().is_authorized(&question.request, policy, &question.entities);
        if response.diagnostics().errors().next().is_some() {
            Answer::Failed
        } else if response.diagnostics().reason().next().is_some() {
            Answer::Matches
        } else {
            Answer::MatchesNot
        }
    }
}

/// When a permit whose conditions are met may no longer be one.
fn end(compiled: &CompiledPolicy, subject: &Subject, now: Timestamp) -> Option<Timestamp> {
    let conditions = &compiled.policy.conditions;
    let sign_in_end = conditions.authenticated_within_s.and_then(|limit| {
        Some(subject.authentication.as_ref()?.at.saturating_add(Duration::from_secs(limit)))
    });
    earlier(earlier(sign_in_end, conditions.expires_at), next_turn(compiled, now))
}

/// When one of its time windows may open or close.
fn next_turn(compiled: &CompiledPolicy, now: Timestamp) -> Option<Timestamp> {
    compiled.time_windows.iter().map(|window| window.next_turn(now)).min()
}

fn earlier(one: Option<Timestamp>, other: Option<Timestamp>) -> Option<Timestamp> {
    one.into_iter().chain(other).min()
}

struct Candidates {
    /// Places of the policies with the smallest ids whose conditions are met.
    forbid: Option<u32>,
    permit: Option<u32>,
    /// When the conditions of another forbid may be met.
    forbidden_at: Option<Timestamp>,
}

/// Whether Cedar finds that a policy applies.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Answer {
    Matches,
    MatchesNot,
    Failed,
}

/// What Cedar is asked about one flow and one policy.
pub(crate) struct Question {
    request: Request,
    entities: Entities,
}

impl Question {
    /// Tells Cedar of the subject what the policy asks about: making entities of other groups, and
    /// an address of the source, would cost more than the answer.
    pub(crate) fn try_new(
        policy: &CompiledPolicy,
        subject: &Subject,
        resource: &CompiledResource,
        now: Timestamp,
    ) -> Result<Self, Box<dyn Error + Send + Sync>> {
        let Policy { subjects, conditions, .. } = &policy.policy;
        let device = DEVICE.uid(subject.device_id);
        // The device is in its user, and so in the user's groups: all of them at once, since Cedar
        // takes longer to follow two steps than for everything else here.
        let user = (!subjects.users.is_empty()).then(|| USER.uid(subject.user_id));
        let groups = subject.groups.iter().filter(|group| subjects.groups.contains(group));
        let parents = groups.map(|id| GROUP.uid(id)).chain(user).collect();

        let posture = subject.posture.iter().cloned().map(RestrictedExpression::new_string);
        let source = subject
            .source
            .filter(|_source| !conditions.source_networks.is_empty())
            .map(|source| (SOURCE, RestrictedExpression::new_ip(address_literal(source))));
        let authentication = subject.authentication.as_ref();
        let age = authentication
            .filter(|_sign_in| conditions.authenticated_within_s.is_some())
            .map(|it| (AUTHENTICATED_AGE, RestrictedExpression::new_long(age_s(it.at, now))));
        let methods = authentication
            .filter(|_sign_in| !conditions.authentication_methods.is_empty())
            .map(|authentication| {
                let methods = authentication.methods.iter().cloned();
                let methods = methods.map(RestrictedExpression::new_string);
                (AUTHENTICATION_METHODS, RestrictedExpression::new_set(methods))
            });
        let clock = (!policy.time_windows.is_empty()).then(|| clock(policy, now)).transpose()?;
        let shown = clock
            .as_ref()
            .map(|clock| (THE_CLOCK, RestrictedExpression::new_entity_uid(clock.uid())));
        let context = [
            (POSTURE, RestrictedExpression::new_set(posture)),
            (NOW, RestrictedExpression::new_long(now.as_millis())),
        ]
        .into_iter()
        .chain(source)
        .chain(age)
        .chain(methods)
        .chain(shown)
        .map(|(name, value)| (name.to_owned(), value));
        Ok(Self {
            request: Request::new(
                device.clone(),
                CONNECT_ACTION.clone(),
                resource.entity.uid(),
                Context::from_pairs(context)?,
                // The types above leave nothing to find; every test looks nevertheless.
                cfg!(debug_assertions).then(schema),
            )?,
            entities: Entities::from_entities(
                [Entity::new_no_attrs(device, parents), resource.entity.clone()]
                    .into_iter()
                    .chain(clock),
                None,
            )?,
        })
    }
}

/// What the clocks show that a policy asks about.
fn clock(policy: &CompiledPolicy, now: Timestamp) -> Result<Entity, Box<dyn Error + Send + Sync>> {
    let shown: BTreeMap<_, _> = policy
        .time_windows
        .iter()
        .filter_map(|window| Some((window.zone_name.clone(), window.minute(now)?)))
        .collect();
    let tags = shown
        .into_iter()
        .map(|(zone, minute)| (zone, RestrictedExpression::new_long(minute.into())));
    Ok(Entity::new_with_tags(CLOCK.uid(THE_CLOCK), [], [], tags)?)
}

/// Whole seconds, so that an age is below a limit exactly until the limit is reached.
pub(crate) fn age_s(authenticated_at: Timestamp, now: Timestamp) -> i64 {
    let age = now.saturating_duration_since(authenticated_at).as_secs();
    i64::try_from(age).unwrap_or(i64::MAX)
}
