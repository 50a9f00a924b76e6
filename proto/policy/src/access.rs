//! Who gains and who loses access when policies, groups or resources change.
//!
//! What a user may do with a resource depends on the *terms* under which policies speak of both: an
//! effect and its conditions. Two sets of policies let a user reach a resource alike when the same
//! terms are left after what can be left out: everything beside an unconditional forbid, and a
//! conditional permit beside an unconditional one. Conditions are compared, not understood: one that
//! implies another is another.
//!
//! Terms are bits. Each user's policies mark the slices they are in, and the terms of a resource are
//! the union of its few slices; so no pair of a user and a resource is looked up in the policies.

#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, BTreeSet};

use adit_proto::{
    DeviceId, GroupId, UserId,
    api::{Access, AccessChange, AccessDifference, Conditions, Effect, Policy},
};

use crate::evaluator::{CompiledResource, Evaluator};

/// Someone who may reach resources.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Reacher {
    /// The name of the user, for the report.
    pub name: String,
    /// The groups of the user, in the order of their ids.
    pub groups: Vec<GroupId>,
    /// The devices of the user; those that no policy names make no difference.
    pub devices: Vec<DeviceId>,
}

/// Policies and resources, and who is there.
#[derive(Debug, Clone, Copy)]
pub struct AccessSide<'a> {
    /// The policies and resources.
    pub evaluator: &'a Evaluator,
    /// The users; one who is on one side alone reaches nothing on the other.
    pub users: &'a BTreeMap<UserId, Reacher>,
}

/// Compares who can reach what, and lists at most `most` pairs.
///
/// What a resource consists of is not compared: one that got another address is the same resource.
pub fn access_difference(
    before: AccessSide<'_>,
    after: AccessSide<'_>,
    most: usize,
) -> AccessDifference {
    let terms = Terms::new(before.evaluator, after.evaluator);
    let one = Side::new(before, after, &terms);
    let other = Side::new(after, before, &terms);
    let pairs = pair_up(before.evaluator, after.evaluator);
    let some_resource_altered = pairs.iter().any(|pair| pair.altered);

    let mut standing = Standing::pair(&terms);
    let mut of_others = Standing::pair(&terms);
    let mut difference = AccessDifference::default();
    let mut resources = vec![false; pairs.len()];
    let ids: BTreeSet<UserId> = before.users.keys().chain(after.users.keys()).copied().collect();
    for user_id in ids {
        let of_user = [&one, &other].map(|side| side.mark(user_id, None));
        let devices: BTreeSet<DeviceId> =
            [&one, &other].into_iter().flat_map(|side| side.devices_named(user_id)).collect();
        let mut concerned = false;
        for device_id in [None].into_iter().chain(devices.into_iter().map(Some)) {
            let of_device =
                device_id.map(|id| [&one, &other].map(|side| side.mark(user_id, Some(id))));
            let marks = of_device.as_ref().unwrap_or(&of_user);
            if !some_resource_altered && marks.iter().all(|marks| !marks.touched) {
                continue;
            }
            for (pair, is_concerned) in pairs.iter().zip(&mut resources) {
                if !pair.altered && !pair.is_touched(marks) {
                    continue;
                }
                pair.find_standing(marks, &terms, &mut standing);
                let [was, is] = &standing;
                if was == is {
                    continue;
                }
                // A device is spoken of where it differs from the others of its user.
                if device_id.is_some() {
                    pair.find_standing(&of_user, &terms, &mut of_others);
                    if standing == of_others {
                        continue;
                    }
                }
                let (before, after) = (was.access(), is.access());
                match (before, after) {
                    (Access::None, _) => difference.gained += 1,
                    (_, Access::None) => difference.lost += 1,
                    (_, _) => difference.conditions_changed += 1,
                }
                concerned = true;
                *is_concerned = true;
                if difference.changes.len() < most {
                    let resource = &pair.shown().resource;
                    difference.changes.push(AccessChange {
                        user_id,
                        user_name: other.name(user_id).or(one.name(user_id)).unwrap_or_default(),
                        device_id,
                        resource_id: resource.id,
                        resource_name: resource.name.clone(),
                        before,
                        after,
                    });
                } else {
                    difference.truncated = true;
                }
            }
        }
        difference.users += u64::from(concerned);
    }
    difference.resources = resources.into_iter().map(u64::from).sum();
    difference
}

/// Bits that every mark has: whether a policy that is not on both sides has a part in it, and the
/// two terms without conditions.
const TOUCHED: u64 = 1;
const PERMIT_ALWAYS: u64 = 1 << 1;
const FORBID_ALWAYS: u64 = 1 << 2;
const FIRST_FREE_BIT: usize = 3;

