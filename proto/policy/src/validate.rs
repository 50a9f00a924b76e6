//! What a policy or resource must be like to be written.

use adit_proto::{
    Protocol,
    api::{Conditions, PolicyWrite, PortFilter, ResourceSelector, ResourceWrite, SubjectSelector},
};
use cedar_policy::PolicySet;
use ipnet::IpNet;

use crate::{compile::to_cedar, schema::violation};

const MAX_NAME_LEN: usize = 100;
const MAX_LABEL_LEN: usize = 63;
const MAX_SELECTED: usize = 1000;
const MAX_POSTURE: usize = 50;
const MAX_SOURCE_NETWORKS: usize = 100;
const MAX_AUTHENTICATED_WITHIN_S: u64 = 31_536_000;
const MAX_ADDRESSES: usize = 100;
const MAX_FILTERS: usize = 50;
const MAX_PORTS: usize = 100;
const MAX_TAGS: usize = 50;

/// Why a policy is refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{field}: {message}")]
pub struct InvalidPolicy {
    /// Where, as a JSON pointer (RFC 6901).
    pub field: String,
    /// What is wrong.
    pub message: String,
}

/// Why a resource is refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{field}: {message}")]
pub struct InvalidResource {
    /// Where, as a JSON pointer (RFC 6901).
    pub field: String,
    /// What is wrong.
    pub message: String,
}

/// Checks a policy that someone wants to write.
///
/// # Errors
///
/// [`InvalidPolicy`] says what is wrong and where.
pub fn validate_policy(policy: &PolicyWrite) -> Result<(), InvalidPolicy> {
    policy_fault(policy).map_err(|Fault { field, message }| InvalidPolicy { field, message })
}

/// Checks a resource that someone wants to write.
///
/// # Errors
///
/// [`InvalidResource`] says what is wrong and where.
pub fn validate_resource(resource: &ResourceWrite) -> Result<(), InvalidResource> {
    resource_fault(resource).map_err(|Fault { field, message }| InvalidResource { field, message })
}

struct Fault {
    field: String,
    message: String,
}

fn ensure(holds: bool, field: &str, message: impl Into<String>) -> Result<(), Fault> {
    if holds { Ok(()) } else { Err(Fault { field: field.to_owned(), message: message.into() }) }
}

fn policy_fault(policy: &PolicyWrite) -> Result<(), Fault> {
    name(&policy.name)?;
    subjects(&policy.subjects)?;
    resources(&policy.resources)?;
    conditions(&policy.conditions)?;
    cedar(policy)
}

fn resource_fault(resource: &ResourceWrite) -> Result<(), Fault> {
    name(&resource.name)?;
    ensure(!resource.addresses.is_empty(), "/addresses", "expected at least one prefix")?;
    networks("/addresses", &resource.addresses, MAX_ADDRESSES)?;
    filters(&resource.filters)?;
    labels("/tags", &resource.tags, MAX_TAGS)
}

fn name(name: &str) -> Result<(), Fault> {
    let len = name.chars().count();
    ensure((1..=MAX_NAME_LEN).contains(&len), "/name", "expected 1 to 100 characters")?;
    ensure(!name.chars().any(char::is_control), "/name", "expected no control characters")
}

fn subjects(subjects: &SubjectSelector) -> Result<(), Fault> {
    let SubjectSelector { everyone, users, groups, devices } = subjects;
    at_most("/subjects/users", users.len(), MAX_SELECTED)?;
    at_most("/subjects/groups", groups.len(), MAX_SELECTED)?;
    at_most("/subjects/devices", devices.len(), MAX_SELECTED)?;
    let listed = !(users.is_empty() && groups.is_empty() && devices.is_empty());
    ensure(
        *everyone != listed,
        "/subjects",
        "expected either everyone, or at least one user, group or device",
    )
}

fn resources(resources: &ResourceSelector) -> Result<(), Fault> {
    let ResourceSelector { all, ids, tags } = resources;
    at_most("/resources/ids", ids.len(), MAX_SELECTED)?;
    labels("/resources/tags", tags, MAX_SELECTED)?;
    let listed = !(ids.is_empty() && tags.is_empty());
    ensure(*all != listed, "/resources", "expected either all, or at least one id or tag")
}

fn conditions(conditions: &Conditions) -> Result<(), Fault> {
    let Conditions { posture, source_networks, authenticated_within_s } = conditions;
    labels("/conditions/posture", posture, MAX_POSTURE)?;
    networks("/conditions/source_networks", source_networks, MAX_SOURCE_NETWORKS)?;
    ensure(
        authenticated_within_s.is_none_or(|it| (1..=MAX_AUTHENTICATED_WITHIN_S).contains(&it)),
        "/conditions/authenticated_within_s",
        format!("expected 1 to {MAX_AUTHENTICATED_WITHIN_S} seconds"),
    )
}

/// The checks above leave nothing for the schema to find; should they, nothing wrong is stored.
fn cedar(policy: &PolicyWrite) -> Result<(), Fault> {
    let whole = |message| Fault { field: String::new(), message };
    let cedar =
        to_cedar("policy", policy.effect, &policy.subjects, &policy.resources, &policy.conditions)
            .map_err(|error| whole(error.to_string()))?;
    let policies = PolicySet::from_policies([cedar]).map_err(|error| whole(error.to_string()))?;
    match violation(&policies) {
        Some(violation) => Err(whole(violation.to_string())),
        None => Ok(()),
    }
}

fn filters(filters: &[PortFilter]) -> Result<(), Fault> {
    at_most("/filters", filters.len(), MAX_FILTERS)?;
    for (place, filter) in filters.iter().enumerate() {
        let field = format!("/filters/{place}/ports");
        at_most(&field, filter.ports.len(), MAX_PORTS)?;
        ensure(
            filter.protocol != Protocol::Icmp || filter.ports.is_empty(),
            &field,
            "expected no ports, since icmp has none",
        )?;
    }
    Ok(())
}

fn networks(field: &str, networks: &[IpNet], most: usize) -> Result<(), Fault> {
    at_most(field, networks.len(), most)?;
    for (place, network) in networks.iter().enumerate() {
        let field = format!("{field}/{place}");
        let without = network.trunc();
        ensure(
            *network == without,
            &field,
            format!(
                "expected no host bits: write {without}, or a single address with its full length"
            ),
        )?;
    }
    Ok(())
}

fn labels(field: &str, labels: &[String], most: usize) -> Result<(), Fault> {
    at_most(field, labels.len(), most)?;
    for (place, label) in labels.iter().enumerate() {
        let allowed = |byte: u8| {
            byte.is_ascii_lowercase() || byte.is_ascii_digit() || b"._:-".contains(&byte)
        };
        ensure(
            (1..=MAX_LABEL_LEN).contains(&label.len()) && label.bytes().all(allowed),
            &format!("{field}/{place}"),
            "expected 1 to 63 of `a-z 0-9 . _ : -`",
        )?;
    }
    Ok(())
}

fn at_most(field: &str, len: usize, most: usize) -> Result<(), Fault> {
    ensure(len <= most, field, format!("expected at most {most} items"))
}
