//! From policies and tests to the document that people read, and back.

use std::collections::{HashMap, HashSet};

use adit_proto::{
    PolicyId, PolicyTestId, Timestamp,
    api::{
        NamedResources, NamedSubjects, NamedTestSubject, NamedTestTarget, PolicyEntry, PolicySet,
        PolicyTestEntry, PolicyTestWrite, PolicyWrite, ResourceSelector, SubjectSelector,
        TestSubject, TestTarget,
    },
};

use crate::{
    app::{
        policy_names::{Names, NamesOf},
        random,
    },
    error::ApiError,
    store::policy_history::Content,
};

/// How many policies, and how many tests, a document holds at most.
const MAX_LEN: usize = 10_000;

/// The ids of the policies and tests that exist, by their names.
#[derive(Debug)]
pub(super) struct Ids {
    pub(super) policies: HashMap<String, PolicyId>,
    pub(super) tests: HashMap<String, PolicyTestId>,
}

/// The same document for the same content, whatever the order in which it was written.
pub(super) fn write(content: Content, names: &Names) -> PolicySet {
    let policies = content.policies.into_iter();
    let mut policies: Vec<_> = policies.map(|(_id, write)| policy_entry(write, names)).collect();
    policies.sort_by(|one, other| one.name.cmp(&other.name));
    let tests = content.tests.into_iter();
    let mut tests: Vec<_> = tests.map(|(_id, write)| test_entry(write, names)).collect();
    tests.sort_by(|one, other| one.name.cmp(&other.name));
    PolicySet { policies, tests }
}

/// What a document means. Who has a name that exists is who had it before.
pub(super) fn read(
    set: PolicySet,
    names: &Names,
    ids: &Ids,
    now: Timestamp,
) -> Result<Content, ApiError> {
    let PolicySet { policies, tests } = set;
    refuse_doubles("/policies", policies.iter().map(|policy| policy.name.as_str()))?;
    refuse_doubles("/tests", tests.iter().map(|test| test.name.as_str()))?;
    let mut content = Content::default();
    for (place, entry) in policies.into_iter().enumerate() {
        let id = match ids.policies.get(&entry.name) {
            Some(id) => *id,
            None => PolicyId::from_uuid(random::new_uuid(now)?),
        };
        content.policies.push((id, policy(entry, names, &format!("/policies/{place}"))?));
    }
    for (place, entry) in tests.into_iter().enumerate() {
        let id = match ids.tests.get(&entry.name) {
            Some(id) => *id,
            None => PolicyTestId::from_uuid(random::new_uuid(now)?),
        };
        content.tests.push((id, test(entry, names, &format!("/tests/{place}"))?));
    }
    Ok(content)
}

/// A policy that names the same in the order of ids, each once.
pub(super) fn sorted(mut policy: PolicyWrite) -> PolicyWrite {
    fn sort<T: Ord>(list: &mut Vec<T>) {
        list.sort_unstable();
        list.dedup();
    }
    sort(&mut policy.subjects.users);
    sort(&mut policy.subjects.groups);
    sort(&mut policy.subjects.devices);
    sort(&mut policy.resources.ids);
    sort(&mut policy.resources.tags);
    policy
}

fn refuse_doubles<'a>(
    field: &str,
    names: impl ExactSizeIterator<Item = &'a str>,
) -> Result<(), ApiError> {
    if names.len() > MAX_LEN {
        return Err(ApiError::invalid(field, format!("It has at most {MAX_LEN} items.")));
    }
    let mut seen = HashSet::new();
    for (place, name) in names.enumerate() {
        if !seen.insert(name) {
            let detail = format!("`{name}` is here twice; names are unique.");
            return Err(ApiError::invalid(format!("{field}/{place}/name"), detail));
        }
    }
    Ok(())
}

fn policy_entry(policy: PolicyWrite, names: &Names) -> PolicyEntry {
    let PolicyWrite { name, effect, subjects, resources, conditions, disabled } = policy;
    PolicyEntry {
        name,
        effect,
        subjects: NamedSubjects {
            everyone: subjects.everyone,
            users: ordered(subjects.users.iter().map(|id| names.users.name(id))),
            groups: ordered(subjects.groups.iter().map(|id| names.groups.name(id))),
            devices: ordered(subjects.devices.iter().map(|id| names.devices.name(id))),
        },
        resources: NamedResources {
            all: resources.all,
            names: ordered(resources.ids.iter().map(|id| names.resources.name(id))),
            tags: ordered(resources.tags.into_iter()),
        },
        conditions,
        disabled,
    }
}

fn ordered(names: impl Iterator<Item = String>) -> Vec<String> {
    let mut names: Vec<String> = names.collect();
    names.sort_unstable();
    names.dedup();
    names
}

fn test_entry(test: PolicyTestWrite, names: &Names) -> PolicyTestEntry {
    let PolicyTestWrite { name, subject, target, facts, expect } = test;
    let subject = match subject {
        TestSubject::User(id) => NamedTestSubject::User(names.users.name(&id)),
        TestSubject::Group(id) => NamedTestSubject::Group(names.groups.name(&id)),
        TestSubject::Device(id) => NamedTestSubject::Device(names.devices.name(&id)),
    };
    let target = match target {
        TestTarget::Resource(id) => NamedTestTarget::Resource(names.resources.name(&id)),
        TestTarget::Flow(flow) => NamedTestTarget::Flow(flow),
    };
    PolicyTestEntry { name, subject, target, facts, expect }
}

fn policy(entry: PolicyEntry, names: &Names, place: &str) -> Result<PolicyWrite, ApiError> {
    fn ids<Id: std::fmt::Display + std::str::FromStr>(
        names: &NamesOf,
        list: &[String],
        field: &str,
    ) -> Result<Vec<Id>, ApiError> {
        let named = list.iter().enumerate();
        named.map(|(index, name)| names.id(name, || format!("{field}/{index}"))).collect()
    }
    let PolicyEntry { name, effect, subjects, resources, conditions, disabled } = entry;
    Ok(sorted(PolicyWrite {
        name,
        effect,
        subjects: SubjectSelector {
            everyone: subjects.everyone,
            users: ids(&names.users, &subjects.users, &format!("{place}/subjects/users"))?,
            groups: ids(&names.groups, &subjects.groups, &format!("{place}/subjects/groups"))?,
            devices: ids(&names.devices, &subjects.devices, &format!("{place}/subjects/devices"))?,
        },
        resources: ResourceSelector {
            all: resources.all,
            ids: ids(&names.resources, &resources.names, &format!("{place}/resources/names"))?,
            tags: resources.tags,
        },
        conditions,
        disabled,
    }))
}

fn test(entry: PolicyTestEntry, names: &Names, place: &str) -> Result<PolicyTestWrite, ApiError> {
    let PolicyTestEntry { name, subject, target, facts, expect } = entry;
    let at = |member: &str| format!("{place}/{member}");
    let subject = match subject {
        NamedTestSubject::User(name) => {
            TestSubject::User(names.users.id(&name, || at("subject/user"))?)
        }
        NamedTestSubject::Group(name) => {
            TestSubject::Group(names.groups.id(&name, || at("subject/group"))?)
        }
        NamedTestSubject::Device(name) => {
            TestSubject::Device(names.devices.id(&name, || at("subject/device"))?)
        }
    };
    let target = match target {
        NamedTestTarget::Resource(name) => {
            TestTarget::Resource(names.resources.id(&name, || at("target/resource"))?)
        }
        NamedTestTarget::Flow(flow) => TestTarget::Flow(flow),
    };
    Ok(PolicyTestWrite { name, subject, target, facts, expect })
}
