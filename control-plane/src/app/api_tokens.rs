//! API tokens.

use std::time::Duration;

use adit_proto::{
    ApiTokenId, Timestamp,
    api::{ApiToken, ApiTokenCreated, ApiTokenWrite, ProblemCode, Role, Secret},
};

use crate::{
    app::{App, random, roles, validate},
    error::ApiError,
    store::{Actor, ActorId, Change, Created, api_tokens},
};

/// How every API token begins.
pub(crate) const PREFIX: &str = "adit_pat_";

/// Longest life, in seconds: ten years.
const MAX_LIFETIME_S: u64 = 315_360_000;

/// Creates a token that may do no more than the `creator` may.
pub(crate) async fn create(
    app: &App,
    creator: &ApiToken,
    actor: Actor,
    write: ApiTokenWrite,
) -> Result<Created, ApiError> {
    validate::name(&write.name)?;
    if let Some(description) = &write.description {
        validate::text("/description", description, 500)?;
    }
    validate_scopes(&write)?;
    if let Some(lifetime_s) = write.lifetime_s {
        validate::within("/lifetime_s", lifetime_s, 1..=MAX_LIFETIME_S)?;
    }
    let mut change = app.store.begin_change(actor).await?;
    let (api_token, token) = issue(&mut change, write).await?;
    if !roles::covers(creator, &api_token) {
        return Err(ApiError::new(
            ProblemCode::NotAllowed,
            "The new API token could do more than yours; leave out what yours may not.",
        ));
    }
    let id = api_token.id;
    let answer = ApiTokenCreated { api_token: api_token.clone(), token };
    let created = Created::new("/v1/api-tokens", id, &answer);
    Ok(change.commit_creation_unannounced("api-token.create", id, &api_token, created).await?)
}

/// A scope that the role has not would only look as if it granted something.
fn validate_scopes(write: &ApiTokenWrite) -> Result<(), ApiError> {
    let Some(scopes) = &write.scopes else { return Ok(()) };
    if scopes.is_empty() {
        let detail = "Name at least one scope, or leave `scopes` out for all that the role may do.";
        return Err(ApiError::invalid("/scopes", detail));
    }
    match scopes.iter().find(|scope| !roles::has_scope(write.role, **scope)) {
        Some(scope) => Err(ApiError::invalid("/scopes", format!("The role may not do `{scope}`."))),
        None => Ok(()),
    }
}

/// Draws a token and stores its hash.
pub(crate) async fn issue(
    change: &mut Change,
    write: ApiTokenWrite,
) -> Result<(ApiToken, Secret), ApiError> {
    let now = change.now();
    let secret = Secret::from(format!("{PREFIX}{}", random::new_secret()?.as_str()));
    let token = ApiToken {
        id: ApiTokenId::from_uuid(random::new_uuid(now)?),
        name: write.name,
        description: write.description,
        role: write.role,
        scopes: write.scopes,
        expires_at: write
            .lifetime_s
            .map(|lifetime_s| now.saturating_add(Duration::from_secs(lifetime_s))),
        last_used_at: None,
        created_at: now,
    };
    api_tokens::insert(change, &token, &random::secret_hash(secret.expose())).await?;
    Ok((token, secret))
}

/// Deletes a token that may do no more than the `remover` may, unless nobody were left who may do
/// everything.
pub(crate) async fn remove(
    app: &App,
    remover: &ApiToken,
    actor: Actor,
    id: ApiTokenId,
) -> Result<(), ApiError> {
    let mut change = app.store.begin_change(actor).await?;
    let now = change.now();
    let token = api_tokens::find(change.connection(), id).await?.ok_or_else(ApiError::not_found)?;
    if !roles::covers(remover, &token) {
        return Err(ApiError::new(
            ProblemCode::NotAllowed,
            "This API token may do more than yours; ask an owner to delete it.",
        ));
    }
    let is_owner = token.role == Role::Owner && token.scopes.is_none();
    if is_owner && !api_tokens::other_owner_exists(change.connection(), id, now).await? {
        return Err(ApiError::conflict(
            "This is the last valid API token of an owner; create another first.",
        ));
    }
    api_tokens::remove(&mut change, id).await?;
    change.commit_unannounced("api-token.delete", id, None::<&ApiToken>).await?;
    app.live.token_uses.remove(id);
    Ok(())
}

/// Writes down that a token was used, at most once a minute and beside the request: neither a full
/// disk nor a long change is to hold up or refuse a read.
pub(crate) fn mark_used(app: &App, id: ApiTokenId, now: Timestamp) {
    if !app.live.token_uses.is_due(id, now) {
        return;
    }
    let store = app.store.clone();
    tokio::spawn(async move {
        let mark = async {
            let mut change = store.begin_change(ActorId::ControlPlane).await?;
            api_tokens::mark_used(&mut change, id).await?;
            change.commit_unaudited().await
        };
        if let Err(error) = mark.await {
            let error = format!("{:#}", anyhow::Error::from(error));
            tracing::warn!(api_token_id = %id, error, "Failed to write down the use of a token");
        }
    });
}
