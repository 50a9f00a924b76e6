//! API tokens.

use std::time::Duration;

use adit_proto::{
    ApiTokenId,
    api::{ApiToken, ApiTokenCreated, ApiTokenWrite},
};
use zeroize::Zeroizing;

use crate::{
    app::{App, random, validate},
    error::ApiError,
    store::{Actor, Change, Created, api_tokens},
};

/// How every API token begins.
pub(crate) const PREFIX: &str = "adit_pat_";

/// Longest life, in seconds: ten years.
const MAX_LIFETIME_S: u64 = 315_360_000;

pub(crate) async fn create(
    app: &App,
    actor: Actor,
    write: ApiTokenWrite,
) -> Result<Created, ApiError> {
    validate::name(&write.name)?;
    if let Some(lifetime_s) = write.lifetime_s {
        validate::within("/lifetime_s", lifetime_s, 1..=MAX_LIFETIME_S)?;
    }
    let mut change = app.store.begin_change(actor).await?;
    let (api_token, secret) = issue(&mut change, write).await?;
    let id = api_token.id;
    let answer =
        ApiTokenCreated { api_token: api_token.clone(), token: secret.as_str().to_owned() };
    let created = Created::new("/v1/api-tokens", id, &answer);
    Ok(change.commit_creation_unannounced("api-token.create", id, &api_token, created).await?)
}

/// Draws a token and stores its hash.
pub(crate) async fn issue(
    change: &mut Change,
    write: ApiTokenWrite,
) -> Result<(ApiToken, Zeroizing<String>), ApiError> {
    let now = change.now();
    let secret = Zeroizing::new(format!("{PREFIX}{}", random::new_secret()?.as_str()));
    let token = ApiToken {
        id: ApiTokenId::from_uuid(random::new_uuid(now)?),
        name: write.name,
        scope: write.scope,
        expires_at: write
            .lifetime_s
            .map(|lifetime_s| now.saturating_add(Duration::from_secs(lifetime_s))),
        created_at: now,
    };
    api_tokens::insert(change, &token, &random::secret_hash(&secret)).await?;
    Ok((token, secret))
}

/// Deletes a token, unless nobody could change anything any more.
pub(crate) async fn remove(app: &App, actor: Actor, id: ApiTokenId) -> Result<(), ApiError> {
    let mut change = app.store.begin_change(actor).await?;
    let now = change.now();
    api_tokens::find(change.connection(), id).await?.ok_or_else(ApiError::not_found)?;
    if !api_tokens::other_admin_exists(change.connection(), id, now).await? {
        return Err(ApiError::conflict(
            "This is the last valid API token with the scope `admin`; create another first.",
        ));
    }
    api_tokens::remove(&mut change, id).await?;
    change.commit_unannounced("api-token.delete", id, None::<&ApiToken>).await?;
    Ok(())
}
