//! Policy tests.

use std::time::{Duration, SystemTime};

use adit_policy::{Authentication, Destination, Evaluator, Subject};
use adit_proto::{
    DeviceId, PolicyTestId, Timestamp, UserId,
    api::{
        Check, Expectation, Explanation, FailedPolicyTest, PolicyTest, PolicyTestRun,
        PolicyTestWrite, TestFacts, TestSubject, TestTarget,
    },
};
use sqlx::SqliteConnection;
use uuid::Uuid;

use crate::{
    app::{App, consequence::check_tests, evaluation, policy_version, random, validate},
    error::ApiError,
    store::{Actor, Change, Created, Versioned, devices, groups, policy_tests, resources, users},
};

/// Ten years.
const MAX_AUTHENTICATED_AGO_S: u64 = 315_360_000;
const MAX_POSTURE: usize = 50;
const MAX_METHODS: usize = 20;

/// Creates a test, which must hold.
pub(crate) async fn create(
    app: &App,
    actor: Actor,
    write: PolicyTestWrite,
    reason: Option<&str>,
) -> Result<Created, ApiError> {
    check(&write)?;
    let mut change = app.store.begin_change(actor).await?;
    check_references(&mut change, &write).await?;
    let now = change.now();
    let id = PolicyTestId::from_uuid(random::new_uuid(now)?);
    let test = Versioned { version: 1, object: as_written(id, write.clone(), now, now) };
    policy_tests::insert(&mut change, &test).await?;
    check_tests(app, &mut change).await?;
    policy_version::record(&mut change, "policy-test.create", reason, id, Some(&write)).await?;
    let created = Created::new("/v1/policy-tests", id, &test.object);
    let operation = "policy-test.create";
    Ok(change.commit_creation_unannounced(operation, id, &test.object, created).await?)
}

/// Replaces a test by one that must hold; `matches` judges the version that is there.
pub(crate) async fn replace(
    app: &App,
    actor: Actor,
    id: PolicyTestId,
    write: PolicyTestWrite,
    reason: Option<&str>,
    matches: impl FnOnce(u64) -> Result<(), ApiError>,
) -> Result<Versioned<PolicyTest>, ApiError> {
    check(&write)?;
    let mut change = app.store.begin_change(actor).await?;
    let held = policy_tests::find(change.connection(), id).await?;
    let held = held.ok_or_else(ApiError::not_found)?;
    matches(held.version)?;
    check_references(&mut change, &write).await?;
    let test = Versioned {
        version: held.version + 1,
        object: as_written(id, write.clone(), held.object.created_at, change.now()),
    };
    policy_tests::remove(&mut change, id).await?;
    policy_tests::insert(&mut change, &test).await?;
    check_tests(app, &mut change).await?;
    policy_version::record(&mut change, "policy-test.replace", reason, id, Some(&write)).await?;
    change.commit_unannounced("policy-test.replace", id, Some(&test.object)).await?;
    Ok(test)
}

pub(crate) async fn remove(
    app: &App,
    actor: Actor,
    id: PolicyTestId,
    reason: Option<&str>,
    matches: impl FnOnce(u64) -> Result<(), ApiError>,
) -> Result<(), ApiError> {
    let mut change = app.store.begin_change(actor).await?;
    let held = policy_tests::find(change.connection(), id).await?;
    matches(held.ok_or_else(ApiError::not_found)?.version)?;
    policy_tests::remove(&mut change, id).await?;
    let nothing = None::<&PolicyTest>;
    policy_version::record(&mut change, "policy-test.delete", reason, id, nothing).await?;
    change.commit_unannounced("policy-test.delete", id, nothing).await?;
    Ok(())
}

/// Runs every test against the policies of this moment.
pub(crate) async fn run(app: &App) -> Result<PolicyTestRun, ApiError> {
    let mut snapshot = app.store.snapshot().await?;
    let evaluator = evaluation::current(app, &mut snapshot).await?.evaluator;
    let tests = policy_tests::all(&mut snapshot).await?;
    let run = tests.len() as u64;
    let now = SystemTime::now().into();
    let failed = failing(&mut snapshot, &evaluator, tests, now).await?;
    Ok(PolicyTestRun { run, failed: failed.into_iter().map(Into::into).collect() })
}

/// A test that does not hold, and why.
#[derive(Debug)]
pub(crate) struct Failed {
    pub(crate) test: PolicyTest,
    explanation: Explanation,
}

impl From<Failed> for FailedPolicyTest {
    fn from(Failed { test, mut explanation }: Failed) -> Self {
        let others = [Check::SubjectOther, Check::GroupsMissing];
        explanation.trace.retain(|policy| !policy.checks.iter().any(|it| others.contains(it)));
        Self { name: test.name, expect: test.expect, explanation }
    }
}

