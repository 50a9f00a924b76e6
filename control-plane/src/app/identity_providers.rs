//! Identity providers.

use adit_proto::{
    IdentityProviderId,
    api::{IdentityProvider, IdentityProviderWrite},
};
use axum::http::Uri;

use crate::{
    app::{App, random, validate},
    error::ApiError,
    store::{Actor, Created, Versioned, identity_providers, identity_providers::ProviderRecord},
};

/// Where providers send users back.
pub(crate) const REDIRECT_PATH: &str = "/sign-in/callback";

pub(crate) async fn create(
    app: &App,
    actor: Actor,
    write: IdentityProviderWrite,
) -> Result<Created, ApiError> {
    check(&write)?;
    let mut change = app.store.begin_change(actor).await?;
    let now = change.now();
    let id = IdentityProviderId::from_uuid(random::new_uuid(now)?);
    let record = ProviderRecord {
        id,
        sealed_client_secret: seal(app, id, write.client_secret.as_deref())?,
        name: write.name,
        issuer: write.issuer,
        client_id: write.client_id,
        groups_claim: write.groups_claim,
        scopes: write.scopes,
        created_at: now,
        updated_at: now,
    };
    identity_providers::insert(&mut change, &record).await?;
    let provider = shown(app, record);
    let created = Created::new("/v1/identity-providers", id, &provider);
    Ok(change
        .commit_creation_unannounced("identity-provider.create", id, &provider, created)
        .await?)
}

/// Replaces a provider; `matches` judges the version that is there.
pub(crate) async fn replace(
    app: &App,
    actor: Actor,
    id: IdentityProviderId,
    write: IdentityProviderWrite,
    matches: impl FnOnce(u64) -> Result<(), ApiError>,
) -> Result<Versioned<IdentityProvider>, ApiError> {
    check(&write)?;
    let mut change = app.store.begin_change(actor).await?;
    let held =
        identity_providers::find(change.connection(), id).await?.ok_or_else(ApiError::not_found)?;
    matches(held.version)?;
    let sealed_client_secret = match write.client_secret {
        Some(secret) => seal(app, id, Some(&secret))?,
        None => held.object.sealed_client_secret,
    };
    let record = Versioned {
        version: held.version + 1,
        object: ProviderRecord {
            id,
            name: write.name,
            issuer: write.issuer,
            client_id: write.client_id,
            sealed_client_secret,
            groups_claim: write.groups_claim,
            scopes: write.scopes,
            created_at: held.object.created_at,
            updated_at: change.now(),
        },
    };
    identity_providers::replace(&mut change, &record).await?;
    let Versioned { version, object } = record;
    let object = shown(app, object);
    change.commit_unannounced("identity-provider.replace", id, Some(&object)).await?;
    Ok(Versioned { version, object })
}

/// Deletes a provider. Users, their sessions and its groups stay. `matches` judges the version that
/// is there.
pub(crate) async fn remove(
    app: &App,
    actor: Actor,
    id: IdentityProviderId,
    matches: impl FnOnce(u64) -> Result<(), ApiError>,
) -> Result<(), ApiError> {
    let mut change = app.store.begin_change(actor).await?;
    let held =
        identity_providers::find(change.connection(), id).await?.ok_or_else(ApiError::not_found)?;
    matches(held.version)?;
    identity_providers::remove(&mut change, id).await?;
    change.commit_unannounced("identity-provider.delete", id, None::<&IdentityProvider>).await?;
    Ok(())
}

/// A provider as the API shows it.
pub(crate) fn shown(app: &App, record: ProviderRecord) -> IdentityProvider {
    IdentityProvider {
        id: record.id,
        name: record.name,
        issuer: record.issuer,
        client_id: record.client_id,
        groups_claim: record.groups_claim,
        scopes: record.scopes,
        redirect_uri: format!("{}{REDIRECT_PATH}", app.public_url),
        created_at: record.created_at,
        updated_at: record.updated_at,
    }
}

fn seal(
    app: &App,
    id: IdentityProviderId,
    secret: Option<&str>,
) -> Result<Option<Vec<u8>>, ApiError> {
    secret
        .map(|secret| app.sealer.seal(id.to_string(), secret))
        .transpose()
        .map_err(ApiError::internal)
}

fn check(write: &IdentityProviderWrite) -> Result<(), ApiError> {
    validate::name(&write.name)?;
    let issuer: Option<Uri> = write.issuer.parse().ok().filter(|issuer: &Uri| {
        let has_host = issuer.host().is_some_and(|host| !host.is_empty());
        issuer.scheme_str() == Some("https") && has_host && issuer.query().is_none()
    });
    if issuer.is_none() || write.issuer.contains('#') {
        let detail = "It is an https URL without query and fragment, as the provider gives it.";
        return Err(ApiError::invalid("/issuer", detail));
    }
    text("/issuer", &write.issuer, 500)?;
    text("/client_id", &write.client_id, 500)?;
    if let Some(secret) = &write.client_secret {
        text("/client_secret", secret, 2000)?;
    }
    if let Some(claim) = &write.groups_claim {
        text("/groups_claim", claim, 100)?;
    }
    if write.scopes.len() > 20 {
        return Err(ApiError::invalid("/scopes", "There are at most 20."));
    }
    for (index, scope) in write.scopes.iter().enumerate() {
        // RFC 6749 §3.3.
        let is_token = |byte: u8| byte.is_ascii_graphic() && !matches!(byte, b'"' | b'\\');
        if scope.is_empty() || scope.len() > 100 || !scope.bytes().all(is_token) {
            let detail = "It is a word such as `profile`.";
            return Err(ApiError::invalid(format!("/scopes/{index}"), detail));
        }
    }
    Ok(())
}

fn text(field: &str, text: &str, max: usize) -> Result<(), ApiError> {
    if text.is_empty() {
        return Err(ApiError::invalid(field, "It has at least one character."));
    }
    validate::text(field, text, max)
}