/// Every effect with its conditions, by its bit.
struct Terms<'a> {
    conditional: Vec<(Effect, &'a Conditions)>,
    /// The bits of those that permit under conditions.
    permits: Vec<u64>,
}

impl<'a> Terms<'a> {
    fn new(one: &'a Evaluator, other: &'a Evaluator) -> Self {
        let mut terms = Self { conditional: Vec::new(), permits: Vec::new() };
        for compiled in one.policies().iter().chain(other.policies()) {
            let Policy { effect, conditions, .. } = &compiled.policy;
            if *conditions != Conditions::default()
                && !terms.conditional.contains(&(*effect, conditions))
            {
                terms.conditional.push((*effect, conditions));
            }
        }
        let len = (FIRST_FREE_BIT + terms.conditional.len()).div_ceil(64);
        terms.permits = vec![0; len];
        for (place, (effect, _conditions)) in terms.conditional.iter().enumerate() {
            if *effect == Effect::Permit {
                set(&mut terms.permits, FIRST_FREE_BIT + place);
            }
        }
        terms
    }

    fn bit(&self, policy: &Policy) -> usize {
        if policy.conditions == Conditions::default() {
            let always = match policy.effect {
                Effect::Permit => PERMIT_ALWAYS,
                Effect::Forbid => FORBID_ALWAYS,
            };
            return usize::try_from(always.trailing_zeros()).unwrap_or_default();
        }
        let term = (policy.effect, &policy.conditions);
        let place = self.conditional.iter().position(|other| *other == term);
        FIRST_FREE_BIT + place.expect("the policies of both sides were gone through")
    }
}

fn set(words: &mut [u64], bit: usize) {
    if let Some(word) = words.get_mut(bit / 64) {
        *word |= 1 << (bit % 64);
    }
}

/// One set of policies, and what of it the other lacks.
struct Side<'a> {
    here: AccessSide<'a>,
    there: &'a BTreeMap<UserId, Reacher>,
    /// Words of a mark.
    stride: usize,
    /// By the places of policies.
    parts: Vec<Part>,
}

struct Part {
    bit: usize,
    /// Not on the other side, or otherwise there.
    changed: bool,
    /// The slices that it is in.
    slices: Vec<usize>,
}

impl<'a> Side<'a> {
    fn new(here: AccessSide<'a>, there: AccessSide<'a>, terms: &Terms<'_>) -> Self {
        let part = |policy: &Policy| Part {
            bit: terms.bit(policy),
            changed: there
                .evaluator
                .policy(policy.id)
                .is_none_or(|other| !says_the_same(policy, &other.policy)),
            slices: Vec::new(),
        };
        let policies = here.evaluator.policies().iter();
        let mut parts: Vec<Part> = policies.map(|compiled| part(&compiled.policy)).collect();
        for (index, slice) in here.evaluator.slices().iter().enumerate() {
            slice.for_each(|place| {
                let place = usize::try_from(place).unwrap_or(usize::MAX);
                if let Some(part) = parts.get_mut(place) {
                    part.slices.push(index);
                }
            });
        }
        Self { here, there: there.users, stride: terms.permits.len(), parts }
    }

    fn name(&self, user_id: UserId) -> Option<String> {
        self.here.users.get(&user_id).map(|user| user.name.clone())
    }

    /// The devices of a user that some policy names.
    fn devices_named(&self, user_id: UserId) -> impl Iterator<Item = DeviceId> {
        let devices = self.here.users.get(&user_id).into_iter().flat_map(|user| &user.devices);
        devices.copied().filter(|device| self.here.evaluator.subjects().names_device(*device))
    }

    /// Marks the slices with the terms of the policies that speak of a user, or of one device.
    fn mark(&self, user_id: UserId, device_id: Option<DeviceId>) -> Marks {
        let evaluator = self.here.evaluator;
        let mut words = vec![0; evaluator.slices().len() * self.stride];
        let mut touched = false;
        let Some(user) = self.here.users.get(&user_id) else {
            return Marks { words, stride: self.stride, touched };
        };
        let moved = self.there.get(&user_id).is_none_or(|other| other.groups != user.groups);
        evaluator.subjects().find(user_id, &user.groups, device_id).for_each(|place| {
            let place = usize::try_from(place).unwrap_or(usize::MAX);
            let Some(part) = self.parts.get(place) else { return };
            let is_touched = moved || part.changed;
            touched |= is_touched;
            for slice in &part.slices {
                let range = slice * self.stride..(slice + 1) * self.stride;
                let Some(mark) = words.get_mut(range) else { continue };
                set(mark, part.bit);
                if let Some(first) = mark.first_mut() {
                    *first |= u64::from(is_touched) * TOUCHED;
                }
            }
        });
        Marks { words, stride: self.stride, touched }
    }
}

