//! A change: one write transaction that leaves a line in the audit log.

use std::{
    fmt,
    sync::Arc,
    time::{Instant, SystemTime},
};

use adit_proto::{ApiTokenId, ConnectorId, DeviceId, IdentityProviderId, Timestamp};
use serde::Serialize;
use serde_json::Value;
use sqlx::{Sqlite, SqliteConnection, Transaction};
use tokio::sync::watch;

use super::{StoreError, audit, idempotency, organisation, write_health::WriteHealth};

pub(crate) use super::idempotency::IdempotencyKey;

/// Who makes a change.
#[derive(Debug, Clone)]
pub(crate) struct Actor {
    pub(crate) id: ActorId,
    /// Under which the answer to a creation is kept.
    pub(crate) idempotency: Option<IdempotencyKey>,
}

/// Who makes a change, as the audit log names it.
#[derive(Debug, Clone, Copy)]
pub(crate) enum ActorId {
    /// The bearer of an API token.
    ApiToken(ApiTokenId),
    /// A client.
    Device(DeviceId),
    /// A connector.
    Connector(ConnectorId),
    /// Someone at an identity provider.
    IdentityProvider(IdentityProviderId),
    /// The program itself, at its first run and when it tidies up.
    ControlPlane,
}

impl fmt::Display for ActorId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::ApiToken(id) => fmt::Display::fmt(id, f),
            Self::Device(id) => fmt::Display::fmt(id, f),
            Self::Connector(id) => fmt::Display::fmt(id, f),
            Self::IdentityProvider(id) => fmt::Display::fmt(id, f),
            Self::ControlPlane => f.write_str("control-plane"),
        }
    }
}

impl From<ActorId> for Actor {
    fn from(id: ActorId) -> Self {
        Self { id, idempotency: None }
    }
}

/// An object and the number of its changes, which is its ETag.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Versioned<T> {
    pub(crate) version: u64,
    pub(crate) object: T,
}

/// The answer to a creation: where the object is, its version, and the body as JSON, which may hold
/// a secret.
#[derive(Clone, PartialEq, Eq)]
pub(crate) struct Created {
    pub(crate) path: String,
    pub(crate) version: u64,
    pub(crate) body: String,
}

impl Created {
    /// The first version of an object in the collection at `collection`, such as `/v1/users`.
    pub(crate) fn new(collection: &str, id: impl fmt::Display, answer: &impl Serialize) -> Self {
        Self { path: format!("{collection}/{id}"), version: 1, body: super::row::to_json(answer) }
    }
}

impl fmt::Debug for Created {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { path, version, body: _ } = self;
        f.debug_struct("Created")
            .field("path", path)
            .field("version", version)
            .finish_non_exhaustive()
    }
}

/// A write transaction. Dropped without a commit, it never was.
///
/// Write functions of the store take it as an argument, so that nothing is written without an
/// actor; exactly one of the `commit` methods ends it.
#[derive(Debug)]
pub(crate) struct Change {
    transaction: Transaction<'static, Sqlite>,
    actor: Actor,
    now: Timestamp,
    changes: watch::Sender<u64>,
    attempt: Attempt,
}

/// Notices when a change is dropped without a commit.
#[derive(Debug)]
struct Attempt {
    write_health: Arc<WriteHealth>,
    ended: bool,
}

impl Attempt {
    fn end(mut self, succeeded: bool) {
        self.ended = true;
        if succeeded {
            self.write_health.record_success(Instant::now());
        } else {
            self.write_health.record_failure();
        }
    }
}

impl Drop for Attempt {
    fn drop(&mut self) {
        if !self.ended {
            self.write_health.record_abandoned();
        }
    }
}

impl Change {
    pub(super) fn new(
        transaction: Transaction<'static, Sqlite>,
        actor: Actor,
        changes: watch::Sender<u64>,
        write_health: Arc<WriteHealth>,
    ) -> Self {
        Self {
            transaction,
            actor,
            now: SystemTime::now().into(),
            changes,
            attempt: Attempt { write_health, ended: false },
        }
    }

    /// For queries inside the change.
    pub(crate) fn connection(&mut self) -> &mut SqliteConnection {
        &mut self.transaction
    }

