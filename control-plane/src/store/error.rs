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
    #[error("database cannot be used")]
    Unusable(#[source] sqlx::Error),
    /// A row holds what the program never writes.
    #[error("column `{column}` holds an impossible value")]
    Corrupt {
        /// Which.
        column: &'static str,
    },
    /// Anything else: our fault.
    #[error("database error")]
    Database(#[source] sqlx::Error),
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
        // Extended result codes of SQLite (https://sqlite.org/rescode.html) hold the primary one
        // in their lowest byte.
        match (code, code.map(|code| code & 0xff)) {
            (Some(2067 | 1555), _) => Self::Unique,
            (Some(787 | 1811), _) => Self::Reference,
            (_, Some(13)) => Self::Full,
            (_, Some(5 | 6)) => Self::Busy,
            // READONLY, IOERR, CORRUPT, CANTOPEN, NOTADB
            (_, Some(8 | 10 | 11 | 14 | 26)) => Self::Unusable(error),
            _ => Self::Database(error),
        }
    }
}
