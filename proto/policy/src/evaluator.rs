//! The compiled policies and resources of one bundle.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use adit_proto::{
    DeviceId, GroupId, PolicyId, ResourceId, UserId,
    api::{Effect, Policy, Resource},
};
use cedar_policy::{Authorizer, Entity, RestrictedExpression};

use crate::{
    compile::{CompileError, CompiledPolicy, compile},
    evaluate::{Destination, Subject},
    places::Places,
    resource_map::{Found, ResourceMap},
    schema::{RESOURCE, TAGS},
    subject_index::SubjectIndex,
};

/// Decides flows by the policies and resources of one bundle.
///
/// It is compiled once, shared between threads, and replaced as a whole by the next bundle's.
pub struct Evaluator {
    /// Tells evaluators apart.
    serial: u64,
    authorizer: Authorizer,
    /// In the order of their ids, so that the smallest place has the smallest id.
    policies: Vec<CompiledPolicy>,
    /// Of the same places: few are looked at closer.
    effects: Vec<Effect>,
    subjects: SubjectIndex,
    /// The policies that one selector brings to a resource.
    ///
    /// INVARIANT: a policy is in the slice of each of its selectors, so what a resource needs is
    /// the union of a few slices that it shares with others. A set for each resource would hold a
    /// policy for all resources as many times as there are resources.
    slices: Vec<Places>,
    /// In the order of their ids.
    resources: Vec<Arc<CompiledResource>>,
    resource_map: ResourceMap<Arc<CompiledResource>>,
}

#[derive(Debug)]
pub(crate) struct CompiledResource {
    pub(crate) resource: Resource,
    pub(crate) entity: Entity,
    /// In the order of ids.
    pub(crate) place: usize,
    /// Where in the slices to look.
    pub(crate) slices: Vec<usize>,
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
        mut policies: Vec<CompiledPolicy>,
        resources: &[Resource],
    ) -> Result<Self, CompileError> {
        static SERIAL: AtomicU64 = AtomicU64::new(0);

        let mut resources: Vec<&Resource> = resources.iter().collect();
        resources.sort_unstable_by_key(|resource| resource.id);
        policies.sort_unstable_by_key(|policy| policy.policy.id);

        let (whereabouts, slices) = slice(&policies, &resources);
        let mut compiled: Vec<Arc<CompiledResource>> = Vec::with_capacity(resources.len());
        let mut resource_map = ResourceMap::new();
        for (place, resource) in resources.into_iter().enumerate() {
            if compiled.last().is_some_and(|last| last.resource.id == resource.id) {
                return Err(CompileError::DuplicateResource { resource_id: resource.id });
            }
            let slices = selectors_of(resource)
                .into_iter()
                .filter_map(|selector| whereabouts.get(&selector).copied())
                .collect();
            let entity = entity(resource)?;
            let resource = resource.clone();
            let one = Arc::new(CompiledResource { resource, entity, place, slices });
            let Resource { addresses, filters, .. } = &one.resource;
            resource_map.upsert(addresses, filters, Arc::clone(&one));
            compiled.push(one);
        }
        Ok(Self {
            serial: SERIAL.fetch_add(1, Ordering::Relaxed),
            authorizer: Authorizer::new(),
            subjects: SubjectIndex::new(policies.iter().map(|policy| &policy.policy)),
            effects: policies.iter().map(|policy| policy.policy.effect).collect(),
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
        let speaking = self.subjects.find(user, groups, Some(device));
        let permitting: Vec<bool> = self
            .slices
            .iter()
            .map(|slice| {
                let mut permits = false;
                slice.for_each_common(&speaking, |place| {
                    permits |= self.effect_at(place) == Some(Effect::Permit);
                });
                permits
            })
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
        self.slices.iter().map(Places::len).sum()
    }

    pub(crate) fn authorizer(&self) -> &Authorizer {
        &self.authorizer
    }

    pub(crate) const fn serial(&self) -> u64 {
        self.serial
    }

    pub(crate) fn policy(&self, id: PolicyId) -> Option<&CompiledPolicy> {
        let place = self.policies.binary_search_by_key(&id, |policy| policy.policy.id).ok()?;
        self.policies.get(place)
    }

    pub(crate) fn policy_at(&self, place: u32) -> Option<&CompiledPolicy> {
        self.policies.get(usize::try_from(place).ok()?)
    }

    pub(crate) fn effect_at(&self, place: u32) -> Option<Effect> {
        self.effects.get(usize::try_from(place).ok()?).copied()
    }

    /// The policies that name a subject.
    pub(crate) fn policies_of(&self, subject: &Subject) -> Places {
        self.subjects.find(subject.user_id, &subject.groups, Some(subject.device_id))
    }

    pub(crate) fn subjects(&self) -> &SubjectIndex {
        &self.subjects
    }

    /// In the order of their ids.
    pub(crate) fn policies(&self) -> &[CompiledPolicy] {
        &self.policies
    }

    /// In the order of their ids.
    pub(crate) fn resources(&self) -> &[Arc<CompiledResource>] {
        &self.resources
    }

    pub(crate) fn slices(&self) -> &[Places] {
        &self.slices
    }

    pub(crate) fn find(
        &self,
        destination: &Destination,
    ) -> Option<Found<'_, Arc<CompiledResource>>> {
        self.resource_map.find_match(destination)
    }

    pub(crate) fn slices_of(&self, resource: &CompiledResource) -> impl Iterator<Item = &Places> {
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

/// The slices of all selectors that some resource answers to, and where each of them is.
fn slice<'a>(
    policies: &'a [CompiledPolicy],
    resources: &[&'a Resource],
) -> (BTreeMap<Selector<'a>, usize>, Vec<Places>) {
    let answered: BTreeSet<Selector<'a>> =
        resources.iter().flat_map(|resource| selectors_of(resource)).collect();
    let mut whereabouts: BTreeMap<Selector<'a>, usize> = BTreeMap::new();
    let mut slices: Vec<Vec<u32>> = Vec::new();
    for (place, policy) in (0..).zip(policies) {
        for selector in selectors_in(&policy.policy).intersection(&answered) {
            let at = *whereabouts.entry(*selector).or_insert(slices.len());
            if at == slices.len() {
                slices.push(Vec::new());
            }
            if let Some(slice) = slices.get_mut(at) {
                slice.push(place);
            }
        }
    }
    let places = |slice| Places::from_sorted(slice, policies.len());
    (whereabouts, slices.into_iter().map(places).collect())
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
