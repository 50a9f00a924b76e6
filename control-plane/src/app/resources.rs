//! Resources.

use adit_policy::{InvalidResource, validate_resource};
use adit_proto::{
    ResourceId,
    api::{Resource, ResourceWrite},
};

use crate::{
    app::{App, consequence::check_tests, policies::refuse_if_named, random, validate},
    error::ApiError,
    store::{Actor, Created, Versioned, resources, sites},
};

pub(crate) async fn create(
    app: &App,
    actor: Actor,
    write: ResourceWrite,
) -> Result<Created, ApiError> {
    check(&write)?;
    let mut change = app.store.begin_change(actor).await?;
    if sites::find(change.connection(), write.site_id).await?.is_none() {
        return Err(ApiError::invalid("/site_id", "There is no such site."));
    }
    let now = change.now();
    let id = ResourceId::from_uuid(random::new_uuid(now)?);
    let resource = Resource {
        id,
        name: write.name,
        site_id: write.site_id,
        addresses: write.addresses,
        filters: write.filters,
        tags: write.tags,
        created_at: now,
        updated_at: now,
    };
    resources::insert(&mut change, &resource).await?;
    let created = Created::new("/v1/resources", id, &resource);
    check_tests(app, &mut change).await?;
    Ok(change.commit_creation("resource.create", id, &resource, created).await?)
}

/// Replaces a resource; `matches` judges the version that is there.
pub(crate) async fn replace(
    app: &App,
    actor: Actor,
    id: ResourceId,
    write: ResourceWrite,
    matches: impl FnOnce(u64) -> Result<(), ApiError>,
) -> Result<Versioned<Resource>, ApiError> {
    check(&write)?;
    let mut change = app.store.begin_change(actor).await?;
    let held = resources::find(change.connection(), id).await?.ok_or_else(ApiError::not_found)?;
    matches(held.version)?;
    if write.site_id != held.object.site_id {
        let detail = "A resource stays at its site; delete it and create another.";
        return Err(ApiError::invalid("/site_id", detail));
    }
    let resource = Versioned {
        version: held.version + 1,
        object: Resource {
            id,
            name: write.name,
            site_id: write.site_id,
            addresses: write.addresses,
            filters: write.filters,
            tags: write.tags,
            created_at: held.object.created_at,
            updated_at: change.now(),
        },
    };
    resources::replace(&mut change, &resource).await?;
    check_tests(app, &mut change).await?;
    change.commit("resource.replace", id, Some(&resource.object)).await?;
    Ok(resource)
}

/// Deletes a resource that no policy names.
pub(crate) async fn remove(
    app: &App,
    actor: Actor,
    id: ResourceId,
    matches: impl FnOnce(u64) -> Result<(), ApiError>,
) -> Result<(), ApiError> {
    let mut change = app.store.begin_change(actor).await?;
    let held = resources::find(change.connection(), id).await?.ok_or_else(ApiError::not_found)?;
    matches(held.version)?;
    refuse_if_named(&mut change, id).await?;
    resources::remove(&mut change, id).await?;
    check_tests(app, &mut change).await?;
    change.commit("resource.delete", id, None::<&Resource>).await?;
    Ok(())
}

fn check(write: &ResourceWrite) -> Result<(), ApiError> {
    validate::name(&write.name)?;
    validate_resource(write)
        .map_err(|InvalidResource { field, message }| ApiError::invalid(field, message))
}
