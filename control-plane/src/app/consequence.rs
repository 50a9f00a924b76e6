//! What a change of policies, groups or resources brings, judged before it is committed.

use adit_policy::{AccessSide, access_difference};
use adit_proto::api::{PolicyDryRun, PolicyTestRun};

use crate::{
    app::{App, evaluation, policy_tests},
    error::ApiError,
    store::{self, Change, population},
};

/// How many pairs of a user and a resource a dry run lists at most.
const MAX_LISTED: usize = 1000;

/// Refuses a change after which a policy test does not hold that held before, or that is new.
///
/// A test that did not hold before, which time alone can bring about, stands in nobody's way.
pub(crate) async fn check_tests(app: &App, change: &mut Change) -> Result<(), ApiError> {
    let now = change.now();
    let tests = store::policy_tests::all(change.connection()).await?;
    if tests.is_empty() {
        return Ok(());
    }
    let after = evaluation::compile(change.connection()).await?;
    let mut failed = policy_tests::failing(change.connection(), &after, tests, now).await?;
    if failed.is_empty() {
        return Ok(());
    }
    // Others see what was before the change.
    let mut snapshot = app.store.snapshot().await?;
    let tests = store::policy_tests::all(&mut snapshot).await?;
    let before = evaluation::current(app, &mut snapshot).await?.evaluator;
    let failed_before = policy_tests::failing(&mut snapshot, &before, tests, now).await?;
    failed.retain(|one| failed_before.iter().all(|before| before.test != one.test));
    if failed.is_empty() {
        return Ok(());
    }
    Err(ApiError::policy_tests_failed(failed.into_iter().map(Into::into).collect()))
}

/// Says what a change would bring, and gives it up.
pub(crate) async fn foresee(app: &App, mut change: Change) -> Result<PolicyDryRun, ApiError> {
    let now = change.now();
    let tests = store::policy_tests::all(change.connection()).await?;
    let run = tests.len() as u64;
    let after = evaluation::compile(change.connection()).await?;
    let failed = policy_tests::failing(change.connection(), &after, tests, now).await?;
    let users_after = population::read(change.connection()).await?;

    let mut snapshot = app.store.snapshot().await?;
    let before = evaluation::current(app, &mut snapshot).await?.evaluator;
    let users_before = population::read(&mut snapshot).await?;
    drop((change, snapshot));
    let compare = move || {
        access_difference(
            AccessSide { evaluator: &before, users: &users_before },
            AccessSide { evaluator: &after, users: &users_after },
            MAX_LISTED,
        )
    };
    let difference = tokio::task::spawn_blocking(compare).await.map_err(ApiError::internal)?;
    let failed = failed.into_iter().map(Into::into).collect();
    Ok(PolicyDryRun { difference, tests: PolicyTestRun { run, failed } })
}
