//! Sites.

use adit_proto::{
    SiteId,
    api::{Site, SiteWrite},
};

use crate::{
    app::{App, random, validate},
    error::ApiError,
    store::{Actor, Created, StoreError, Versioned, sites},
};

pub(crate) async fn create(app: &App, actor: Actor, write: SiteWrite) -> Result<Created, ApiError> {
    validate::name(&write.name)?;
    let mut change = app.store.begin_change(actor).await?;
    let now = change.now();
    let id = SiteId::from_uuid(random::new_uuid(now)?);
    let site = Site { id, name: write.name, created_at: now, updated_at: now };
    sites::insert(&mut change, &site).await?;
    let created = Created::new("/v1/sites", id, &site);
    Ok(change.commit_creation_unannounced("site.create", id, &site, created).await?)
}

/// Replaces a site; `matches` judges the version that is there.
pub(crate) async fn replace(
    app: &App,
    actor: Actor,
    id: SiteId,
    write: SiteWrite,
    matches: impl FnOnce(u64) -> Result<(), ApiError>,
) -> Result<Versioned<Site>, ApiError> {
    validate::name(&write.name)?;
    let mut change = app.store.begin_change(actor).await?;
    let held = sites::find(change.connection(), id).await?.ok_or_else(ApiError::not_found)?;
    matches(held.version)?;
    let site = Versioned {
        version: held.version + 1,
        object: Site { name: write.name, updated_at: change.now(), ..held.object },
    };
    sites::replace(&mut change, &site).await?;
    change.commit("site.replace", id, Some(&site.object)).await?;
    Ok(site)
}

/// Deletes a site and its connector tokens.
pub(crate) async fn remove(
    app: &App,
    actor: Actor,
    id: SiteId,
    matches: impl FnOnce(u64) -> Result<(), ApiError>,
) -> Result<(), ApiError> {
    let mut change = app.store.begin_change(actor).await?;
    let held = sites::find(change.connection(), id).await?.ok_or_else(ApiError::not_found)?;
    matches(held.version)?;
    sites::remove(&mut change, id).await.map_err(|error| {
        if matches!(error, StoreError::Reference) {
            let detail = "The site has resources or connectors; delete them first.";
            ApiError::conflict(detail)
        } else {
            error.into()
        }
    })?;
    change.commit("site.delete", id, None::<&Site>).await?;
    Ok(())
}
