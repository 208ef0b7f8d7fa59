//! Is a small file still what it was when we read it?
//!
//! The same few links are asked for by every client that pulls an image. To open, read and close one costs three system
//! calls; to see by one `stat` that it is the same file and has not changed since, one. So each thread keeps, for a
//! moment, what it read.
//!
//! **Invariant:** the path is looked up from the top at every request, and what was kept is given only for the same file
//! (device and inode) with the same size and the same time of its last change (`ctime`, which nobody can set back).
//! A file that was replaced, removed or written to, a folder above it that was moved, a symbolic link that leads
//! elsewhere: each is seen at once.
//!
//! **Invariant:** a change within the same step of the clock as the one before would not be seen, and neither would a new
//! file that took over the inode of one that was removed in that step. So a file is kept only once its last change is
//! [`SETTLED`], as git looks again at files that are as young as its index; and a clock that went back ends what was kept
//! before. That holds for whoever writes links beside us, also in place: Distribution cuts a file off first, so that the
//! size tells too. What a file system does not tell for all that (some keep no such times; a write through a memory map,
//! or a call to write over as many bytes that hangs for longer than [`SETTLED`] after it noted the time) is hidden no longer
//! than [`LAG`]: nothing is given that was read before.
//!
//! **Invariant:** each thread keeps at most [`MOST`] files of [`LARGEST`] bytes under paths of [`LONGEST`].
//!
//! `stat` has no way to refuse to wait. It is asked only of what this thread opened within [`LAG`] without waiting, so each
//! name on the way was in the kernel's cache then, and marked as used. It waits for a disk only if the kernel gave up
//! names that fresh, and then it also gave up pages of our own program, for which every thread waits; or if the tree was
//! moved and another put in its place, once for each file.
//!
//! Absent on purpose: what is missing, and large files, which cost more to hold than to read.

use std::cell::RefCell;
use std::collections::HashMap;
use std::ffi::CStr;
use std::fs::File;
use std::time::{Duration, Instant, SystemTime};

use bytes::Bytes;
use rustix::fs::{FileType, Stat, fstat, stat};
use rustix::io::Errno;

use super::super::SETTLED;

/// How long after it was read something is given again.
const LAG: Duration = Duration::from_secs(1);
/// How many files a thread keeps. When they are as many, it begins anew.
const MOST: usize = 2048;
/// The largest file that is kept: a link has 135 bytes at most.
const LARGEST: usize = 256;
/// The longest path of one.
const LONGEST: usize = 512;

thread_local! {
    static SEEN: RefCell<HashMap<Box<CStr>, Seen>> = RefCell::default();
}

struct Seen {
    state: State,
    content: Bytes,
    read: Moment,
}

/// A time by two clocks: one never goes back, the other is what files are stamped with.
#[derive(Debug, Clone, Copy)]
pub(super) struct Moment {
    steady: Instant,
    clock: SystemTime,
}

impl Moment {
    pub(super) fn now() -> Self {
        Self { steady: Instant::now(), clock: SystemTime::now() }
    }

    /// Whether what was read then may be given now.
    fn is_recent(self, now: Self) -> bool {
        now.steady.saturating_duration_since(self.steady) < LAG && now.clock >= self.clock
    }
}

/// Which file it is, and when it last changed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct State {
    file: (u64, u64),
    size: i64,
    /// Seconds and nanoseconds.
    changed: (i64, u64),
}

impl State {
    /// Of a regular file. Whatever else may lie under its name is not for us (`EAGAIN`).
    pub(super) fn of(file: &File) -> rustix::io::Result<Self> {
        let found = fstat(file)?;
        if FileType::from_raw_mode(found.st_mode).is_file() { Ok(found.into()) } else { Err(Errno::AGAIN) }
    }

    /// Whether every change from now on gives it another time.
    fn is_settled(&self, now: Moment) -> bool {
        let Ok(now) = now.clock.duration_since(SystemTime::UNIX_EPOCH) else { return false };
        let seconds = u64::try_from(self.changed.0).unwrap_or_default();
        Duration::from_secs(seconds) + Duration::from_nanos(self.changed.1) + SETTLED <= now
    }
}

impl From<Stat> for State {
    fn from(found: Stat) -> Self {
        let changed = (found.st_ctime, found.st_ctime_nsec);
        Self { file: (found.st_dev, found.st_ino), size: found.st_size, changed }
    }
}

/// The content of a file that was read within the last [`LAG`], if it is still that.
pub(super) fn again(path: &CStr, now: Moment) -> Option<Bytes> {
    SEEN.with_borrow(|seen| {
        let known = seen.get(path).filter(|known| known.read.is_recent(now))?;
        let is_same = stat(path).is_ok_and(|found| State::from(found) == known.state);
        is_same.then(|| known.content.clone())
    })
}

/// Keeps what was just read of a file that was in this state before. `read` is from before either, so that a change which
/// the reading missed came later.
pub(super) fn keep(path: &CStr, state: State, content: &Bytes, read: Moment) {
    if content.len() > LARGEST || path.count_bytes() > LONGEST || !state.is_settled(read) {
        return;
    }
    SEEN.with_borrow_mut(|seen| {
        if seen.len() >= MOST && !seen.contains_key(path) {
            seen.clear();
        }
        seen.insert(path.into(), Seen { state, content: content.clone(), read });
    });
}

#[cfg(test)]
impl Moment {
    fn after(self, time: Duration) -> Self {
        Self { steady: self.steady + time, clock: self.clock + time }
    }
}

/// For files that were just written, as if they were an hour old.
#[cfg(test)]
pub(super) fn later() -> Moment {
    Moment::now().after(Duration::from_secs(3600))
}

