//! What a policy or resource must be like to be written.

use adit_proto::{
    Protocol,
    api::{
        Conditions, PolicyWrite, PortFilter, ResourceSelector, ResourceWrite, SubjectSelector,
        TimeWindow, Weekday,
    },
};
use cedar_policy::PolicySet;
use ipnet::IpNet;

use crate::{compile::to_cedar, schema::violation, time_window::zone};

const MAX_NAME_LEN: usize = 100;
const MAX_LABEL_LEN: usize = 63;
const MAX_SELECTED: usize = 1000;
const MAX_POSTURE: usize = 50;
const MAX_SOURCE_NETWORKS: usize = 100;
const MAX_AUTHENTICATED_WITHIN_S: u64 = 31_536_000;
const MAX_AUTHENTICATION_METHODS: usize = 20;
const MAX_TIME_WINDOWS: usize = 20;
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
    let Conditions {
        posture,
        source_networks,
        authenticated_within_s,
        authentication_methods,
        time_windows,
        // One in the past keeps what it was written for.
        expires_at: _,
    } = conditions;
    labels("/conditions/posture", posture, MAX_POSTURE)?;
    networks("/conditions/source_networks", source_networks, MAX_SOURCE_NETWORKS)?;
    ensure(
        authenticated_within_s.is_none_or(|it| (1..=MAX_AUTHENTICATED_WITHIN_S).contains(&it)),
        "/conditions/authenticated_within_s",
        format!("expected 1 to {MAX_AUTHENTICATED_WITHIN_S} seconds"),
    )?;
    let methods = "/conditions/authentication_methods";
    labels(methods, authentication_methods, MAX_AUTHENTICATION_METHODS)?;
    self::time_windows(time_windows)
}

