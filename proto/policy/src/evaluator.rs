//! The compiled policies and resources of one bundle.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::sync::Arc;

use adit_proto::{
    DeviceId, GroupId, PolicyId, ResourceId, UserId,
    api::{Effect, Policy, Resource, SubjectSelector},
};
use cedar_policy::{Authorizer, Entity, PolicySet, RestrictedExpression};

use crate::{
    compile::{CompileError, CompiledPolicy, compile},
    evaluate::Destination,
    resource_map::{Found, ResourceMap},
    schema::{RESOURCE, TAGS},
};

/// Decides flows by the policies and resources of one bundle.
///
/// It is compiled once, shared between threads, and replaced as a whole by the next bundle's.
pub struct Evaluator {
    authorizer: Authorizer,
    policies: BTreeMap<PolicyId, CompiledPolicy>,
    slices: Vec<Slice>,
    /// In the order of their ids.
    resources: Vec<Arc<CompiledResource>>,
    resource_map: ResourceMap<Arc<CompiledResource>>,
}

/// The policies that one selector brings to a resource.
///
/// INVARIANT: a policy is in the slice of each of its selectors, so what a resource needs is the
/// union of a few slices that it shares with others. A set for each resource would hold a policy
/// for all resources as many times as there are resources.
pub(crate) struct Slice {
    pub(crate) cedar: PolicySet,
    pub(crate) policy_ids: Vec<PolicyId>,
}

#[derive(Debug)]
pub(crate) struct CompiledResource {
    pub(crate) resource: Resource,
    pub(crate) entity: Entity,
    /// Where in the slices to look.
    slices: Vec<usize>,
}

/// One way in which a policy names resources.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Selector<'a> {
    All,
    Id(ResourceId),
    Tag(&'a str),
}

impl Evaluator {
    /// Compiles policies, those disabled left out, and resources.
    ///
    /// # Errors
    ///
    /// [`CompileError`] names the policy or resource that cannot be compiled. There is no evaluator
    /// without it: leaving out a forbid would permit.
    pub fn try_new(policies: &[Policy], resources: &[Resource]) -> Result<Self, CompileError> {
        Self::try_from_compiled(compile(policies)?, resources)
    }

    pub(crate) fn try_from_compiled(
        policies: Vec<CompiledPolicy>,
        resources: &[Resource],
    ) -> Result<Self, CompileError> {
        let mut resources: Vec<&Resource> = resources.iter().collect();
        resources.sort_unstable_by_key(|resource| resource.id);
        let policies: BTreeMap<PolicyId, CompiledPolicy> =
            policies.into_iter().map(|policy| (policy.policy.id, policy)).collect();

        let (places, slices) = slice(&policies, &resources)?;
        let mut compiled: Vec<Arc<CompiledResource>> = Vec::with_capacity(resources.len());
        let mut resource_map = ResourceMap::new();
        for resource in resources {
            if compiled.last().is_some_and(|last| last.resource.id == resource.id) {
                return Err(CompileError::DuplicateResource { resource_id: resource.id });
            }
            let slices = selectors_of(resource)
                .into_iter()
                .filter_map(|selector| places.get(&selector).copied())
                .collect();
            let entity = entity(resource)?;
            let one = Arc::new(CompiledResource { resource: resource.clone(), entity, slices });
            resource_map.upsert(&resource.addresses, &resource.filters, Arc::clone(&one));
            compiled.push(one);
        }
        Ok(Self {
            authorizer: Authorizer::new(),
            policies,
            slices,
            resources: compiled,
            resource_map,
        })
    }

    /// The most specific resource at `destination`: the longest prefix among the resources whose
    /// protocol and port match too, then the narrowest range of ports, then the smallest id.
    pub fn resource_at(&self, destination: &Destination) -> Option<&Resource> {
        self.find(destination).map(|found| &found.value.resource)
    }

    /// The name of a policy that is not disabled.
    pub fn policy_name(&self, id: PolicyId) -> Option<&str> {
        self.policy(id).map(|policy| policy.policy.name.as_str())
    }

