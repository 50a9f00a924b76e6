//! Enrolment keys.

use std::time::Duration;

use adit_proto::{
    EnrollmentKeyId, JoinToken, JoinTokenKind,
    api::{EnrollmentKey, EnrollmentKeyCreated, EnrollmentKeyWrite},
};

use crate::{
    app::{App, random, validate},
    error::ApiError,
    store::{Actor, Created, enrollment_keys, organisation, users},
};

/// A year.
pub(super) const MAX_LIFETIME_S: u64 = 31_536_000;

pub(crate) async fn create(
    app: &App,
    actor: Actor,
    write: EnrollmentKeyWrite,
) -> Result<Created, ApiError> {
    validate::name(&write.name)?;
    validate::within("/uses", write.uses.into(), 1..=10_000)?;
    validate::within("/lifetime_s", write.lifetime_s, 1..=MAX_LIFETIME_S)?;
    let secret = random::new_secret()?;
    let mut change = app.store.begin_change(actor).await?;
    let now = change.now();
    if users::find(change.connection(), write.user_id).await?.is_none() {
        return Err(ApiError::invalid("/user_id", "There is no such user; check the id."));
    }
    let organisation = organisation::read(change.connection()).await?.object;
    let enrollment_key = EnrollmentKey {
        id: EnrollmentKeyId::from_uuid(random::new_uuid(now)?),
        name: write.name,
        user_id: write.user_id,
        uses_left: write.uses,
        approved: write.approved.unwrap_or(!organisation.approve_devices),
        expires_at: now.saturating_add(Duration::from_secs(write.lifetime_s)),
        created_at: now,
    };
    let digest = random::secret_hash(&secret);
    enrollment_keys::insert(&mut change, &enrollment_key, &digest).await?;
    let token = JoinToken::new(
        JoinTokenKind::Enrollment,
        app.public_url.clone(),
        app.pin,
        secret.to_string(),
    );
    let answer = EnrollmentKeyCreated { enrollment_key, key: token.to_token().into() };
    let enrollment_key = &answer.enrollment_key;
    let created = Created::new("/v1/enrollment-keys", enrollment_key.id, &answer);
    Ok(change
        .commit_creation_unannounced(
            "enrollment-key.create",
            enrollment_key.id,
            enrollment_key,
            created,
        )
        .await?)
}

/// Makes a key useless; devices that joined with it stay. `matches` judges the version that is
/// there.
pub(crate) async fn remove(
    app: &App,
    actor: Actor,
    id: EnrollmentKeyId,
    matches: impl FnOnce(u64) -> Result<(), ApiError>,
) -> Result<(), ApiError> {
    let mut change = app.store.begin_change(actor).await?;
    let held =
        enrollment_keys::find(change.connection(), id).await?.ok_or_else(ApiError::not_found)?;
    matches(held.version)?;
    enrollment_keys::remove(&mut change, id).await?;
    change.commit_unannounced("enrollment-key.delete", id, None::<&EnrollmentKey>).await?;
    Ok(())
}
