//! Who asks: devices and connectors, by an assertion that is bound to the request.

use std::time::SystemTime;

use adit_proto::{
    Assertion, AssertionSubject, Timestamp,
    api::{Device, ProblemCode},
};
use axum::{
    body::{Body, Bytes},
    extract::{FromRequest, Request},
    http::{Method, header, request::Parts},
};
use serde::de::DeserializeOwned;

use super::request::Json;
use crate::{
    app::{App, credential::refuse_unless_approved},
    error::ApiError,
    store::{connectors, connectors::ConnectorRecord, devices, users},
};

/// A request by a device that may connect.
#[derive(Debug)]
pub(super) struct ByDevice(pub(super) Device);

/// A request by a device that may connect, or by anyone, with its body.
#[derive(Debug)]
pub(super) struct ByDeviceOrAnyone(pub(super) Option<Device>, pub(super) Bytes);

/// A request by a connector.
#[derive(Debug)]
pub(super) struct ByConnector(pub(super) ConnectorRecord);

/// A request by a connector, with a body of JSON.
#[derive(Debug)]
pub(super) struct ByConnectorJson<T>(pub(super) ConnectorRecord, pub(super) T);

impl FromRequest<App> for ByDevice {
    type Rejection = ApiError;

    async fn from_request(request: Request, app: &App) -> Result<Self, ApiError> {
        let (parts, body) = into_parts(request).await?;
        authenticate_device(app, &parts, &body).await.map(Self)
    }
}

impl FromRequest<App> for ByDeviceOrAnyone {
    type Rejection = ApiError;

    async fn from_request(request: Request, app: &App) -> Result<Self, ApiError> {
        let (parts, body) = into_parts(request).await?;
        let device = match parts.headers.contains_key(header::AUTHORIZATION) {
            true => Some(authenticate_device(app, &parts, &body).await?),
            false => None,
        };
        Ok(Self(device, body))
    }
}

impl FromRequest<App> for ByConnector {
    type Rejection = ApiError;

    async fn from_request(request: Request, app: &App) -> Result<Self, ApiError> {
        let (parts, body) = into_parts(request).await?;
        authenticate_connector(app, &parts, &body).await.map(Self)
    }
}

impl<T: DeserializeOwned> FromRequest<App> for ByConnectorJson<T> {
    type Rejection = ApiError;

    async fn from_request(request: Request, app: &App) -> Result<Self, ApiError> {
        let (parts, body) = into_parts(request).await?;
        let record = authenticate_connector(app, &parts, &body).await?;
        let request = Request::from_parts(parts, Body::from(body));
        let Json(content) = Json::from_request(request, app).await?;
        Ok(Self(record, content))
    }
}

async fn authenticate_device(app: &App, parts: &Parts, body: &[u8]) -> Result<Device, ApiError> {
    let token = assertion(parts)?;
    let id = match Assertion::unverified_subject(token).map_err(refused)? {
        AssertionSubject::Device(id) => id,
        AssertionSubject::Connector(_) => return Err(unknown()),
    };
    let mut snapshot = app.store.snapshot().await?;
    let record = devices::find(&mut snapshot, id).await?.ok_or_else(unknown)?;
    let user = users::find(&mut snapshot, record.device.user_id).await?.ok_or_else(unknown)?;
    drop(snapshot);
    let identity = record.identity.ok_or_else(unknown)?;
    verify(app, token, &identity.device_key, parts, body)?;
    refuse_unless_approved(&record.device, &user.object)?;
    Ok(record.device)
}

async fn authenticate_connector(
    app: &App,
    parts: &Parts,
    body: &[u8],
) -> Result<ConnectorRecord, ApiError> {
    let token = assertion(parts)?;
    let id = match Assertion::unverified_subject(token).map_err(refused)? {
        AssertionSubject::Connector(id) => id,
        AssertionSubject::Device(_) => return Err(unknown()),
    };
    let mut snapshot = app.store.snapshot().await?;
    let record = connectors::find(&mut snapshot, id).await?.ok_or_else(unknown)?;
    drop(snapshot);
    verify(app, token, &record.connector_key, parts, body)?;
    Ok(record)
}

async fn into_parts(request: Request) -> Result<(Parts, Bytes), ApiError> {
    let (parts, body) = request.into_parts();
    let body = Bytes::from_request(Request::new(body), &()).await.map_err(|_error| {
        ApiError::new(ProblemCode::MalformedRequest, "The body did not arrive; send it again.")
    })?;
    Ok((parts, body))
}

fn assertion(parts: &Parts) -> Result<&str, ApiError> {
    let mut values = parts.headers.get_all(header::AUTHORIZATION).iter();
    let (Some(value), None) = (values.next(), values.next()) else { return Err(missing()) };
    value
        .to_str()
        .ok()
        .and_then(|value| value.split_once(' '))
        .filter(|(scheme, _)| scheme.eq_ignore_ascii_case(Assertion::SCHEME))
        .map(|(_, token)| token.trim())
        .ok_or_else(missing)
}

fn verify(app: &App, token: &str, spki: &[u8], parts: &Parts, body: &[u8]) -> Result<(), ApiError> {
    let now: Timestamp = SystemTime::now().into();
    let path = parts.uri.path_and_query().map_or("", |path| path.as_str());
    Assertion::verify(token, spki, parts.method.as_str(), path, body, now).map_err(refused)?;
    // What only reads may be repeated: whoever could, would read the answer as well.
    let reads = [Method::GET, Method::HEAD].contains(&parts.method);
    if reads || app.live.assertions.insert(token, now) {
        Ok(())
    } else {
        Err(ApiError::new(
            ProblemCode::NotAuthenticated,
            "This assertion was used before; sign another for each request.",
        ))
    }
}

fn missing() -> ApiError {
    ApiError::new(
        ProblemCode::NotAuthenticated,
        "Send one assertion, signed for this request, as `Authorization: Adit …`.",
    )
}

/// Nobody learns which devices and connectors there are.
fn unknown() -> ApiError {
    ApiError::new(
        ProblemCode::NotAuthenticated,
        "The signer is unknown, or was deleted; join anew with a new token.",
    )
}

fn refused(error: adit_proto::AssertionError) -> ApiError {
    ApiError::new(ProblemCode::NotAuthenticated, format!("The assertion is refused: {error}."))
}
