//! Policies, resources and subjects to start from.

use std::time::Duration;

use adit_proto::{
    DeviceId, GroupId, PolicyId, Protocol, ResourceId, SiteId, Timestamp, UserId,
    api::{Conditions, Effect, Policy, Resource, ResourceSelector, SubjectSelector},
};
use uuid::Uuid;

use crate::{Authentication, Denial, Destination, Evaluator, Subject};

pub(crate) fn now() -> Timestamp {
    Timestamp::from_millis(1_767_225_600_123)
}

pub(crate) fn device_id(number: u128) -> DeviceId {
    DeviceId::from_uuid(Uuid::from_u128(number))
}

pub(crate) fn group_id(number: u128) -> GroupId {
    GroupId::from_uuid(Uuid::from_u128(number))
}

pub(crate) fn policy_id(number: u128) -> PolicyId {
    PolicyId::from_uuid(Uuid::from_u128(number))
}

pub(crate) fn resource_id(number: u128) -> ResourceId {
    ResourceId::from_uuid(Uuid::from_u128(number))
}

pub(crate) fn user_id(number: u128) -> UserId {
    UserId::from_uuid(Uuid::from_u128(number))
}

/// Device 1 of user 1 in group 1, from 192.0.2.1, who signed in by password an hour ago.
pub(crate) fn subject() -> Subject {
    Subject {
        device_id: device_id(1),
        user_id: user_id(1),
        groups: vec![group_id(1)],
        posture: vec![],
        source: Some("192.0.2.1".parse().unwrap()),
        authentication: Some(signed_in(3600)),
        expires_at: Some(now().saturating_add(Duration::from_secs(3600))),
    }
}

/// By password, so many seconds ago.
pub(super) fn signed_in(ago_s: u64) -> Authentication {
    Authentication {
        at: now().saturating_sub(Duration::from_secs(ago_s)),
        methods: vec!["pwd".to_owned()],
    }
}

/// Everyone may reach everything.
pub(crate) fn permit(number: u128) -> Policy {
    policy(number, Effect::Permit)
}

/// Nobody may reach anything.
pub(crate) fn forbid(number: u128) -> Policy {
    policy(number, Effect::Forbid)
}

fn policy(number: u128, effect: Effect) -> Policy {
    Policy {
        id: policy_id(number),
        name: format!("policy {number}"),
        effect,
        subjects: SubjectSelector { everyone: true, ..SubjectSelector::default() },
        resources: ResourceSelector { all: true, ..ResourceSelector::default() },
        conditions: Conditions::default(),
        disabled: false,
        created_at: now(),
        updated_at: now(),
    }
}

pub(crate) fn device_only(number: u128) -> SubjectSelector {
    SubjectSelector { devices: vec![device_id(number)], ..SubjectSelector::default() }
}

pub(crate) fn resource(number: u128, prefix: &str) -> Resource {
    Resource {
        id: resource_id(number),
        name: format!("resource {number}"),
        site_id: SiteId::from_uuid(Uuid::from_u128(1)),
        addresses: vec![prefix.parse().unwrap()],
        filters: vec![],
        tags: vec![],
        created_at: now(),
        updated_at: now(),
    }
}

pub(crate) fn tcp(address: &str, port: u16) -> Destination {
    Destination { address: address.parse().unwrap(), port, protocol: Protocol::Tcp }
}

pub(crate) fn udp(address: &str, port: u16) -> Destination {
    Destination { protocol: Protocol::Udp, ..tcp(address, port) }
}

pub(crate) fn icmp(address: &str) -> Destination {
    Destination { protocol: Protocol::Icmp, ..tcp(address, 0) }
}

pub(crate) fn denied(evaluator: &Evaluator, subject: &Subject, address: &str) -> Denial {
    evaluator.evaluate(subject, &tcp(address, 443), now()).unwrap_err()
}
