//! From a subject and a destination to an authorization, or a denial with its reason.

use std::collections::BTreeSet;
use std::error::Error;
use std::net::IpAddr;
use std::time::Duration;

use adit_proto::{
    DeviceId, GroupId, PolicyId, Protocol, Reason, ResourceId, Timestamp, UserId, api::Effect,
};
use cedar_policy::{
    AuthorizationError, Context, Decision, Entities, Entity, PolicySet, Request, Response,
    RestrictedExpression,
};

use crate::{
    evaluator::{CompiledResource, Evaluator},
    reserved_address::reserved_address,
    schema::{
        ACTION, AUTHENTICATED_AGE, CONNECT, DEVICE, GROUP, POSTURE, SOURCE, USER, address_literal,
        schema,
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
    /// When the user last signed in; nobody does on a plain WireGuard device.
    pub authenticated_at: Option<Timestamp>,
    /// When the credential expires; a plain WireGuard device has none.
    pub expires_at: Option<Timestamp>,
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

    /// When this ends: with the credential, or when the sign-in grows too old for the policy. What
    /// then? Evaluate anew: another policy may permit the flow still.
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
    /// The policy that forbids it or failed; of several the one with the smallest id.
    pub policy_id: Option<PolicyId>,
}

impl Evaluator {
    /// Decides a flow.
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
        let found = self.find(destination);
        let resource_id = found.as_ref().map(|found| found.value.resource.id);
        let denial = |reason, policy_id| Denial { reason, resource_id, policy_id };

        if subject.expires_at.is_some_and(|expires_at| expires_at <= now) {
            return Err(denial(Reason::CredentialExpired, None));
        }
        let named_alone = found.as_ref().is_some_and(|found| found.is_alone);
        if reserved_address(destination.address) && !named_alone {
            return Err(denial(Reason::AddressReserved, None));
        }
        let Some(found) = found else {
            return Err(denial(Reason::ResourceUnknown, None));
        };
        let resource = found.value;
        let Ok(question) = Question::try_new(subject, resource, now) else {
            return Err(denial(Reason::PolicyError, None));
        };
        let mut verdict = Verdict::default();
        for slice in self.slices_of(resource) {
            verdict.add(&self.ask(&question, &slice.cedar));
        }
        if verdict.failed {
            return Err(denial(Reason::PolicyError, verdict.failing.first().copied()));
        }
        if let Some(policy_id) = verdict.forbidding.first() {
            return Err(denial(Reason::PolicyForbids, Some(*policy_id)));
        }
        let Some(policy_id) = verdict.permitting.first() else {
            return Err(denial(Reason::NoPolicyPermits, None));
        };
        Ok(Authorization {
            resource_id: resource.resource.id,
            policy_id: *policy_id,
            expires_at: [subject.expires_at, self.sign_in_end(*policy_id, subject)]
                .into_iter()
                .flatten()
                .min(),
        })
    }

    pub(crate) fn ask(&self, question: &Question, policies: &PolicySet) -> Response {
        self.authorizer().is_authorized(&question.request, policies, &question.entities)
    }

    /// When the sign-in grows too old for this policy.
    fn sign_in_end(&self, policy_id: PolicyId, subject: &Subject) -> Option<Timestamp> {
        let limit = self.policy(policy_id)?.policy.conditions.authenticated_within_s?;
        Some(subject.authenticated_at?.saturating_add(Duration::from_secs(limit)))
    }
}

/// What Cedar is asked about one flow.
pub(crate) struct Question {
    request: Request,
    entities: Entities,
}

impl Question {
    pub(crate) fn try_new(
        subject: &Subject,
        resource: &CompiledResource,
        now: Timestamp,
    ) -> Result<Self, Box<dyn Error + Send + Sync>> {
        let device = DEVICE.uid(subject.device_id);
        let user = USER.uid(subject.user_id);
        let groups = subject.groups.iter().map(|id| GROUP.uid(id)).collect();
        let posture = subject.posture.iter().cloned().map(RestrictedExpression::new_string);
        let source = subject
            .source
            .map(|source| (SOURCE, RestrictedExpression::new_ip(address_literal(source))));
        let age = subject
            .authenticated_at
            .map(|at| (AUTHENTICATED_AGE, RestrictedExpression::new_long(age_s(at, now))));
        let context = [(POSTURE, RestrictedExpression::new_set(posture))]
            .into_iter()
            .chain(source)
            .chain(age)
            .map(|(name, value)| (name.to_owned(), value));
        Ok(Self {
            request: Request::new(
                device.clone(),
                ACTION.uid(CONNECT),
                resource.entity.uid(),
                Context::from_pairs(context)?,
                Some(schema()),
            )?,
            entities: Entities::from_entities(
                [
                    Entity::new_no_attrs(device, [user.clone()].into()),
                    Entity::new_no_attrs(user, groups),
                    resource.entity.clone(),
                ],
                None,
            )?,
        })
    }
}

/// Whole seconds, so that an age is below a limit exactly until the limit is reached.
pub(crate) fn age_s(authenticated_at: Timestamp, now: Timestamp) -> i64 {
    let age = now.saturating_duration_since(authenticated_at).as_secs();
    i64::try_from(age).unwrap_or(i64::MAX)
}

/// What Cedar answers, gathered over the slices of a resource.
#[derive(Default)]
pub(crate) struct Verdict {
    /// Whether anything failed, known by its id or not.
    pub(crate) failed: bool,
    pub(crate) failing: BTreeSet<PolicyId>,
    pub(crate) forbidding: BTreeSet<PolicyId>,
    pub(crate) permitting: BTreeSet<PolicyId>,
}

impl Verdict {
    pub(crate) fn add(&mut self, response: &Response) {
        for error in response.diagnostics().errors() {
            let AuthorizationError::PolicyEvaluationError(error) = error;
            self.failed = true;
            self.failing.extend(policy_id(error.policy_id()));
        }
        for id in response.diagnostics().reason() {
            let Some(policy_id) = policy_id(id) else {
                self.failed = true;
                continue;
            };
            match response.decision() {
                Decision::Allow => self.permitting.insert(policy_id),
                Decision::Deny => self.forbidding.insert(policy_id),
            };
        }
    }

    /// Whether a policy of this effect and id matched.
    pub(crate) fn has_matched(&self, effect: Effect, policy_id: PolicyId) -> bool {
        match effect {
            Effect::Permit => self.permitting.contains(&policy_id),
            Effect::Forbid => self.forbidding.contains(&policy_id),
        }
    }
}

fn policy_id(cedar: &cedar_policy::PolicyId) -> Option<PolicyId> {
    let text: &str = cedar.as_ref();
    text.parse().ok()
}
