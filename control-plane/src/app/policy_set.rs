//! All policies and policy tests at once: as a document, replaced as a whole, brought back.

mod document;

use std::{collections::HashMap, fmt::Display, hash::Hash};

use adit_proto::{
    PolicyId, PolicyTestId, Timestamp,
    api::{
        Policy, PolicySet, PolicySetChange, PolicyTest, PolicyTestWrite, PolicyVersionContent,
        PolicyWrite, SetChanges,
    },
};
use serde::Serialize;
use serde_json::{Value, json};
use sqlx::SqliteConnection;

use crate::{
    app::{
        App,
        consequence::{check_tests, foresee},
        policies::{self as policy_rules, Intent},
        policy_names::Names,
        policy_tests as test_rules, policy_version,
    },
    error::ApiError,
    store::{
        Actor, Change, Versioned, policies,
        policy_history::{self, Content},
        policy_tests,
    },
};

/// The policy set of this moment and its version.
pub(crate) async fn read(app: &App) -> Result<Versioned<PolicySet>, ApiError> {
    let mut snapshot = app.store.snapshot().await?;
    let held = Held::read(&mut snapshot).await?;
    let names = Names::read(&mut snapshot).await?;
    let version = policy_history::newest(&mut snapshot).await?;
    Ok(Versioned { version, object: document::write(held.into_content(), &names) })
}

/// The policy set of a version that is kept.
pub(crate) async fn read_version(
    app: &App,
    version: u64,
) -> Result<PolicyVersionContent, ApiError> {
    let mut snapshot = app.store.snapshot().await?;
    let found = policy_history::find(&mut snapshot, version).await?;
    let found = found.ok_or_else(ApiError::not_found)?;
    let content = policy_history::content(&mut snapshot, version).await?;
    let names = Names::read(&mut snapshot).await?;
    Ok(PolicyVersionContent { version: found, policy_set: document::write(content, &names) })
}

/// Makes the policies and tests those of a document; `matches` judges the version that is there.
pub(crate) async fn replace(
    app: &App,
    actor: Actor,
    set: PolicySet,
    intent: Intent,
    matches: impl FnOnce(u64) -> Result<(), ApiError>,
) -> Result<PolicySetChange, ApiError> {
    let mut change = app.store.begin_change(actor).await?;
    matches(policy_history::newest(change.connection()).await?)?;
    let held = Held::read(change.connection()).await?;
    let names = Names::read(change.connection()).await?;
    let content = document::read(set, &names, &held.ids(), change.now())?;
    for (place, (_id, write)) in content.policies.iter().enumerate() {
        policy_rules::check(write).map_err(|error| error.within(&format!("/policies/{place}")))?;
    }
    for (place, (_id, write)) in content.tests.iter().enumerate() {
        test_rules::check(write).map_err(|error| error.within(&format!("/tests/{place}")))?;
    }
    put(app, change, held, content, intent, "policy-set.replace").await
}

/// Makes the policies and tests those of a version; `matches` judges the version that is there.
pub(crate) async fn roll_back(
    app: &App,
    actor: Actor,
    version: u64,
    intent: Intent,
    matches: impl FnOnce(u64) -> Result<(), ApiError>,
) -> Result<PolicySetChange, ApiError> {
    let mut change = app.store.begin_change(actor).await?;
    let found = policy_history::find(change.connection(), version).await?;
    found.ok_or_else(ApiError::not_found)?;
    matches(policy_history::newest(change.connection()).await?)?;
    let content = policy_history::content(change.connection(), version).await?;
    for (_id, write) in &content.policies {
        let checked = match policy_rules::check(write) {
            Ok(()) => policy_rules::check_references(&mut change, write).await,
            Err(error) => Err(error),
        };
        checked.map_err(|error| outdated(error, version, &write.name, json!(write)))?;
    }
    for (_id, write) in &content.tests {
        let checked = match test_rules::check(write) {
            Ok(()) => test_rules::check_references(&mut change, write).await,
            Err(error) => Err(error),
        };
        checked.map_err(|error| outdated(error, version, &write.name, json!(write)))?;
    }
    let held = Held::read(change.connection()).await?;
    put(app, change, held, content, intent, "policy-set.rollback").await
}

