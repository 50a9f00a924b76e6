//! The one evaluator, over all resources and policies there are: for simulation and for what
//! clients may see.

use std::{sync::Arc, time::SystemTime};

use adit_policy::{Destination, Evaluator, Subject};
use adit_proto::{
    Reason,
    api::{DeviceKind, DeviceState, ExplainRequest, Explanation},
};
use sqlx::SqliteConnection;

use crate::{
    app::App,
    error::ApiError,
    store::{devices, groups, organisation, policies, resources, users},
};

/// The evaluator of one moment.
#[derive(Debug, Clone)]
pub(crate) struct CurrentPolicies {
    pub(crate) sequence: u64,
    pub(crate) evaluator: Arc<Evaluator>,
}

/// The evaluator of the moment that `connection` sees.
pub(crate) async fn current(
    app: &App,
    connection: &mut SqliteConnection,
) -> Result<CurrentPolicies, ApiError> {
    let sequence = organisation::sequence(&mut *connection)
        .await?
        .ok_or_else(|| ApiError::internal(anyhow::anyhow!("there is no organisation")))?;
    if let Some(evaluator) = app.live.evaluators.find(sequence) {
        return Ok(CurrentPolicies { sequence, evaluator });
    }
    let policies = policies::enabled(&mut *connection).await?;
    let resources = resources::all(&mut *connection).await?;
    // Thousands of policies take a while, during which no other request should wait.
    let compiled =
        tokio::task::spawn_blocking(move || Evaluator::try_new(&policies, &resources)).await;
    let evaluator = compiled.map_err(ApiError::internal)?.map_err(ApiError::internal)?;
    let evaluator = Arc::new(evaluator);
    app.live.evaluators.insert(sequence, Arc::clone(&evaluator));
    Ok(CurrentPolicies { sequence, evaluator })
}

/// What would be decided of a flow, and by what.
pub(crate) async fn explain(app: &App, request: &ExplainRequest) -> Result<Explanation, ApiError> {
    let mut snapshot = app.store.snapshot().await?;
    let unknown = || ApiError::invalid("/device_id", "There is no such device; check the id.");
    let record = devices::find(&mut snapshot, request.device_id).await?.ok_or_else(unknown)?;
    let device = record.device;
    let user = users::find(&mut snapshot, device.user_id).await?.ok_or_else(unknown)?.object;
    let authenticated_at = match device.kind {
        DeviceKind::Client => Some(record.authenticated_at),
        DeviceKind::Wireguard => None,
    };
    let subject = Subject {
        device_id: device.id,
        user_id: user.id,
        groups: groups::of_user(&mut snapshot, user.id).await?,
        posture: Vec::new(),
        source: None,
        authenticated_at,
        expires_at: None,
    };
    let destination = Destination {
        address: request.destination,
        port: request.port,
        protocol: request.protocol,
    };
    let policies = current(app, &mut snapshot).await?;
    let explanation = policies.evaluator.explain(&subject, &destination, SystemTime::now().into());

    let shut_out = match device.state {
        _ if user.disabled => Some(Reason::UserRevoked),
        DeviceState::Pending => Some(Reason::DevicePending),
        DeviceState::Revoked => Some(Reason::DeviceRevoked),
        DeviceState::Approved => None,
    };
    Ok(match shut_out {
        Some(reason) => Explanation {
            allowed: false,
            reason,
            remedy: reason.remedy().to_owned(),
            policy_id: None,
            ..explanation
        },
        None => explanation,
    })
}