#[cfg(test)]
#[expect(clippy::disallowed_methods, reason = "these are the ways in which others write")]
mod tests {
    use std::ffi::CString;
    use std::fs;
    use std::os::unix::ffi::OsStrExt as _;
    use std::os::unix::fs::{MetadataExt as _, symlink};
    use std::path::{Path, PathBuf};

    use super::*;
    use crate::storage::fault::clock_steps;

    /// A file `v1/link`, and what is asked for: it by the symbolic link `now`.
    struct Tree {
        dir: tempfile::TempDir,
        asked: CString,
    }

    impl Tree {
        fn new() -> Self {
            let dir = tempfile::tempdir().unwrap();
            fs::create_dir(dir.path().join("v1")).unwrap();
            fs::write(dir.path().join("v1/link"), "first").unwrap();
            symlink("v1", dir.path().join("now")).unwrap();
            clock_steps(dir.path());
            let asked = c_path(&dir.path().join("now/link"));
            Self { dir, asked }
        }

        fn path(&self, name: &str) -> PathBuf {
            self.dir.path().join(name)
        }

        fn state(&self) -> State {
            State::of(&File::open(self.path("now/link")).unwrap()).unwrap()
        }

        /// Reads it and keeps it.
        fn keep(&self, read: Moment) {
            let content = fs::read(self.path("now/link")).unwrap().into();
            keep(&self.asked, self.state(), &content, read);
        }
    }

    fn c_path(path: &Path) -> CString {
        CString::new(path.as_os_str().as_bytes()).unwrap()
    }

    #[test]
    fn what_did_not_change_is_given_again_until_the_lag_is_over() {
        let (tree, read) = (Tree::new(), later());
        assert_eq!(again(&tree.asked, read), None);
        tree.keep(read);
        assert_eq!(again(&tree.asked, read.after(LAG - Duration::from_nanos(1))).unwrap(), "first");
        assert_eq!(again(&tree.asked, read.after(LAG)), None);
    }

    #[test]
    fn a_clock_that_went_back_ends_what_was_kept() {
        let (tree, read) = (Tree::new(), later());
        tree.keep(read);
        let back = Moment { clock: read.clock - Duration::from_nanos(1), ..read };
        assert_eq!(again(&tree.asked, back), None, "the time of the last change may come again");
        assert_eq!(again(&tree.asked, read).unwrap(), "first");
    }

    #[test]
    fn whatever_changes_is_seen_at_once() {
        type Change = fn(&Tree);
        let changes: [(&str, Change); 7] = [
            ("replaced", |tree| {
                fs::write(tree.path("new"), "other").unwrap();
                fs::rename(tree.path("new"), tree.path("v1/link")).unwrap();
            }),
            ("removed and made again", |tree| {
                fs::remove_file(tree.path("v1/link")).unwrap();
                fs::write(tree.path("v1/link"), "other").unwrap();
            }),
            ("removed, with another name left", |tree| {
                fs::hard_link(tree.path("v1/link"), tree.path("backup")).unwrap();
                fs::remove_file(tree.path("v1/link")).unwrap();
            }),
            ("written in place, as long as before", |tree| fs::write(tree.path("v1/link"), "other").unwrap()),
            ("its time of writing set back", |tree| {
                let written = tree.path("v1/link").metadata().unwrap().modified().unwrap();
                fs::write(tree.path("v1/link"), "other").unwrap();
                File::options().write(true).open(tree.path("v1/link")).unwrap().set_modified(written).unwrap();
            }),
            ("its folder moved away", |tree| fs::rename(tree.path("v1"), tree.path("old")).unwrap()),
            ("led elsewhere", |tree| {
                fs::create_dir(tree.path("v2")).unwrap();
                fs::write(tree.path("v2/link"), "other").unwrap();
                fs::remove_file(tree.path("now")).unwrap();
                symlink("v2", tree.path("now")).unwrap();
            }),
        ];
        for (case, change) in changes {
            let (tree, read) = (Tree::new(), later());
            tree.keep(read);
            assert!(again(&tree.asked, read).is_some(), "{case}: kept");
            change(&tree);
            assert_eq!(again(&tree.asked, read), None, "{case}");
        }
    }

    #[test]
    fn what_changed_just_now_or_is_large_is_not_kept() {
        let tree = Tree::new();
        let changed = tree.path("now/link").metadata().unwrap();
        let changed = SystemTime::UNIX_EPOCH
            + Duration::new(changed.ctime().try_into().unwrap(), changed.ctime_nsec().try_into().unwrap());
        let kept = |size: usize, clock: SystemTime| {
            SEEN.take();
            let read = Moment { clock, ..Moment::now() };
            keep(&tree.asked, tree.state(), &vec![0; size].into(), read);
            again(&tree.asked, read).is_some()
        };
        assert!(kept(LARGEST, changed + SETTLED));
        assert!(!kept(LARGEST, changed + SETTLED - Duration::from_nanos(1)));
        assert!(!kept(LARGEST, changed - SETTLED), "from a future");
        assert!(!kept(LARGEST + 1, changed + SETTLED));
    }

    #[test]
    fn a_thread_keeps_no_more_than_so_many() {
        let (tree, read) = (Tree::new(), later());
        SEEN.take();
        for number in 0..3 * MOST {
            let path = CString::new(format!("/{number}")).unwrap();
            keep(&path, tree.state(), &Bytes::new(), read);
        }
        let long = CString::new("a".repeat(LONGEST + 1)).unwrap();
        keep(&long, tree.state(), &Bytes::new(), read);
        SEEN.with_borrow(|seen| {
            assert!((1..=MOST).contains(&seen.len()));
            assert!(!seen.contains_key(&*long));
        });
    }
}