/// What was right once is not any more: most often an object that is gone.
fn outdated(error: ApiError, version: u64, name: &str, object: Value) -> ApiError {
    let Some(field) = error.field.as_deref() else { return error };
    let value = object.pointer(field).and_then(Value::as_str).unwrap_or_default();
    ApiError::conflict(format!(
        "Version {version} cannot come back: `{name}` has `{value}` at {field}. {}",
        error.detail
    ))
}

/// Every policy and test as it is in the store.
#[derive(Debug)]
struct Held {
    policies: Vec<Versioned<Policy>>,
    tests: Vec<Versioned<PolicyTest>>,
}

impl Held {
    async fn read(connection: &mut SqliteConnection) -> Result<Self, ApiError> {
        Ok(Self {
            policies: policies::all(&mut *connection).await?,
            tests: policy_tests::all(connection).await?,
        })
    }

    fn ids(&self) -> document::Ids {
        let policies = self.policies.iter().map(|it| (it.object.name.clone(), it.object.id));
        let tests = self.tests.iter().map(|it| (it.object.name.clone(), it.object.id));
        document::Ids { policies: policies.collect(), tests: tests.collect() }
    }

    fn into_content(self) -> Content {
        let policies = self.policies.into_iter().map(|it| it.object);
        let tests = self.tests.into_iter().map(|it| it.object);
        Content {
            policies: policies.map(|it| (it.id, policy_rules::to_write(it))).collect(),
            tests: tests.map(|it| (it.id, test_rules::to_write(it))).collect(),
        }
    }
}

/// Writes what differs, as one version and with one line in the audit log.
async fn put(
    app: &App,
    mut change: Change,
    held: Held,
    content: Content,
    intent: Intent,
    operation: &'static str,
) -> Result<PolicySetChange, ApiError> {
    let policies = Plan::new(
        held.policies.into_iter().map(|it| {
            let (id, version, at) = (it.object.id, it.version, it.object.created_at);
            (id, (version, at, policy_rules::to_write(it.object)))
        }),
        content.policies,
        |one, other| document::sorted(one.clone()) == document::sorted(other.clone()),
    );
    let tests = Plan::new(
        held.tests.into_iter().map(|it| {
            let (id, version, at) = (it.object.id, it.version, it.object.created_at);
            (id, (version, at, test_rules::to_write(it.object)))
        }),
        content.tests,
        |one, other| one == other,
    );
    let mut answer = PolicySetChange {
        version: policy_history::newest(change.connection()).await?,
        policies: policies.summary(|write| &write.name),
        tests: tests.summary(|write| &write.name),
        dry_run: None,
    };
    if !intent.dry_run && answer.policies.is_empty() && answer.tests.is_empty() {
        return Ok(answer);
    }

    let reason = intent.reason.as_deref();
    let version = policy_version::begin(&mut change, operation, reason).await?;
    write_policies(&mut change, &policies).await?;
    policies.record(&mut change, version).await?;
    write_tests(&mut change, &tests).await?;
    tests.record(&mut change, version).await?;
    if intent.dry_run {
        answer.dry_run = Some(foresee(app, change).await?);
        return Ok(answer);
    }
    check_tests(app, &mut change).await?;
    answer.version = version;
    let object_id = format!("policy-set/{version}");
    let entry = json!({
        "version": version, "reason": reason, "policies": answer.policies, "tests": answer.tests,
    });
    if answer.policies.is_empty() {
        change.commit_unannounced(operation, object_id, Some(&entry)).await?;
    } else {
        change.commit(operation, object_id, Some(&entry)).await?;
    }
    Ok(answer)
}

async fn write_policies(
    change: &mut Change,
    plan: &Plan<PolicyId, PolicyWrite>,
) -> Result<(), ApiError> {
    for id in plan.making_way() {
        policies::remove(change, id).await?;
    }
    let now = change.now();
    for Written { id, version, created_at, write } in plan.written(now) {
        let object = policy_rules::as_written(id, write.clone(), created_at, now);
        policies::insert(change, &Versioned { version, object }).await?;
    }
    Ok(())
}