/// Whether two policies of one id have the same effect on everybody.
fn says_the_same(policy: &Policy, other: &Policy) -> bool {
    policy.effect == other.effect
        && policy.subjects == other.subjects
        && policy.resources == other.resources
        && policy.conditions == other.conditions
}

/// What the policies that speak of one subject say, for each slice.
struct Marks {
    words: Vec<u64>,
    stride: usize,
    /// Whether a policy that is not on both sides has a part in any.
    touched: bool,
}

impl Marks {
    fn first_words(&self, resource: &CompiledResource) -> u64 {
        let first = |slice: &usize| self.words.get(slice * self.stride).copied();
        resource.slices.iter().filter_map(first).fold(0, |all, word| all | word)
    }
}

/// A resource before and after.
struct Pair<'a> {
    sides: [Option<&'a CompiledResource>; 2],
    /// Whether policies may select it otherwise.
    altered: bool,
}

impl<'a> Pair<'a> {
    fn is_touched(&self, marks: &[Marks; 2]) -> bool {
        let mut sides = self.sides.iter().zip(marks);
        sides.any(|(side, marks)| side.is_some_and(|it| marks.first_words(it) & TOUCHED != 0))
    }

    fn find_standing(&self, marks: &[Marks; 2], terms: &Terms<'_>, found: &mut [Standing; 2]) {
        for ((resource, marks), standing) in self.sides.iter().zip(marks).zip(found) {
            standing.find(*resource, marks, terms);
        }
    }

    fn shown(&self) -> &'a CompiledResource {
        let [before, after] = self.sides;
        after.or(before).expect("it is on one side at least")
    }
}

fn pair_up<'a>(before: &'a Evaluator, after: &'a Evaluator) -> Vec<Pair<'a>> {
    let mut pairs: BTreeMap<_, [Option<&CompiledResource>; 2]> = BTreeMap::new();
    for resource in before.resources() {
        pairs.entry(resource.resource.id).or_default()[0] = Some(resource);
    }
    for resource in after.resources() {
        pairs.entry(resource.resource.id).or_default()[1] = Some(resource);
    }
    let tags = |resource: &'a CompiledResource| -> BTreeSet<&'a str> {
        resource.resource.tags.iter().map(String::as_str).collect()
    };
    let pair = |sides: [Option<&'a CompiledResource>; 2]| {
        let altered = match sides {
            [Some(before), Some(after)] => tags(before) != tags(after),
            [_, _] => true,
        };
        Pair { sides, altered }
    };
    pairs.into_values().map(pair).collect()
}

/// The terms that are left for a subject and a resource: none, and it is out of reach.
#[derive(PartialEq, Eq)]
struct Standing(Vec<u64>);

impl Standing {
    /// Two to be found, over and over: there are many, and each would take memory.
    fn pair(terms: &Terms<'_>) -> [Self; 2] {
        [(); 2].map(|()| Self(vec![0; terms.permits.len()]))
    }

    fn find(&mut self, resource: Option<&CompiledResource>, marks: &Marks, terms: &Terms<'_>) {
        let Self(words) = self;
        words.fill(0);
        for slice in resource.into_iter().flat_map(|resource| &resource.slices) {
            let from = slice * marks.stride;
            let mark = marks.words.get(from..from + marks.stride).unwrap_or_default();
            words.iter_mut().zip(mark).for_each(|(word, more)| *word |= more);
        }
        let first = words.first().copied().unwrap_or_default();
        let mut both = words.iter().zip(&terms.permits);
        let permits = first & PERMIT_ALWAYS != 0 || both.any(|(word, permit)| word & permit != 0);
        if first & FORBID_ALWAYS != 0 || !permits {
            words.fill(0);
        } else if first & PERMIT_ALWAYS != 0 {
            words.iter_mut().zip(&terms.permits).for_each(|(word, permit)| *word &= !permit);
        }
        if let Some(first) = words.first_mut() {
            *first &= !TOUCHED;
        }
    }

    fn access(&self) -> Access {
        let mut words = self.0.iter().copied();
        match (words.next().unwrap_or_default(), words.any(|word| word != 0)) {
            (0, false) => Access::None,
            (PERMIT_ALWAYS, false) => Access::Always,
            (_, _) => Access::Conditional,
        }
    }
}
