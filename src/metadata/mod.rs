//! Who has an account, and what belongs to whom?
//!
//! Accounts, projects and members in one SQLite file, and beside them what was read of the registry's manifests, which
//! can be forgotten at any time. A group is nothing but a prefix of project paths: a membership on
//! it holds for everything below, and the role that counts is the highest along the path.
//!
//! **Invariant:** what [`Database`] returned as done is on the disk (WAL, `synchronous=FULL`).
//! **Invariant:** the file, its log and its index are readable and writable by their owner only.
//! **Invariant:** several processes may use it at once: the server and the command line do.
//! **Invariant:** every listing has a limit; longer ones are read page by page.
//!
//! How writers share it: SQLite refuses a transaction that read first and then wants to write after somebody else wrote,
//! whatever the busy timeout says. So every write goes through one connection and starts with `BEGIN IMMEDIATE`: within
//! this process the pool of one is the queue, between processes SQLite's lock is, and a transaction that has begun can
//! finish. Write transactions wait for nothing but SQLite. Readers have connections of their own and never wait.
//!
//! Absent on purpose: passwords in any readable form (rows hold PHC strings that [`crate::auth`] makes), and any decision
//! about who may do what.

use std::fs::{File, OpenOptions, Permissions};
use std::io;
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use sqlx::sqlite::{SqliteConnectOptions, SqliteJournalMode, SqlitePoolOptions, SqliteSynchronous};
use sqlx::{Sqlite, SqlitePool, Transaction};

use state::Index;

mod accounts;
mod error;
mod lock;
mod manifests;
mod members;
mod names;
mod projects;
mod state;

pub use accounts::{Account, Removal};
pub use error::Error;
pub use lock::lock;
pub use manifests::{KnownManifest, MANIFESTS_AT_ONCE};
pub use members::{Member, Standing};
pub use names::{
    ACCOUNT_NAME_LENGTH, AccountName, AccountNameError, ProjectPath, ProjectPathError, Role, RoleError, Visibility,
    VisibilityError,
};
pub use projects::{Project, ProjectRemoval};
pub use state::State;

/// The name of the database's file in the state directory.
pub const FILE_NAME: &str = "pierhead.db";

/// The most rows that one listing returns.
pub const PAGE: u32 = 1000;

/// How long one process waits for another's write.
const BUSY_TIMEOUT: Duration = Duration::from_secs(10);

/// Connections for reading. Each has a thread; a query takes microseconds.
const READERS: u32 = 4;

/// Every shape the database ever had, oldest first.
static MIGRATIONS: sqlx::migrate::Migrator = sqlx::migrate!("src/metadata/migrations");

/// Whether a removal is meant. A dry one does all of it and takes it back, so that its outcome is the true one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Run {
    /// It is.
    Real,
    /// Only its outcome is wanted.
    Dry,
}

impl Run {
    async fn end(self, transaction: Transaction<'static, Sqlite>) -> Result<(), Error> {
        match self {
            Self::Real => Ok(transaction.commit().await?),
            Self::Dry => Ok(transaction.rollback().await?),
        }
    }
}

/// An open metadata database. Clones share its connections.
#[derive(Debug, Clone)]
pub struct Database {
    writer: SqlitePool,
    readers: SqlitePool,
    index: Arc<Index>,
}

impl Database {
    /// Opens the database at `path`, making it (and its folder) when it is missing and bringing it up to date.
    pub async fn open(path: &Path) -> Result<Self, Error> {
        Self::open_unnamed(path).await.map_err(|error| error.at(path))
    }

    async fn open_unnamed(path: &Path) -> Result<Self, Error> {
        let owned = path.to_owned();
        let prepared = tokio::task::spawn_blocking(move || prepare(&owned)).await;
        let _alone = prepared
            .map_err(io::Error::from)
            .flatten()
            .map_err(|source| Error::File { path: path.to_owned(), source })?;
        let options = SqliteConnectOptions::new()
            .filename(path)
            .busy_timeout(BUSY_TIMEOUT)
            .foreign_keys(true)
            .synchronous(SqliteSynchronous::Full);
        let writer = pool(1).connect_with(options.clone().journal_mode(SqliteJournalMode::Wal)).await?;
        migrate(&writer).await?;
        let (readers, owned) = (pool(READERS).connect_lazy_with(options.read_only(true)), path.to_owned());
        let index = tokio::task::spawn_blocking(move || Index::of(&owned)).await;
        let index = index.map_err(|error| Error::File { path: path.to_owned(), source: error.into() })?;
        Ok(Self { writer, readers, index: Arc::new(index) })
    }

    /// Where the database lives in a state directory.
    pub fn path_in(state: &Path) -> PathBuf {
        state.join(FILE_NAME)
    }

    /// Closes every connection; the last one to close folds the log into the file.
    pub async fn close(&self) {
        self.readers.close().await;
        self.writer.close().await;
    }

    /// What was read after this was asked may be used for as long as the answer stays the same; `None`: it cannot be told.
    /// It does not block.
    pub fn state(&self) -> Option<State> {
        self.index.state(|| !self.writer.is_closed())
    }

    /// A write transaction: it holds the only write lock until it is committed or dropped.
    async fn begin(&self) -> Result<Transaction<'static, Sqlite>, Error> {
        begin(&self.writer).await
    }
}

async fn begin(writer: &SqlitePool) -> Result<Transaction<'static, Sqlite>, Error> {
    Ok(writer.begin_with("BEGIN IMMEDIATE").await?)
}

/// All in one transaction, so that two processes that start at once do not both make the tables.
async fn migrate(writer: &SqlitePool) -> Result<(), Error> {
    let mut transaction = begin(writer).await?;
    MIGRATIONS.run_direct(None, &mut *transaction, false).await?;
    Ok(transaction.commit().await?)
}

fn pool(connections: u32) -> SqlitePoolOptions {
    SqlitePoolOptions::new()
        .max_connections(connections)
        .acquire_timeout(BUSY_TIMEOUT)
        .idle_timeout(None)
        .max_lifetime(None)
        .test_before_acquire(false)
}

/// Makes the file for its owner alone before SQLite can make it for everybody. SQLite gives the log (`-wal`) and its
/// index (`-shm`) the mode and the owner of the database (sqlite.org/src, `findCreateFileMode`).
///
/// Returns a [`lock()`] for the folder that lasts until the database is open: of two processes that start on an empty folder
/// one waits, because SQLite cannot switch to WAL while another does (and says "locked" at once).
///
/// An existing file is not opened here: closing it would drop the locks that SQLite may hold on it in this process
/// (sqlite.org/howtocorrupt.html, 2.2).
fn prepare(path: &Path) -> io::Result<File> {
    let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let lock = lock(folder)?;
    match OpenOptions::new().write(true).create_new(true).mode(0o600).open(path) {
        Ok(_) => {}
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
            if std::fs::metadata(path)?.permissions().mode() & 0o077 != 0 {
                std::fs::set_permissions(path, Permissions::from_mode(0o600))?;
            }
        }
        Err(error) => return Err(error),
    }
    Ok(lock)
}

#[cfg(test)]
mod tests;