async fn write_tests(
    change: &mut Change,
    plan: &Plan<PolicyTestId, PolicyTestWrite>,
) -> Result<(), ApiError> {
    for id in plan.making_way() {
        policy_tests::remove(change, id).await?;
    }
    let now = change.now();
    for Written { id, version, created_at, write } in plan.written(now) {
        let object = test_rules::as_written(id, write.clone(), created_at, now);
        policy_tests::insert(change, &Versioned { version, object }).await?;
    }
    Ok(())
}

/// What must be written to get from what is held to what is wanted.
#[derive(Debug)]
struct Plan<Id, Write> {
    created: Vec<(Id, Write)>,
    changed: Vec<Changed<Id, Write>>,
    deleted: Vec<(Id, Write)>,
}

/// Something that stays, and becomes another.
#[derive(Debug)]
struct Changed<Id, Write> {
    id: Id,
    held_version: u64,
    created_at: Timestamp,
    write: Write,
}

/// Something as it will be in the store.
#[derive(Debug)]
struct Written<'a, Id, Write> {
    id: Id,
    version: u64,
    created_at: Timestamp,
    write: &'a Write,
}

/// Something as it is in the store: its version, when it was created, and what it is like.
type Stored<Write> = (u64, Timestamp, Write);

impl<Id: Copy + Display + Eq + Hash, Write: Serialize> Plan<Id, Write> {
    fn new(
        held: impl Iterator<Item = (Id, Stored<Write>)>,
        wanted: Vec<(Id, Write)>,
        are_equal: impl Fn(&Write, &Write) -> bool,
    ) -> Self {
        let mut held: HashMap<Id, Stored<Write>> = held.collect();
        let mut plan = Self { created: Vec::new(), changed: Vec::new(), deleted: Vec::new() };
        for (id, write) in wanted {
            match held.remove(&id) {
                None => plan.created.push((id, write)),
                Some((_, _, stored)) if are_equal(&stored, &write) => {}
                Some((held_version, created_at, _)) => {
                    plan.changed.push(Changed { id, held_version, created_at, write });
                }
            }
        }
        plan.deleted.extend(held.into_iter().map(|(id, (_, _, stored))| (id, stored)));
        plan
    }

    /// What must be removed before anything is written: names are unique and may change hands.
    fn making_way(&self) -> impl Iterator<Item = Id> {
        let deleted = self.deleted.iter().map(|(id, _write)| *id);
        deleted.chain(self.changed.iter().map(|changed| changed.id))
    }

    fn written(&self, now: Timestamp) -> impl Iterator<Item = Written<'_, Id, Write>> {
        let changed = self.changed.iter().map(|Changed { id, held_version, created_at, write }| {
            Written { id: *id, version: held_version + 1, created_at: *created_at, write }
        });
        let created = self.created.iter();
        changed.chain(created.map(move |(id, write)| Written {
            id: *id,
            version: 1,
            created_at: now,
            write,
        }))
    }

    /// Puts it into the history.
    async fn record(&self, change: &mut Change, version: u64) -> Result<(), ApiError> {
        for (id, _write) in &self.deleted {
            policy_history::record(change, version, id, None::<&Write>).await?;
        }
        for Written { id, write, .. } in self.written(change.now()) {
            policy_history::record(change, version, id, Some(write)).await?;
        }
        Ok(())
    }

    fn summary(&self, name: impl Fn(&Write) -> &String) -> SetChanges {
        let sorted = |names: &mut dyn Iterator<Item = &Write>| {
            let mut names: Vec<String> = names.map(|write| name(write).clone()).collect();
            names.sort_unstable();
            names
        };
        SetChanges {
            created: sorted(&mut self.created.iter().map(|(_id, write)| write)),
            changed: sorted(&mut self.changed.iter().map(|changed| &changed.write)),
            deleted: sorted(&mut self.deleted.iter().map(|(_id, write)| write)),
        }
    }
}
