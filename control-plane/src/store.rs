//! The store: the only SQL there is. One SQLite file, many readers, one writer.

use std::{
    path::Path,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use sqlx::{SqlSafeStr as _, migrate::MigrateError};
use sqlx::{
    Sqlite, SqlitePool, Transaction,
    migrate::{Migration, MigrationType, Migrator},
    sqlite::{
        SqliteAutoVacuum, SqliteConnectOptions, SqliteJournalMode, SqlitePoolOptions,
        SqliteSynchronous,
    },
};
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
pub(crate) mod organisation;
pub(crate) mod policies;
pub(crate) mod resources;
pub(crate) mod revocations;
pub(crate) mod sites;
pub(crate) mod users;

pub(crate) use change::{Actor, ActorId, Change, Created, IdempotencyKey, Versioned};
pub(crate) use error::StoreError;

/// Connections for reading. The file is local; more would only queue for the same disk.
const READERS: u32 = 8;

/// How long a request waits for a connection or the write lock before it is told to come back.
const PATIENCE: Duration = Duration::from_secs(5);

/// The database, cheap to clone.
#[derive(Debug, Clone)]
pub(crate) struct Store {
    readers: SqlitePool,
    writer: SqlitePool,
    changes: watch::Sender<u64>,
    writable: Arc<AtomicBool>,
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
            .auto_vacuum(SqliteAutoVacuum::Incremental)
            .foreign_keys(true)
            .busy_timeout(PATIENCE);
        let pool = |connections| {
            SqlitePoolOptions::new().max_connections(connections).acquire_timeout(PATIENCE)
        };
        let opened = |error: sqlx::Error| OpenError::Open(error.into());
        let writer = pool(1).connect_with(options.clone()).await.map_err(opened)?;
        migrator().run(&writer).await.map_err(OpenError::Migrate)?;
        let readers = pool(READERS).connect_with(options).await.map_err(opened)?;

        let sequence = organisation::sequence(&writer).await.map_err(OpenError::Open)?;
        Ok(Self {
            readers,
            writer,
            changes: watch::Sender::new(sequence.unwrap_or(0)),
            writable: Arc::new(AtomicBool::new(true)),
        })
    }

    /// Opens a database that exists for reading alone; another process may have it open.
    ///
    /// # Errors
    ///
    /// See [`OpenError`].
    pub(crate) async fn open_read_only(file: &Path) -> Result<Self, OpenError> {
        let options = SqliteConnectOptions::new().filename(file).read_only(true);
        let pool = SqlitePoolOptions::new().max_connections(1).connect_with(options).await;
        let pool = pool.map_err(|error| OpenError::Open(error.into()))?;
        Ok(Self {
            readers: pool.clone(),
            writer: pool,
            changes: watch::Sender::new(0),
            writable: Arc::new(AtomicBool::new(false)),
        })
    }

    /// A view of one moment: whatever is read through it belongs together.
    pub(crate) async fn snapshot(&self) -> Result<Transaction<'static, Sqlite>, StoreError> {
        Ok(self.readers.begin().await?)
    }

    /// The right to write, waited for; nothing is visible to others before a commit.
    pub(crate) async fn begin_change(&self, actor: impl Into<Actor>) -> Result<Change, StoreError> {
        let transaction = self.writer.begin_with("BEGIN IMMEDIATE").await?;
        Ok(Change::new(transaction, actor.into(), self.changes.clone(), self.writable.clone()))
    }

    /// The sequence of the organisation, after each change that bundles or configurations hold.
    pub(crate) fn changes(&self) -> watch::Receiver<u64> {
        self.changes.subscribe()
    }

    /// Whether the last write succeeded.
    pub(crate) fn is_writable(&self) -> bool {
        self.writable.load(Ordering::Relaxed)
    }

    /// Fails while the database cannot be written to. After a failed write, it is tried anew.
    pub(crate) async fn check_writable(&self) -> Result<(), StoreError> {
        if self.is_writable() {
            return Ok(());
        }
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

fn migrator() -> Migrator {
    Migrator::with_migrations(vec![Migration::new(
        1,
        "initial".into(),
        MigrationType::Simple,
        include_str!("store/migrations/0001_initial.sql").into_sql_str(),
        false,
    )])
}