/// The tests that do not hold, among users, groups and devices as `connection` sees them.
pub(crate) async fn failing(
    connection: &mut SqliteConnection,
    evaluator: &Evaluator,
    tests: Vec<Versioned<PolicyTest>>,
    now: Timestamp,
) -> Result<Vec<Failed>, ApiError> {
    let mut failed = Vec::new();
    for Versioned { object: test, .. } in tests {
        let at = test.facts.time.unwrap_or(now);
        let subject = subject(connection, &test, at).await?;
        let expects = match test.expect {
            Expectation::Allow => true,
            Expectation::Deny => false,
        };
        let target = match test.target {
            TestTarget::Resource(id) => Ok(id),
            TestTarget::Flow(flow) => Err(Destination {
                address: flow.destination,
                port: flow.port,
                protocol: flow.protocol,
            }),
        };
        let allowed = match &target {
            Ok(resource_id) => evaluator.allows_resource(&subject, *resource_id, at),
            Err(destination) => evaluator.evaluate(&subject, destination, at).is_ok(),
        };
        if allowed != expects {
            let explanation = match &target {
                Ok(resource_id) => evaluator.explain_resource(&subject, *resource_id, at),
                Err(destination) => evaluator.explain(&subject, destination, at),
            };
            failed.push(Failed { test, explanation });
        }
    }
    Ok(failed)
}

async fn subject(
    connection: &mut SqliteConnection,
    test: &PolicyTest,
    at: Timestamp,
) -> Result<Subject, ApiError> {
    let nobody = (DeviceId::from_uuid(Uuid::nil()), UserId::from_uuid(Uuid::nil()));
    let (device_id, user_id, groups) = match test.subject {
        TestSubject::User(id) => (nobody.0, id, groups::of_user(connection, id).await?),
        TestSubject::Group(id) => (nobody.0, nobody.1, vec![id]),
        TestSubject::Device(id) => match devices::find(&mut *connection, id).await? {
            Some(record) => {
                let user_id = record.device.user_id;
                (id, user_id, groups::of_user(connection, user_id).await?)
            }
            None => (id, nobody.1, Vec::new()),
        },
    };
    let TestFacts { posture, source, authenticated_ago_s, authentication_methods, .. } =
        &test.facts;
    let just_now = (!authentication_methods.is_empty()).then_some(0);
    Ok(Subject {
        device_id,
        user_id,
        groups,
        posture: posture.clone(),
        source: *source,
        authentication: authenticated_ago_s.or(just_now).map(|ago| Authentication {
            at: at.saturating_sub(Duration::from_secs(ago)),
            methods: authentication_methods.clone(),
        }),
        expires_at: None,
    })
}

pub(crate) fn check(write: &PolicyTestWrite) -> Result<(), ApiError> {
    validate::name(&write.name)?;
    let TestFacts { posture, authenticated_ago_s, authentication_methods, .. } = &write.facts;
    if authentication_methods.len() > MAX_METHODS {
        let detail = format!("It has at most {MAX_METHODS} methods.");
        return Err(ApiError::invalid("/facts/authentication_methods", detail));
    }
    if posture.len() > MAX_POSTURE {
        let detail = format!("It has at most {MAX_POSTURE} labels.");
        return Err(ApiError::invalid("/facts/posture", detail));
    }
    for (place, label) in posture.iter().enumerate() {
        validate::text(&format!("/facts/posture/{place}"), label, 63)?;
    }
    match authenticated_ago_s {
        Some(ago) => {
            validate::within("/facts/authenticated_ago_s", *ago, 0..=MAX_AUTHENTICATED_AGO_S)
        }
        None => Ok(()),
    }
}

pub(crate) async fn check_references(
    change: &mut Change,
    write: &PolicyTestWrite,
) -> Result<(), ApiError> {
    let connection = change.connection();
    let (is_there, field) = match write.subject {
        TestSubject::User(id) => (users::find(connection, id).await?.is_some(), "/subject/user"),
        TestSubject::Group(id) => (groups::find(connection, id).await?.is_some(), "/subject/group"),
        TestSubject::Device(id) => {
            (devices::find(connection, id).await?.is_some(), "/subject/device")
        }
    };
    if !is_there {
        return Err(ApiError::invalid(field, "There is no such object; check the id."));
    }
    match write.target {
        TestTarget::Resource(id) if resources::find(change.connection(), id).await?.is_none() => {
            let detail = "There is no such resource; check the id.";
            Err(ApiError::invalid("/target/resource", detail))
        }
        TestTarget::Resource(_) | TestTarget::Flow(_) => Ok(()),
    }
}

/// The test that someone wants to have.
pub(crate) fn as_written(
    id: PolicyTestId,
    write: PolicyTestWrite,
    created_at: Timestamp,
    updated_at: Timestamp,
) -> PolicyTest {
    let PolicyTestWrite { name, subject, target, facts, expect } = write;
    PolicyTest { id, name, subject, target, facts, expect, created_at, updated_at }
}

/// What one would write to have this test.
pub(crate) fn to_write(test: PolicyTest) -> PolicyTestWrite {
    let PolicyTest { name, subject, target, facts, expect, .. } = test;
    PolicyTestWrite { name, subject, target, facts, expect }
}
