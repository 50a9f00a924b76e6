//! A line of history for each change of policies or policy tests.

use std::fmt::Display;

use serde::Serialize;

use crate::{
    app::validate,
    error::ApiError,
    store::{Change, policy_history},
};

/// Begins a version, whose number it gives; `reason` is why the writer makes it.
pub(crate) async fn begin(
    change: &mut Change,
    operation: &'static str,
    reason: Option<&str>,
) -> Result<u64, ApiError> {
    if let Some(reason) = reason {
        validate::text("reason", reason, 200)?;
    }
    Ok(policy_history::begin(change, operation, reason).await?)
}

/// Records a version that changes one object, as it is written; none when it is deleted.
pub(crate) async fn record(
    change: &mut Change,
    operation: &'static str,
    reason: Option<&str>,
    id: impl Display,
    object: Option<&impl Serialize>,
) -> Result<(), ApiError> {
    let version = begin(change, operation, reason).await?;
    Ok(policy_history::record(change, version, id, object).await?)
}