    /// Who makes it.
    pub(crate) const fn actor(&self) -> ActorId {
        self.actor.id
    }

    /// When the change happens: one instant for all of it.
    pub(crate) const fn now(&self) -> Timestamp {
        self.now
    }

    /// Commits a change that bundles or client configurations hold: counts the organisation's
    /// sequence up, writes the audit log, and announces the sequence. Gives the new sequence.
    ///
    /// `object` is the object after the change, without secrets; none when it was deleted.
    pub(crate) async fn commit(
        mut self,
        operation: &'static str,
        object_id: impl fmt::Display,
        object: Option<&impl Serialize>,
    ) -> Result<u64, StoreError> {
        self.append_audit(operation, &object_id, object).await?;
        let sequence = organisation::count_up(&mut self.transaction).await?;
        self.end(Some(sequence)).await?;
        Ok(sequence)
    }

    /// As [`Self::commit`], for a change that neither bundles nor configurations hold.
    pub(crate) async fn commit_unannounced(
        mut self,
        operation: &'static str,
        object_id: impl fmt::Display,
        object: Option<&impl Serialize>,
    ) -> Result<(), StoreError> {
        self.append_audit(operation, &object_id, object).await?;
        self.end(None).await
    }

    /// As [`Self::commit`], for a creation: keeps the answer under the caller's idempotency key.
    pub(crate) async fn commit_creation(
        mut self,
        operation: &'static str,
        object_id: impl fmt::Display,
        object: &impl Serialize,
        created: Created,
    ) -> Result<Created, StoreError> {
        self.keep_answer(&created).await?;
        self.commit(operation, object_id, Some(object)).await?;
        Ok(created)
    }

    /// As [`Self::commit_unannounced`], for a creation: keeps the answer under the caller's
    /// idempotency key.
    pub(crate) async fn commit_creation_unannounced(
        mut self,
        operation: &'static str,
        object_id: impl fmt::Display,
        object: &impl Serialize,
        created: Created,
    ) -> Result<Created, StoreError> {
        self.keep_answer(&created).await?;
        self.commit_unannounced(operation, object_id, Some(object)).await?;
        Ok(created)
    }

    /// Commits what is no change of an object, such as when a device was last seen.
    pub(crate) async fn commit_unaudited(self) -> Result<(), StoreError> {
        self.end(None).await
    }

    /// Commits, then announces the sequence if there is one.
    ///
    /// In a task of its own: a caller that hangs up cancels the request, and what is committed must
    /// be announced all the same.
    async fn end(self, sequence: Option<u64>) -> Result<(), StoreError> {
        let Self { transaction, changes, attempt, .. } = self;
        let task = tokio::spawn(async move {
            let ended = transaction.commit().await.map_err(StoreError::from);
            attempt.end(ended.is_ok());
            if let (Ok(()), Some(sequence)) = (&ended, sequence) {
                announce(&changes, sequence);
            }
            ended
        });
        task.await.unwrap_or(Err(StoreError::Busy))
    }

    async fn append_audit(
        &mut self,
        operation: &'static str,
        object_id: &impl fmt::Display,
        object: Option<&impl Serialize>,
    ) -> Result<(), StoreError> {
        let object: Option<Value> = object.map(|object| {
            serde_json::to_value(object).expect("types of the contract are representable in JSON")
        });
        let entry = audit::Entry {
            at: self.now,
            actor: self.actor.id.to_string(),
            operation,
            object_id: object_id.to_string(),
            object,
        };
        audit::append(&mut self.transaction, &entry).await
    }

    async fn keep_answer(&mut self, created: &Created) -> Result<(), StoreError> {
        match &self.actor.idempotency {
            Some(key) => idempotency::insert(&mut self.transaction, key, created, self.now).await,
            None => Ok(()),
        }
    }
}

/// Two commits may announce in the other order than they happened: the sequence never goes back.
fn announce(changes: &watch::Sender<u64>, sequence: u64) {
    changes.send_if_modified(|held| {
        let newer = sequence > *held;
        if newer {
            *held = sequence;
        }
        newer
    });
}