    /// The resources that some permit lets this subject reach if its conditions hold, in the order
    /// of their ids.
    pub fn visible_resources<'a>(
        &'a self,
        user: UserId,
        groups: &[GroupId],
        device: DeviceId,
    ) -> Vec<&'a Resource> {
        let permits: BTreeSet<PolicyId> = self
            .policies
            .values()
            .map(|policy| &policy.policy)
            .filter(|policy| policy.effect == Effect::Permit)
            .filter(|policy| selects(&policy.subjects, user, groups, device))
            .map(|policy| policy.id)
            .collect();
        let permitting: Vec<bool> = self
            .slices
            .iter()
            .map(|slice| slice.policy_ids.iter().any(|id| permits.contains(id)))
            .collect();
        self.resources
            .iter()
            .filter(|resource| {
                resource.slices.iter().any(|place| permitting.get(*place).is_some_and(|it| *it))
            })
            .map(|resource| &resource.resource)
            .collect()
    }

    #[cfg(test)]
    pub(crate) fn held_policies(&self) -> usize {
        self.slices.iter().map(|slice| slice.cedar.num_of_policies()).sum()
    }

    pub(crate) fn authorizer(&self) -> &Authorizer {
        &self.authorizer
    }

    pub(crate) fn policy(&self, id: PolicyId) -> Option<&CompiledPolicy> {
        self.policies.get(&id)
    }

    pub(crate) fn find(
        &self,
        destination: &Destination,
    ) -> Option<Found<'_, Arc<CompiledResource>>> {
        self.resource_map.find_match(destination)
    }

    pub(crate) fn slices_of(&self, resource: &CompiledResource) -> impl Iterator<Item = &Slice> {
        resource.slices.iter().filter_map(|place| self.slices.get(*place))
    }
}

impl fmt::Debug for Evaluator {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Evaluator")
            .field("policies", &self.policies.len())
            .field("resources", &self.resources.len())
            .finish_non_exhaustive()
    }
}

/// Whether a policy speaks of this subject.
pub(crate) fn selects(
    subjects: &SubjectSelector,
    user: UserId,
    groups: &[GroupId],
    device: DeviceId,
) -> bool {
    subjects.everyone
        || subjects.users.contains(&user)
        || subjects.devices.contains(&device)
        || subjects.groups.iter().any(|group| groups.contains(group))
}

/// The slices of all selectors that some resource answers to, and where each of them is.
fn slice<'a>(
    policies: &'a BTreeMap<PolicyId, CompiledPolicy>,
    resources: &[&'a Resource],
) -> Result<(BTreeMap<Selector<'a>, usize>, Vec<Slice>), CompileError> {
    let answered: BTreeSet<Selector<'a>> =
        resources.iter().flat_map(|resource| selectors_of(resource)).collect();
    let mut places: BTreeMap<Selector<'a>, usize> = BTreeMap::new();
    let mut slices: Vec<Slice> = Vec::new();
    for policy in policies.values() {
        for selector in selectors_in(&policy.policy).intersection(&answered) {
            let place = *places.entry(*selector).or_insert(slices.len());
            if place == slices.len() {
                slices.push(Slice { cedar: PolicySet::new(), policy_ids: Vec::new() });
            }
            if let Some(slice) = slices.get_mut(place) {
                slice.cedar.add(policy.cedar.clone()).map_err(|error| CompileError::Policy {
                    policy_id: policy.policy.id,
                    source: error.into(),
                })?;
                slice.policy_ids.push(policy.policy.id);
            }
        }
    }
    Ok((places, slices))
}

/// The selectors that a policy uses.
fn selectors_in(policy: &Policy) -> BTreeSet<Selector<'_>> {
    if policy.resources.all {
        return [Selector::All].into();
    }
    let ids = policy.resources.ids.iter().map(|id| Selector::Id(*id));
    let tags = policy.resources.tags.iter().map(|tag| Selector::Tag(tag));
    ids.chain(tags).collect()
}

/// The selectors that a resource answers to.
fn selectors_of(resource: &Resource) -> BTreeSet<Selector<'_>> {
    let tags = resource.tags.iter().map(|tag| Selector::Tag(tag));
    [Selector::All, Selector::Id(resource.id)].into_iter().chain(tags).collect()
}

fn entity(resource: &Resource) -> Result<Entity, CompileError> {
    let tags = resource.tags.iter().cloned().map(RestrictedExpression::new_string);
    let attributes = [(TAGS.to_owned(), RestrictedExpression::new_set(tags))];
    Entity::new(RESOURCE.uid(resource.id), attributes.into(), [].into())
        .map_err(|error| CompileError::Resource { resource_id: resource.id, source: error.into() })
}
