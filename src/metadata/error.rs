//! What can go wrong with the metadata database, as conditions that a caller can act on.

use std::io;
use std::path::{Path, PathBuf};

use sqlx::migrate::MigrateError;

/// Why the database could not be opened, read or written.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The file or its folder cannot be made or opened.
    #[error("{}: {source}", path.display())]
    File {
        /// Which one.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// Which database it is that could not be opened, and why not.
    #[error("{}: {source}", path.display())]
    Open {
        /// Its file.
        path: PathBuf,
        /// One of the others.
        source: Box<Error>,
    },
    /// Another process kept it locked for longer than we wait.
    #[error("the metadata database is in use by another process; try again")]
    Busy,
    /// The disk is full.
    #[error("no space left for the metadata database; make some, and try again")]
    Full,
    /// We may read but not write, or not even read.
    #[error(
        "the metadata database cannot be opened or written: permissions of the file or its folder, or a read-only file system"
    )]
    Denied,
    /// A newer version of this program changed its shape.
    #[error("the metadata database was made by a newer version of pierhead (it has migration {0}); use that version")]
    Newer(i64),
    /// What it holds cannot be what we wrote.
    #[error("the metadata database is damaged: {0}; restore it from a backup")]
    Damaged(String),
    /// Anything else.
    #[error("the metadata database failed: {0}")]
    Other(#[source] sqlx::Error),
}

impl Error {
    /// The error with the path that it is about.
    pub(super) fn at(self, path: &Path) -> Self {
        match self {
            named @ (Self::File { .. } | Self::Open { .. }) => named,
            source => Self::Open { path: path.to_owned(), source: Box::new(source) },
        }
    }

    /// A stored value that does not parse.
    pub(super) fn stored(what: impl std::fmt::Display) -> Self {
        Self::Damaged(format!("it holds {what}"))
    }
}

impl From<sqlx::Error> for Error {
    fn from(error: sqlx::Error) -> Self {
        if matches!(error, sqlx::Error::PoolTimedOut) {
            return Self::Busy;
        }
        // SQLite's primary result code is the low byte of the extended one (sqlite.org/rescode.html).
        let code =
            error.as_database_error().and_then(|inner| inner.code()?.parse::<u32>().ok()).map(|code| code & 0xff);
        match code {
            Some(5 | 6) => Self::Busy,
            Some(13) => Self::Full,
            Some(3 | 8 | 14 | 23) => Self::Denied,
            Some(11 | 26) => Self::Damaged(error.to_string()),
            _ => Self::Other(error),
        }
    }
}

impl From<MigrateError> for Error {
    fn from(error: MigrateError) -> Self {
        match error {
            MigrateError::Execute(source) | MigrateError::ExecuteMigration(source, _) => source.into(),
            MigrateError::VersionMissing(version) => Self::Newer(version),
            other => Self::Other(sqlx::Error::Migrate(Box::new(other))),
        }
    }
}
