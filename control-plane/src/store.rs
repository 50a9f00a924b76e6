//! The store: the only SQL there is. One SQLite file, many readers, one writer.

use std::{
    path::Path,
    sync::Arc,
    time::{Duration, Instant},
};

use nix::sys::statvfs::statvfs;
use sqlx::{
    Connection as _, Sqlite, SqlitePool, Transaction,
    migrate::{Migration, MigrationType, Migrator},
    sqlite::{SqliteConnectOptions, SqliteJournalMode, SqlitePoolOptions, SqliteSynchronous},
};
use sqlx::{SqlSafeStr as _, migrate::MigrateError};
use tokio::sync::watch;

pub(crate) mod change;
mod error;
pub(crate) mod row;

pub(crate) mod access_events;
pub(crate) mod api_tokens;
pub(crate) mod audit;
pub(crate) mod connector_tokens;
pub(crate) mod connectors;
pub(crate) mod devices;
pub(crate) mod enrollment_keys;
pub(crate) mod groups;
pub(crate) mod idempotency;
pub(crate) mod identity_providers;
pub(crate) mod organisation;
pub(crate) mod policies;
pub(crate) mod policy_history;
pub(crate) mod policy_tests;
pub(crate) mod population;
pub(crate) mod resources;
pub(crate) mod revocations;
pub(crate) mod sign_ins;
pub(crate) mod sites;
pub(crate) mod user_identities;
pub(crate) mod user_sessions;
pub(crate) mod users;
mod write_health;

pub(crate) use change::{Actor, ActorId, Change, Created, IdempotencyKey, Versioned};
pub(crate) use error::StoreError;
use write_health::WriteHealth;

/// Connections for reading. The file is local; more would only queue for the same disk.
const READERS: u32 = 8;

/// How long a request waits for a connection or the write lock before it is told to come back.
const PATIENCE: Duration = Duration::from_secs(5);

/// Below this the next change may find no room, although the last one did. The log of SQLite takes
/// some pages for each, and reuses those of a change that failed.
const MIN_FREE_BYTES: u64 = 1 << 20;

/// The database, cheap to clone.
#[derive(Debug, Clone)]
pub(crate) struct Store {
    readers: SqlitePool,
    writer: SqlitePool,
    changes: watch::Sender<u64>,
    write_health: Arc<WriteHealth>,
    folder: Arc<Path>,
}

