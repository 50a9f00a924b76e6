//! All policies and policy tests as one document that people can read: objects go by their names.

use serde::{Deserialize, Serialize, Serializer};
use serde_json::Value;

use crate::api::{Conditions, Effect, Expectation, PolicyDryRun, TestFacts, TestFlow};

/// All policies and their tests, ordered by name.
///
/// Users, groups, devices and resources go by their names, or by their ids where a name would not
/// do.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(deny_unknown_fields)]
pub struct PolicySet {
    /// Every policy, at most 10,000.
    #[cfg_attr(feature = "openapi", schema(max_items = 10_000))]
    pub policies: Vec<PolicyEntry>,
    /// Every policy test, at most 10,000.
    #[serde(default)]
    #[cfg_attr(feature = "openapi", schema(max_items = 10_000))]
    pub tests: Vec<PolicyTestEntry>,
}

/// A policy in a policy set.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(deny_unknown_fields)]
pub struct PolicyEntry {
    /// Unique, 1 to 100 characters; a policy with another name is another policy.
    #[cfg_attr(feature = "openapi", schema(min_length = 1, max_length = 100))]
    pub name: String,
    /// Permit or forbid.
    pub effect: Effect,
    /// Who.
    pub subjects: NamedSubjects,
    /// What.
    pub resources: NamedResources,
    /// When; absent means always.
    #[serde(default, skip_serializing_if = "is_default", serialize_with = "sparsely")]
    pub conditions: Conditions,
    /// A disabled policy has no effect.
    #[serde(default, skip_serializing_if = "is_default")]
    pub disabled: bool,
}

/// Who: everyone, or those who are any one of these.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(deny_unknown_fields, default)]
pub struct NamedSubjects {
    /// Every user, and the lists stay empty.
    #[serde(skip_serializing_if = "is_default")]
    pub everyone: bool,
    /// Users by name or id.
    #[serde(skip_serializing_if = "is_default")]
    #[cfg_attr(feature = "openapi", schema(max_items = 1000))]
    pub users: Vec<String>,
    /// Groups by name or id.
    #[serde(skip_serializing_if = "is_default")]
    #[cfg_attr(feature = "openapi", schema(max_items = 1000))]
    pub groups: Vec<String>,
    /// Devices by name or id.
    #[serde(skip_serializing_if = "is_default")]
    #[cfg_attr(feature = "openapi", schema(max_items = 1000))]
    pub devices: Vec<String>,
}

/// What: all resources, or those that are any one of these.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(deny_unknown_fields, default)]
pub struct NamedResources {
    /// Every resource, and the lists stay empty.
    #[serde(skip_serializing_if = "is_default")]
    pub all: bool,
    /// Resources by name or id.
    #[serde(skip_serializing_if = "is_default")]
    #[cfg_attr(feature = "openapi", schema(max_items = 1000))]
    pub names: Vec<String>,
    /// Resources that bear any of these tags.
    #[serde(skip_serializing_if = "is_default")]
    #[cfg_attr(feature = "openapi", schema(max_items = 1000))]
    pub tags: Vec<String>,
}

/// A policy test in a policy set.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(deny_unknown_fields)]
pub struct PolicyTestEntry {
    /// Unique, 1 to 100 characters; a test with another name is another test.
    #[cfg_attr(feature = "openapi", schema(min_length = 1, max_length = 100))]
    pub name: String,
    /// Who.
    pub subject: NamedTestSubject,
    /// What.
    pub target: NamedTestTarget,
    /// What is known of the subject and of the moment.
    #[serde(default, skip_serializing_if = "is_default")]
    pub facts: TestFacts,
    /// Whether the flow must be let through.
    pub expect: Expectation,
}

/// Whom a policy test is about, by name or id.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(rename_all = "lowercase")]
pub enum NamedTestSubject {
    /// A user in all the user's groups, on a device that no policy names.
    User(String),
    /// Somebody in this group and in no other.
    Group(String),
    /// A device of its user.
    Device(String),
}

/// What a policy test wants to reach.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(rename_all = "lowercase")]
pub enum NamedTestTarget {
    /// A resource by name or id, wherever it is.
    Resource(String),
    /// Whatever resource is found there.
    Flow(TestFlow),
}

/// What writing a policy set has done, or would do.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct PolicySetChange {
    /// The version of the policy set after it; of a dry run, before it.
    pub version: u64,
    /// Of the policies.
    pub policies: SetChanges,
    /// Of the policy tests.
    pub tests: SetChanges,
    /// Access and tests; of a dry run alone.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub dry_run: Option<PolicyDryRun>,
}

/// The names of what is created, changed and deleted.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct SetChanges {
    /// Were not there before.
    pub created: Vec<String>,
    /// Become others.
    pub changed: Vec<String>,
    /// Are there no more.
    pub deleted: Vec<String>,
}

impl SetChanges {
    /// Whether all stays as it is.
    pub const fn is_empty(&self) -> bool {
        self.created.is_empty() && self.changed.is_empty() && self.deleted.is_empty()
    }
}

fn is_default<T: Default + PartialEq>(value: &T) -> bool {
    *value == T::default()
}

/// Leaves out the members that nobody has written.
fn sparsely<S: Serializer>(conditions: &Conditions, serializer: S) -> Result<S::Ok, S::Error> {
    let mut members = serde_json::to_value(conditions).map_err(serde::ser::Error::custom)?;
    if let Value::Object(members) = &mut members {
        members.retain(|_name, value| {
            !value.is_null() && value.as_array().is_none_or(|array| !array.is_empty())
        });
    }
    members.serialize(serializer)
}
