//! Did anybody write since?
//!
//! What was read of the database may be used again while nobody, in this process or another, has written to it. SQLite
//! asks itself the same before each read, to know whether the pages that it keeps are still true, and answers it by the
//! header of the log's index (`-shm`): 48 bytes that every commit changes before it returns (a counter, the length of the
//! log and checksums over its frames; sqlite.org/walformat.html 2.1). It lies there twice, and one that is being written
//! differs from its copy. So we compare what SQLite compares (`walIndexTryHdr`): two equal [`State`]s are one state of the
//! database, and what another process committed is seen as early as a query would see it. `PRAGMA data_version` says the
//! same, for two changes of threads; this is two system calls, which the kernel answers from memory: the file is mapped by
//! every process that has the database open.
//!
//! **Invariant:** the file is never closed. Closing any descriptor of it would drop the locks that SQLite holds on it in
//! this process (sqlite.org/howtocorrupt.html 2.2).
//! **Invariant:** it is the index of *this* database: the file that was there when the first connection had been made, and
//! still has its name. The last connection to close removes it; then, and whenever anything else is strange, there is no
//! [`State`], and everybody reads. If anybody else removes it while the database is open, that is said, once: who opens the
//! database then makes another index, and neither sees what the other writes (sqlite.org/howtocorrupt.html 2.4).
//!
//! It needs a file system that reads a file as it is mapped, as every local one does. Where SQLite's log is not safe either
//! (network file systems: sqlite.org/wal.html), or where reads go past the page cache (9p before Linux 6.8), this is not.

use std::fs::{self, File, Metadata};
use std::io;
use std::mem::ManuallyDrop;
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::{Path, PathBuf};
use std::sync::OnceLock;
use std::sync::atomic::{AtomicBool, Ordering};

/// The bytes of one copy of the header.
const HEADER: usize = 48;
/// Where in it is said that it counts at all.
const IS_INITIALISED: usize = 12;

/// One state of the database. Equal ones are the same.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct State([u8; HEADER]);

impl State {
    /// From the two copies of the header.
    fn of(copies: &[u8; 2 * HEADER]) -> Option<Self> {
        let (one, other) = copies.split_at(HEADER);
        let counts = one == other && one[IS_INITIALISED] != 0;
        counts.then(|| one.try_into().ok().map(Self)).flatten()
    }
}

/// The index of the database's log.
#[derive(Debug)]
pub(super) struct Index {
    path: PathBuf,
    /// Device and inode.
    identity: Option<(u64, u64)>,
    file: OnceLock<ManuallyDrop<File>>,
    /// Whether it was said that it is gone.
    told: AtomicBool,
}

impl Index {
    /// That of the database at `path`, to which there must be a connection. It blocks.
    pub(super) fn of(path: &Path) -> Self {
        // SQLite follows links before it adds the ending.
        let mut path = fs::canonicalize(path).unwrap_or_else(|_| path.to_owned()).into_os_string();
        path.push("-shm");
        let path = PathBuf::from(path);
        let identity = fs::metadata(&path).ok().map(|metadata| identity(&metadata));
        Self { path, identity, file: OnceLock::new(), told: AtomicBool::new(false) }
    }

    /// The state now, if it can be told. An index that is gone is no news where the database is not `in_use`: when it is
    /// closed its index goes, as it should.
    pub(super) fn state(&self, in_use: impl Fn() -> bool) -> Option<State> {
        let file = self.file(&in_use)?;
        let mut copies = [0; 2 * HEADER];
        file.read_exact_at(&mut copies, 0).ok()?;
        // Asked afterwards: a file that has its name now was the live one when it was read. Not how many names it has:
        // a backup may have given it another.
        let is_live = self.is_live(&in_use);
        State::of(&copies).filter(|_| is_live)
    }

    /// Whether the file that has the name now is the one that the database uses.
    fn is_live(&self, in_use: impl Fn() -> bool) -> bool {
        let found = fs::metadata(&self.path);
        let is_gone = match &found {
            Ok(metadata) => !self.is_ours(metadata),
            Err(error) => error.kind() == io::ErrorKind::NotFound,
        };
        if is_gone && in_use() && self.identity.is_some() && !self.told.swap(true, Ordering::Relaxed) {
            tracing::warn!(
                "{} was removed or replaced while the database is open: other programs can no longer use it safely, and \
                 everything is read from it anew, each time. Restart the server before anything else opens the database",
                self.path.display()
            );
        }
        found.is_ok_and(|metadata| self.is_ours(&metadata))
    }

    /// Opened only when it is asked for, because it stays open; tried again when it could not be.
    fn file(&self, in_use: impl Fn() -> bool) -> Option<&File> {
        // Looked at before it is opened: what is opened and is not ours would stay open too, each time.
        if self.file.get().is_none() && self.is_live(in_use) {
            let file = ManuallyDrop::new(File::open(&self.path).ok()?);
            if file.metadata().is_ok_and(|metadata| self.is_ours(&metadata)) {
                // Of two at once one stays unused, and open.
                self.file.get_or_init(|| file);
            }
        }
        self.file.get().map(|file| &**file)
    }

    fn is_ours(&self, metadata: &Metadata) -> bool {
        Some(identity(metadata)) == self.identity
    }
}

fn identity(metadata: &Metadata) -> (u64, u64) {
    (metadata.dev(), metadata.ino())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_header_that_is_being_written_or_was_never_written_is_no_state() {
        let mut copies = [7; 2 * HEADER];
        assert_eq!(State::of(&copies), Some(State([7; HEADER])));
        copies[8] = 6;
        assert_eq!(State::of(&copies), None);
        assert_eq!(State::of(&[0; 2 * HEADER]), None);
    }
}
