//! Policy tests: who must reach what, and must not.

use std::net::IpAddr;

use serde::{Deserialize, Serialize};

use crate::{
    api::{AccessDifference, Explanation},
    id::{DeviceId, GroupId, PolicyTestId, ResourceId, UserId},
    port::Protocol,
    timestamp::Timestamp,
};

/// A statement about the policies that must hold after every change.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct PolicyTest {
    /// Names the test for ever.
    pub id: PolicyTestId,
    /// For people; unique.
    pub name: String,
    /// Who.
    pub subject: TestSubject,
    /// What.
    pub target: TestTarget,
    /// What is known of the subject and of the moment.
    pub facts: TestFacts,
    /// Whether the flow must be let through.
    pub expect: Expectation,
    /// When it was created.
    pub created_at: Timestamp,
    /// When it was last changed.
    pub updated_at: Timestamp,
}

/// What is sent to create or replace a policy test.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(deny_unknown_fields)]
pub struct PolicyTestWrite {
    /// Unique, 1 to 100 characters.
    #[cfg_attr(feature = "openapi", schema(min_length = 1, max_length = 100))]
    pub name: String,
    /// Who.
    pub subject: TestSubject,
    /// What.
    pub target: TestTarget,
    /// What is known of the subject and of the moment.
    #[serde(default)]
    pub facts: TestFacts,
    /// Whether the flow must be let through.
    pub expect: Expectation,
}

/// Whom a policy test is about.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(rename_all = "lowercase")]
pub enum TestSubject {
    /// A user in all the user's groups, on a device that no policy names.
    User(UserId),
    /// Somebody in this group and in no other.
    Group(GroupId),
    /// A device of its user.
    Device(DeviceId),
}

/// What a policy test wants to reach.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(rename_all = "lowercase")]
pub enum TestTarget {
    /// A resource, wherever it is.
    Resource(ResourceId),
    /// Whatever resource is found there.
    Flow(TestFlow),
}

/// Where a flow goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(deny_unknown_fields)]
pub struct TestFlow {
    /// To which address.
    #[cfg_attr(feature = "openapi", schema(value_type = String, examples("10.9.0.2")))]
    pub destination: IpAddr,
    /// To which port; of no account for ICMP.
    #[serde(default)]
    pub port: u16,
    /// By which protocol.
    pub protocol: Protocol,
}

/// What is known of the subject and of the moment. The rest is not known, and held against it.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(deny_unknown_fields, default)]
pub struct TestFacts {
    /// Posture labels that the device bears, at most 50.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    #[cfg_attr(feature = "openapi", schema(max_items = 50))]
    pub posture: Vec<String>,
    /// When it happens; absent, at the time of the run.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub time: Option<Timestamp>,
    /// The outer address of the device.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[cfg_attr(feature = "openapi", schema(value_type = Option<String>, examples("192.0.2.7")))]
    pub source: Option<IpAddr>,
    /// How long ago the user signed in, in seconds.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[cfg_attr(feature = "openapi", schema(maximum = 315_360_000))]
    pub authenticated_ago_s: Option<u64>,
    /// By which methods the user signed in: just now, unless it is said how long ago.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    #[cfg_attr(feature = "openapi", schema(max_items = 20))]
    pub authentication_methods: Vec<String>,
}

/// What a policy test expects.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(rename_all = "lowercase")]
pub enum Expectation {
    /// The flow is let through.
    Allow,
    /// It is not.
    Deny,
}

/// The outcome of all policy tests.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct PolicyTestRun {
    /// How many tests were run.
    pub run: u64,
    /// Those that do not hold.
    pub failed: Vec<FailedPolicyTest>,
}

/// A policy test that does not hold.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct FailedPolicyTest {
    /// The name of the test.
    pub name: String,
    /// What it expects.
    pub expect: Expectation,
    /// What is decided instead, and by what; policies that do not speak of the subject are left
    /// out.
    pub explanation: Explanation,
}

/// What a change of policies would bring.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct PolicyDryRun {
    /// Who would gain and who would lose access.
    pub difference: AccessDifference,
    /// The policy tests as they would come out; the change is refused when it makes one fail.
    pub tests: PolicyTestRun,
}
