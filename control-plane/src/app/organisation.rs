//! The organisation.

use adit_proto::api::{Organisation, OrganisationWrite};

use crate::{
    app::{App, validate},
    error::ApiError,
    store::{
        Actor, Versioned,
        organisation::{self, Settings},
    },
};

/// Replaces what can be changed; `matches` judges the version that is there.
pub(crate) async fn replace(
    app: &App,
    actor: Actor,
    write: OrganisationWrite,
    matches: impl FnOnce(u64) -> Result<(), ApiError>,
) -> Result<Versioned<Organisation>, ApiError> {
    validate::name(&write.name)?;
    validate::within("/max_offline_s", write.max_offline_s, 1..=2_592_000)?;
    validate::within("/credential_lifetime_s", write.credential_lifetime_s, 5..=86_400)?;
    if let Some(lifetime) = write.session_lifetime_s {
        validate::within("/session_lifetime_s", lifetime, 5..=31_536_000)?;
    }
    let mut change = app.store.begin_change(actor).await?;
    let held = organisation::read(change.connection()).await?;
    matches(held.version)?;
    let settings = Settings {
        name: write.name,
        approve_devices: write.approve_devices,
        max_offline_s: write.max_offline_s,
        credential_lifetime_s: write.credential_lifetime_s,
        session_lifetime_s: write.session_lifetime_s,
    };
    organisation::replace(&mut change, &settings).await?;
    let replaced = organisation::read(change.connection()).await?;
    let id = replaced.object.id;
    change.commit("organisation.replace", id, Some(&replaced.object)).await?;
    Ok(replaced)
}