fn time_windows(windows: &[TimeWindow]) -> Result<(), Fault> {
    at_most("/conditions/time_windows", windows.len(), MAX_TIME_WINDOWS)?;
    for (place, TimeWindow { days, time_zone, .. }) in windows.iter().enumerate() {
        let field = format!("/conditions/time_windows/{place}");
        at_most(&format!("{field}/days"), days.len(), Weekday::ALL.len())?;
        ensure(
            zone(time_zone).is_some(),
            &format!("{field}/time_zone"),
            "expected a name of the IANA time zone database, such as Europe/Berlin or UTC",
        )?;
    }
    Ok(())
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

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value, json};

    fn policy_field(change: Value) -> Option<String> {
        let mut policy = json!({
            "name": "engineers reach databases",
            "effect": "permit",
            "subjects": {"groups": ["grp_00000000000000000000000000000001"]},
            "resources": {"tags": ["db"]},
        });
        merge(&mut policy, change);
        let policy: PolicyWrite = serde_json::from_value(policy).unwrap();
        validate_policy(&policy).err().map(|error| error.field)
    }

    fn resource_field(change: Value) -> Option<String> {
        let mut resource = json!({
            "name": "database",
            "site_id": "site_00000000000000000000000000000001",
            "addresses": ["10.9.0.0/24"],
        });
        merge(&mut resource, change);
        let resource: ResourceWrite = serde_json::from_value(resource).unwrap();
        validate_resource(&resource).err().map(|error| error.field)
    }

    fn merge(into: &mut Value, change: Value) {
        let change = change.as_object().unwrap().clone();
        into.as_object_mut().unwrap().extend(change);
    }

    #[test]
    fn a_policy_within_every_bound_is_accepted() {
        assert_eq!(policy_field(json!({})), None);
        let widest = json!({
            "name": "é".repeat(100),
            "subjects": {"users": vec!["usr_00000000000000000000000000000001"; 1000]},
            "resources": {"tags": vec!["a".repeat(63); 1000]},
            "conditions": {
                "posture": vec!["os:linux-6.1_x"; 50],
                "source_networks": vec!["10.0.0.0/8"; 100],
                "authenticated_within_s": 31_536_000,
                "authentication_methods": vec!["mfa"; 20],
                "time_windows": vec![json!({"time_zone": "Asia/Kathmandu"}); 20],
                "expires_at": "2020-01-01T00:00:00Z",
            },
        });
        assert_eq!(policy_field(widest), None);
    }

    #[test]
    fn a_name_has_1_to_100_characters_and_none_of_control() {
        for name in [String::new(), "x".repeat(101), "two\nlines".to_owned(), "\u{7f}".to_owned()] {
            assert_eq!(policy_field(json!({"name": name})).as_deref(), Some("/name"));
            assert_eq!(resource_field(json!({"name": name})).as_deref(), Some("/name"));
        }
    }

    #[test]
    fn a_policy_names_everyone_or_somebody() {
        let user = "usr_00000000000000000000000000000001";
        for subjects in [json!({}), json!({"everyone": true, "users": [user]})] {
            assert_eq!(policy_field(json!({"subjects": subjects})).as_deref(), Some("/subjects"));
        }
        let many = json!({"users": vec![user; 1001]});
        assert_eq!(policy_field(json!({"subjects": many})).as_deref(), Some("/subjects/users"));
    }

    #[test]
    fn a_policy_names_all_resources_or_some() {
        for (resources, field) in [
            (json!({}), "/resources"),
            (json!({"all": true, "tags": ["db"]}), "/resources"),
            (json!({"tags": ["db", "Db"]}), "/resources/tags/1"),
            (json!({"tags": ["a b"]}), "/resources/tags/0"),
            (json!({"tags": [""]}), "/resources/tags/0"),
            (json!({"tags": ["a".repeat(64)]}), "/resources/tags/0"),
            (json!({"tags": vec!["a"; 1001]}), "/resources/tags"),
        ] {
            assert_eq!(policy_field(json!({"resources": resources})).as_deref(), Some(field));
        }
    }

    #[test]
    fn a_condition_outside_its_bounds_is_refused() {
        for (conditions, field) in [
            (json!({"posture": vec!["a"; 51]}), "/conditions/posture"),
            (json!({"posture": ["a", "é"]}), "/conditions/posture/1"),
            (json!({"source_networks": vec!["::/0"; 101]}), "/conditions/source_networks"),
            (json!({"source_networks": ["10.0.0.1/8"]}), "/conditions/source_networks/0"),
            (json!({"authenticated_within_s": 0}), "/conditions/authenticated_within_s"),
            (json!({"authenticated_within_s": 31_536_001}), "/conditions/authenticated_within_s"),
            (
                json!({"authentication_methods": vec!["a"; 21]}),
                "/conditions/authentication_methods",
            ),
            (json!({"authentication_methods": ["MFA"]}), "/conditions/authentication_methods/0"),
            (
                json!({"time_windows": vec![json!({"time_zone": "UTC"}); 21]}),
                "/conditions/time_windows",
            ),
            (
                json!({"time_windows": [{"time_zone": "UTC"}, {"time_zone": "Mars/Base"}]}),
                "/conditions/time_windows/1/time_zone",
            ),
            (
                json!({"time_windows": [{"time_zone": "UTC", "days": vec!["mon"; 8]}]}),
                "/conditions/time_windows/0/days",
            ),
        ] {
            assert_eq!(policy_field(json!({"conditions": conditions})).as_deref(), Some(field));
        }
    }

    #[test]
    fn a_resource_outside_its_bounds_is_refused() {
        for (change, field) in [
            (json!({"addresses": []}), "/addresses"),
            (json!({"addresses": vec!["10.0.0.0/8"; 101]}), "/addresses"),
            (json!({"addresses": ["10.0.0.0/8", "fd00::1/64"]}), "/addresses/1"),
            (json!({"filters": vec![json!({"protocol": "tcp"}); 51]}), "/filters"),
            (
                json!({"filters": [{"protocol": "tcp", "ports": vec!["1"; 101]}]}),
                "/filters/0/ports",
            ),
            (
                json!({"filters": [{"protocol": "tcp"}, {"protocol": "icmp", "ports": ["8"]}]}),
                "/filters/1/ports",
            ),
            (json!({"tags": vec!["a"; 51]}), "/tags"),
            (json!({"tags": ["prod!"]}), "/tags/0"),
        ] {
            assert_eq!(resource_field(change).as_deref(), Some(field));
        }
    }

    #[test]
    fn the_message_says_what_to_write() {
        let resource: ResourceWrite = serde_json::from_value(json!({
            "name": "database",
            "site_id": "site_00000000000000000000000000000001",
            "addresses": ["10.9.0.2/24"],
        }))
        .unwrap();
        let error = validate_resource(&resource).unwrap_err();
        assert!(error.message.contains("write 10.9.0.0/24"), "{error}");
    }
}
