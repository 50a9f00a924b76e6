//! What can go wrong with the database, by who must act.

/// Why a read or a change failed. A change that failed left no trace.
#[derive(Debug, thiserror::Error)]
pub(crate) enum StoreError {
    /// A value that must be unique exists already.
    #[error("value must be unique")]
    Unique,
    /// Another row refers to this one, or this one to a row that is not there.
    #[error("reference between objects is violated")]
    Reference,
    /// Another request with the same idempotency key was faster.
    #[error("idempotency key is in use")]
    IdempotencyRace,
    /// The disk is full.
    #[error("disk is full")]
    Full,
    /// Others held the database for too long.
    #[error("database is busy")]
    Busy,
    /// The file cannot be read or written.
    #[error("database cannot be read or written; check its owner, permissions and disk: {0}")]
    Unusable(String),
    /// The file is no database, or a broken one.
    #[error("database is damaged; restore it from a backup: {0}")]
    Damaged(String),
    /// A row holds what the program never writes.
    #[error("column `{column}` holds an impossible value")]
    Corrupt {
        /// Which.
        column: &'static str,
    },
    /// Anything else: our fault.
    #[error("database error: {0}")]
    Database(String),
}

impl From<sqlx::Error> for StoreError {
    fn from(error: sqlx::Error) -> Self {
        if matches!(error, sqlx::Error::PoolTimedOut | sqlx::Error::PoolClosed) {
            return Self::Busy;
        }
        let code = error
            .as_database_error()
            .and_then(|database| database.code())
            .and_then(|code| code.parse::<u32>().ok());
        // The driver's display of an error repeats its source, so it is flattened here.
        let text = match error.as_database_error() {
            Some(database) => database.message().to_owned(),
            None => error.to_string(),
        };
        // Extended result codes of SQLite (https://sqlite.org/rescode.html) hold the primary one
        // in their lowest byte.
        match (code, code.map(|code| code & 0xff)) {
            (Some(2067 | 1555), _) => Self::Unique,
            (Some(787 | 1811), _) => Self::Reference,
            (_, Some(13)) => Self::Full,
            (_, Some(5 | 6)) => Self::Busy,
            // READONLY, IOERR, CANTOPEN
            (_, Some(8 | 10 | 14)) => Self::Unusable(text),
            // CORRUPT, NOTADB
            (_, Some(11 | 26)) => Self::Damaged(text),
            _ => Self::Database(text),
        }
    }
}
