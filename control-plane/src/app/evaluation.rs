//! The one evaluator, over all resources and policies there are: for simulation and for what
//! clients may see.

use std::{sync::Arc, time::SystemTime};

use adit_policy::{Authentication, Destination, Evaluator, Subject};
use adit_proto::{
    DeviceId, Reason, Timestamp,
    api::{DeviceKind, DeviceState, ExplainRequest, Explanation},
};
use sqlx::SqliteConnection;
use uuid::Uuid;

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
    let evaluator = compile(connection).await?;
    app.live.evaluators.insert(sequence, Arc::clone(&evaluator));
    Ok(CurrentPolicies { sequence, evaluator })
}

/// The evaluator of what `connection` sees, which may be a change that nobody else sees yet.
pub(crate) async fn compile(connection: &mut SqliteConnection) -> Result<Arc<Evaluator>, ApiError> {
    let policies = policies::enabled(&mut *connection).await?;
    let resources = resources::all(&mut *connection).await?;
    // Thousands of policies take a while, during which no other request should wait.
    let compiled =
        tokio::task::spawn_blocking(move || Evaluator::try_new(&policies, &resources)).await;
    let evaluator = compiled.map_err(ApiError::internal)?.map_err(ApiError::internal)?;
    Ok(Arc::new(evaluator))
}

/// What would be decided of a flow, and by what.
pub(crate) async fn explain(app: &App, request: &ExplainRequest) -> Result<Explanation, ApiError> {
    let mut snapshot = app.store.snapshot().await?;
    let now = request.at.unwrap_or_else(|| SystemTime::now().into());
    let (subject, shut_out) = subject(&mut snapshot, request, now).await?;
    let destination = destination(&mut snapshot, request).await?;
    let policies = current(app, &mut snapshot).await?;
    let explanation = policies.evaluator.explain(&subject, &destination, now);
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

/// Of whom a request speaks, and why nothing passes for them whatever the policies say.
async fn subject(
    snapshot: &mut SqliteConnection,
    request: &ExplainRequest,
    now: Timestamp,
) -> Result<(Subject, Option<Reason>), ApiError> {
    let record = match (request.device_id, request.user_id) {
        (Some(id), None) => {
            let unknown =
                || ApiError::invalid("/device_id", "There is no such device; check the id.");
            Some(devices::find(snapshot, id).await?.ok_or_else(unknown)?)
        }
        (None, Some(_)) => None,
        (None, None) | (Some(_), Some(_)) => {
            return Err(ApiError::invalid("/device_id", "Name either a device or a user."));
        }
    };
    let user_id = record.as_ref().map(|record| record.device.user_id).or(request.user_id);
    let unknown = || ApiError::invalid("/user_id", "There is no such user; check the id.");
    let user = match user_id {
        Some(id) => users::find(snapshot, id).await?.ok_or_else(unknown)?.object,
        None => return Err(unknown()),
    };

    let signed_in_at = match &record {
        Some(record) => match record.device.kind {
            DeviceKind::Client => Some(record.authenticated_at),
            DeviceKind::Wireguard => None,
        },
        None => Some(now),
    };
    let authentication = request.authenticated_at.or(signed_in_at).map(|at| Authentication {
        at,
        methods: request.authentication_methods.clone().unwrap_or_default(),
    });
    let shut_out = match record.as_ref().map(|record| record.device.state) {
        _ if user.disabled => Some(Reason::UserRevoked),
        Some(DeviceState::Pending) => Some(Reason::DevicePending),
        Some(DeviceState::Revoked) => Some(Reason::DeviceRevoked),
        Some(DeviceState::Approved) | None => None,
    };
    let subject = Subject {
        // No policy names a device that is not there.
        device_id: record.map_or(DeviceId::from_uuid(Uuid::nil()), |record| record.device.id),
        user_id: user.id,
        groups: groups::of_user(snapshot, user.id).await?,
        posture: request.posture.clone().unwrap_or_default(),
        source: request.source,
        authentication,
        expires_at: None,
    };
    Ok((subject, shut_out))
}

/// Where to a request speaks of.
async fn destination(
    snapshot: &mut SqliteConnection,
    request: &ExplainRequest,
) -> Result<Destination, ApiError> {
    let protocol = request.protocol;
    match (request.destination, request.resource_id) {
        (Some(address), None) => {
            Ok(Destination { address, port: request.port.unwrap_or_default(), protocol })
        }
        (None, Some(id)) => {
            let unknown =
                || ApiError::invalid("/resource_id", "There is no such resource; check the id.");
            let resource = resources::find(snapshot, id).await?.ok_or_else(unknown)?.object;
            let address = resource.addresses.first().ok_or_else(unknown)?.addr();
            let mut filters = resource.filters.iter().filter(|it| it.protocol == protocol);
            let first = || filters.find_map(|filter| filter.ports.first().map(|it| it.first()));
            Ok(Destination {
                address,
                port: request.port.or_else(first).unwrap_or_default(),
                protocol,
            })
        }
        (None, None) | (Some(_), Some(_)) => {
            Err(ApiError::invalid("/destination", "Name either an address or a resource."))
        }
    }
}
