//! Connectors after they have joined.

use std::time::SystemTime;

use adit_proto::{
    ConnectorId,
    api::{Connector, ConnectorReport, ConnectorWrite},
};

use crate::{
    app::{
        App,
        endpoint::{MAX_ENDPOINTS, is_endpoint},
        validate,
    },
    error::ApiError,
    store::{Actor, ActorId, Versioned, connectors, connectors::ConnectorRecord},
};

/// Replaces what an administrator may change; `matches` judges the version that is there.
pub(crate) async fn replace(
    app: &App,
    actor: Actor,
    id: ConnectorId,
    write: ConnectorWrite,
    matches: impl FnOnce(u64) -> Result<(), ApiError>,
) -> Result<Versioned<Connector>, ApiError> {
    validate::name(&write.name)?;
    check_endpoints(&write.endpoints)?;
    let mut change = app.store.begin_change(actor).await?;
    let record =
        connectors::find(change.connection(), id).await?.ok_or_else(ApiError::not_found)?;
    matches(record.version)?;
    let now = change.now();
    connectors::replace(&mut change, id, &write, now).await?;
    let record =
        connectors::find(change.connection(), id).await?.ok_or_else(ApiError::not_found)?;
    let connector = with_presence(app, record);
    change.commit("connector.replace", id, Some(&connector.object)).await?;
    Ok(connector)
}

/// Deletes a connector: its stream ends, and whatever it signs is refused.
pub(crate) async fn remove(
    app: &App,
    actor: Actor,
    id: ConnectorId,
    matches: impl FnOnce(u64) -> Result<(), ApiError>,
) -> Result<(), ApiError> {
    let mut change = app.store.begin_change(actor).await?;
    let record =
        connectors::find(change.connection(), id).await?.ok_or_else(ApiError::not_found)?;
    matches(record.version)?;
    connectors::remove(&mut change, id).await?;
    change.commit("connector.delete", id, None::<&Connector>).await?;
    app.live.bundles.remove(id);
    app.live.presence.remove(id);
    Ok(())
}

/// Takes in what a connector says of itself.
pub(crate) async fn report(
    app: &App,
    id: ConnectorId,
    report: &ConnectorReport,
) -> Result<(), ApiError> {
    validate::text("/version", &report.version, 100)?;
    check_endpoints(&report.endpoints)?;
    let mut change = app.store.begin_change(ActorId::Connector(id)).await?;
    let now = change.now();
    let held =
        connectors::find(change.connection(), id).await?.ok_or_else(ApiError::not_authenticated)?;
    if held.reported_endpoints == report.endpoints
        && held.connector.version.as_ref() == Some(&report.version)
    {
        connectors::set_last_seen(&mut change, id, now).await?;
        return Ok(change.commit_unaudited().await?);
    }
    connectors::set_report(&mut change, id, report, now).await?;
    let record =
        connectors::find(change.connection(), id).await?.ok_or_else(ApiError::not_authenticated)?;
    // The endpoints stand in clients' configurations.
    change.commit("connector.report", id, Some(&record.connector)).await?;
    Ok(())
}

/// Remembers that a connector was heard.
pub(crate) async fn mark_seen(app: &App, id: ConnectorId) -> Result<(), ApiError> {
    let mut change = app.store.begin_change(ActorId::Connector(id)).await?;
    let now = change.now();
    connectors::set_last_seen(&mut change, id, now).await?;
    Ok(change.commit_unaudited().await?)
}

/// Adds what the store does not know.
pub(crate) fn with_presence(app: &App, record: ConnectorRecord) -> Versioned<Connector> {
    let ConnectorRecord { connector, version, .. } = record;
    let connected = app.live.presence.is_connected(connector.id);
    let last_seen_at = if connected {
        Some(SystemTime::now().into())
    } else {
        connector.last_seen_at.max(app.live.presence.closed_at(connector.id))
    };
    Versioned { version, object: Connector { connected, last_seen_at, ..connector } }
}

fn check_endpoints(endpoints: &[String]) -> Result<(), ApiError> {
    if endpoints.len() > MAX_ENDPOINTS {
        let detail = format!("There are at most {MAX_ENDPOINTS} endpoints.");
        return Err(ApiError::invalid("/endpoints", detail));
    }
    match endpoints.iter().position(|endpoint| !is_endpoint(endpoint)) {
        Some(index) => Err(ApiError::invalid(
            format!("/endpoints/{index}"),
            "It is `host:port`, such as 192.0.2.1:443, [2001:db8::1]:443 or edge.example:443.",
        )),
        None => Ok(()),
    }
}
