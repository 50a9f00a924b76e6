//! Answers kept for a day, so that a repeated POST gets the first one's.

use std::{fmt, time::Duration};

use adit_proto::{ApiTokenId, Timestamp};
use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};
use sqlx::{Row as _, SqliteConnection};
use zeroize::Zeroizing;

use super::{Created, StoreError};
use crate::sealing::Sealer;

/// How long an answer is kept.
const LIFETIME: Duration = Duration::from_hours(24);

/// An `Idempotency-Key`, the request it came with, and what its answer is sealed with.
#[derive(Clone)]
pub(crate) struct IdempotencyKey {
    api_token_id: ApiTokenId,
    key: String,
    fingerprint: [u8; 32],
    sealing_key: Zeroizing<[u8; 32]>,
}

/// What is known of an idempotency key.
#[derive(Debug)]
pub(crate) enum Known {
    /// The same request was answered so.
    Answered(Created),
    /// Another request bore the key.
    OtherRequest,
}

impl IdempotencyKey {
    /// `fingerprint` stands for the request. Answers may hold secrets, so they are sealed with what
    /// the store does not have: the API token itself.
    pub(crate) fn new(
        api_token_id: ApiTokenId,
        api_token: &str,
        key: String,
        fingerprint: [u8; 32],
    ) -> Self {
        let sealing_key =
            Sha256::new().chain_update("adit idempotency\0").chain_update(api_token).finalize();
        Self { api_token_id, key, fingerprint, sealing_key: Zeroizing::new(sealing_key.into()) }
    }

    fn sealer(&self) -> Sealer {
        Sealer::new(&self.sealing_key)
    }
}

impl fmt::Debug for IdempotencyKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("IdempotencyKey")
            .field("api_token_id", &self.api_token_id)
            .field("key", &self.key)
            .finish_non_exhaustive()
    }
}

#[derive(Serialize, Deserialize)]
struct Answer {
    path: String,
    version: u64,
    body: String,
}

/// Looks for an answer that is not yet a day old.
pub(crate) async fn find(
    connection: &mut SqliteConnection,
    key: &IdempotencyKey,
    now: Timestamp,
) -> Result<Option<Known>, StoreError> {
    let row = sqlx::query(
        "SELECT fingerprint, sealed_answer FROM idempotency
         WHERE api_token_id = ? AND idempotency_key = ? AND created_at > ?",
    )
    .bind(key.api_token_id.to_string())
    .bind(&key.key)
    .bind(now.saturating_sub(LIFETIME).as_millis())
    .fetch_optional(connection)
    .await?;
    let Some(row) = row else { return Ok(None) };
    if row.try_get::<&[u8], _>("fingerprint")? != key.fingerprint {
        return Ok(Some(Known::OtherRequest));
    }
    let opened = key.sealer().open(key.fingerprint, row.try_get("sealed_answer")?);
    let answer: Answer = opened
        .ok()
        .and_then(|answer| serde_json::from_str(&answer).ok())
        .ok_or(StoreError::Corrupt { column: "sealed_answer" })?;
    let Answer { path, version, body } = answer;
    Ok(Some(Known::Answered(Created { path, version, body })))
}

pub(super) async fn insert(
    connection: &mut SqliteConnection,
    key: &IdempotencyKey,
    created: &Created,
    now: Timestamp,
) -> Result<(), StoreError> {
    sqlx::query("DELETE FROM idempotency WHERE created_at <= ?")
        .bind(now.saturating_sub(LIFETIME).as_millis())
        .execute(&mut *connection)
        .await?;
    let answer =
        Answer { path: created.path.clone(), version: created.version, body: created.body.clone() };
    let sealed = key
        .sealer()
        .seal(key.fingerprint, &super::row::to_json(&answer))
        .map_err(|_error| StoreError::Corrupt { column: "sealed_answer" })?;
    let inserted = sqlx::query(
        "INSERT INTO idempotency
         (api_token_id, idempotency_key, fingerprint, sealed_answer, created_at)
         VALUES (?, ?, ?, ?, ?)",
    )
    .bind(key.api_token_id.to_string())
    .bind(&key.key)
    .bind(key.fingerprint.as_slice())
    .bind(sealed)
    .bind(now.as_millis())
    .execute(connection)
    .await;
    match inserted.map_err(StoreError::from) {
        Ok(_) => Ok(()),
        Err(StoreError::Unique) => Err(StoreError::IdempotencyRace),
        Err(error) => Err(error),
    }
}