/// Why the database cannot be opened.
#[derive(Debug, thiserror::Error)]
pub(crate) enum OpenError {
    /// It cannot be opened or created.
    #[error("failed to open the database")]
    Open(#[source] StoreError),
    /// It comes from a newer version, or a migration fails.
    #[error("failed to bring the database up to date; was it made by a newer version?")]
    Migrate(#[source] MigrateError),
}

impl Store {
    /// Opens the database, makes it when there is none, and brings it up to date.
    ///
    /// # Errors
    ///
    /// See [`OpenError`].
    pub(crate) async fn open(file: &Path) -> Result<Self, OpenError> {
        let options = SqliteConnectOptions::new()
            .filename(file)
            .create_if_missing(true)
            .journal_mode(SqliteJournalMode::Wal)
            .synchronous(SqliteSynchronous::Full)
            .foreign_keys(true)
            .busy_timeout(PATIENCE);
        let opened = |error: sqlx::Error| OpenError::Open(error.into());
        let writer = pool(1).connect_with(options).await.map_err(opened)?;
        Migrator::with_migrations(migrations()).run(&writer).await.map_err(OpenError::Migrate)?;
        let sequence = organisation::sequence(&writer).await.map_err(OpenError::Open)?;

        let options = reading(file);
        let readers = pool(READERS).connect_with(options).await.map_err(opened)?;
        Ok(Self {
            readers,
            writer,
            changes: watch::Sender::new(sequence.unwrap_or(0)),
            write_health: Arc::new(WriteHealth::new(Instant::now())),
            folder: file.parent().unwrap_or(file).into(),
        })
    }

    /// Opens a database that exists for reading alone; another process may have it open.
    ///
    /// # Errors
    ///
    /// See [`OpenError`].
    pub(crate) async fn open_read_only(file: &Path) -> Result<Self, OpenError> {
        let pool = pool(1).connect_with(reading(file)).await;
        let pool = pool.map_err(|error| OpenError::Open(error.into()))?;
        Ok(Self {
            readers: pool.clone(),
            writer: pool,
            changes: watch::Sender::new(0),
            write_health: Arc::new(WriteHealth::new(Instant::now())),
            folder: file.parent().unwrap_or(file).into(),
        })
    }

    /// A view of one moment: whatever is read through it belongs together.
    pub(crate) async fn snapshot(&self) -> Result<Transaction<'static, Sqlite>, StoreError> {
        Ok(self.readers.begin().await?)
    }

    /// The right to write, waited for; nothing is visible to others before a commit.
    pub(crate) async fn begin_change(&self, actor: impl Into<Actor>) -> Result<Change, StoreError> {
        let transaction = self.writer.begin_with("BEGIN IMMEDIATE").await?;
        Ok(Change::new(transaction, actor.into(), self.changes.clone(), self.write_health.clone()))
    }

    /// The sequence of the organisation, after each change that bundles or configurations hold.
    pub(crate) fn changes(&self) -> watch::Receiver<u64> {
        self.changes.subscribe()
    }

    /// Whether the last write succeeded.
    pub(crate) fn is_writable(&self) -> bool {
        self.write_health.is_good()
    }

    /// Fails while the database cannot be written to: when there is no room, or, when no write
    /// succeeded lately, one that is made now fails.
    pub(crate) async fn check_writable(&self) -> Result<(), StoreError> {
        if free_bytes(&self.folder).is_some_and(|free| free < MIN_FREE_BYTES) {
            return Err(StoreError::Full);
        }
        if self.write_health.is_known_good(Instant::now()) {
            return Ok(());
        }
        let written = self.probe_write().await;
        if written.is_err() {
            self.write_health.record_failure();
        }
        written
    }

    async fn probe_write(&self) -> Result<(), StoreError> {
        let mut change = self.begin_change(ActorId::ControlPlane).await?;
        organisation::touch(change.connection()).await?;
        change.commit_unaudited().await
    }

    /// Writes the log back into the file and closes.
    pub(crate) async fn close(&self) {
        self.readers.close().await;
        self.writer.close().await;
    }
}

/// Room on the disk for those without privileges; none when the system does not say.
fn free_bytes(folder: &Path) -> Option<u64> {
    let disk = statvfs(folder).ok()?;
    Some(disk.blocks_available().saturating_mul(disk.fragment_size()))
}

fn reading(file: &Path) -> SqliteConnectOptions {
    SqliteConnectOptions::new().filename(file).read_only(true).busy_timeout(PATIENCE)
}

fn pool(connections: u32) -> SqlitePoolOptions {
    SqlitePoolOptions::new()
        .max_connections(connections)
        .acquire_timeout(PATIENCE)
        // Opening one anew may fail on a bad day, and nothing is won by it.
        .idle_timeout(None)
        .max_lifetime(None)
        // When the disk is full, SQLite rolls back by itself; the driver then still believes in a
        // transaction, and refuses to begin another. The ping waits for the driver's own rollback.
        .after_release(|connection, _meta| {
            Box::pin(async move {
                connection.ping().await?;
                Ok(!connection.is_in_transaction())
            })
        })
}

fn migrations() -> Vec<Migration> {
    let migration = |version: i64, name: &'static str, sql: &'static str| {
        Migration::new(version, name.into(), MigrationType::Simple, sql.into_sql_str(), false)
    };
    vec![
        migration(1, "initial", include_str!("store/migrations/0001_initial.sql")),
        migration(2, "sign in", include_str!("store/migrations/0002_sign_in.sql")),
        migration(3, "roles", include_str!("store/migrations/0003_roles.sql")),
        migration(4, "policy history", include_str!("store/migrations/0004_policy_history.sql")),
    ]
}

#[cfg(test)]
mod tests {
    use adit_proto::api::Role;

    use super::*;

    #[tokio::test]
    async fn tokens_from_before_there_were_roles_may_do_what_they_might() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("adit.db");
        let options = SqliteConnectOptions::new().filename(&file).create_if_missing(true);
        let old = pool(1).connect_with(options).await.unwrap();
        let first = migrations().into_iter().take(1).collect();
        Migrator::with_migrations(first).run(&old).await.unwrap();
        sqlx::query(
            "INSERT INTO api_tokens (id, name, scope, secret_hash, expires_at, created_at) VALUES
             ('tok_0193f0a2b7c87d34a1e2c3d4e5f60718', 'a', 'admin', x'01', NULL, 1),
             ('tok_0193f0a2b7c87d34a1e2c3d4e5f60719', 'b', 'read', x'02', 5, 1)",
        )
        .execute(&old)
        .await
        .unwrap();
        old.close().await;

        let store = Store::open(&file).await.unwrap();
        let mut snapshot = store.snapshot().await.unwrap();
        let tokens = api_tokens::list(&mut snapshot, None, None, 10).await.unwrap();
        let roles: Vec<_> = tokens.iter().map(|token| (token.name.as_str(), token.role)).collect();
        assert_eq!(roles, [("a", Role::Owner), ("b", Role::Auditor)]);
        assert!(tokens.iter().all(|token| token.scopes.is_none()));
    }
}
