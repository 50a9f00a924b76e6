//! Connector tokens.

use std::time::Duration;

use adit_proto::{
    ConnectorTokenId, JoinToken, JoinTokenKind, SiteId,
    api::{ConnectorToken, ConnectorTokenCreated, ConnectorTokenWrite},
};

use crate::{
    app::{App, enrollment_keys::MAX_LIFETIME_S, random, validate},
    error::ApiError,
    store::{Actor, Created, connector_tokens, sites},
};

pub(crate) async fn create(
    app: &App,
    actor: Actor,
    site_id: SiteId,
    write: ConnectorTokenWrite,
) -> Result<Created, ApiError> {
    validate::name(&write.name)?;
    validate::within("/lifetime_s", write.lifetime_s, 1..=MAX_LIFETIME_S)?;
    let secret = random::new_secret()?;
    let mut change = app.store.begin_change(actor).await?;
    let now = change.now();
    sites::find(change.connection(), site_id).await?.ok_or_else(ApiError::not_found)?;
    let connector_token = ConnectorToken {
        id: ConnectorTokenId::from_uuid(random::new_uuid(now)?),
        name: write.name,
        site_id,
        expires_at: now.saturating_add(Duration::from_secs(write.lifetime_s)),
        created_at: now,
    };
    let digest = random::secret_hash(&secret);
    connector_tokens::insert(&mut change, &connector_token, &digest).await?;
    let token = JoinToken::new(
        JoinTokenKind::Connector,
        app.public_url.clone(),
        app.pin,
        secret.to_string(),
    );
    let answer = ConnectorTokenCreated { connector_token, token: token.to_token().into() };
    let connector_token = &answer.connector_token;
    let created = Created::new("/v1/connector-tokens", connector_token.id, &answer);
    Ok(change
        .commit_creation_unannounced(
            "connector-token.create",
            connector_token.id,
            connector_token,
            created,
        )
        .await?)
}

/// Makes a token useless; `matches` judges its version, which is always the first.
pub(crate) async fn remove(
    app: &App,
    actor: Actor,
    id: ConnectorTokenId,
    matches: impl FnOnce(u64) -> Result<(), ApiError>,
) -> Result<(), ApiError> {
    let mut change = app.store.begin_change(actor).await?;
    connector_tokens::find(change.connection(), id).await?.ok_or_else(ApiError::not_found)?;
    matches(1)?;
    connector_tokens::remove(&mut change, id).await?;
    change.commit_unannounced("connector-token.delete", id, None::<&ConnectorToken>).await?;
    Ok(())
}
