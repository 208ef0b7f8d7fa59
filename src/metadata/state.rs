//! Did anybody write since?
//!
//! What was read of the database may be used again while nobody, in this process or another, has written to it. SQLite
//! asks itself the same before each read, to know whether the pages that it keeps are still true, and answers it by the
//! header of the log's index (`-shm`): 48 bytes that every commit changes before it returns (a counter, the length of the
//! log and checksums over its frames; sqlite.org/walformat.html 2.1). It lies there twice, and one that is being written
//! differs from its copy. So we compare what SQLite compares (`walIndexTryHdr`): two equal [`State`]s are one state of the
//! database, and what another process committed is seen as early as a query would see it. `PRAGMA data_version` says the
//! same, for two changes of threads; this is two system calls, which the kernel answers from memory: the file is mapped by
//! every process that has the database open. Neither walks a path: see [`Names`].
//!
//! **Invariant:** the file is never closed. Closing any descriptor of it would drop the locks that SQLite holds on it in
//! this process (sqlite.org/howtocorrupt.html 2.2).
//! **Invariant:** it is the index of *this* database: the file that was there when the first connection had been made, and
//! still has its name. The last connection to close removes it; then, and whenever anything else is strange, there is no
//! [`State`], and everybody reads.
//!
//! It needs a file system that reads a file as it is mapped, as every local one does. Where SQLite's log is not safe either
//! (network file systems: sqlite.org/wal.html), or where reads go past the page cache (9p before Linux 6.8), this is not.

use std::fs::{self, File, Metadata};
use std::mem::ManuallyDrop;
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::{Path, PathBuf};
use std::sync::OnceLock;
use std::time::{Duration, SystemTime};

use parking_lot::Mutex;

/// The bytes of one copy of the header.
const HEADER: usize = 48;
/// Where in it is said that it counts at all.
const IS_INITIALISED: usize = 12;
/// The clock that files are stamped with has ticks (10 ms at most): two changes in one tick look like one. Older than this
/// is certainly another tick's.
const TICK: Duration = Duration::from_secs(1);

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
    /// Those that the file had when its own was last looked for, and found.
    found: Mutex<Option<Names>>,
    tick: Duration,
}

/// What is known of a file's names without looking for them: every name that is given or taken changes its stamp. While they
/// are equal it has the names that it had.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Names {
    count: u64,
    /// Seconds and nanoseconds.
    changed: (i64, i64),
}

impl Index {
    /// That of the database at `path`, to which there must be a connection. It blocks.
    pub(super) fn of(path: &Path) -> Self {
        // SQLite follows links before it adds the ending.
        let mut path = fs::canonicalize(path).unwrap_or_else(|_| path.to_owned()).into_os_string();
        path.push("-shm");
        let path = PathBuf::from(path);
        let identity = fs::metadata(&path).ok().map(|metadata| identity(&metadata));
        Self { path, identity, file: OnceLock::new(), found: Mutex::new(None), tick: TICK }
    }

    /// The state now, if it can be told.
    pub(super) fn state(&self) -> Option<State> {
        let file = self.file()?;
        let mut copies = [0; 2 * HEADER];
        file.read_exact_at(&mut copies, 0).ok()?;
        // Asked afterwards: a file that has its name now was the live one when it was read.
        State::of(&copies).filter(|_| self.has_its_name(file))
    }

    /// How many names it has does not say that: a backup may have given it another.
    fn has_its_name(&self, file: &File) -> bool {
        let Ok(names) = file.metadata().map(|metadata| Names::of(&metadata)) else { return false };
        if *self.found.lock() == Some(names) {
            return true;
        }
        let is_found = fs::metadata(&self.path).is_ok_and(|metadata| self.is_ours(&metadata));
        if is_found && names.are_older_than(self.tick, SystemTime::now()) {
            *self.found.lock() = Some(names);
        }
        is_found
    }

    /// Opened only when it is asked for, because it stays open; tried again when it could not be.
    fn file(&self) -> Option<&File> {
        // Looked at before it is opened: what is opened and is not ours would stay open too, each time.
        if self.file.get().is_none() && fs::metadata(&self.path).is_ok_and(|metadata| self.is_ours(&metadata)) {
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

impl Names {
    fn of(metadata: &Metadata) -> Self {
        Self { count: metadata.nlink(), changed: (metadata.ctime(), metadata.ctime_nsec()) }
    }

    /// `false` where clocks went backwards.
    fn are_older_than(&self, tick: Duration, now: SystemTime) -> bool {
        let now = now.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
        let (Ok(seconds), Ok(nanoseconds)) = (u64::try_from(self.changed.0), u32::try_from(self.changed.1)) else {
            return false;
        };
        now.checked_sub(Duration::new(seconds, nanoseconds)).is_some_and(|age| age > tick)
    }
}

fn identity(metadata: &Metadata) -> (u64, u64) {
    (metadata.dev(), metadata.ino())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_that_was_found_is_looked_for_again_when_names_changed() {
        let folder = tempfile::tempdir().unwrap();
        let (path, other) = (folder.path().join("a.db-shm"), folder.path().join("other"));
        File::create(&path).unwrap().write_all_at(&[7; 2 * HEADER], 0).unwrap();
        let mut index = Index::of(&folder.path().join("a.db"));
        assert!(index.state().is_some());
        assert_eq!(*index.found.lock(), None, "in the tick of its making");

        let names = || Names::of(&fs::metadata(&path).unwrap());
        index.tick = Duration::ZERO;
        while index.found.lock().is_none() {
            assert!(index.state().is_some());
        }
        assert_eq!(*index.found.lock(), Some(names()));
        fs::hard_link(&path, &other).unwrap();
        assert!(index.state().is_some(), "by its own name");
        while *index.found.lock() != Some(names()) {
            assert!(index.state().is_some());
        }
        fs::remove_file(&path).unwrap();
        assert_eq!(index.state(), None, "only the other name is left");
        fs::hard_link(&other, &path).unwrap();
        assert!(index.state().is_some());
        fs::remove_file(&path).unwrap();
        assert_eq!(index.state(), None);
    }

    #[test]
    fn names_are_young_for_a_tick_and_wherever_clocks_are_wrong() {
        let at = |seconds: i64| Names { count: 1, changed: (seconds, 500_000_000) };
        let now = SystemTime::UNIX_EPOCH + Duration::from_secs(100);
        let is_old = |names: Names| names.are_older_than(TICK, now);
        assert!(is_old(at(98)) && !is_old(at(99)) && !is_old(at(200)) && !is_old(at(-1)));
    }

    #[test]
    fn a_header_that_is_being_written_or_was_never_written_is_no_state() {
        let mut copies = [7; 2 * HEADER];
        assert_eq!(State::of(&copies), Some(State([7; HEADER])));
        copies[8] = 6;
        assert_eq!(State::of(&copies), None);
        assert_eq!(State::of(&[0; 2 * HEADER]), None);
    }
}
